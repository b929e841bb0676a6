"""The training path on a GPU, against the library's own path and against the CPU; skipped where there is no GPU.

The model is the miniature of conftest.py: correctness does not depend on size. Speed and memory at 3B are measured by
`make rehearsal`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor

from benchmarks.papers_scst import repeated_log_probabilities
from captioning.adapters.lora import freeze_encoder, lora_config, swap_weights
from captioning.compute.seeds import seed_everything
from captioning.decoding import generate_suffixes, greedy_captions, suppressed_tokens
from captioning.paligemma.model import load_frozen, prompt_inputs, prompt_tokens, supervised_loss
from captioning.scst.features import EncodedImages
from captioning.scst.loss import caption_log_probabilities
from captioning.scst.packing import prefill
from captioning.scst.refine import refine
from captioning.scst.rollout import RecordedSteps, rollout
from captioning.scst.sampling import Sampling
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training.run import TrainingRun
from captioning.training.states import trainable_weights
from tests.conftest import CAPTIONS, PROMPT
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import compute_gradients, encode_in_memory, tokenise_captions
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe, variant_recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

DEVICE = "cuda"
TEXTS = ["a red plane", "trees", "many green trees are in", "", "two blue boats docked neatly at the pier .", "it is a"]
ENDED = [True, True, False, True, True, False]
Make = Callable[..., Any]


@pytest.fixture
def on_gpu(checkpoint: Path) -> Make:
    """Make the model with a seeded adapter on a device."""

    def make(compute: str = "float32", device: str = DEVICE, dequantise: bool = True, strength: float = 0.05) -> Any:
        seed_everything(0, 1)
        base = load_frozen(checkpoint, compute, device, dequantise)
        model = get_peft_model(base, lora_config(4, 8.0, 0.0, False, "all-linear"))
        generator = torch.Generator().manual_seed(1)  # of the CPU, so that both devices have the same adapter
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                deviation = strength if "lora_B" in name else 0.1
                parameter.data = deviation * torch.randn(parameter.shape, generator=generator).to(parameter)
        return model

    return make


def move(batch: dict[str, Any], device: str = DEVICE) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def assert_near(gradients: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compare each gradient, in relation to the largest one of its tensor."""
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        difference = (gradients[name].float().cpu() - value.float().cpu()).abs().max().item()
        assert value.any(), name
        assert difference <= tolerance * value.abs().max().item() + 1e-7, (name, difference)


@pytest.mark.parametrize("dequantise", [False, True])
@BOTH
def test_loss_and_gradients_are_the_librarys_on_the_cpu(on_gpu: Make, batch: dict[str, Any], dequantise: bool) -> None:
    reference = on_gpu(device="cpu", dequantise=False)
    expected = reference(**batch).loss
    model = on_gpu(dequantise=dequantise)
    loss = supervised_loss(model.get_base_model(), move(batch))
    assert loss.item() == pytest.approx(expected.item(), rel=2e-3)
    assert_near(compute_gradients(model, loss), compute_gradients(reference, expected), 2e-2)


