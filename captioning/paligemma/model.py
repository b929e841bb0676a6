"""PaliGemma 1 and 2: load it in NF4, make its inputs, compute the supervised loss.

Sources: Beyer et al. 2024 (arXiv:2407.07726); Steiner et al. 2024 (PaliGemma 2, arXiv:2412.03555); Dettmers et al. 2023
(QLoRA, arXiv:2305.14314). Three differences from the plain library path, compared in tests/paligemma/test_model.py:

1. The head and the cross-entropy see suffix positions only: at 3B the head is 527M weights over 257,216 words, and the
   256 image positions carry no label.
2. Weights are frozen by `requires_grad_(False)`. `prepare_model_for_kbit_training` would turn on gradient
   checkpointing, with which `generate()` silently returns other tokens.
3. `support_avx512bf16_for_cpu` is off in every 4-bit layer: if it is on, the first evaluation repacks the layer, and no
   gradient flows through it afterwards.
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
from captioning.images.decoded import FORMATS
from captioning.paligemma.folder import REMEDY, require_checkpoint, require_tokenizer

# Full paths: the library ignores a bare name.
UNQUANTISED_MODULES = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
NF4: dict[str, Any] = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
LOCAL_FILES: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
IGNORED = -100  # label of a position without loss
LINEARS_PER_LAYER = 7  # q, k, v, o, gate, up, down


def load_processor(folder: Path) -> PaliGemmaProcessor:
    """Load a checkpoint's processor. It pads on the right, so with one prompt all suffixes start at one position."""
    require_tokenizer(folder)
    processor = PaliGemmaProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    processor.tokenizer.padding_side = "right"
    return processor


def load_quantised(folder: Path, dtype_name: str, device: str) -> PaliGemmaForConditionalGeneration:
    """Load the checkpoint in `folder` with its decoder in NF4, everything frozen, in evaluation mode.

    The library chooses SDPA for attention, but eager for Gemma 2: SDPA cannot cap its scores. Raises `UserError` if
    `folder` holds no complete checkpoint, `RuntimeError` if other layers than the decoder's are in 4 bits.
    """
    require_checkpoint(folder)
    dtype = getattr(torch, dtype_name)
    nf4 = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=UNQUANTISED_MODULES)
    try:
        model, loading_info = PaliGemmaForConditionalGeneration.from_pretrained(
            folder, quantization_config=nf4, dtype=dtype, device_map={"": device}, **LOCAL_FILES
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UserError(f"{folder}: its weights have other shapes than config.json says; {REMEDY}") from None
    if missing := sorted(loading_info["missing_keys"]):  # the library only warns
        raise UserError(f"{folder}: its weights lack {len(missing)} tensors, such as {missing[0]}; {REMEDY}")
    layers = [module for module in model.modules() if is_4bit(module)]
    expected = LINEARS_PER_LAYER * model.config.text_config.num_hidden_layers
    if len(layers) != expected:
        raise RuntimeError(f"{folder}: {len(layers)} layers in 4 bits, expected the decoder's {expected}")
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    if dtype == torch.float16:
        model.lm_head.register_forward_hook(require_finite_logits)
    return model.requires_grad_(False).eval()


def require_finite_logits(head: Any, hidden: Any, logits: Tensor) -> None:
    """Raise `UserError` if a logit is infinite or not a number. In float16, whose largest number is 65,504, a product
    anywhere in the model may overflow; every later layer then makes it not a number, up to the logits."""
    if not all(bool(extreme.isfinite()) for extreme in logits.detach().aminmax()):
        raise UserError(
            "a product of the model overflows float16; set the profile's machine.compute: bfloat16, or float32, whose "
            "range is larger"
        )


def load_frozen(folder: Path, dtype_name: str, device: str, dequantise: bool) -> PaliGemmaForConditionalGeneration:
    """Load the model frozen. `dequantise` converts NF4 weights to `dtype_name`: 4 GB more at 3B, and faster steps. The
    logits of the bare model stay the same to the last bit; in bfloat16, an adapter's contribution is rounded once
    instead of twice. Attach adapters afterwards. Raises `UserError` also if the device has too little memory.
    """
    model = load_quantised(folder, dtype_name, device)
    if not dequantise:
        return model
    weights = sum(layer.in_features * layer.out_features for layer in model.modules() if is_4bit(layer))
    free = torch.cuda.mem_get_info(model.device)[0] if model.device.type == "cuda" else virtual_memory().available
    if (needed := weights * model.dtype.itemsize) > free:
        raise UserError(
            f"{folder}: dequantised weights take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on {device}; "
            "set the profile's machine.dequantise: false, which is slower"
        )
    return model.dequantize().requires_grad_(False).eval()  # the library's new weights would be trainable


def is_4bit(module: Any) -> bool:
    return isinstance(module, bnb.nn.Linear4bit)


def decode_image(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data), formats=FORMATS).convert("RGB")


