"""Self-critical sequence training: the policy gradient of CIDEr-D against the model's own baseline.

Source: Rennie et al. 2017 (arXiv:1612.00563); the paper, IV.B. For each image N captions are drawn from the model,
rewarded with CIDEr-D against the image's references, and the loss is the mean over captions of -A log p(caption), A =
reward - baseline.

Deliberate differences from the paper, each a parameter or a reason:

1. N sampled captions an image, not one; the baseline is the greedy caption's reward (paper) or the mean reward of the
   image's other samples (`leave-one-out`; Luo 2020, arXiv:2003.09971), which needs no greedy decoding.
2. `<eos>` is a token of the reward where a caption really ended; without it captions learn to stop in mid-phrase.
3. Document frequencies come from the training split, once: on a batch alone CIDEr's are meaningless.
4. Dropout is off: captions are scored under the very distribution they were drawn from (scst/sampling.py).
5. The learning rate is that of an adapter that adds B A, as mix's does; another start's is divided by its own factor
   (params/recipes.py). Without that rank-stabilised adapters took steps eight times as large, and collapsed.
6. The encoder is frozen and each image encoded once for the whole run; its prompt is run once a step, for the greedy
   caption, the samples and the update together (scst/packing.py).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PaliGemmaProcessor, TrainingArguments

from captioning.metrics.cider import CiderD
from captioning.params.recipe import ScstRecipe
from captioning.scst.features import EncodedImages
from captioning.scst.trainer import STEP_COLUMNS, VALIDATION_COLUMNS, SCSTTrainer
from captioning.training.run import TrainingRun
from captioning.training.trainer import OPTIMIZERS, step_records, training_arguments

COLUMNS = ("step", *STEP_COLUMNS, *VALIDATION_COLUMNS)


@dataclass(frozen=True)
class Refinement:
    """What SCST leaves beside its adapter; CIDEr-D is ×100, without `<eos>`, on the validation images."""

    records: list[dict[str, Any]]  # columns COLUMNS
    seconds: list[dict[str, float]]  # of each step, by PARTS: never part of an output that is compared
    start: dict[str, Any]  # the record of the start adapter's validation
    best: dict[str, Any]  # of the step whose adapter was kept


class Scorers(NamedTuple):
    """CIDEr-D of samples, with `<eos>`, and of validation captions, without."""

    reward: CiderD
    validation: CiderD


def refine(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    recipe: ScstRecipe,
    train: EncodedImages,
    validation: EncodedImages,
    scorers: Scorers,
    run: TrainingRun,
) -> Refinement:
    """Refine the adapter of `model` in place, and leave it at its best step by validation CIDEr-D."""
    trainer = SCSTTrainer(
        model=model,
        args=scst_arguments(recipe, run),
        train_dataset=train,
        eval_dataset=validation,
        processor=processor,
        settings=recipe.scst,
        reward=scorers.reward,
        plain=scorers.validation,
        processes=run.processes,
        states=run.states(),
    )
    trainer.train()
    records = step_records(trainer.state.log_history, COLUMNS)
    validated = [record for record in records if "validation_cider" in record]
    best = max(validated[1:] or validated, key=lambda record: record["validation_cider"])
    return Refinement(records, trainer.seconds, validated[0], best)


def summarise(done: Refinement, images: int, maximum_tokens: int) -> dict[str, Any]:
    """The gain in numbers: start and best step on the validation images, in points and, with its 95 % interval, in
    percent of the start (None where that is 0), and how they were scored."""
    start = done.start["validation_cider"]
    percent = {name: 100 * done.best[name] / start if start else None for name in ("gain", "gain_low", "gain_high")}
    told = {
        "best_step": done.best["step"],
        "start_validation_cider": start,
        "validation_cider": done.best["validation_cider"],
    } | {name.replace("gain", "gain_percent"): value for name, value in percent.items()}
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in told.items()}
    protocol = f"CIDEr-D|PTB|refs:all|df:train|greedy|max_tokens:{maximum_tokens}|split:validation|n:{images}"
    return rounded | {"signature": protocol}


def scst_arguments(recipe: ScstRecipe, run: TrainingRun) -> TrainingArguments:
    """Return the Trainer's arguments from the recipe."""
    settings = recipe.scst
    return training_arguments(
        run,
        optim=OPTIMIZERS[recipe.machine.optimizer],
        per_device_train_batch_size=settings.batch // run.processes.count,
        per_device_eval_batch_size=recipe.machine.decoding_batch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.gradient_clip,
        lr_scheduler_type=settings.scheduler,
        logging_strategy="no",
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=settings.validate_every,
        metric_for_best_model="eval_cider",
        greater_is_better=True,
    )
