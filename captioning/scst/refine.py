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
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PaliGemmaProcessor, TrainingArguments

from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.metrics.cider import CiderD
from captioning.runtime.resume import states
from captioning.scst.features import EncodedImages
from captioning.scst.trainer import STEP, VALIDATION, SCSTTrainer
from captioning.training.trainer import OPTIMIZERS, step_records, training_arguments

COLUMNS = ("step", *STEP, *VALIDATION)


@dataclass(frozen=True)
class Refined:
    """What SCST leaves beside its adapter; CIDEr-D is ×100, without `<eos>`, on the validation images."""

    records: list[dict[str, Any]]  # columns COLUMNS
    seconds: list[dict[str, float]]  # of each step, by PARTS: never part of an output that is compared
    start: dict[str, Any]  # the record of the start adapter's validation
    best: dict[str, Any]  # of the step whose adapter was kept


def refine(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    recipe: dict[str, Any],
    train: EncodedImages,
    validation: EncodedImages,
    reward: CiderD,
    plain: CiderD,
    arguments: TrainingArguments,
    processes: Processes = SINGLE_PROCESS,
    every: float | None = None,
) -> Refined:
    """Refine the adapter of `model` in place, and leave it at its best step by validation CIDEr-D.

    `reward` scores samples (with `<eos>`), `plain` validates (without). The folder of `arguments` holds states, `every`
    so many seconds, from which a run that was killed goes on.
    """
    trainer = SCSTTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processor=processor,
        recipe=recipe,
        reward=reward,
        plain=plain,
        processes=processes,
        states=states(Path(str(arguments.output_dir)), every),
    )
    trainer.train()
    records = step_records(trainer.state.log_history, COLUMNS)
    validated = [record for record in records if "validation_cider" in record]
    best = max(validated[1:] or validated, key=lambda record: record["validation_cider"])
    return Refined(records, trainer.seconds, validated[0], best)


def summary(done: Refined, images: int, maximum_tokens: int) -> dict[str, Any]:
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


def scst_arguments(
    recipe: dict[str, Any], seed: int, device: str, decoding_batch: int, scratch: Path, processes: int = 1,
    optimizer: str = "adamw", **reporting: Any,
) -> TrainingArguments:  # fmt: skip
    """The Trainer's arguments from the recipe's `scst` section; `scratch` holds its states, `reporting` is of
    `tracking.tracked`."""
    return training_arguments(
        scratch,
        seed,
        device,
        optim=OPTIMIZERS[optimizer],
        per_device_train_batch_size=recipe["batch"] // processes,
        per_device_eval_batch_size=decoding_batch,
        num_train_epochs=recipe["epochs"],
        learning_rate=recipe["learning_rate"],
        weight_decay=recipe["weight_decay"],
        max_grad_norm=recipe["gradient_clip"],
        lr_scheduler_type=recipe["scheduler"],
        logging_strategy="no",
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=recipe["validate_every"],
        metric_for_best_model="eval_cider",
        greater_is_better=True,
        **reporting,
    )
