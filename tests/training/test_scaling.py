"""Trainings in float16: the scores of float32, scaled gradients, skipped steps, and what cannot be computed in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from captioning.adapters.lora import freeze_encoder, unwrap_adapter
from captioning.base.errors import UserError
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.metrics.ptb import tokenize
from captioning.paligemma.model import load_frozen, supervised_loss
from captioning.scst.features import EncodedImages
from captioning.scst.refine import refine
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training import scaling
from captioning.training.run import TrainingRun
from captioning.training.scaling import LossScaling
from captioning.training.states import trainable_weights
from captioning.training.trainer import SharedTrainer
from tests.conftest import CAPTIONS, PROMPT
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import encode_in_memory
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe, variant_recipe

OTHERS = [CAPTIONS[number - 1][1] for number in range(4)]  # a caption of another image
CPU = torch.device("cpu")


class Outcome(NamedTuple):
    weights: dict[str, Tensor]
    score: float  # validation loss in nats, or CIDEr-D
    result: Any
    texts: list[str]


@pytest.fixture
def tune(adapted: Callable[..., Any], processor: Any, pictures: list[bytes], tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that teaches four captions of other images in a dtype."""

    def run(compute: str, states: Path | None = None, **changes: Any) -> Outcome:
        model = adapted(compute=compute)
        rows = [CaptionRows(pictures, [[text] for text in OTHERS], PROMPT, "first", 1) for _ in range(2)]
        seed_everything(1, 1)
        run = TrainingRun(1, "cpu", states or tmp_path / "no", state_interval=None if states is None else 0.0)
        recipe = variant_recipe(**{"compute": compute, "epochs": 20, "batch": 2} | changes)
        result = finetune(model, processor, recipe, *rows, run)
        texts = [caption.text for caption in greedy_captions(model, processor, pictures, PROMPT, 16, 4)]
        return Outcome(trainable_weights(model), result.validation_loss, result, texts)

    return run


@BOTH
def test_fine_tuning_in_float16_comes_to_the_loss_of_float32(
    tune: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    halves, singles = tune("float16"), tune("float32")
    first = singles.result.records[0]["validation_loss"]
    scorer = make_scorers({id_: [text] for id_, text in zip(IDS, OTHERS, strict=True)}).validation
    ciders = [100 * scorer.scores(IDS, tokenize(outcome.texts)).mean() for outcome in (halves, singles)]
    assert singles.score < 0.3 * first and ciders[1] > 500, "the model learns"
    assert halves.score == pytest.approx(singles.score, abs=0.03 * first)
    assert ciders[0] == pytest.approx(ciders[1], abs=60)
    assert all(value.dtype == torch.float32 for value in halves.weights.values())
    skipped = halves.result.scaling["skipped_steps"]
    assert halves.result.scaling["loss_scale"] == 2.0 ** (16 - skipped) and not singles.result.scaling
    assert skipped <= 3, "Gemma 2's gradients need a smaller scale than the first"
    assert capsys.readouterr().err.count(f"{skipped} of 40 steps skipped") == 1


def test_scst_in_float16_comes_to_the_score_of_float32(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]], tmp_path: Path
) -> None:
    """Samples differ by rounding; both must come to the rewarded captions, which the start does not give."""
    scores = {}
    for compute in ("float16", "float32"):
        model = adapted(targets="all-linear", compute=compute)
        freeze_encoder(model)
        features = encode_in_memory(model.get_base_model(), processor, pictures)
        assert features.dtype == getattr(torch, compute)
        images, scorers = EncodedImages(IDS, features), make_scorers(second_captions(captions))
        seed_everything(0, 1)
        run, recipe = TrainingRun(0, "cpu", tmp_path / compute), scst_recipe(compute=compute)
        result = refine(model, processor, recipe, images, images, scorers, run)
        scores[compute] = result.best["validation_cider"], result.start["validation_cider"]
        assert result.scaling.get("skipped_steps", 0) == 0
        assert all(value.dtype == torch.float32 for value in trainable_weights(model).values())
    assert scores["float16"][1] == pytest.approx(scores["float32"][1], abs=0.5)
    assert min(best - start for best, start in scores.values()) > 100
    assert scores["float16"][0] == pytest.approx(scores["float32"][0], rel=0.2)


def gradients(model: Any, batch: dict[str, Any], scale: float) -> Tensor:
    """Return the gradients of the trainable weights, divided by `scale` again, as one vector."""
    inputs = batch | {"pixel_values": batch["pixel_values"].to(unwrap_adapter(model).dtype)}
    (supervised_loss(unwrap_adapter(model), inputs) * scale).backward()
    vectors = [value.grad.flatten() / scale for value in model.parameters() if value.requires_grad]
    model.zero_grad()
    return torch.cat(vectors)


