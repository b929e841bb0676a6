"""Self-critical sequence training: the policy gradient of CIDEr-D against the model's own baseline.

Source: Rennie et al. 2017 (arXiv:1612.00563); the paper, IV.B. For each image N captions are drawn from the model,
rewarded with CIDEr-D against the image's references, and the loss is the mean over captions of -A log p(caption), A =
reward - baseline.

Deliberate differences from the paper, each a parameter or a reason:

1. N sampled captions an image, not one; the baseline is the greedy caption's reward (paper) or the mean reward of the
   image's other samples (`leave-one-out`; Luo 2020, arXiv:2003.09971), which needs no greedy decoding.
2. `<eos>` is a token of the reward where a caption really ended; without it captions learn to stop in mid-phrase.
3. Document frequencies come from the training split, once: on a batch alone CIDEr's are meaningless.
4. Tokens no caption may hold are barred in sampling and in the log-probability alike.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor, Trainer, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPooling

from captioning.cider import CiderD
from captioning.decoding import barred_tokens, generate, greedy_captions, read
from captioning.paligemma import image_features, prompt_inputs
from captioning.policy_gradient import advantages, caption_log_probabilities, with_suffix
from captioning.ptb import tokenize
from captioning.training import base_model, training_arguments

COLUMNS = ("step", "loss", "reward", "baseline", "advantage", "length", "ended", "distinct", "validation_cider")


@dataclass(frozen=True)
class Images(Dataset):
    """Images by id, as the Trainer's rows."""

    ids: Sequence[str]
    images: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": self.ids[index], "image": self.images[index]}


@dataclass(frozen=True)
class Refined:
    """What SCST leaves beside its adapter; CIDEr-D is ×100, without `<eos>`, on the validation images."""

    records: list[dict[str, Any]]  # columns COLUMNS
    best_step: int
    validation_cider: float
    start_validation_cider: float


