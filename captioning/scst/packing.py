"""Packed rows: an image's prefix once, then all its captions, which do not see each other.

    row = [image and prompt | caption 1 | ... | caption N]

A caption's tokens see the prefix and the earlier tokens of their own caption; positions restart in each caption. The
results are those of N rows that repeat the prefix (tests/scst/test_packing.py), with 350 instead of 1,390 tokens for N
= 5 captions of 15 tokens after 260.

1. `prefill` runs the prefix through the library's own forward, once per image; its keys and values serve the decoding
   of all captions (scst/rollout.py) and then, with gradients, the update.
2. Positions count from 1, as PaliGemma's do. All prompts are equal, so all captions start at the same position.
3. Every token sees the whole prefix: rows longer than the window of a sliding layer (Gemma 2: 4,096) are refused.
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
        """Return a cache that starts with this prefix and grows without changing it."""
        return DynamicCache(list(self.layers))

    def detached(self) -> "Prefix":
        """Return the same values without their graph."""
        return Prefix(tuple((keys.detach(), values.detach()) for keys, values in self.layers), self.last.detach())


def prefill(model: Any, prompt: Int[Tensor, " length"], features: Float[Tensor, "images tokens hidden"]) -> Prefix:
    """Run image and prompt, whose attention is bidirectional, through a PaliGemma without its PeftModel."""
    rows = prompt.expand(len(features), -1)
    output = model.model(
        input_ids=rows,
        attention_mask=torch.ones_like(rows),
        token_type_ids=torch.zeros_like(rows),
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
        use_cache=True,
    )
    layers = tuple((layer.keys, layer.values) for layer in output.past_key_values.layers)
    return Prefix(layers, output.last_hidden_state[:, -1])


def caption_states(
    model: Any,
    prefix: Prefix,
    captions: Int[Tensor, "images captions tokens"],
    is_token: Bool[Tensor, "images captions tokens"],
) -> Float[Tensor, "images captions tokens hidden"]:
    """Return the hidden states that predict each token; positions after `<eos>`, where `is_token` is false, get zeros.

    A caption's last token predicts nothing, so it is not run. A row is as long as the captions of one image together.
    """
    states = torch.zeros(*captions.shape, prefix.last.shape[1], dtype=prefix.last.dtype, device=prefix.last.device)
    states[:, :, 0] = prefix.last[:, None]
    if not is_token[:, :, 1:].any():
        return states
    image, caption, token = is_token[:, :, 1:].nonzero(as_tuple=True)  # of each token that predicts another
    per_image = torch.bincount(image)
    column = torch.arange(len(image), device=image.device) - (per_image.cumsum(dim=0) - per_image)[image]
    shape = (len(captions), int(column.max()) + 1)
    row_captions, row_positions = (torch.full(shape, -1, device=image.device) for _ in range(2))
    row = torch.zeros(shape, dtype=captions.dtype, device=image.device)
    row_captions[image, column], row_positions[image, column] = caption, token
    row[image, column] = captions[image, caption, token]
    mask, positions = packed_mask(prefix.length, row_captions), prefix.length + 1 + row_positions
    hidden = run_packed(model, row, mask, positions, prefix.cache())
    return states.index_put((image, caption, token + 1), hidden[image, column])


def packed_mask(prefix: int, caption: Int[Tensor, "images queries"]) -> Bool[Tensor, "images queries keys"]:
    """Let each token see the prefix, itself and the earlier tokens of its caption. `caption`: the number of each
    token's caption, whose tokens are in their order."""
    same_caption = (caption[:, :, None] == caption[:, None]).tril()
    return torch.cat([same_caption.new_ones(*caption.shape, prefix), same_caption], dim=2)


def step_masks(prefix: int, captions: int, limit: int, device: torch.device) -> Bool[Tensor, "1 queries keys"]:
    """Return the mask of a row to which each step appends one token per caption: a step is its next `captions` rows."""
    return packed_mask(prefix, torch.arange(captions, device=device).repeat(limit)[None])


def run_packed(
    model: Any,
    tokens: Int[Tensor, "images queries"],
    mask: Bool[Tensor, "#images queries keys"],
    positions: Int[Tensor, "#images queries"],
    cache: DynamicCache,
) -> Float[Tensor, "images queries hidden"]:
    """Return the decoder's last hidden states of `tokens`, and append them to `cache`. Raises `ValueError` if a row is
    longer than the decoder's sliding window."""
    decoder = model.model.language_model
    window = getattr(decoder.config, "sliding_window", None)
    if window is not None and mask.shape[2] > window:
        raise ValueError(f"a packed row of {mask.shape[2]} tokens outgrows the decoder's window of {window}")
    embedded, by_head = decoder.embed_tokens(tokens), mask[:, None]
    if decoder.config._attn_implementation == "eager":  # adds the mask to the scores
        zeros = torch.zeros(by_head.shape, dtype=embedded.dtype, device=mask.device)
        by_head = zeros.masked_fill(~by_head, torch.finfo(embedded.dtype).min)
    output = decoder(
        inputs_embeds=embedded, attention_mask=by_head, position_ids=positions, past_key_values=cache, use_cache=True
    )
    return output.last_hidden_state
