"""A packed row gives the same as rows that repeat the prefix: log-probabilities, gradients, decoded tokens."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch
from torch.nn.functional import pad as pad_tensor

from benchmarks.papers_scst import repeated_log_probabilities
from captioning.adapters.lora import freeze_encoder
from captioning.decoding import generate_suffixes, suppressed_tokens
from captioning.paligemma.model import image_features, prompt_inputs, prompt_tokens
from captioning.scst.loss import caption_log_probabilities
from captioning.scst.packing import Prefix, packed_mask, prefill
from captioning.scst.rollout import RecordedSteps, rollout
from captioning.scst.sampling import Sampling, draw
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import PROMPT, compute_gradients, encode_in_memory, tokenise_captions

TEXTS = ["a red plane", "trees", "many green trees are in", "", "two blue boats docked neatly at the pier .", "it is a"]
Make = Callable[..., Any]
ENDED = [True, True, False, True, True, False]


@pytest.fixture
def policy(adapted: Make) -> Any:
    model = adapted(strength=0.05, targets="all-linear").eval()
    freeze_encoder(model)
    return model


@pytest.fixture
def prefix(policy: Any, processor: Any, pictures: list[bytes]) -> Prefix:
    base = policy.get_base_model()
    return prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures))


def random_points(samples: int, limit: int) -> torch.Tensor:
    return torch.rand(4, samples, limit, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@BOTH
def test_packed_rows_equal_repeated_rows(
    policy: Any, processor: Any, pictures: list[bytes], temperature: float
) -> None:
    """Two images have three captions of unequal length each; one caption is only `<eos>`."""
    pad, suppressed = processor.tokenizer.pad_token_id, tuple(suppressed_tokens(processor))
    captions = tokenise_captions(processor, TEXTS, ENDED).view(2, 3, -1)
    weights = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    base = policy.get_base_model()
    prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures[:2]))
    packed = caption_log_probabilities(base, prefix, captions, Sampling(suppressed, temperature), pad)
    gradients = compute_gradients(policy, (weights * packed).mean())
    prompt = prompt_inputs(processor, pictures[:2], PROMPT)
    expected = repeated_log_probabilities(policy, prompt, captions, pad, suppressed, temperature)
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-5)
    assert packed.min() < -5
    assert len(gradients) == 2 * 7 * 4
    for name, value in compute_gradients(policy, (weights * expected).mean()).items():
        assert value.abs().max() > 1e-4, name
        assert (gradients[name] - value).abs().max() <= 1e-5 * max(1.0, value.abs().max().item()), name


def test_the_mask_by_hand() -> None:
    """A prefix of two; a caption of two tokens, one of one, and an empty position."""
    expected = [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1]]
    assert packed_mask(2, torch.tensor([[0, 0, 1, -1]])).int().tolist() == [expected]


def test_the_prompt_and_the_features_are_the_librarys(policy: Any, processor: Any, pictures: list[bytes]) -> None:
    inputs, base = prompt_inputs(processor, pictures, PROMPT), policy.get_base_model()
    assert torch.equal(prompt_tokens(processor, PROMPT), inputs["input_ids"][0])
    expected = image_features(base, inputs["pixel_values"]).pooler_output
    assert torch.equal(encode_in_memory(base, processor, pictures), expected.detach())


@pytest.mark.parametrize("cuts", [{}, {"temperature": 2.0, "top_k": 7}, {"top_p": 0.8}, {"top_k": 20, "top_p": 0.6}])
@pytest.mark.parametrize(
    ("decoder", "limit"), [("gemma", 1), ("gemma", 2), ("gemma", 12), ("gemma2", 12)], indirect=["decoder"]
)
def test_decoding_in_packed_rows_gives_the_tokens_of_generate(
    policy: Any, processor: Any, pictures: list[bytes], prefix: Prefix, cuts: dict, limit: int, monkeypatch: MonkeyPatch
) -> None:
    """`generate` repeats prefix and pixels for the greedy caption and three samples by the same random numbers."""
    base, tokenizer, points = policy.get_base_model(), processor.tokenizer, random_points(3, limit)
    steps = iter(points.unbind(dim=2))
    monkeypatch.setattr(
        torch, "multinomial", lambda probabilities, num_samples: draw(probabilities, next(steps).flatten())[:, None]
    )
    ends = tokenizer.eos_token_id, tokenizer.pad_token_id
    captions = rollout(base, prefix, Sampling(tuple(suppressed_tokens(processor)), **cuts), points, True, ends)
    prompt = prompt_inputs(processor, pictures, PROMPT)
    greedy = generate_suffixes(base, processor, prompt, limit)
    repeated = {key: value.repeat_interleave(3, dim=0) for key, value in prompt.items()}
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0} | cuts
    sampled = generate_suffixes(base, processor, repeated, limit, **options)
    for expected, tokens in ((greedy, captions[:, 0]), (sampled, captions[:, 1:].flatten(0, 1))):
        width = max(expected.shape[1], tokens.shape[1])
        assert torch.equal(
            *(pad_tensor(rows, (0, width - rows.shape[1]), value=ends[1]) for rows in (expected, tokens))
        )
    assert limit < 12 or len({tuple(row) for row in sampled.tolist()}) > 2


@pytest.mark.parametrize("cuts", [{}, {"temperature": 0.7, "top_k": 9}, {"temperature": 1.5, "top_p": 0.9}])
@BOTH
def test_captions_are_scored_with_the_probabilities_they_were_drawn_with(
    adapted: Make, processor: Any, pictures: list[bytes], cuts: dict[str, Any], monkeypatch: MonkeyPatch
) -> None:
    base, tokenizer = adapted(strength=0.3).eval().get_base_model(), processor.tokenizer
    steps: list[torch.Tensor] = []
    draw_tokens = Sampling.draw

    def record_probabilities(sampling: Sampling, logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        tokens = draw_tokens(sampling, logits, points)
        steps.append(sampling.log_probabilities(logits, tokens))
        return tokens

    monkeypatch.setattr(Sampling, "draw", record_probabilities)
    sampling, pad = Sampling(tuple(suppressed_tokens(processor)), **cuts), tokenizer.pad_token_id
    with torch.no_grad():
        prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures))
        captions = rollout(base, prefix, sampling, random_points(3, 9), False, (tokenizer.eos_token_id, pad))
        scores = caption_log_probabilities(base, prefix, captions, sampling, pad)
    is_token = captions != pad
    drawn = torch.stack(steps, dim=1).unflatten(0, captions.shape[:2]).clone()
    torch.testing.assert_close(scores, drawn.masked_fill(~is_token, 0.0).sum(dim=2), rtol=1e-5, atol=1e-4)
    assert is_token.sum() > 50


@BOTH
def test_greedy_and_sampled_captions_are_independent(policy: Any, processor: Any, prefix: Prefix) -> None:
    """Alone or together, they have the same tokens; the prefix remains usable, with gradients."""
    base, tokenizer, points = policy.get_base_model(), processor.tokenizer, random_points(2, 6)
    assert prefix.last.requires_grad
    sampling, ends = Sampling(tuple(suppressed_tokens(processor))), (tokenizer.eos_token_id, tokenizer.pad_token_id)
    both = rollout(base, prefix, sampling, points, True, ends)
    sampled = rollout(base, prefix, sampling, points, False, ends)
    greedy = rollout(base, prefix, sampling, points[:, :0], True, ends)
    assert torch.equal(both[:, 1:, : sampled.shape[2]], sampled)
    assert torch.equal(both[:, :1, : greedy.shape[2]], greedy)
    assert prefix.length == len(prompt_tokens(processor, PROMPT))


def test_padding_is_not_run(policy: Any, processor: Any, pictures: list[bytes], monkeypatch: MonkeyPatch) -> None:
    """A row has the length of its image's captions without last tokens, not of the longest times their number."""
    base, shapes = policy.get_base_model(), list[torch.Size]()
    pad, decoder = processor.tokenizer.pad_token_id, base.model.language_model
    captions = tokenise_captions(processor, ["two blue boats docked neatly at the pier .", "trees"], [True, True])[None]
    forward = decoder.forward
    monkeypatch.setattr(
        decoder, "forward", lambda **inputs: shapes.append(inputs["inputs_embeds"].shape) or forward(**inputs)
    )
    prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures[:1]))
    caption_log_probabilities(base, prefix, captions, Sampling(tuple(suppressed_tokens(processor))), pad)
    assert shapes[1][:2] == (1, int((captions != pad).sum()) - 2)


@BOTH
def test_steps_of_fixed_shape_give_the_same_tokens(
    adapted: Make, policy: Any, processor: Any, pictures: list[bytes], prefix: Prefix
) -> None:
    """A second batch of captions reuses the rows of the first; another model and another number of images do not."""
    base, other, steps = policy.get_base_model(), adapted(strength=0.3).eval().get_base_model(), RecordedSteps()
    ends = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    sampling, prompt = Sampling(tuple(suppressed_tokens(processor)), 0.7), prompt_tokens(processor, PROMPT)
    turned = prefill(base, prompt, encode_in_memory(base, processor, pictures[::-1]))
    others = prefill(other, prompt, encode_in_memory(other, processor, pictures[:2]))
    rows, captions = [], []
    for model, start in ((base, prefix), (base, turned), (other, others)):
        points = random_points(3, 12)[: len(start.last)]
        captions.append(rollout(model, start, sampling, points, True, ends, steps))
        assert torch.equal(captions[-1], rollout(model, start, sampling, points, True, ends))
        rows.append(steps.decoder)
    assert rows[0] is rows[1] is not rows[2]
    assert not torch.equal(captions[0], captions[1])
