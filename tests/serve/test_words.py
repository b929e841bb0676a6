"""Words have the probabilities that a plain forward pass of the library gives their tokens."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from captioning.decoding import generate_suffixes, greedy_captions, model_inputs, suppressed_tokens
from captioning.serve.rows import share_weights
from captioning.serve.words import Word, caption_words, split_words

PROMPT, LIMIT = "caption en", 12


def plain_log_probabilities(model: Any, processor: Any, image: bytes, suffix: list[int]) -> list[float]:
    """Return the log-probability of each token of `suffix`, from one forward pass over the whole sequence."""
    import io

    from PIL import Image

    batch = processor(images=Image.open(io.BytesIO(image)).convert("RGB"), text=f"<image>{PROMPT}", return_tensors="pt")
    prefix = batch["input_ids"].shape[1]
    tail = torch.tensor([suffix])
    inputs = {
        "input_ids": torch.cat([batch["input_ids"], tail], dim=1),
        "token_type_ids": torch.cat([torch.zeros(1, prefix, dtype=torch.long), torch.ones_like(tail)], dim=1),
        "pixel_values": batch["pixel_values"],
    }
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        logits = model(**inputs).logits[0, prefix - 1 : -1].float()
    logits[:, suppressed_tokens(processor)] = -torch.inf
    return logits.log_softmax(dim=-1).gather(1, tail[0][:, None])[:, 0].tolist()


def test_probabilities_are_those_of_a_plain_forward_pass(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes]
) -> None:
    model = adapted(strength=0.3)
    captions = list(greedy_captions(model, processor, pictures, PROMPT, LIMIT, len(pictures)))
    assert len({caption.text for caption in captions}) > 1
    for image, expected in zip(pictures, captions, strict=True):
        result = caption_words(model, processor, image, PROMPT, LIMIT)
        assert (result.text, result.ended) == (expected.text, expected.ended)
        assert [word.text for word in result.words] == expected.text.split()
        inputs = model_inputs(model, processor, [image], PROMPT)
        suffix = generate_suffixes(model, processor, inputs, LIMIT)[0].tolist()
        assert len(suffix) == expected.tokens
        logs = plain_log_probabilities(model, processor, image, suffix)
        assert result.probability == pytest.approx(math.exp(sum(logs)), rel=1e-3)
        if expected.ended:  # the words' probabilities and that of <eos> are the caption's
            product = math.prod(word.probability for word in result.words) * math.exp(logs[-1])
            assert product == pytest.approx(result.probability, rel=1e-3)


class Pieces:
    """A tokenizer whose tokens are pieces of text; 0 is special."""

    all_special_ids = (0,)
    pieces = ("<eos>", "a", " har", "bour", " ", "s", " é")

    def decode(self, tokens: list[int], **_: Any) -> str:
        return "".join(self.pieces[token] for token in tokens if token)


def test_the_pieces_of_a_word_are_multiplied() -> None:
    words = split_words(Pieces(), [1, 2, 3, 5, 6, 0], [math.log(p) for p in (0.5, 0.5, 0.2, 0.1, 0.9, 0.3)])
    assert [word.text for word in words] == ["a", "harbours", "é"]
    assert [word.probability for word in words] == pytest.approx([0.5, 0.01, 0.9])
    assert split_words(Pieces(), [0], [-0.1]) == ()
    assert split_words(Pieces(), [4, 1], [math.log(0.5), math.log(0.4)])[0] == Word("a", pytest.approx(0.4))


def test_rows_share_the_checkpoints_weights_and_caption_as_alone(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], quantised: Any
) -> None:
    first, second, bare = adapted(strength=0.3), adapted(strength=0.6, rank=2), quantised
    before = [list(greedy_captions(model, processor, pictures, PROMPT, LIMIT, 4)) for model in (first, second, bare)]
    assert before[0] != before[2] != before[1]
    share_weights(second, first)
    share_weights(bare, first)
    after = [list(greedy_captions(model, processor, pictures, PROMPT, LIMIT, 4)) for model in (first, second, bare)]
    assert after == before
    pointers = [
        {weight.data_ptr() for name, weight in model.named_parameters() if "lora_" not in name}
        for model in (first, second, bare)
    ]
    assert pointers[0] == pointers[1] == pointers[2]
