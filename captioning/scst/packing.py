"""Packed rows: an image's prefix once, then all its captions, each blind to the others.

    row = [image and prompt | caption 1 | ... | caption N]

A caption's tokens see the prefix and their own caption's earlier tokens; positions start anew in each. The row gives
what N rows give that repeat the prefix (scst/test_packing.py), at 350 instead of 1,390 tokens for N = 5 captions of
15 tokens after 260.

1. The row comes in two pieces. `prefill` runs the prefix through the library's own forward, once an image; its keys
   and values serve the decoding of every caption (scst/rollout.py) and then, gradients attached, the update.
2. Positions count from 1, as PaliGemma's do.
3. All prompts are the same, so that every image's captions begin at the same place.
4. Every token sees the whole prefix: rows longer than the window of a sliding layer (Gemma 2: 4,096) are refused.
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


def hidden_states(
    model: Any,
    prefix: Prefix,
    captions: Int[Tensor, "images captions tokens"],
    said: Bool[Tensor, "images captions tokens"],
) -> Float[Tensor, "images captions tokens hidden"]:
    """The hidden states that predict each token that was `said`; what is not said, after a caption's end, gets none.

    A caption's last token predicts nothing that is wanted, so it is not run. What is run stands close together: a row
    is as long as the captions of one image, not as its longest caption times their number.
    """
    predicting = torch.zeros(*captions.shape, prefix.last.shape[1], dtype=prefix.last.dtype, device=prefix.last.device)
    predicting[:, :, 0] = prefix.last[:, None]
    if not said[:, :, 1:].any():
        return predicting
    image, caption, place = said[:, :, 1:].nonzero(as_tuple=True)  # of each token that predicts another
    row = _places(image)
    shape = (len(captions), int(row.max()) + 1)
    caption_of, place_of = (torch.full(shape, -1, device=row.device) for _ in range(2))
    tokens = torch.zeros(shape, dtype=captions.dtype, device=row.device)
    caption_of[image, row], place_of[image, row] = caption, place
    tokens[image, row] = captions[image, caption, place]
    hidden = run_packed(
        model, tokens, packed_mask(prefix.length, caption_of), prefix.length + 1 + place_of, prefix.cache()
    )
    return predicting.index_put((image, caption, place + 1), hidden[image, row])


def _places(image: Int[Tensor, " tokens"]) -> Int[Tensor, " tokens"]:
    """The place of each token in its image's row; tokens are ordered by image."""
    numbers = torch.bincount(image)
    starts = numbers.cumsum(dim=0) - numbers
    return torch.arange(len(image), device=image.device) - starts[image]


def packed_mask(prefix: int, caption: Int[Tensor, "images queries"]) -> Bool[Tensor, "images queries keys"]:
    """Who sees whom: every token the prefix, and of its own caption itself and what came before.

    `caption`: which caption each token belongs to; the tokens of one stand in their order.
    """
    own = (caption[:, :, None] == caption[:, None]).tril()
    return torch.cat([own.new_ones(*caption.shape, prefix), own], dim=2)


def run_packed(
    model: Any,
    tokens: Int[Tensor, "images queries"],
    mask: Bool[Tensor, "#images queries keys"],
    positions: Int[Tensor, "#images queries"],
    cache: DynamicCache,
) -> Float[Tensor, "images queries hidden"]:
    """The decoder's last hidden states of `tokens` after what `cache` holds; `cache` grows by them.

    Raises:
        ValueError: a row outgrows the decoder's sliding window.
    """
    decoder = model.model.language_model
    window = getattr(decoder.config, "sliding_window", None)
    if window is not None and mask.shape[2] > window:
        raise ValueError(f"a packed row of {mask.shape[2]} tokens outgrows the decoder's window of {window}")
    embedded = decoder.embed_tokens(tokens)
    done = decoder(
        inputs_embeds=embedded,
        attention_mask=_as_taken(decoder, mask[:, None], embedded.dtype),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return done.last_hidden_state


def _as_taken(decoder: Any, mask: Bool[Tensor, "*shape"], dtype: torch.dtype) -> Tensor:
    """`mask` as the decoder's attention takes it: eager adds it to the scores, and true and false would be 1 and 0."""
    if decoder.config._attn_implementation != "eager":
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
