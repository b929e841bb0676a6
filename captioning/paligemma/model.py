"""PaliGemma 1 and 2: loading in NF4, the prompt, the guard of its mask, and the supervised loss.

Sources: Beyer et al. 2024 (arXiv:2407.07726); Steiner et al. 2024 (PaliGemma 2, arXiv:2412.03555); Dettmers et al.
2023 (QLoRA, arXiv:2305.14314): NF4 with double quantisation.

Deliberate differences from the plain library path, each held equal to it in tests/paligemma/test_model.py:

1. The head and the cross-entropy see suffix positions only: at 3B the head is 527M weights over 257,216 words, and
   the 256 image positions carry no label.
2. Weights are frozen by hand. `prepare_model_for_kbit_training` would switch gradient checkpointing on, under which
   `generate()` silently yields other tokens.
3. `support_avx512bf16_for_cpu` is off on every 4-bit layer: one evaluation pass with it on repacks the layer, and from
   then on no gradient flows through it.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from jaxtyping import Float, Int
from PIL import Image
from psutil import virtual_memory
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BitsAndBytesConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from captioning.base.errors import UserError
from captioning.images.pictures import FORMATS
from captioning.paligemma.folder import REMEDY, require_checkpoint, require_tokenizer

UNQUANTISED_MODULES = [
    "model.vision_tower",
    "model.multi_modal_projector",
    "lm_head",
]  # full paths: a bare name skips nothing
IGNORED = -100  # label of a position without loss
LINEARS_PER_LAYER = 7  # q, k, v, o, gate, up, down


def load_processor(folder: Path) -> PaliGemmaProcessor:
    """The processor of a checkpoint folder, padding on the right: every row of one prompt starts its suffix alike."""
    require_tokenizer(folder)
    processor = PaliGemmaProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    processor.tokenizer.padding_side = "right"
    return processor


def load_quantised(folder: Path, compute: str, device: str) -> PaliGemmaForConditionalGeneration:
    """The checkpoint in `folder` with its decoder in NF4, everything frozen, in evaluation mode.

    Attention is the library's choice: SDPA, but eager in Gemma 2, whose scores are capped, which SDPA cannot do.

    Raises:
        UserError: no checkpoint stands there, or a damaged one.
        RuntimeError: another number of 4-bit layers than seven a decoder layer.
    """
    require_checkpoint(folder)
    model = _from_files(
        folder, quantization_config=nf4_config(compute), dtype=getattr(torch, compute), device_map={"": device}
    )
    layers = [module for module in model.modules() if is_4bit(module)]
    expected = LINEARS_PER_LAYER * model.config.text_config.num_hidden_layers
    if len(layers) != expected:
        raise RuntimeError(f"{folder}: {len(layers)} layers in 4 bits, expected the decoder's {expected}")
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return model.requires_grad_(False).eval()


def _from_files(folder: Path, **options: Any) -> PaliGemmaForConditionalGeneration:
    """`from_pretrained`, of safetensors alone; what it would only warn of is a `UserError`."""
    try:
        model, told = PaliGemmaForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UserError(f"{folder}: its weights have other shapes than config.json says; {REMEDY}") from None
    if lacking := sorted(told["missing_keys"]):
        raise UserError(f"{folder}: {len(lacking)} tensors are not in its weights, {lacking[0]} for one; {REMEDY}")
    return model


def load_frozen(folder: Path, compute: str, device: str, dequantise: bool) -> PaliGemmaForConditionalGeneration:
    """`load_quantised`; with `dequantise`, NF4's weights spelt out in the compute dtype, 4 GB more at 3B.

    No step dequantises them again. The logits of the bare model are the same to the last bit; an adapter's
    share is rounded once in bfloat16 instead of twice. Adapters are attached afterwards.

    Raises:
        UserError: as `load_quantised`, or the device has no room.
    """
    model = load_quantised(folder, compute, device)
    if not dequantise:
        return model
    values = sum(layer.in_features * layer.out_features for layer in model.modules() if is_4bit(layer))
    free = torch.cuda.mem_get_info(model.device)[0] if model.device.type == "cuda" else virtual_memory().available
    if (needed := values * model.dtype.itemsize) > free:
        raise UserError(
            f"{folder}: dequantised weights take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on {device}; "
            "set the profile's machine.dequantise: false, which is slower"
        )
    return model.dequantize().requires_grad_(False).eval()  # the library's new weights would be trainable


def is_4bit(module: Any) -> bool:
    """Whether a layer's weights are quantised."""
    return isinstance(module, bnb.nn.Linear4bit)


