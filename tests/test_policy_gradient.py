"""The policy gradient against hand calculation and enumeration: advantages, log-probabilities, gradient, sampling."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from captioning.decoding import barred_tokens, generate
from captioning.paligemma import IGNORED, image_features, prompt_inputs
from captioning.policy_gradient import advantages, caption_log_probabilities, with_suffix
from captioning.qlora import freeze_encoder
from tests.sampled_captions import PROMPT, sampled, scored_batch


def test_advantages_by_hand() -> None:
    rewards = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    np.testing.assert_allclose(advantages(rewards, np.array([2.0, 1.0])), [[-1, 0, 4], [-1, -1, 2]])
    np.testing.assert_allclose(advantages(rewards, None), [[-3, -1.5, 4.5], [-1.5, -1.5, 3]])


def test_advantages_of_equal_rewards_are_nothing() -> None:
    assert not advantages(np.full((2, 5), 3.7), None).round(12).any()
    assert not advantages(np.full((2, 5), 3.7), np.full(2, 3.7)).any()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_single_row(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], temperature: float
) -> None:
    """Each caption alone, unpadded, through the library's forward with pixels."""
    model = adapted(strength=0.05).eval()
    base, barred = model.get_base_model(), barred_tokens(processor)
    texts, ended = ["a red plane", "trees", "many green trees are in", ""], [True, True, False, True]
    suffixes = sampled(processor, texts, ended)
    with torch.no_grad():
        batch = scored_batch(base, processor, pictures, suffixes)
        ours = caption_log_probabilities(base, batch, barred, temperature)
        for row, image in enumerate(pictures):
            tokens = suffixes[row][suffixes[row] != processor.tokenizer.pad_token_id]
            inputs = dict(prompt_inputs(processor, [image], PROMPT))
            start = inputs["input_ids"].shape[1]
            ones = torch.ones_like(tokens)
            for key, value in (("input_ids", tokens), ("attention_mask", ones), ("token_type_ids", ones)):
                inputs[key] = torch.cat([inputs[key], value[None]], dim=1)
            logits = model(**inputs).logits[0, start - 1 : -1] / temperature
            allowed = [token for token in range(logits.shape[1]) if token not in barred]
            normaliser = torch.logsumexp(logits[:, allowed], dim=1)
            expected = sum(logits[i, token] - normaliser[i] for i, token in enumerate(tokens))
            torch.testing.assert_close(ours[row], torch.as_tensor(expected), rtol=1e-5, atol=1e-4)


def test_suffix_rows_by_hand(processor: Any, pictures: list[bytes]) -> None:
    suffixes = sampled(processor, ["trees", "a red plane near"], [True, False])
    prompt = prompt_inputs(processor, pictures[:2], PROMPT)
    length = prompt["input_ids"].shape[1]
    batch = with_suffix(prompt, suffixes, processor.tokenizer.pad_token_id, torch.zeros(2, 4, 128))
    real = suffixes != processor.tokenizer.pad_token_id
    assert not real.all()
    assert torch.equal(batch["input_ids"][:, length:], suffixes)
    for key in ("attention_mask", "token_type_ids"):
        assert torch.equal(batch[key][:, length:].bool(), real)
    assert (batch["labels"][:, :length] == IGNORED).all()
    assert torch.equal(batch["labels"][:, length:], torch.where(real, suffixes, IGNORED))


def every_token(model: Any, processor: Any, image: bytes, barred: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
    """All captions of one token that is not barred, one row each, and their tokens."""
    tokens = [token for token in range(model.config.text_config.vocab_size) if token not in barred]
    prompt = prompt_inputs(processor, [image], PROMPT)
    with torch.no_grad():
        features = image_features(model, prompt.pop("pixel_values")).pooler_output
    many = {key: value.expand(len(tokens), -1) for key, value in prompt.items()}
    pad = processor.tokenizer.pad_token_id
    return with_suffix(many, torch.tensor(tokens)[:, None], pad, features.expand(len(tokens), -1, -1)), tokens


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_gradient_is_that_of_the_expected_reward(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], temperature: float
) -> None:
    """All captions of one token: sum of p A grad log p, with any constant baseline, is the gradient of sum of p r."""
    model = adapted(strength=0.05).eval()
    freeze_encoder(model)
    base, vocabulary = model.get_base_model(), model.config.text_config.vocab_size
    barred = [token for token in range(vocabulary) if token % 40 != 1]  # 55 tokens are left, <eos> among them
    batch, tokens = every_token(base, processor, pictures[0], barred)
    assert processor.tokenizer.eos_token_id in tokens
    reward = torch.rand(len(tokens), generator=torch.Generator().manual_seed(0)) * 10
    log_p = caption_log_probabilities(base, batch, barred, temperature)
    assert log_p.detach().exp().sum().item() == pytest.approx(1, abs=1e-4)
    (log_p.detach().exp() * (reward - 3.0) * log_p).sum().backward()
    ours = {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    logits = model(**prompt_inputs(processor, pictures[:1], PROMPT)).logits[0, -1] / temperature
    (torch.softmax(logits[tokens], dim=0) * reward).sum().backward()
    for name, value in model.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(ours[name], value.grad, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_captions_are_drawn_from_the_distribution_they_are_scored_under(
    quantised: Any, processor: Any, pictures: list[bytes], temperature: float
) -> None:
    barred = barred_tokens(processor)
    batch, tokens = every_token(quantised, processor, pictures[3], barred)
    with torch.no_grad():
        expected = caption_log_probabilities(quantised, batch, barred, temperature).exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-4)
    draws = 1000
    prompt = prompt_inputs(processor, pictures[3:], PROMPT)
    many = {key: value.expand(draws, *value.shape[1:]) for key, value in prompt.items()}
    torch.manual_seed(0)
    drawn = generate(quantised, processor, many, 1, do_sample=True, temperature=temperature, top_k=0)[:, 0]
    frequency = torch.bincount(drawn, minlength=max(tokens) + 1)[tokens] / draws
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((frequency - expected).abs() <= 5 * deviation + 1.5 / draws).all()
    tail = expected.sort(descending=True).indices[50:]  # nothing is cut off: generate's own default is the top 50
    assert frequency[tail].sum().item() == pytest.approx(expected[tail].sum().item(), abs=0.05)
