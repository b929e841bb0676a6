"""The policy gradient against hand calculation and enumeration: advantages, log-probabilities, gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.papers_scst import repeated_log_probabilities
from captioning.adapters.lora import freeze_encoder
from captioning.paligemma.model import prompt_inputs, prompt_tokens
from captioning.scst.loss import advantages, caption_log_probabilities, policy_loss
from captioning.scst.packing import Prefix, prefill
from captioning.scst.sampling import Sampling
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import PROMPT, compute_gradients, encode_in_memory

Make = Callable[..., Any]


def make_prefix(base: Any, processor: Any, images: list[bytes]) -> Prefix:
    return prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, images))


def assert_opposite(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare the gradients of a loss with those of the objective, which is to grow."""
    for name, value in expected.items():
        torch.testing.assert_close(-gradients[name], value, rtol=1e-3, atol=2e-5, msg=name)


def test_advantages_by_hand() -> None:
    rewards = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    np.testing.assert_allclose(advantages(rewards, np.array([2.0, 1.0])), [[-1, 0, 4], [-1, -1, 2]])
    np.testing.assert_allclose(advantages(rewards, None), [[-3, -1.5, 4.5], [-1.5, -1.5, 3]])
    for greedy in (None, np.full(2, 3.7)):
        assert not advantages(np.full((2, 5), 3.7), greedy).any()  # exactly 0


FRACTION = 40  # one of so many tokens is not suppressed: 55 remain, <eos> among them
DISTRIBUTIONS: list[dict[str, Any]] = [{}, {"temperature": 1.7}, {"top_k": 5}, {"temperature": 2.0, "top_p": 0.95}]


@pytest.mark.parametrize("kl", [0.0, 0.6])
@pytest.mark.parametrize("cuts", DISTRIBUTIONS)
def test_the_expected_gradient_is_the_exact_policy_gradient(
    adapted: Make, processor: Any, pictures: list[bytes], cuts: dict[str, Any], kl: float
) -> None:
    """All captions of one token, weighted by their probability, against d/d theta of sum p r - kl KL(p || start).

    The exact side uses the library's forward and enumerates the distribution itself.
    """
    model = adapted(strength=0.05).eval()
    freeze_encoder(model)
    base, vocabulary = model.get_base_model(), model.config.text_config.vocab_size
    suppressed = tuple(token for token in range(vocabulary) if token % FRACTION != 1)
    tokens = torch.tensor([token for token in range(vocabulary) if token % FRACTION == 1])
    logits = model(**prompt_inputs(processor, pictures[:1], PROMPT)).logits[0, -1, tokens]
    logits = logits / cuts.get("temperature", 1.0)
    support = torch.ones(len(tokens), dtype=torch.bool)
    if "top_k" in cuts:
        support = logits >= logits.topk(cuts["top_k"]).values[-1]
    if "top_p" in cuts:  # the fewest whose mass reaches top_p
        ordered = logits.softmax(dim=0).sort(descending=True)
        support[ordered.indices] = ordered.values.cumsum(dim=0) - ordered.values < cuts["top_p"]
    assert support.all() == (not cuts.keys() & {"top_k", "top_p"})
    tokens, log_p = tokens[support], logits[support].log_softmax(dim=0)
    generator = torch.Generator().manual_seed(0)
    reward = torch.rand(len(tokens), generator=generator) * 10
    start = (log_p.detach() + torch.randn(len(tokens), generator=generator)).log_softmax(dim=0)
    p = log_p.exp()
    exact = compute_gradients(model, (p * reward).sum() - kl * (p * (log_p - start)).sum())

    prefix = make_prefix(base, processor, pictures[:1])
    sampling, pad = Sampling(suppressed, **cuts), processor.tokenizer.pad_token_id
    packed = caption_log_probabilities(base, prefix, tokens[None, :, None], sampling, pad)
    assert packed.detach().exp().sum().item() == pytest.approx(1, abs=1e-4)
    penalised = reward - kl * (packed.detach()[0] - start)
    advantage = advantages(penalised[None].double().numpy(), np.array([3.0]))  # any baseline independent of samples
    weighted = packed.detach().exp() * len(tokens) * torch.from_numpy(advantage).float()
    assert_opposite(compute_gradients(model, policy_loss(packed, weighted.numpy())), exact)


@BOTH
def test_the_exact_gradient_of_captions_of_two_tokens(adapted: Make, processor: Any, pictures: list[bytes]) -> None:
    """All captions of `<eos>` and three words with at most two tokens; the exact side repeats rows and pixels."""
    model = adapted(strength=0.05).eval()
    freeze_encoder(model)
    base, tokenizer = model.get_base_model(), processor.tokenizer
    words = [tokenizer.encode(word, add_special_tokens=False)[0] for word in (" red", " plane", " trees")]
    allowed = [tokenizer.eos_token_id, *words]
    suppressed = tuple(set(range(base.config.text_config.vocab_size)) - set(allowed))
    rows = [[allowed[0], tokenizer.pad_token_id], *([first, second] for first in words for second in allowed)]
    captions = torch.tensor(rows)[None]
    reward = torch.rand(len(rows), generator=torch.Generator().manual_seed(0)) * 10
    prompt, pad = prompt_inputs(processor, pictures[:1], PROMPT), tokenizer.pad_token_id
    p = repeated_log_probabilities(model, prompt, captions, pad, suppressed).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-4)
    exact = compute_gradients(model, (p[0] * reward).sum())
    prefix = make_prefix(base, processor, pictures[:1])
    log_p = caption_log_probabilities(base, prefix, captions, Sampling(suppressed), pad)
    weighted = (log_p.detach().exp()[0] * len(rows) * (reward - 4.0))[None]
    assert_opposite(compute_gradients(model, policy_loss(log_p, weighted.numpy())), exact)


def test_leave_one_out_is_unbiased() -> None:
    """Two samples of three captions, all nine pairs enumerated: the mean of A d log p is the exact gradient."""
    theta = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 4.0, 2.5], dtype=torch.float64)
    (exact,) = torch.autograd.grad((theta.softmax(0) * reward).sum(), theta)
    mean = torch.zeros(3, dtype=torch.float64)
    for pair in torch.cartesian_prod(torch.arange(3), torch.arange(3)):
        log_p = theta.log_softmax(0)[pair]
        advantage = advantages(reward[pair][None].numpy(), None)
        (gradient,) = torch.autograd.grad(-policy_loss(log_p[None], advantage), theta)
        mean += log_p.detach().sum().exp() * gradient
    torch.testing.assert_close(mean, exact)
