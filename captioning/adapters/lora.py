"""QLoRA: which layers an adapter sits on, attaching, counting, saving.

Sources: Hu et al. 2022 (arXiv:2106.09685); Dettmers et al. 2023 (arXiv:2305.14314); the paper's equation 1, W = W0 +
(alpha / r) B A.

The paper says "decoder attention weights" (V.A) but its Table II counts 5.65M, 11.3M and 22.6M, which only the seven
common names give, matched by suffix, and those also match q, k, v of every SigLIP layer. Both are choices here.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from transformers import PaliGemmaForConditionalGeneration

from captioning.adapters.folder import AGAIN, check_adapter, missing_tensors
from captioning.base.errors import UserError
from captioning.base.files import atomic_folder, write_json, write_text
from captioning.base.quoting import escape

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SEVEN = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
TARGETS: dict[str, str | list[str]] = {
    "table2": list(SEVEN),
    "decoder": rf".*language_model.*\.({'|'.join(SEVEN)})",
    "decoder-attention": rf".*language_model.*\.({'|'.join(ATTENTION)})",
    "all-linear": "all-linear",
}


def lora_config(rank: int, alpha: float, dropout: float, rslora: bool, targets: str) -> LoraConfig:
    """The adapter's configuration; `targets` is a key of `TARGETS`."""
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float works and is saved as one
        lora_dropout=dropout,
        use_rslora=rslora,
        target_modules=TARGETS[targets],
        task_type="CAUSAL_LM",
    )


def attach(model: PaliGemmaForConditionalGeneration, config: LoraConfig) -> PeftModel:
    """A fresh adapter (float32, B = 0) on a frozen model; the initial A comes from torch's global seed."""
    return get_peft_model(model, config)


def load_adapter(model: PaliGemmaForConditionalGeneration, folder: Path, trainable: bool = False) -> PeftModel:
    """A saved adapter on `model`; weights from safetensors only, which peft itself does not insist on.

    Raises:
        UserError: it is not there, damaged, or none for this model (adapters/folder.py), or not finite.
    """
    linear = {name: one for name, one in model.named_modules() if hasattr(one, "in_features")}
    layers = {name: (one.in_features, one.out_features) for name, one in linear.items()}
    check_adapter(
        folder, layers, Path(model.name_or_path).name, [one for one in TARGETS.values() if isinstance(one, str)]
    )
    try:
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    except ValueError as error:  # targets that no layer has
        raise UserError(f"{folder}: {escape(' '.join(str(error).split()))}; {AGAIN}") from None
    missing_tensors(folder, set(get_peft_model_state_dict(adapted)))
    if broken := [name for name, one in adapted.named_parameters() if "lora_" in name and not one.isfinite().all()]:
        raise UserError(f"{folder}: {len(broken)} tensors hold NaN or infinity, {broken[0]} for one; {AGAIN}")
    return adapted


def freeze_encoder(model: PeftModel) -> None:
    """Leave only the decoder's adapters trainable (SCST, IV.B: "keeping the encoder frozen")."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and "language_model" in name)


@contextmanager
def weights_of(model: PeftModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """`model` with other `weights` for a while; graphs made before keep theirs, as nothing is written in place."""
    parameters = {name: value for name, value in model.named_parameters() if name in weights}
    own = {name: value.data for name, value in parameters.items()}
    try:
        for name, value in parameters.items():
            value.data = weights[name]
        yield
    finally:
        for name, value in parameters.items():
            value.data = own[name]


def count_parameters(model: Any) -> dict[str, float]:
    """Trainable parameters, all parameters with adapters, and the share in percent.

    A 4-bit weight counts as the matrix it stands for.
    """
    trainable, total = model.get_nb_trainable_parameters()
    return {"trainable_parameters": trainable, "all_parameters": total, "share": 100 * trainable / total}


def save(model: PeftModel, folder: Path, card: str) -> None:
    """Adapter weights and configuration as `PeftModel.from_pretrained` reads them, and the model card."""
    with atomic_folder(folder) as partial:
        model.save_pretrained(str(partial), safe_serialization=True)
        path = partial / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config["target_modules"], list):  # peft keeps a set, whose order is another in each process
            config["target_modules"].sort()
        write_json(path, config, indent=2, sort_keys=True)
        write_text(partial / "README.md", card)


def base_model(model: Any) -> Any:
    """The PaliGemma inside an adapter, with its layers adapted; a bare PaliGemma as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
