"""Self-critical sequence training: the policy gradient of CIDEr-D against the model's own baseline.

Source: Rennie et al. 2017 (arXiv:1612.00563); the paper, IV.B. For each image, N captions are sampled from the model
and rewarded with CIDEr-D against the image's references; the loss is the mean over captions of -A log p(caption), with
A = reward - baseline. Deliberate differences from the paper:

1. N samples per image, not one. The baseline is the greedy caption's reward (paper) or the mean reward of the image's
   other samples (`leave-one-out`; Luo 2020, arXiv:2003.09971), which needs no greedy decoding.
2. `<eos>` counts as a token in the reward of a caption that ended; otherwise captions learn to stop inside a phrase.
3. Document frequencies come from the training split, once: those of a batch alone make CIDEr meaningless.
4. Dropout is off: captions are scored under the distribution that they were drawn from (scst/sampling.py).
5. The learning rate is divided by the factor of the start's B A (params/recipes.py). Otherwise steps of rank-stabilised
   adapters are eight times as large, and these collapse.
6. The encoder is frozen, and each image is encoded once per run. A step runs its prompt once, for the greedy caption,
   the samples and the update together (scst/packing.py).
"""

from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from transformers import PaliGemmaProcessor, TrainingArguments

from captioning.params.recipe import ScstRecipe
from captioning.scst.features import EncodedImages
from captioning.scst.scorers import Scorers
from captioning.scst.trainer import STEP_COLUMNS, VALIDATION_COLUMNS, SCSTTrainer
from captioning.training.run import TrainingRun
from captioning.training.trainer import OPTIMIZERS, micro_batches, step_records, training_arguments

COLUMNS = ("step", *STEP_COLUMNS, *VALIDATION_COLUMNS)


@dataclass(frozen=True)
class RefinementResult:
    """What SCST returns beside its adapter; validations have CIDEr-D ×100 without `<eos>`, rewards are from 0 to 10."""

    records: list[dict[str, Any]]  # columns COLUMNS
    seconds: list[dict[str, float]]  # of each step, by PARTS; they differ from run to run, so no output holds them
    start: dict[str, Any]  # record of the start adapter's validation
    best: dict[str, Any]  # record of the step whose adapter remains
    scaling: dict[str, Any] = field(default_factory=dict)  # of float16's losses (training/scaling.py)


def refine(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    recipe: ScstRecipe,
    train: EncodedImages,
    validation: EncodedImages,
    scorers: Scorers,
    run: TrainingRun,
) -> RefinementResult:
    """Refine the adapter of `model` in place, and leave it at its best step by validation CIDEr-D."""
    trainer = SCSTTrainer(
        model=model,
        args=scst_arguments(recipe, run),
        train_dataset=train,
        eval_dataset=validation,
        processor=processor,
        settings=recipe.scst,
        scorers=scorers,
        processes=run.processes,
        states=run.states(),
        rate_key="profiles.*.scst.learning_rate",
    )
    trainer.train()
    records = step_records(trainer.state.log_history, COLUMNS)
    validations = [record for record in records if "validation_cider" in record]
    best = max(validations[1:] or validations, key=lambda record: record["validation_cider"])
    return RefinementResult(records, trainer.seconds, validations[0], best, trainer.scaling_summary)


def summarise(result: RefinementResult, images: int, maximum_tokens: int) -> dict[str, Any]:
    """Return start and best step on the validation images, the gain with its 95 % interval, and how they were scored.
    The gain is in percent of the start; None if that is 0."""
    start, best = result.start["validation_cider"], result.best["validation_cider"]
    values = {"best_step": result.best["step"], "start_validation_cider": start, "validation_cider": best}
    for suffix in ("", "_low", "_high"):
        values[f"gain_percent{suffix}"] = 100 * result.best[f"gain{suffix}"] / start if start else None
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
    protocol = f"CIDEr-D|PTB|refs:all|df:train|greedy|max_tokens:{maximum_tokens}|split:validation|n:{images}"
    return rounded | result.scaling | {"signature": protocol}


def scst_arguments(recipe: ScstRecipe, run: TrainingRun) -> TrainingArguments:
    settings = recipe.scst
    return training_arguments(
        run,
        optim=OPTIMIZERS[recipe.machine.optimizer],
        **micro_batches(settings.batch, recipe.machine.chosen("scst_images"), run.processes),
        per_device_eval_batch_size=recipe.machine.chosen("decoding_batch"),
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
