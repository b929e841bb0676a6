"""The distribution that captions are drawn from and scored under: one object for both, so that they cannot differ.

Logits of suppressed tokens become minus infinity; then logits are divided by the temperature, cut to the top k and then
to the nucleus p, each by transformers' own warper and in the order of its `generate`.

Sources: Fan et al. 2018 (arXiv:1805.04833) for top-k, Holtzman et al. 2020 (arXiv:1904.09751) for top-p.

1. A drawn token always belongs to its own support. Scoring computes the logits again, in another order of summation;
   a token at the edge of the nucleus could drop out by the last digit, and get probability zero.
2. `draw` replaces `torch.multinomial`, with the same distribution.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper


def uniform(seed: int, step: int, id_: str, samples: int, tokens: int) -> Float[Tensor, "samples tokens"]:
    """Return numbers from 0 to 1 that draw an image's captions at one step; they do not depend on other images."""
    key = hashlib.sha256(f"{seed} {step} {id_}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8]) >> 1)
    return torch.rand((samples, tokens), dtype=torch.float64, generator=generator)


def draw(probabilities: Float[Tensor, "rows vocabulary"], uniforms: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Draw an index per row with its probability, never one of probability zero.

    One of `uniforms` per row goes through the inverse of the cumulative distribution, in float64.
    `torch.multinomial` draws a random number per entry of the vocabulary, a third of the decoding time on a CPU.
    """
    mass = probabilities.double().cumsum(dim=-1)
    total = mass[:, -1:]
    targets = uniforms.view_as(total) * total
    below = torch.minimum(targets, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(mass, below, right=True)[:, 0]


@dataclass(frozen=True)
class Sampling:
    """`suppressed`: token ids of probability zero; `temperature` > 0; `top_k` 0 and `top_p` 1 cut nothing."""

    suppressed: tuple[int, ...]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def draw(self, logits: Float[Tensor, "rows vocabulary"], uniforms: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Draw one token per row by uniform numbers."""
        return draw(self._warped(logits).softmax(dim=-1), uniforms)

    def best(self, logits: Float[Tensor, "rows vocabulary"]) -> Int[Tensor, " rows"]:
        """Return the likeliest token of each row that is not suppressed."""
        return self._allowed(logits).argmax(dim=-1)

    def log_probabilities(
        self, logits: Float[Tensor, "tokens vocabulary"], drawn: Int[Tensor, " tokens"]
    ) -> Float[Tensor, " tokens"]:
        """Return the log-probability of each drawn token; it is differentiable, with a fixed support."""
        scores = self._allowed(logits / self.temperature)
        if self.top_k or self.top_p < 1:
            outside = self._warped(logits.detach()).isneginf().scatter(1, drawn[:, None], False)
            scores = scores.masked_fill(outside, -torch.inf)
        return -cross_entropy(scores, drawn, reduction="none")

    def _allowed(self, logits: Tensor) -> Tensor:
        return logits.index_fill(1, torch.tensor(self.suppressed, dtype=torch.long, device=logits.device), -torch.inf)

    def _warped(self, logits: Tensor) -> Tensor:
        scores: Any = self._allowed(logits)  # None: the warpers do not read the earlier tokens
        scores = TemperatureLogitsWarper(float(self.temperature))(None, scores) if self.temperature != 1 else scores
        scores = TopKLogitsWarper(self.top_k)(None, scores) if self.top_k else scores
        return TopPLogitsWarper(self.top_p)(None, scores) if self.top_p < 1 else scores