@pytest.mark.parametrize(("compute", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
@BOTH
def test_loss_and_gradients_are_the_librarys_on_the_gpu(
    on_gpu: Make, batch: dict[str, Any], compute: str, tolerance: float
) -> None:
    model = on_gpu(compute)
    moved = move(batch)
    expected = model(**moved | {"pixel_values": moved["pixel_values"].to(getattr(torch, compute))}).loss
    loss = supervised_loss(model.get_base_model(), moved)
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    assert_near(compute_gradients(model, loss), compute_gradients(model, expected), tolerance)


@pytest.mark.parametrize(("compute", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
@BOTH
def test_packed_rows_equal_repeated_rows(
    on_gpu: Make, processor: Any, pictures: list[bytes], compute: str, tolerance: float
) -> None:
    """Two images have three captions of unequal length each; one caption is only `<eos>`."""
    model = on_gpu(compute).eval()
    freeze_encoder(model)
    base, pad, suppressed = (
        model.get_base_model(),
        processor.tokenizer.pad_token_id,
        tuple(suppressed_tokens(processor)),
    )
    captions = tokenise_captions(processor, TEXTS, ENDED).view(2, 3, -1).to(DEVICE)
    weights = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    features = encode_in_memory(base, processor, pictures[:2]).to(DEVICE)
    prefix = prefill(base, prompt_tokens(processor, PROMPT).to(DEVICE), features)
    packed = caption_log_probabilities(base, prefix, captions, Sampling(suppressed), pad)
    gradients = compute_gradients(model, (weights * packed).mean())
    prompt = move(prompt_inputs(processor, pictures[:2], PROMPT))
    prompt["pixel_values"] = prompt["pixel_values"].to(getattr(torch, compute))
    expected = repeated_log_probabilities(model, prompt, captions, pad, suppressed, 1.0)
    torch.testing.assert_close(packed, expected, rtol=tolerance, atol=tolerance)
    assert_near(gradients, compute_gradients(model, (weights * expected).mean()), tolerance)


@BOTH
def test_decoding_in_packed_rows_gives_the_captions_of_generate_and_of_the_cpu(
    on_gpu: Make, processor: Any, pictures: list[bytes]
) -> None:
    model, tokenizer = on_gpu(strength=0.02).eval(), processor.tokenizer
    base, prompt = model.get_base_model(), prompt_tokens(processor, PROMPT).to(DEVICE)
    prefix = prefill(base, prompt, encode_in_memory(base, processor, pictures).to(DEVICE))
    points = torch.rand(4, 3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(DEVICE)
    sampling, ends = Sampling(tuple(suppressed_tokens(processor))), (tokenizer.eos_token_id, tokenizer.pad_token_id)
    captions = rollout(base, prefix, sampling, points, True, ends, RecordedSteps())
    greedy = generate_suffixes(base, processor, move(prompt_inputs(processor, pictures, PROMPT)), 12)
    assert torch.equal(captions[:, 0, : greedy.shape[1]], greedy)
    texts = [caption.text for caption in greedy_captions(model, processor, pictures, PROMPT, 12, 2)]
    on_cpu = greedy_captions(on_gpu(device="cpu", strength=0.02), processor, pictures, PROMPT, 12, 4)
    assert texts == [caption.text for caption in on_cpu]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("dequantise", [False, True])
@BOTH
def test_a_recorded_step_reads_the_present_weights(
    on_gpu: Make, processor: Any, pictures: list[bytes], dequantise: bool
) -> None:
    """A graph holds addresses. Weights that an optimizer changes in place keep theirs, swapped ones do not."""
    model, recorded = on_gpu(dequantise=dequantise).eval(), RecordedSteps()
    base, ends = model.get_base_model(), (processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id)
    sampling, prompt = Sampling(tuple(suppressed_tokens(processor))), prompt_tokens(processor, PROMPT).to(DEVICE)
    features = encode_in_memory(base, processor, pictures).to(DEVICE)
    points = torch.rand(4, 3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(DEVICE)

    def decode(*steps: Any) -> Tensor:
        with torch.no_grad():
            prefix = prefill(base, prompt, features)
        return rollout(base, prefix, sampling, points, True, ends, *steps)

    first = decode(recorded)
    rows = recorded.decoder
    assert torch.equal(first, decode())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-3)
    second = decode(recorded)
    assert recorded.decoder is rows and not torch.equal(second, first)
    assert torch.equal(second, decode())
    swapped = {name: value / -3 for name, value in trainable_weights(model).items() if "lora_B" in name}
    with swap_weights(model, swapped):
        assert torch.equal(decode(recorded), decode())
    assert torch.equal(decode(recorded), second)


@pytest.mark.parametrize(
    ("compute", "optimizer"),
    [("float32", "adamw"), ("bfloat16", "adamw"), ("float16", "adamw"), ("bfloat16", "paged-adamw-8bit")],
)
def test_fine_tuning_comes_to_the_loss_of_the_cpu(
    on_gpu: Make, processor: Any, pictures: list[bytes], tmp_path: Path, compute: str, optimizer: str
) -> None:
    """It learns four captions, each of another image; float16 scales its losses."""

    def tune(device: str, **changes: Any) -> Any:
        model = on_gpu(changes["compute"], device, strength=0.0)
        rows = [[CAPTIONS[number - 1][1]] for number in range(4)]
        splits = [CaptionRows(pictures, rows, PROMPT, "first", 1) for _ in range(2)]
        recipe = variant_recipe(epochs=20, batch=2, **changes)
        result = finetune(model, processor, recipe, *splits, TrainingRun(1, device, tmp_path / device))
        return result, trainable_weights(model)

    result, weights = tune(DEVICE, compute=compute, optimizer=optimizer)
    reference, _ = tune("cpu", compute="float32")
    first = reference.records[0]["validation_loss"]
    assert reference.validation_loss < 0.3 * first, "the model learns"
    assert result.validation_loss == pytest.approx(reference.validation_loss, abs=0.05 * first)
    assert all(value.dtype == torch.float32 for value in weights.values())


@pytest.mark.parametrize("compute", ["float32", "bfloat16", "float16"])
def test_scst_learns_rewarded_captions(
    on_gpu: Make, processor: Any, pictures: list[bytes], captions: list[list[str]], tmp_path: Path, compute: str
) -> None:
    model = on_gpu(compute, strength=0.0)
    freeze_encoder(model)
    rows = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, pictures))
    recipe = scst_recipe(compute=compute, epochs=40, validate_every=10, baseline="leave-one-out")
    run = TrainingRun(1, DEVICE, tmp_path)
    result = refine(model, processor, recipe, rows, rows, make_scorers(second_captions(captions)), run)
    assert result.best["validation_cider"] > 3 * result.start["validation_cider"] + 50