def test_a_scale_keeps_the_small_gradients(adapted: Callable[..., Any], batch: dict[str, Any]) -> None:
    """A loss of a thousandth stands for a model that has learnt its captions: without a scale, much of it vanishes."""
    expected = gradients(adapted(strength=0.05), batch, 1e-3)
    model = adapted(strength=0.05, compute="float16")
    errors = {
        scale: float((gradients(model, batch, scale) - expected).norm() / expected.norm()) for scale in (1e-3, 64)
    }
    assert errors[64] < 0.02 < errors[1e-3]


@pytest.fixture
def high_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "INITIAL_SCALE", 2.0**36)


def test_a_step_that_overflows_changes_nothing_and_is_counted(
    high_scale: None, tune: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, skips, original = list[list[Tensor]](), list[bool](), LossScaling.unscale_or_skip

    def observe(self: LossScaling, optimizer: Any, step: int) -> None:
        before = self.skipped
        weights.append([weight.detach().clone() for weight in optimizer.param_groups[0]["params"]])
        original(self, optimizer, step)
        skips.append(self.skipped > before)

    monkeypatch.setattr(LossScaling, "unscale_or_skip", observe)
    first, again = tune("float16"), tune("float16")
    skipped = first.result.scaling["skipped_steps"]
    assert 5 < skipped < 30 and first.result.scaling["loss_scale"] == 2.0 ** (36 - skipped)
    assert skips[:40] == skips[40:] and sum(skips[:40]) == skipped and all(skips[:6])
    for step in range(39):
        pairs = zip(weights[step], weights[step + 1], strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == skips[step], step
    assert f"{skipped} of 40 steps skipped; their gradients overflowed in float16" in capsys.readouterr().err
    assert first.result == again.result
    assert all(torch.equal(value, again.weights[name]) for name, value in first.weights.items())
    assert first.score < first.result.records[0]["validation_loss"]


def test_a_killed_training_continues_with_its_scale(
    high_scale: None, tune: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed among the steps that overflow, and again after them."""
    undisturbed, original, count, fatal = tune("float16"), SharedTrainer.training_step, 0, (4, 30)

    def step(self: Any, *arguments: Any, **options: Any) -> Tensor:
        nonlocal count
        count += 1
        if count in fatal:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(SharedTrainer, "training_step", step)
    for _ in fatal:
        with pytest.raises(KeyboardInterrupt):
            tune("float16", tmp_path / "states")
    outcome = tune("float16", tmp_path / "states")
    assert count == 40 + len(fatal), "each run goes on from the step that was interrupted"
    assert outcome.result == undisturbed.result
    assert all(torch.equal(value, outcome.weights[name]) for name, value in undisturbed.weights.items())


def test_gradients_that_overflow_without_a_scale_end_the_training() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, loss_scaling = torch.optim.SGD([weight], 0.1), LossScaling(CPU)
    for skipped in range(1, 18):  # 2**16 to 1
        loss_scaling.scaler.scale(weight.sum()).backward()
        weight.grad = torch.tensor([1.0, torch.inf])
        if skipped < 17:
            loss_scaling.unscale_or_skip(optimizer, skipped)
            assert weight.grad is None and loss_scaling.skipped == skipped
    with pytest.raises(UserError, match="the gradients of step 17 overflow in float16, whatever the loss scale; set "):
        loss_scaling.unscale_or_skip(optimizer, 17)


@pytest.mark.parametrize("part", ["embedding", "scores", "mlp", "vision"])
@pytest.mark.parametrize("dequantise", [True, False])
def test_a_product_that_overflows_is_refused_in_one_line(
    part: str, dequantise: bool, checkpoint: Path, processor: Any, pictures: list[bytes], batch: dict[str, Any]
) -> None:
    """In captioning and in training, wherever the overflow is; the same model computes in float32."""
    for compute in ("float16", "float32"):
        model: Any = load_frozen(checkpoint, compute, "cpu", dequantise)
        amplify(model, part)
        inputs = batch | {"pixel_values": batch["pixel_values"].to(model.dtype)}
        works = (
            lambda model=model: list(greedy_captions(model, processor, pictures, PROMPT, 4, 4)),
            lambda model=model, inputs=inputs: supervised_loss(model, inputs),
        )
        for work in works:
            if compute == "float32":
                work()
                continue
            with pytest.raises(
                UserError, match=r"^a product of the model overflows float16; set the profile's [^\n]+$"
            ):
                work()


def amplify(model: Any, part: str) -> None:
    """Let a product of the model exceed 65,504."""
    layer, tower = model.model.language_model.layers[0], model.model.vision_tower
    module = {
        "embedding": model.model.language_model.embed_tokens,
        "scores": layer.self_attn.q_proj,
        "mlp": layer.mlp.up_proj,
        "vision": next(module for name, module in tower.named_modules() if name.endswith("layers.0.mlp.fc1")),
    }[part]
    module.register_forward_hook(lambda *call: call[2] * 1e8)
