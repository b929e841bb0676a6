"""A packed row gives what rows give that repeat the prefix: log-probabilities, gradients, tokens decoded."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.papers_scst import repeated_log_probabilities
from captioning.adapters.lora import freeze_encoder
from captioning.decoding import forbidden_tokens, generate_suffixes
from captioning.paligemma.model import image_features, prompt_inputs, prompt_tokens
from captioning.scst.loss import caption_log_probabilities
from captioning.scst.packing import packed_mask, prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling, draw
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import PROMPT, compute_gradients, encode_in_memory, tokenise_captions

TEXTS = ["a red plane", "trees", "many green trees are in", "", "two blue boats docked neatly at the pier .", "it is a"]
ENDED = [True, True, False, True, True, False]


@pytest.fixture
def policy(adapted: Callable[..., Any]) -> Any:
    model = adapted(strength=0.05, targets="all-linear").eval()
    freeze_encoder(model)
    return model


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@BOTH
def test_packed_rows_equal_repeated_rows(
    policy: Any, processor: Any, pictures: list[bytes], temperature: float
) -> None:
    """Two images, three captions of unequal length each, one of them nothing but `<eos>`."""
    pad, barred = processor.tokenizer.pad_token_id, tuple(forbidden_tokens(processor))
    captions = tokenise_captions(processor, TEXTS, ENDED).view(2, 3, -1)
    weights = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    base = policy.get_base_model()
    prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures[:2]))
    ours = caption_log_probabilities(base, prefix, captions, Sampling(barred, temperature), pad)
    ours_moved = compute_gradients(policy, (weights * ours).mean())
    prompt = prompt_inputs(processor, pictures[:2], PROMPT)
    theirs = repeated_log_probabilities(policy, prompt, captions, pad, barred, temperature)
    theirs_moved = compute_gradients(policy, (weights * theirs).mean())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.min() < -5
    assert len(ours_moved) == 2 * 7 * 4
    for name, value in theirs_moved.items():
        assert value.abs().max() > 1e-4, name
        assert (ours_moved[name] - value).abs().max() <= 1e-5 * max(1.0, value.abs().max().item()), name


@BOTH
def test_a_caption_does_not_see_its_neighbours(policy: Any, processor: Any, pictures: list[bytes]) -> None:
    base, pad = policy.get_base_model(), processor.tokenizer.pad_token_id
    everything = Sampling(tuple(forbidden_tokens(processor)))
    captions = tokenise_captions(processor, TEXTS[:3], ENDED[:3])[None]
    changed = captions.clone()
    changed[0, 1, 0] = 900
    with torch.no_grad():
        prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures[:1]))
        before, after = (
            caption_log_probabilities(base, prefix, one, everything, pad)[0] for one in (captions, changed)
        )
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert before[1] != after[1]


def test_the_mask_by_hand() -> None:
    """A prefix of two; a caption of two tokens, one of one, and a place that none fills."""
    expected = [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]
    assert packed_mask(2, torch.tensor([[0, 0, 1, -1]])).int().tolist() == [expected]


def test_the_prompt_is_the_processors(processor: Any, pictures: list[bytes]) -> None:
    assert torch.equal(prompt_tokens(processor, PROMPT), prompt_inputs(processor, pictures[:1], PROMPT)["input_ids"][0])


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 2.0, "top_k": 7}, {"top_p": 0.8}, {"top_k": 20, "top_p": 0.6}],
)
@pytest.mark.parametrize(
    ("decoder", "limit"), [("gemma", 1), ("gemma", 2), ("gemma", 12), ("gemma2", 12)], indirect=["decoder"]
)
def test_shared_prefix_decoding_gives_the_tokens_of_generate(
    policy: Any, processor: Any, pictures: list[bytes], options: dict[str, Any], limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The greedy caption, and three drawn ones by the same random numbers: `generate` repeats prefix and pixels."""
    monkeypatch.setattr(torch, "multinomial", lambda probabilities, num_samples: draw(probabilities)[:, None])
    base, tokenizer = policy.get_base_model(), processor.tokenizer
    with torch.no_grad():
        prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures))
    torch.manual_seed(5)
    sampling = Sampling(tuple(forbidden_tokens(processor)), **options)
    ours = rollout(base, prefix, sampling, 3, True, limit, tokenizer.eos_token_id, tokenizer.pad_token_id)
    prompt = prompt_inputs(processor, pictures, PROMPT)
    greedy = generate_suffixes(base, processor, prompt, limit)
    many = {key: value.repeat_interleave(3, dim=0) for key, value in prompt.items()}
    torch.manual_seed(5)
    drawn = generate_suffixes(
        base, processor, many, limit, do_sample=True, **({"temperature": 1.0, "top_k": 0} | options)
    )
    for theirs, mine in ((greedy, ours[:, 0]), (drawn, ours[:, 1:].flatten(0, 1))):
        width = max(theirs.shape[1], mine.shape[1])
        padded = [
            torch.nn.functional.pad(one, (0, width - one.shape[1]), value=tokenizer.pad_token_id)
            for one in (theirs, mine)
        ]
        assert torch.equal(*padded)
    assert limit < 12 or len({tuple(row) for row in drawn.tolist()}) > 2


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 9}, {"temperature": 1.5, "top_p": 0.9}])
@BOTH
def test_captions_are_scored_under_the_distribution_they_were_drawn_from(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The probability a token had when it was drawn, one decoding step after another, is the one scoring gives it."""
    base, tokenizer = adapted(strength=0.3).eval().get_base_model(), processor.tokenizer
    drawn: list[torch.Tensor] = []
    draw_, chances = Sampling.draw, Sampling.log_probabilities

    def spy(sampling: Sampling, logits: torch.Tensor, points: torch.Tensor | None = None) -> torch.Tensor:
        tokens = draw_(sampling, logits, points)
        drawn.append(chances(sampling, logits, tokens))
        return tokens

    monkeypatch.setattr(Sampling, "draw", spy)
    with torch.no_grad():
        prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures))
        sampling = Sampling(tuple(forbidden_tokens(processor)), **options)
        torch.manual_seed(3)
        captions = rollout(base, prefix, sampling, 3, False, 9, tokenizer.eos_token_id, tokenizer.pad_token_id)
        scored = caption_log_probabilities(base, prefix, captions, sampling, tokenizer.pad_token_id)
    said = captions != tokenizer.pad_token_id
    by_step = torch.stack(drawn, dim=1).unflatten(0, captions.shape[:2]).clone()
    torch.testing.assert_close(scored, by_step.masked_fill(~said, 0.0).sum(dim=2), rtol=1e-5, atol=1e-4)
    assert said.sum() > 50


@BOTH
def test_greedy_and_samples_do_not_disturb_each_other(policy: Any, processor: Any, pictures: list[bytes]) -> None:
    """Alone or together, the same tokens; the prefix can be used again, gradients and all."""
    base, tokenizer = policy.get_base_model(), processor.tokenizer
    prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures))
    assert prefix.last.requires_grad
    decode = [base, prefix, Sampling(tuple(forbidden_tokens(processor)))]
    ends = [6, tokenizer.eos_token_id, tokenizer.pad_token_id]
    torch.manual_seed(1)
    both = rollout(*decode, 2, True, *ends)
    torch.manual_seed(1)
    drawn = rollout(*decode, 2, False, *ends)
    greedy = rollout(*decode, 0, True, *ends)
    assert torch.equal(both[:, 1:, : drawn.shape[2]], drawn)
    assert torch.equal(both[:, :1, : greedy.shape[2]], greedy)
    assert prefix.length == len(prompt_tokens(processor, PROMPT))


def test_what_stands_after_the_end_is_not_run(
    policy: Any, processor: Any, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is as long as its image's captions, less their last tokens, not as the longest times their number."""
    base, rows = policy.get_base_model(), []
    pad = processor.tokenizer.pad_token_id
    captions = tokenise_captions(processor, ["two blue boats docked neatly at the pier .", "trees"], [True, True])[None]
    run = base.model.language_model.forward
    monkeypatch.setattr(
        base.model.language_model,
        "forward",
        lambda **inputs: rows.append(inputs["inputs_embeds"].shape) or run(**inputs),
    )
    prefix = prefill(base, prompt_tokens(processor, PROMPT), encode_in_memory(base, processor, pictures[:1]))
    caption_log_probabilities(base, prefix, captions, Sampling(tuple(forbidden_tokens(processor))), pad)
    assert rows[1][:2] == (1, int((captions != pad).sum()) - 2)


def test_features_are_the_towers(policy: Any, processor: Any, pictures: list[bytes]) -> None:
    base = policy.get_base_model()
    pixel_values = prompt_inputs(processor, pictures, PROMPT)["pixel_values"]
    expected = image_features(base, pixel_values).pooler_output
    assert torch.equal(encode_in_memory(base, processor, pictures), expected.detach())