class SCSTTrainer(Trainer):
    """A `Trainer` whose batches are images, and whose loss samples, rewards and weighs captions."""

    def __init__(
        self,
        *arguments: Any,
        processor: PaliGemmaProcessor,
        recipe: dict[str, Any],
        reward: CiderD,
        plain: CiderD,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.processor, self.recipe, self.reward, self.plain = processor, recipe, reward, plain
        self.barred = barred_tokens(processor)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        base, samples = base_model(model), self.recipe["samples"]
        prompt, features = self._encode(base, inputs["image"])
        many = {key: value.repeat_interleave(samples, dim=0) for key, value in prompt.items()}
        many_features = features.repeat_interleave(samples, dim=0)
        suffixes = self._decode(
            base, many, many_features, do_sample=True, temperature=self.recipe["temperature"], top_k=0
        )
        captions = read(self.processor, suffixes)
        ids = inputs["id"]
        rewards = self._rewards([id_ for id_ in ids for _ in range(samples)], captions).reshape(-1, samples)
        greedy = None
        if self.recipe["baseline"] == "greedy":
            greedy = self._rewards(ids, read(self.processor, self._decode(base, prompt, features)))
        advantage = advantages(rewards, greedy)
        batch = with_suffix(many, suffixes, self.processor.tokenizer.pad_token_id, many_features)
        log_p = caption_log_probabilities(base, batch, self.barred, self.recipe["temperature"])
        loss = -(torch.as_tensor(advantage.ravel(), dtype=log_p.dtype, device=log_p.device) * log_p).mean()
        self._record(loss, rewards, rewards - advantage, captions)
        return (loss, {}) if return_outputs else loss

    def _encode(self, model: Any, images: Sequence[bytes]) -> tuple[dict[str, Tensor], Tensor]:
        prompt = {
            k: v.to(model.device) for k, v in prompt_inputs(self.processor, images, self.recipe["prompt"]).items()
        }
        with torch.no_grad():
            features = image_features(model, prompt.pop("pixel_values")).pooler_output
        return prompt, features

    def _decode(self, model: Any, prompt: dict[str, Tensor], features: Tensor, **sampling: Any) -> Tensor:
        training = model.training
        model.eval()  # no dropout in what is sampled
        inputs = prompt | {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}}
        suffixes = generate(model, self.processor, inputs, self.recipe["maximum_tokens"], **sampling)
        model.train(training)
        return suffixes

    def _rewards(self, ids: Sequence[str], captions: Sequence[Any]) -> Float[np.ndarray, " captions"]:
        tokens = tokenize([caption.text for caption in captions])
        return self.reward.scores(ids, tokens, [caption.ended for caption in captions])

    def _record(self, loss: Tensor, rewards: Any, baseline: Any, captions: Sequence[Any]) -> None:
        self.log(
            {
                "loss": loss.item(),
                "reward": float(rewards.mean()),
                "baseline": float(baseline.mean()),
                "advantage": float((rewards - baseline).mean()),
                "length": float(np.mean([len(caption.text.split()) for caption in captions])),
                "ended": float(np.mean([caption.ended for caption in captions])),
                "distinct": len({caption.text for caption in captions}) / len(captions),
            }
        )

    def evaluate(self, eval_dataset: Any = None, *_: Any, **__: Any) -> dict[str, float]:
        """Greedy CIDEr-D ×100 on the validation images, document frequencies of the training split, no `<eos>`."""
        rows: Any = self.eval_dataset
        model = base_model(self.model)
        captions = list(
            greedy_captions(
                model,
                self.processor,
                rows.images,
                self.recipe["prompt"],
                self.recipe["maximum_tokens"],
                self.args.per_device_eval_batch_size,
            )
        )
        scores = self.plain.scores(rows.ids, tokenize([caption.text for caption in captions]))
        metrics = {
            "eval_cider": 100 * float(np.mean(scores)),
            "eval_length": float(np.mean([len(caption.text.split()) for caption in captions])),
        }
        self.log(metrics)
        # tells the Trainer that this step is validated, so that it is not again at the end
        control: Any = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics


def refine(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    recipe: dict[str, Any],
    train: Images,
    validation: Images,
    reward: CiderD,
    plain: CiderD,
    seed: int,
    device: str,
    decoding_batch: int,
    scratch: Path,
) -> Refined:
    """Refine the adapter of `model` in place, and leave it at its best step by validation CIDEr-D.

    `reward` scores samples (with `<eos>`), `plain` validates (without). `scratch` is removed at the end.
    """
    trainer = SCSTTrainer(
        model=model,
        args=_arguments(recipe, seed, device, decoding_batch, scratch),
        train_dataset=train,
        eval_dataset=validation,
        processor=processor,
        recipe=recipe,
        reward=reward,
        plain=plain,
        data_collator=lambda rows: {key: [row[key] for row in rows] for key in rows[0]},
    )
    trainer.train()
    shutil.rmtree(scratch, ignore_errors=True)
    records = step_records(trainer.state.log_history)
    validated = [record for record in records if record.get("validation_cider") is not None]
    best = max(validated[1:] or validated, key=lambda record: record["validation_cider"])
    return Refined(records, best["step"], best["validation_cider"], validated[0]["validation_cider"])


def _arguments(recipe: dict[str, Any], seed: int, device: str, decoding_batch: int, scratch: Path) -> TrainingArguments:
    return training_arguments(
        scratch,
        seed,
        device,
        per_device_train_batch_size=recipe["batch"],
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
        save_strategy="steps",
        save_steps=recipe["validate_every"],
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_cider",
        greater_is_better=True,
    )


def step_records(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Trainer's log as step records; validation ones carry `validation_cider` alone."""
    names = {"eval_cider": "validation_cider"}
    return [
        {names.get(key, key): value for key, value in entry.items() if names.get(key, key) in COLUMNS}
        for entry in history
        if "reward" in entry or "eval_cider" in entry
    ]
