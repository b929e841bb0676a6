"""Count the bytes of a step before weights are loaded, on torch's meta device, where tensors have no values.

There is no formula for activations: the same code runs with the same shapes, and every tensor is counted from the
operation that makes it until it is freed. This takes a checkpoint's config.json and a few seconds at 3B.

1. A 4-bit layer is a plain layer here; limits/memory.py adds the weights that it dequantises temporarily.
2. On a CPU attention runs as plain matrix products, as in training. On a GPU it is a fused kernel that saves queries,
   keys, values, output and one logarithm per row. PaliGemma 2's attention is eager on both.
3. What depends on data is left out: every caption has full length.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache, PaliGemmaConfig, PaliGemmaForConditionalGeneration

from captioning.adapters.lora import lora_config, unwrap_adapter
from captioning.paligemma.folder import require_config
from captioning.paligemma.model import head_logits
from captioning.params.sections import Lora

META = torch.device("meta")


@dataclass(frozen=True)
class StepBytes:
    """Bytes that a step saves for the backward pass, and its peak."""

    saved: int
    peak: int


class Meter(TorchDispatchMode):
    """Count the bytes of tensors that operations make while they live, without inputs and weights."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._addresses: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in self._addresses | inputs:
                self.live += storage.nbytes()
                self._addresses.add(storage._cdata)
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _forget(self, address: int, size: int) -> None:
        self._addresses.discard(address)
        self.live -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class FusedAttention(torch.autograd.Function):
    """The shapes of a fused kernel, which saves no scores."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


class DeviceAttention(TorchFunctionMode):
    """Replace attention by the kind that the device uses, on tensors without values."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.fused = device != "cpu"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        if self.fused:
            return FusedAttention.apply(*args[:3])
        options = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, **(kwargs or {})}
        return torch.ops.aten._scaled_dot_product_attention_math(*args, **options)[0]


@dataclass(frozen=True)
class MetaModel:
    """A PaliGemma without weights, with its adapter if any, and the device whose attention it uses."""

    model: Any  # a PeftModel, or a bare PaliGemma
    device: str

    @property
    def base(self) -> Any:
        return unwrap_adapter(self.model)

    @property
    def image_tokens(self) -> int:
        vision = self.base.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2

    @contextmanager
    def meter(self) -> Iterator[Meter]:
        """Count the bytes of a block that runs with the device's attention."""
        with Meter() as meter, DeviceAttention(self.device):
            yield meter

    def _peak(self, work: Callable[[], Any]) -> int:
        with torch.no_grad(), self.meter() as meter:
            work()
        return meter.peak

    def measure_training(self, rows: int, prompt: int, suffix: int) -> StepBytes:
        """Count forward and backward of a micro-batch: `prompt` text tokens and `suffix` labelled ones after the image.
        The adapters have gradients before, as in an accumulation's second micro-batch."""
        self.zero_gradients()
        with self.meter() as meter:
            loss = self._loss(rows, prompt, suffix)
            saved = meter.live
            loss.backward()
        return StepBytes(saved, meter.peak)

    def measure_validation(self, rows: int, prompt: int, suffix: int) -> int:
        """Count the loss of the same rows without gradients."""
        return self._peak(lambda: self._loss(rows, prompt, suffix))

    def _loss(self, rows: int, prompt: int, suffix: int) -> Tensor:
        hidden = self.run(self.features(rows), prompt + suffix, None)[:, -suffix - 1 : -1].flatten(0, 1)
        return cross_entropy(head_logits(self.base, hidden), empty_tokens(len(hidden)), reduction="sum")

    def measure_generation(self, images: int, prompt: int, tokens: int) -> int:
        """Count greedy captions of `tokens`: images encoded, prompts run, then the last step on a full cache."""

        def work() -> None:
            cache, features = DynamicCache(), self.features(images)
            self.run(features, prompt, cache)
            layers = [(layer.keys, layer.values) for layer in cache.layers]
            full = DynamicCache([(append_tokens(k, tokens - 1), append_tokens(v, tokens - 1)) for k, v in layers])
            head_logits(self.base, self.run(features[:, :0], 1, full)[:, -1]).argmax(dim=-1)

        return self._peak(work)

    def features(self, images: int) -> Float[Tensor, "images tokens hidden"]:
        side = self.base.config.vision_config.image_size
        pixels = torch.empty(images, 3, side, side, dtype=self.base.dtype, device=META)
        return self.base.get_image_features(pixels, return_dict=True).pooler_output

    def run(self, features: Tensor, text: int, cache: DynamicCache | None) -> Float[Tensor, "rows length hidden"]:
        """Run image features (perhaps none) and `text` tokens after them through the decoder."""
        decoder, rows = self.base.model.language_model, len(features)
        embedded = torch.cat([features, decoder.embed_tokens(empty_tokens(rows, text))], dim=1)
        before = cache.get_seq_length() if cache is not None else 0
        shape = (rows, 1, embedded.shape[1], before + embedded.shape[1])
        eager = decoder.config._attn_implementation == "eager"
        return decoder(
            inputs_embeds=embedded,
            attention_mask=torch.empty(shape, dtype=embedded.dtype if eager else torch.bool, device=META),
            position_ids=empty_tokens(rows, embedded.shape[1]),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def zero_gradients(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None


def append_tokens(keys: Tensor, tokens: int) -> Tensor:
    return torch.cat([keys, keys.new_empty(*keys.shape[:2], tokens, keys.shape[3])], dim=2)


def empty_tokens(*shape: int) -> Tensor:
    """Return token ids or positions without values."""
    return torch.empty(shape, dtype=torch.long, device=META)


def meta_model(folder: Path, compute: str, device: str, lora: Lora | None = None) -> MetaModel:
    """Return the checkpoint in `folder` by its config.json alone, frozen, with an adapter unless `lora` is None."""
    require_config(folder)
    config = PaliGemmaConfig.from_pretrained(folder, local_files_only=True)
    with META:
        model = PaliGemmaForConditionalGeneration._from_config(config, dtype=getattr(torch, compute))
        model.requires_grad_(False).eval()
        return MetaModel(model if lora is None else get_peft_model(model, lora_config(**dict(lora))), device)