def nf4_config(compute: str) -> BitsAndBytesConfig:
    """NF4 with double quantisation for the decoder's linear layers; SigLIP and the projector stay as they are."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, compute),
        llm_int8_skip_modules=UNQUANTISED_MODULES,
    )


def decode_image(data: bytes) -> Image.Image:
    """Image bytes as RGB."""
    return Image.open(BytesIO(data), formats=FORMATS).convert("RGB")


def tokenise(processor: PaliGemmaProcessor, prompts: Sequence[str], suffixes: Sequence[str]) -> dict[str, Tensor]:
    """The text half of what the processor returns, for images that are at hand; equal to it, token by token."""
    tokenizer = processor.tokenizer
    batch = tokenizer(
        [_prefix_text(processor, prompt) for prompt in prompts],
        text_pair=[suffix + tokenizer.eos_token for suffix in suffixes],
        return_token_type_ids=True,
        add_special_tokens=False,
        padding="longest",
        return_tensors="pt",
    )
    return dict(batch) | {"labels": batch["input_ids"].masked_fill(batch["token_type_ids"] == 0, IGNORED)}


def prompt_tokens(processor: PaliGemmaProcessor, prompt: str) -> Int[Tensor, " length"]:
    """What stands before every caption: image placeholders, `<bos>`, the prompt, a newline."""
    text = _prefix_text(processor, prompt)
    return processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]


def _prefix_text(processor: PaliGemmaProcessor, prompt: str) -> str:
    return f"{processor.image_token * processor.image_seq_length}{processor.tokenizer.bos_token}{prompt}\n"


def require_suffix_mask(batch: Any) -> None:
    """`token_type_ids` decide who sees whom: 0 on image and prompt (bidirectional), 1 on the suffix (causal).

    Raises:
        ValueError: a position with a label is not marked as suffix, or none is: the labels would leak.
    """
    types = batch.get("token_type_ids")
    suffix = batch["labels"] != IGNORED
    if types is None or not torch.equal(types.bool(), suffix) or not suffix.any(dim=1).all():
        raise ValueError("token_type_ids must be 1 exactly on the suffix, else its labels leak through attention")


def pixel_values(processor: PaliGemmaProcessor, images: Sequence[bytes]) -> Float[Tensor, "images 3 height width"]:
    """Encoded images as SigLIP takes them."""
    return processor.image_processor([decode_image(image) for image in images], return_tensors="pt")["pixel_values"]


def prompt_inputs(processor: PaliGemmaProcessor, images: Sequence[bytes], prompt: str) -> dict[str, Tensor]:
    """Inputs of `generate` for one prompt over several images; equal lengths, no padding."""
    batch = processor(
        images=[decode_image(image) for image in images], text=["<image>" + prompt] * len(images), return_tensors="pt"
    )
    return {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids", "pixel_values")}


def image_features(model: Any, pixel_values: Float[Tensor, "images 3 height width"]) -> BaseModelOutputWithPooling:
    """Projected SigLIP features, `pooler_output: [images, tokens, hidden]`, as `mm_encoder_outputs` takes them."""
    return model.get_image_features(pixel_values.to(model.dtype), return_dict=True)


def hidden_states(model: Any, batch: dict[str, Any]) -> Float[Tensor, "rows length hidden"]:
    """The decoder's last hidden states. `batch` has `pixel_values`, or `features` from `image_features`."""
    encoded = (
        {"pixel_values": batch["pixel_values"].to(model.dtype)}
        if "pixel_values" in batch
        else {"mm_encoder_outputs": {"image": batch["features"]}}
    )
    return model.model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        token_type_ids=batch["token_type_ids"],
        use_cache=False,
        **encoded,
    ).last_hidden_state


def head_logits(model: Any, hidden: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens vocabulary"]:
    """What the head says of the next token, in float32, by the library's own steps.

    Gemma 2 has its logits capped, cap * tanh(logits / cap), and as the library caps them: before float32.
    """
    logits = model.lm_head(hidden)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits.float() if cap is None else (torch.tanh(logits / cap) * cap).float()


def suffix_logits(
    model: Any, hidden: Float[Tensor, "rows length hidden"], labels: Int[Tensor, "rows length"]
) -> tuple[Float[Tensor, "tokens vocabulary"], Int[Tensor, " tokens"], Tensor]:
    """Logits in float32 that predict each labelled token, those tokens, and the mask `[rows, length - 1]` they fill."""
    labelled = labels[:, 1:] != IGNORED
    return head_logits(model, hidden[:, :-1][labelled]), labels[:, 1:][labelled], labelled


def supervised_loss(model: Any, batch: dict[str, Any], tokens: Tensor | int | None = None) -> Float[Tensor, ""]:
    """Cross-entropy a suffix token; with `tokens` given (accumulation), their sum divided by it."""
    logits, targets, _ = suffix_logits(model, hidden_states(model, batch), batch["labels"])
    return cross_entropy(logits, targets, reduction="sum") / (targets.numel() if tokens is None else tokens)
