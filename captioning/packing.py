"""Packed rows: an image's prefix once, then all its captions, each blind to the others.

    row = [image and prompt | caption 1 | ... | caption N]

A caption's tokens see the prefix and their own caption's earlier tokens; positions start anew in each. The row gives
what N rows give that repeat the prefix (tests/test_packing.py), at 350 instead of 1,390 tokens for N = 5 captions of
15 tokens after 260.

1. The row comes in two pieces. `prefill` runs the prefix through the library's own forward, once an image; its keys
   and values serve the decoding of every caption (captioning/rollout.py) and then, gradients attached, the update.
2. Positions count from 1, as PaliGemma's do.
3. Nothing here is padded on the left and all prompts are the same, so one mask serves all images of a batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling


@dataclass(frozen=True)
class Prefix:
    """Keys and values of image and prompt by layer, each `[images, heads, length, size]`, and the last hidden state."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    last: Float[Tensor, "images hidden"]

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2]

    def cache(self) -> DynamicCache:
        """A cache that begins with this prefix and grows without changing it."""
        return DynamicCache(list(self.layers))

    def detached(self) -> "Prefix":
        """The same values without their graph."""
        return Prefix(tuple((keys.detach(), values.detach()) for keys, values in self.layers), self.last.detach())


def prefill(model: Any, prompt: Int[Tensor, " length"], features: Float[Tensor, "images tokens hidden"]) -> Prefix:
    """Run image and prompt, whose attention is bidirectional, through `model` (a PaliGemma, not its adapter's shell).

    `prompt` is the processor's: image placeholders, `<bos>`, the prompt, a newline.
    """
    rows = prompt.expand(len(features), -1)
    done = model.model(
        input_ids=rows,
        attention_mask=torch.ones_like(rows),
        token_type_ids=torch.zeros_like(rows),
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
        use_cache=True,
    )
    layers = tuple((layer.keys, layer.values) for layer in done.past_key_values.layers)
    return Prefix(layers, done.last_hidden_state[:, -1])


def extend(
    model: Any, prefix: Prefix, captions: Int[Tensor, "images captions tokens"]
) -> Float[Tensor, "images captions tokens hidden"]:
    """The hidden states that predict each token of each caption; what stands after a caption's end does no harm.

    A caption's last token predicts nothing that is wanted, so it is not run.
    """
    number, length = captions.shape[1], captions.shape[2] - 1
    first = prefix.last[:, None, None].expand(-1, number, 1, -1)
    if not length:
        return first
    positions = prefix.length + 1 + torch.arange(length, device=captions.device).repeat(number)
    hidden = run_packed(
        model, captions[:, :, :-1].flatten(1), packed_mask(prefix.length, number, length), positions, prefix.cache()
    )
    return torch.cat([first, hidden.unflatten(1, (number, length))], dim=2)


def packed_mask(prefix: int, captions: int, length: int) -> Bool[Tensor, "queries keys"]:
    """Who sees whom: every token the prefix, and of its own caption itself and what came before."""
    caption = torch.arange(captions).repeat_interleave(length)
    own = caption[:, None] == caption[None]
    return torch.cat([torch.ones(len(caption), prefix, dtype=torch.bool), own.tril()], dim=1)


def run_packed(
    model: Any,
    tokens: Int[Tensor, "images queries"],
    mask: Bool[Tensor, "queries keys"],
    positions: Int[Tensor, " queries"],
    cache: DynamicCache,
) -> Float[Tensor, "images queries hidden"]:
    """The decoder's last hidden states of `tokens` after what `cache` holds; `cache` grows by them."""
    decoder = model.model.language_model
    done = decoder(
        inputs_embeds=decoder.embed_tokens(tokens),
        attention_mask=mask.to(tokens.device)[None, None],
        position_ids=positions[None],
        past_key_values=cache,
        use_cache=True,
    )
    return done.last_hidden_state
