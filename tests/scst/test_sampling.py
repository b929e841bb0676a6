"""The distribution that captions are drawn from is the one they are scored under, and is transformers' own."""

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

BARRED = (0, 3)
CUTS: list[dict[str, Any]] = [
    {}, {"temperature": 0.4}, {"temperature": 1.7}, {"top_k": 4}, {"top_p": 0.7}, {"top_k": 8, "top_p": 0.5},
    {"temperature": 0.8, "top_k": 6, "top_p": 0.9},
]  # fmt: skip


def some_logits(rows: int = 5, vocabulary: int = 17) -> torch.Tensor:
    return 2 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def every_log_probability(sampling: Sampling, logits: torch.Tensor) -> torch.Tensor:
    """Of each token of the vocabulary, asked one at a time as if it had been drawn."""
    columns = [torch.full((len(logits),), token) for token in range(logits.shape[1])]
    return torch.stack([sampling.log_probabilities(logits, column) for column in columns], dim=1)


@pytest.mark.parametrize("cuts", CUTS)
def test_log_probabilities_are_those_of_the_librarys_warpers(cuts: dict[str, Any]) -> None:
    logits = some_logits()
    theirs: Any = LogitsProcessorList([SuppressTokensLogitsProcessor(list(BARRED), device="cpu")])
    theirs.append(TemperatureLogitsWarper(cuts.get("temperature", 1.0)))
    if "top_k" in cuts:
        theirs.append(TopKLogitsWarper(cuts["top_k"]))
    if "top_p" in cuts:
        theirs.append(TopPLogitsWarper(cuts["top_p"]))
    expected = theirs(None, logits).log_softmax(dim=-1)
    kept = ~expected.isneginf()
    torch.testing.assert_close(every_log_probability(Sampling(BARRED, **cuts), logits)[kept], expected[kept])
    if "top_k" in cuts:
        assert kept.sum(dim=1).max() <= cuts["top_k"]


@pytest.mark.parametrize("cuts", CUTS)
def test_tokens_are_drawn_as_often_as_they_are_likely(cuts: dict[str, Any]) -> None:
    sampling, logits, draws = Sampling(BARRED, **cuts), some_logits(1), 20_000
    torch.manual_seed(0)
    drawn = sampling.draw(logits.expand(draws, -1))
    frequency = torch.bincount(drawn, minlength=logits.shape[1]) / draws
    seen = frequency > 0
    expected = every_log_probability(sampling, logits)[0].exp()
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((frequency - expected).abs() <= 5 * deviation + 1e-4)[seen].all()
    assert expected[seen].sum().item() == pytest.approx(1, abs=2e-3)
    assert not seen[list(BARRED)].any()


def test_the_nucleus_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    sampling = Sampling((), top_p=0.7)
    assert sampling.log_probabilities(logits, torch.tensor([0])).exp().item() == pytest.approx(0.5 / 0.8)
    assert sampling.log_probabilities(logits, torch.tensor([1])).exp().item() == pytest.approx(0.3 / 0.8)


def test_a_drawn_token_at_the_edge_stays_in_its_support() -> None:
    """Scored with logits that differ in a last digit, the nucleus may end before it; its probability is not zero."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().requires_grad_()
    log_p = Sampling((), top_p=0.7).log_probabilities(logits, torch.tensor([2]))
    assert log_p.exp().item() == pytest.approx(0.15 / 0.95)
    log_p.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_the_best_is_never_barred() -> None:
    logits = torch.zeros(2, 5)
    logits[:, 0], logits[:, 3], logits[:, 4] = 9, 8, 1
    assert Sampling(BARRED).best(logits).tolist() == [4, 4]


def test_drawing_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first entry whose cumulative mass exceeds the uniform number; none of probability zero, at either end."""
    points = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1.0])[:, None].double()
    monkeypatch.setattr(torch, "rand", lambda *_, **__: points)
    assert draw(torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).double().expand(6, -1)).tolist() == [1, 1, 3, 3, 4, 4]
