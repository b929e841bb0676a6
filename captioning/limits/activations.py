"""Bytes of a step before a weight is loaded: the library's own model runs on torch's meta device, where tensors have
shapes and no values, and every tensor is counted from the operation that makes it to its end.

No formula for activations: what autograd keeps, what a backward pass and a decoding step need for a while, are what the
same code does at the same shape. It takes a checkpoint's config.json and some seconds at 3B.

1. A 4-bit layer is a plain one here; what it spells out of its weights for a while is added in limits/memory.py.
2. Attention on a CPU is in plain products, as training has it there (training/trainer.py). On a GPU it is a fused
   kernel that keeps queries, keys, values, its output and a logarithm a row. PaliGemma 2's is eager on both.
3. What depends on data is left out: placeholders of images are not looked for, and every caption is of full length.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache, PaliGemmaConfig, PaliGemmaForConditionalGeneration

from captioning.adapters.lora import attach_adapter, lora_config, unwrap_adapter
from captioning.paligemma.folder import check_config
from captioning.paligemma.model import head_logits

META = torch.device("meta")


@dataclass(frozen=True)
class Counted:
    """Bytes: `kept` for the backward pass, and the most that stood at once."""

    kept: int
    peak: int


class Meter(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, as long as they live; inputs and weights do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {_storage(one)._cdata for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for one in tree_leaves(made):
            if isinstance(one, Tensor) and _storage(one)._cdata not in self._known | given:
                self._count(_storage(one))
        self.peak = max(self.peak, self.live)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        self.live += storage.nbytes()
        self._known.add(storage._cdata)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


class FusedAttention(torch.autograd.Function):
    """Shapes of a fused kernel: no scores are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(torch.empty_like(one) for one in ctx.saved_tensors[:3])


class AttentionOf(TorchFunctionMode):
    """Attention as a device has it, on tensors without values."""

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
    """A PaliGemma without weights, with its adapter if any, and the device whose attention it is given."""

    model: Any  # a PeftModel, or a bare PaliGemma
    device: str

    @property
    def base(self) -> Any:
        return unwrap_adapter(self.model)

    @property
    def image_tokens(self) -> int:
        vision = self.base.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2

    def _peak(self, work: Callable[[], Any]) -> int:
        """Of `work` without gradients."""
        with torch.no_grad(), Meter() as meter, AttentionOf(self.device):
            work()
        return meter.peak

    def train(self, rows: int, prompt: int, suffix: int) -> Counted:
        """Forward and backward of a micro-batch: `prompt` text tokens and `suffix` labelled ones after the image.

        Gradients of adapters stand there before, as they do from an accumulation's second micro-batch on.
        """
        self.zero_gradients()
        with Meter() as meter, AttentionOf(self.device):
            loss = self._loss(rows, prompt, suffix)
            kept = meter.live
            loss.backward()
        return Counted(kept, meter.peak)

    def validate(self, rows: int, prompt: int, suffix: int) -> int:
        """The same rows' loss without a gradient."""
        return self._peak(lambda: self._loss(rows, prompt, suffix))

    def _loss(self, rows: int, prompt: int, suffix: int) -> Tensor:
        hidden = self.run(self.features(rows), prompt + suffix, None)
        predicting = hidden[:, -suffix - 1 : -1].flatten(0, 1)
        return cross_entropy(head_logits(self.base, predicting), tokens_of(len(predicting)), reduction="sum")

    def encode(self, images: int) -> int:
        """Projected features of `images`."""
        return self._peak(lambda: self.features(images))

    def generate(self, images: int, prompt: int, tokens: int) -> int:
        """Greedy captions of `tokens`: pictures encoded, prompts run, then the last step on a full cache."""

        def work() -> None:
            cache, features = DynamicCache(), self.features(images)
            self.run(features, prompt, cache)
            full = DynamicCache([(longer(layer.keys, tokens - 1), longer(layer.values, tokens - 1))
                                 for layer in cache.layers])  # fmt: skip
            head_logits(self.base, self.run(features[:, :0], 1, full)[:, -1]).argmax(dim=-1)

        return self._peak(work)

    def features(self, images: int) -> Float[Tensor, "images tokens hidden"]:
        side = self.base.config.vision_config.image_size
        pixels = torch.empty(images, 3, side, side, dtype=self.base.dtype, device=META)
        return self.base.get_image_features(pixels, return_dict=True).pooler_output

    def run(self, features: Tensor, text: int, cache: DynamicCache | None) -> Float[Tensor, "rows length hidden"]:
        """Image features, if any are to be run, and `text` tokens after them through the decoder."""
        decoder, rows = self.base.model.language_model, len(features)
        embedded = torch.cat([features, decoder.embed_tokens(tokens_of(rows, text))], dim=1)
        before = cache.get_seq_length() if cache is not None else 0
        shape = (rows, 1, embedded.shape[1], before + embedded.shape[1])
        eager = decoder.config._attn_implementation == "eager"
        return decoder(
            inputs_embeds=embedded,
            attention_mask=torch.empty(shape, dtype=embedded.dtype if eager else torch.bool, device=META),
            position_ids=tokens_of(rows, embedded.shape[1]),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def zero_gradients(self) -> None:
        for one in self.model.parameters():
            one.grad = torch.zeros_like(one) if one.requires_grad else None


def longer(part: Tensor, tokens: int) -> Tensor:
    """Keys or values of so many more tokens."""
    return torch.cat([part, part.new_empty(*part.shape[:2], tokens, part.shape[3])], dim=2)


def tokens_of(*shape: int) -> Tensor:
    """Token ids or positions without values."""
    return torch.empty(shape, dtype=torch.long, device=META)


def meta_model(folder: Path, compute: str, device: str, lora: dict[str, Any] | None = None) -> MetaModel:
    """The checkpoint in `folder` by its config.json alone, frozen, with the adapter `lora` (a recipe's section) if
    any."""
    check_config(folder)
    config = PaliGemmaConfig.from_pretrained(folder, local_files_only=True)
    with META:
        model = PaliGemmaForConditionalGeneration._from_config(config, dtype=getattr(torch, compute))
        model.requires_grad_(False).eval()
        return MetaModel(model if lora is None else attach_adapter(model, lora_config(**lora)), device)
