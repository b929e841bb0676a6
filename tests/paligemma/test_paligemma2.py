"""PaliGemma 2's traps: capped scores and logits, sliding windows, the shape of the published model.

Tests marked `BOTH` show for both decoders that training, packing and decoding equal the plain library's.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from captioning.adapters.lora import count_parameters, lora_config
from captioning.decoding import generate_suffixes, suppressed_tokens
from captioning.paligemma.model import head_logits, hidden_states, load_quantised, prompt_inputs, prompt_tokens
from captioning.scst.loss import caption_log_probabilities
from captioning.scst.packing import prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import PROMPT, encode_in_memory, tokenise_captions

GEMMA2 = pytest.mark.parametrize("decoder", ["gemma2"], indirect=True)


@BOTH
def test_attention_is_sdpa_unless_scores_are_capped(quantised: Any, decoder: str) -> None:
    config = quantised.config
    assert config.vision_config._attn_implementation == "sdpa"
    assert config.text_config._attn_implementation == {"gemma": "sdpa", "gemma2": "eager"}[decoder]


@GEMMA2
def test_library_refuses_sdpa_for_capped_scores(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="does not support an attention implementation"):
        PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, attn_implementation="sdpa")


@BOTH
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_logits_equal_the_librarys_to_the_last_bit(checkpoint: Path, batch: dict[str, Any], compute: str) -> None:
    """In bfloat16, capping after the cast to float32 would give other logits than `generate` sees."""
    model = load_quantised(checkpoint, compute, "cpu")
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    with torch.no_grad():
        logits = head_logits(model, hidden_states(model, inputs))
        assert torch.equal(logits, model(**inputs).logits.float())
    assert logits.dtype == torch.float32


@GEMMA2
def test_row_longer_than_the_window_is_refused(quantised: Any, processor: Any, pictures: list[bytes]) -> None:
    """Within the window, sliding layers of a packed row need no separate mask."""
    pad, eos = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    sampling = Sampling(tuple(suppressed_tokens(processor)))
    captions = tokenise_captions(processor, ["a red plane", "trees"], [True, True])[None]
    with torch.no_grad():
        prefix = prefill(
            quantised, prompt_tokens(processor, PROMPT), encode_in_memory(quantised, processor, pictures[:1])
        )
        row = prefix.length + int((captions != pad).sum()) - 2
        quantised.config.text_config.sliding_window = row
        caption_log_probabilities(quantised, prefix, captions, sampling, pad)
        quantised.config.text_config.sliding_window = row - 1
        with pytest.raises(ValueError, match=f"row of {row} tokens outgrows the decoder's window of {row - 1}"):
            caption_log_probabilities(quantised, prefix, captions, sampling, pad)
        with pytest.raises(ValueError, match="outgrows"):
            rollout(quantised, prefix, sampling, torch.rand(1, 3, 12), True, (eos, pad))


@GEMMA2
def test_published_default_cache_changes_nothing(quantised: Any, processor: Any, pictures: list[bytes]) -> None:
    """Old checkpoints with sliding windows ask for `hybrid`, a compiled static cache; the library ignores it."""
    prompt = prompt_inputs(processor, pictures, PROMPT)
    expected = generate_suffixes(quantised, processor, prompt, 8)
    quantised.generation_config.cache_implementation = "hybrid"
    assert torch.equal(generate_suffixes(quantised, processor, prompt, 8), expected)


WIDTH, FEED, DECODER, TOWER = 2304, 9216, 26, 1152
HEADS, KEYS = 8 * 256, 4 * 256
LINEARS = [(WIDTH, HEADS), (WIDTH, KEYS), (WIDTH, KEYS), (HEADS, WIDTH), (WIDTH, FEED), (WIDTH, FEED), (FEED, WIDTH)]
WORDS = 257_152 + 64  # transformers' convert_paligemma2_weights_to_hf.py adds <image> and pads to a multiple of 64
PARAMETERS = 3_032_094_960 + 64 * WIDTH  # of pali_gemma2_pt_3b_224 (keras-hub, pali_gemma_presets.py), more words


@pytest.fixture(scope="module")
def three_billion() -> PaliGemmaForConditionalGeneration:
    """Make paligemma2-3b-pt-224 without its memory, in the shape that transformers' conversion script writes."""
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": DECODER, "intermediate_size": FEED, "vocab_size": WORDS}
    vision = {"hidden_size": TOWER, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
    images = {"patch_size": 14, "image_size": 224, "projection_dim": WIDTH, "vision_use_head": False}
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma2"} | heads | sizes,
        vision_config={"model_type": "siglip_vision_model"} | vision | images,
        projection_dim=WIDTH,
        image_token_index=257152,
    )
    with torch.device("meta"):
        return PaliGemmaForConditionalGeneration(config)


def test_parameters_are_as_many_as_published(three_billion: Any) -> None:
    text = three_billion.config.text_config
    assert sum(value.numel() for value in three_billion.parameters()) == PARAMETERS
    assert (text.attn_logit_softcapping, text.final_logit_softcapping, text.sliding_window) == (50, 30, 4096)
    assert three_billion.lm_head.weight is three_billion.model.language_model.embed_tokens.weight


@pytest.mark.parametrize(("targets", "tower"), [("table2", 27 * 3 * (TOWER + TOWER)), ("decoder", 0)])
def test_adapter_parameters_equal_a_count_by_hand(three_billion: Any, targets: str, tower: int) -> None:
    model = get_peft_model(three_billion, lora_config(8, 8.0, 0.0, False, targets))
    counts = count_parameters(model)
    model.unload()
    assert counts["trainable_parameters"] == 8 * (DECODER * sum(map(sum, LINEARS)) + tower)
    assert counts["all_parameters"] == PARAMETERS + counts["trainable_parameters"]
