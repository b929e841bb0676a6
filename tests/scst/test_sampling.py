"""Captions are drawn from and scored under the same distribution, which is transformers' own."""

from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from captioning.scst.sampling import Sampling, draw

SUPPRESSED = (0, 3)
CUTS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.4},
    {"temperature": 1.7},
    {"top_k": 4},
    {"top_p": 0.7},
    {"temperature": 0.8, "top_k": 6, "top_p": 0.9},
]


def random_logits(rows: int = 5, vocabulary: int = 17) -> torch.Tensor:
    return 2 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def all_log_probabilities(sampling: Sampling, logits: torch.Tensor) -> torch.Tensor:
    """Score each token of the vocabulary alone, as if it had been drawn."""
    columns = [torch.full((len(logits),), token) for token in range(logits.shape[1])]
    return torch.stack([sampling.log_probabilities(logits, column) for column in columns], dim=1)


@pytest.mark.parametrize("cuts", CUTS)
def test_log_probabilities_are_those_of_the_librarys_warpers(cuts: dict[str, Any]) -> None:
    logits = random_logits()
    warpers: Any = LogitsProcessorList([SuppressTokensLogitsProcessor(list(SUPPRESSED), device="cpu")])
    warpers.append(TemperatureLogitsWarper(cuts.get("temperature", 1.0)))
    if "top_k" in cuts:
        warpers.append(TopKLogitsWarper(cuts["top_k"]))
    if "top_p" in cuts:
        warpers.append(TopPLogitsWarper(cuts["top_p"]))
    expected = warpers(None, logits).log_softmax(dim=-1)
    support = ~expected.isneginf()
    torch.testing.assert_close(all_log_probabilities(Sampling(SUPPRESSED, **cuts), logits)[support], expected[support])


@pytest.mark.parametrize("cuts", CUTS)
def test_tokens_are_drawn_as_often_as_their_probability(cuts: dict[str, Any]) -> None:
    sampling, logits, draws = Sampling(SUPPRESSED, **cuts), random_logits(1), 20_000
    points = torch.rand(draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = sampling.draw(logits.expand(draws, -1), points)
    frequency = torch.bincount(drawn, minlength=logits.shape[1]) / draws
    is_drawn = frequency > 0
    expected = all_log_probabilities(sampling, logits)[0].exp()
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((frequency - expected).abs() <= 5 * deviation + 1e-4)[is_drawn].all()
    assert expected[is_drawn].sum().item() == pytest.approx(1, abs=2e-3)
    assert not is_drawn[list(SUPPRESSED)].any()


def test_a_drawn_token_outside_the_nucleus_has_a_probability() -> None:
    """Other logits, which differ in the last digit, may have drawn the third token; the nucleus has two."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().requires_grad_()
    log_p = Sampling((), top_p=0.7).log_probabilities(logits, torch.tensor([2]))
    assert log_p.exp().item() == pytest.approx(0.15 / 0.95)
    log_p.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_the_best_token_is_never_suppressed() -> None:
    logits = torch.zeros(2, 5)
    logits[:, 0], logits[:, 3], logits[:, 4] = 9, 8, 1
    assert Sampling(SUPPRESSED).best(logits).tolist() == [4, 4]


def test_drawing_by_hand() -> None:
    """A draw is the first entry whose cumulative mass exceeds the point; at neither end has it probability zero."""
    points = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1.0]).double()
    assert draw(torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).double().expand(6, -1), points).tolist() == [
        1,
        1,
        3,
        3,
        4,
        4,
    ]
