"""PaliGemma 2's own traps: capped scores and logits, sliding windows, the shape of the published model.

That it trains, packs and decodes as the plain library does is shown with PaliGemma's: tests marked `BOTH`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from captioning.adapters.lora import attach_adapter, count_parameters, lora_config
from captioning.decoding import forbidden_tokens, generate_suffixes
from captioning.paligemma.model import head_logits, hidden_states, load_quantised, prompt_inputs, prompt_tokens
from captioning.scst.loss import caption_log_probabilities
from captioning.scst.packing import prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import PROMPT, encode_in_memory, tokenise_captions

GEMMA2 = pytest.mark.parametrize("decoder", ["gemma2"], indirect=True)


@BOTH
def test_attention_is_sdpa_but_eager_where_scores_are_capped(quantised: Any, decoder: str) -> None:
    config = quantised.config
    assert config.vision_config._attn_implementation == "sdpa"
    assert config.text_config._attn_implementation == {"gemma": "sdpa", "gemma2": "eager"}[decoder]


@GEMMA2
def test_sdpa_is_refused_for_capped_scores(checkpoint: Path, batch: dict[str, Any]) -> None:
    """By the library, and aloud: when it loads, and when it runs."""
    with pytest.raises(ValueError, match="does not support an attention implementation"):
        PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, attn_implementation="sdpa")
    model = load_quantised(checkpoint, "float32", "cpu")
    model.config.text_config._attn_implementation = "sdpa"
    with torch.no_grad(), pytest.raises(ValueError, match="does not support `softcap`"):
        model(**batch)


@GEMMA2
@pytest.mark.parametrize("cap", ["scores", "logits"])
def test_a_cap_left_out_would_be_seen(quantised: Any, batch: dict[str, Any], cap: str) -> None:
    """By far more than the tolerance of any test that compares with the library."""
    with torch.no_grad():
        capped = quantised(**batch).logits
        if cap == "logits":
            quantised.config.text_config.final_logit_softcapping = None
        for layer in quantised.model.language_model.layers if cap == "scores" else ():
            layer.self_attn.attn_logit_softcapping = None
        assert (quantised(**batch).logits - capped).abs().max() > 0.01


@BOTH
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_logits_are_the_librarys_to_the_last_bit(checkpoint: Path, batch: dict[str, Any], compute: str) -> None:
    """In bfloat16 too, where capping after the cast to float32 would tell apart what `generate` cannot."""
    model = load_quantised(checkpoint, compute, "cpu")
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    with torch.no_grad():
        ours = head_logits(model, hidden_states(model, inputs))
        assert torch.equal(ours, model(**inputs).logits.float())
    assert ours.dtype == torch.float32


@GEMMA2
def test_a_row_longer_than_the_window_is_refused(quantised: Any, processor: Any, pictures: list[bytes]) -> None:
    """Within the window a packed row needs no mask of its own for sliding layers."""
    pad, eos = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    everything = Sampling(tuple(forbidden_tokens(processor)))
    captions = tokenise_captions(processor, ["a red plane", "trees"], [True, True])[None]
    with torch.no_grad():
        prefix = prefill(
            quantised, prompt_tokens(processor, PROMPT), encode_in_memory(quantised, processor, pictures[:1])
        )
        row = prefix.length + int((captions != pad).sum()) - 2
        quantised.config.text_config.sliding_window = row
        caption_log_probabilities(quantised, prefix, captions, everything, pad)
        quantised.config.text_config.sliding_window = row - 1
        with pytest.raises(ValueError, match=f"row of {row} tokens outgrows the decoder's window of {row - 1}"):
            caption_log_probabilities(quantised, prefix, captions, everything, pad)
        with pytest.raises(ValueError, match="outgrows"):
            rollout(quantised, prefix, everything, 3, True, 12, eos, pad)


@GEMMA2
def test_the_published_default_cache_changes_nothing(quantised: Any, processor: Any, pictures: list[bytes]) -> None:
    """Old checkpoints with sliding windows ask for `hybrid`, a static cache that is compiled; the library undoes it."""
    prompt = prompt_inputs(processor, pictures, PROMPT)
    expected = generate_suffixes(quantised, processor, prompt, 8)
    quantised.generation_config.cache_implementation = "hybrid"
    assert torch.equal(generate_suffixes(quantised, processor, prompt, 8), expected)


WIDTH, FEED, DECODER, TOWER = 2304, 9216, 26, 1152
HEADS, KEYS = 8 * 256, 4 * 256
SEVEN = [(WIDTH, HEADS), (WIDTH, KEYS), (WIDTH, KEYS), (HEADS, WIDTH), (WIDTH, FEED), (WIDTH, FEED), (FEED, WIDTH)]
KERAS = 3_032_094_960  # parameters of pali_gemma2_pt_3b_224 (keras-hub, pali_gemma_presets.py), 257,152 words
WORDS = 257_152 + 64  # transformers' convert_paligemma2_weights_to_hf.py adds <image> and pads to a multiple of 64


@pytest.fixture(scope="module")
def three_billion() -> PaliGemmaForConditionalGeneration:
    """paligemma2-3b-pt-224's shape without its memory, as transformers' conversion script writes it."""
    text = dict(
        model_type="gemma2", hidden_size=WIDTH, num_hidden_layers=DECODER, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256, intermediate_size=FEED, vocab_size=WORDS, query_pre_attn_scalar=256,
    )  # fmt: skip
    vision = dict(
        model_type="siglip_vision_model", hidden_size=TOWER, num_hidden_layers=27, num_attention_heads=16,
        intermediate_size=4304, patch_size=14, image_size=224, projection_dim=WIDTH, vision_use_head=False,
    )  # fmt: skip
    config = PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=WIDTH, image_token_index=257152)
    with torch.device("meta"):
        return PaliGemmaForConditionalGeneration(config)


def test_the_true_shape_has_the_published_number_of_parameters(three_billion: Any) -> None:
    text = three_billion.config.text_config
    assert sum(value.numel() for value in three_billion.parameters()) == KERAS + 64 * WIDTH
    assert (text.attn_logit_softcapping, text.final_logit_softcapping, text.sliding_window) == (50, 30, 4096)
    assert three_billion.lm_head.weight is three_billion.model.language_model.embed_tokens.weight


@pytest.mark.parametrize(("targets", "tower"), [("table2", 27 * 3 * (TOWER + TOWER)), ("decoder", 0)])
def test_an_adapters_count_by_hand(three_billion: Any, targets: str, tower: int) -> None:
    """The seven names match the same layers as in PaliGemma; there are more of them, and narrower."""
    model = attach_adapter(three_billion, lora_config(8, 8.0, 0.0, False, targets))
    counted = count_parameters(model)
    model.unload()
    assert counted["trainable_parameters"] == 8 * (DECODER * sum(map(sum, SEVEN)) + tower)
    assert counted["all_parameters"] == KERAS + 64 * WIDTH + counted["trainable_parameters"]
