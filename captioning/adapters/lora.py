"""Attach, load, count and save QLoRA adapters.

Sources: Hu et al. 2022 (arXiv:2106.09685); Dettmers et al. 2023 (arXiv:2305.14314); the paper's equation 1, W = W0 +
(alpha / r) B A.

The paper says "decoder attention weights" (V.A), but only the seven common layer names give the 5.65M, 11.3M and 22.6M
parameters of its Table II; matched by suffix, they also match q, k, v of every SigLIP layer. `TARGETS` has both
readings.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from transformers import PaliGemmaForConditionalGeneration

from captioning.adapters.folder import CONFIG, REMEDY, WEIGHTS, check_adapter
from captioning.base.errors import UserError
from captioning.base.files import atomic_folder, write_json, write_text
from captioning.base.json_files import read_map
from captioning.base.quoting import escape
from captioning.paligemma.safetensors_header import read_shapes

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SEVEN = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
TARGETS: dict[str, str | list[str]] = {
    "table2": list(SEVEN),
    "decoder": rf".*language_model.*\.({'|'.join(SEVEN)})",
    "decoder-attention": rf".*language_model.*\.({'|'.join(ATTENTION)})",
    "all-linear": "all-linear",
}


def lora_config(rank: int, alpha: float, dropout: float, rslora: bool, targets: str) -> LoraConfig:
    """Return the configuration with which `get_peft_model` adds an adapter; `targets` is a key of `TARGETS`."""
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float works and is saved as one
        lora_dropout=dropout,
        use_rslora=rslora,
        target_modules=TARGETS[targets],
        task_type="CAUSAL_LM",
    )


def load_adapter(model: PaliGemmaForConditionalGeneration, folder: Path, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on `model`. Raises `UserError` if it is missing, damaged, infinite, or for another model."""
    layers = {
        name: (layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if hasattr(layer, "in_features")
    }
    patterns = [target for target in TARGETS.values() if isinstance(target, str)]
    check_adapter(folder, layers, Path(model.name_or_path).name, patterns)
    try:
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    except ValueError as error:  # targets that the model has no layer for
        raise UserError(f"{folder}: {escape(' '.join(str(error).split()))}; {REMEDY}") from None
    if missing := sorted(get_peft_model_state_dict(adapted).keys() - read_shapes(folder / WEIGHTS).keys()):
        raise UserError(f"{folder / WEIGHTS}: {len(missing)} tensors missing, such as {missing[0]}; {REMEDY}")
    weights = {name: value for name, value in adapted.named_parameters() if "lora_" in name}
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise UserError(f"{folder}: {len(broken)} tensors hold NaN or infinity, {broken[0]} for example; {REMEDY}")
    return adapted


def freeze_encoder(model: PeftModel) -> None:
    """Leave only the decoder's adapters trainable (SCST, IV.B: "keeping the encoder frozen")."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and "language_model" in name)


@contextmanager
def swap_weights(model: PeftModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give `model` other `weights` in the block; no tensor is overwritten, so earlier graphs stay valid."""
    parameters = {name: value for name, value in model.named_parameters() if name in weights}
    originals = {name: value.data for name, value in parameters.items()}
    try:
        for name, value in parameters.items():
            value.data = weights[name]
        yield
    finally:
        for name, value in parameters.items():
            value.data = originals[name]


def count_parameters(model: Any) -> dict[str, float]:
    """Count trainable and all parameters (4-bit layers as full matrices), and their ratio in percent."""
    trainable, total = model.get_nb_trainable_parameters()
    return {"trainable_parameters": trainable, "all_parameters": total, "share": 100 * trainable / total}


def save_adapter(model: PeftModel, folder: Path, card: str) -> None:
    """Write adapter weights and configuration for `PeftModel.from_pretrained`, and the model card."""
    with atomic_folder(folder) as partial:
        model.save_pretrained(str(partial), safe_serialization=True)
        config = read_map(partial / CONFIG)
        if isinstance(config["target_modules"], list):  # peft keeps a set, whose order differs between processes
            config["target_modules"].sort()
        write_json(partial / CONFIG, config, indent=2, sort_keys=True)
        write_text(partial / "README.md", card)


def unwrap_adapter(model: Any) -> Any:
    """Return the PaliGemma inside an adapter, with its layers adapted; return a bare PaliGemma as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