def encode_texts(processor: PaliGemmaProcessor, prompts: Sequence[str], suffixes: Sequence[str]) -> dict[str, Tensor]:
    """Return the same tokens as the processor for prompts and suffixes, from the text alone."""
    texts = [_prefix_text(processor, prompt) for prompt in prompts]
    pairs = [suffix + processor.tokenizer.eos_token for suffix in suffixes]
    batch = processor.tokenizer(
        texts, text_pair=pairs, return_token_type_ids=True, add_special_tokens=False, padding=True, return_tensors="pt"
    )
    return dict(batch) | {"labels": batch["input_ids"].masked_fill(batch["token_type_ids"] == 0, IGNORED)}


def prompt_tokens(processor: PaliGemmaProcessor, prompt: str) -> Int[Tensor, " length"]:
    """Return the tokens before every caption: image placeholders, `<bos>`, the prompt, a newline."""
    text = _prefix_text(processor, prompt)
    return processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]


def _prefix_text(processor: PaliGemmaProcessor, prompt: str) -> str:
    return f"{processor.image_token * processor.image_seq_length}{processor.tokenizer.bos_token}{prompt}\n"


def require_prefix_lm_mask(batch: Any) -> None:
    """Raise `ValueError` if `token_type_ids` is not 1 on exactly the labelled positions, at least one a row. 0 (image
    and prompt) means bidirectional attention, 1 causal: with another mask, labels leak."""
    types = batch.get("token_type_ids")
    suffix = batch["labels"] != IGNORED
    if types is None or not torch.equal(types.bool(), suffix) or not suffix.any(dim=1).all():
        raise ValueError("token_type_ids must be 1 exactly on the suffix, else its labels leak through attention")


def pixel_values(processor: PaliGemmaProcessor, images: Sequence[bytes]) -> Float[Tensor, "images 3 height width"]:
    """Return encoded images as SigLIP takes them."""
    return processor.image_processor([decode_image(image) for image in images], return_tensors="pt")["pixel_values"]


def prompt_inputs(processor: PaliGemmaProcessor, images: Sequence[bytes], prompt: str) -> dict[str, Tensor]:
    """Return the inputs of `generate` for one prompt and several images. Their lengths are equal: no padding."""
    batch = processor(
        images=[decode_image(image) for image in images], text=["<image>" + prompt] * len(images), return_tensors="pt"
    )
    return {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids", "pixel_values")}


def image_features(model: Any, pixel_values: Float[Tensor, "images 3 height width"]) -> BaseModelOutputWithPooling:
    """Return projected SigLIP features (`pooler_output: [images, tokens, hidden]`), as `mm_encoder_outputs` needs."""
    return model.get_image_features(pixel_values.to(model.dtype), return_dict=True)


def hidden_states(model: Any, batch: dict[str, Any]) -> Float[Tensor, "rows length hidden"]:
    """Return the decoder's last hidden states. `batch` has `pixel_values`, or `features` from `image_features`."""
    if "pixel_values" in batch:
        encoded = {"pixel_values": batch["pixel_values"].to(model.dtype)}
    else:
        encoded = {"mm_encoder_outputs": {"image": batch["features"]}}
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    return model.model(**inputs, use_cache=False, **encoded).last_hidden_state


def head_logits(model: Any, hidden: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens vocabulary"]:
    """Return float32 logits of the next token. Gemma 2 caps them before the cast: cap * tanh(logits / cap)."""
    logits = model.lm_head(hidden)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits.float() if cap is None else (torch.tanh(logits / cap) * cap).float()


def supervised_loss(model: Any, batch: dict[str, Any], divisor: Tensor | int | None = None) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of suffix tokens, or with a `divisor` (accumulation) their sum divided by it."""
    labels = batch["labels"][:, 1:]
    labelled = labels != IGNORED
    logits, targets = head_logits(model, hidden_states(model, batch)[:, :-1][labelled]), labels[labelled]
    return cross_entropy(logits, targets, reduction="sum") / (targets.numel() if divisor is None else divisor)
