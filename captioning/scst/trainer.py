"""A `Trainer` for SCST: its loss draws captions of encoded images, and weights them by their rewards (scst/refine.py).

The samples of an image depend on seed, step and image alone, so several processes draw the same captions as one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import default_collate
from transformers import PaliGemmaProcessor

from captioning.adapters.lora import swap_weights, unwrap_adapter
from captioning.decoding import Caption, decode_suffixes, suppressed_tokens
from captioning.metrics.bootstrap import interval, resampled_means
from captioning.metrics.ptb import tokenize
from captioning.paligemma.model import prompt_tokens
from captioning.params.recipe import ScstSettings
from captioning.runtime.progress import Stopwatch
from captioning.scst.loss import advantages, caption_log_probabilities, policy_loss
from captioning.scst.packing import Prefix, prefill
from captioning.scst.rollout import RecordedSteps, growing_cache, rollout
from captioning.scst.sampling import Sampling, uniform
from captioning.scst.scorers import Scorers
from captioning.training.states import trainable_weights
from captioning.training.trainer import SharedTrainer, attention_kernel

STEP_COLUMNS = ("loss", "reward", "baseline", "advantage", "advantage_deviation", "length", "ended", "distinct", "kl")
VALIDATION_COLUMNS = ("validation_cider", "validation_length", "validation_ended", "gain", "gain_low", "gain_high")
PARTS = ("prefill", "decode", "reward", "update")  # of a step's seconds


class SCSTTrainer(SharedTrainer):
    """A `SharedTrainer` whose loss is the policy gradient of captions that it samples from its own model."""

    def __init__(
        self, *arguments: Any, processor: PaliGemmaProcessor, settings: ScstSettings, scorers: Scorers, **options: Any
    ) -> None:
        super().__init__(*arguments, data_collator=default_collate, **options)
        self.processor, self.settings, self.scorers = processor, settings, scorers
        suppressed = tuple(suppressed_tokens(processor))
        self.sampling = Sampling(suppressed, settings.temperature, settings.top_k, settings.top_p)
        self.prompt = prompt_tokens(processor, settings.prompt).to(self.args.device)
        self.make_step = RecordedSteps() if self.args.device.type == "cuda" else growing_cache
        self.start_weights = trainable_weights(self.model) if settings.kl else {}
        self.stopwatch = Stopwatch(torch.cuda.synchronize if self.args.device.type == "cuda" else lambda: None)
        self.seconds: list[dict[str, float]] = []
        self.start_scores: Float[np.ndarray, " images"] | None = None
        self.samples: list[list[Sample]] = []  # of a step's micro-batches, by image
        self.losses: list[Tensor] = []  # of the same micro-batches

    def extra_state(self) -> dict[str, Any]:
        """Return the scores of the start adapter, from which gains are computed, and the seconds so far."""
        scores = None if self.start_scores is None else self.start_scores.tolist()
        return super().extra_state() | {"start_scores": scores, "seconds": self.seconds}

    def load_extra_state(self, values: Mapping[str, Any]) -> None:
        super().load_extra_state(values)
        self.start_scores, self.seconds = np.array(values["start_scores"]), list(values["seconds"])

    def training_step(self, *arguments: Any, **options: Any) -> Tensor:
        """Run a micro-batch forward and backward; after the last one of a step, record the step."""
        with self.stopwatch("step"):
            loss = super().training_step(*arguments, **options)
        self.losses.append(loss)
        if self.accelerator.sync_gradients:
            self._record_step()
        return loss

    def _record_step(self) -> None:
        """Log a step and the seconds of its parts; what is not prefill, decode or reward is the update."""
        seconds = self.stopwatch.lap()
        seconds["update"] = seconds.pop("step") - sum(seconds.values())
        self.seconds.append(seconds)
        images = self.processes.gather_in_order(self.samples)
        loss = sum(self.losses[1:], start=self.losses[0])
        self.log(step_summary(loss.item(), [Sample(*sample) for image in images for sample in image]))
        self.samples, self.losses = [], []

    def compute_loss(self, model: Any, inputs: Any, *_: Any, num_items_in_batch: Any = None) -> Tensor:
        """Return a micro-batch's share of the step's mean loss, and add its samples to `self.samples`."""
        policy, greedy = unwrap_adapter(model).eval(), self.settings.baseline == "greedy"
        sample_columns = slice(int(greedy), None)  # the greedy caption of an image comes first
        with self.stopwatch("prefill"), attention_kernel(self.args.device):
            prefix = prefill(policy, self.prompt, inputs["features"])
        with self.stopwatch("decode"):
            tokens = self._decode(policy, prefix, self._draw_uniforms(inputs["id"]), greedy)
        with self.stopwatch("reward"):
            captions = [decode_suffixes(self.processor, rows) for rows in tokens]
            rewards = self._rewards(inputs["id"], captions)
        with attention_kernel(self.args.device):
            log_p = self._log_probabilities(policy, prefix, tokens[:, sample_columns])
        log_ratios = self._log_ratios(model, inputs["features"], tokens[:, sample_columns], log_p)
        penalised = rewards[:, sample_columns] - self.settings.kl * (0.0 if log_ratios is None else log_ratios)
        advantage = advantages(penalised, rewards[:, 0] if greedy else None)
        loss = policy_loss(log_p, advantage)
        if num_items_in_batch is not None:
            loss = loss * (len(inputs["id"]) / num_items_in_batch)
        kl = np.full(advantage.shape, None) if log_ratios is None else log_ratios
        arrays = [array.tolist() for array in (rewards[:, sample_columns], penalised - advantage, advantage, kl)]
        self.samples += [
            [Sample(caption.text, caption.ended, *numbers) for caption, *numbers in zip(*image, strict=True)]
            for image in zip([image[sample_columns] for image in captions], *arrays, strict=True)
        ]
        return loss

    def _draw_uniforms(self, ids: Sequence[str]) -> Float[Tensor, "images samples tokens"]:
        seed, step = self.args.seed, self.state.global_step
        shape = self.settings.samples, self.settings.maximum_tokens
        return torch.stack([uniform(seed, step, id_, *shape) for id_ in ids]).to(self.args.device)

    def _decode(
        self, policy: Any, prefix: Prefix, uniforms: Tensor, greedy: bool
    ) -> Int[Tensor, "images captions tokens"]:
        eos_and_pad = self.processor.tokenizer.eos_token_id, self.processor.tokenizer.pad_token_id
        return rollout(policy, prefix, self.sampling, uniforms, greedy, eos_and_pad, self.make_step)

    def _rewards(
        self, ids: Sequence[str], captions: Sequence[Sequence[Caption]]
    ) -> Float[np.ndarray, "images captions"]:
        repeated = [id_ for id_, image in zip(ids, captions, strict=True) for _ in image]
        flat = [caption for image in captions for caption in image]
        tokens, ended = tokenize([caption.text for caption in flat]), [caption.ended for caption in flat]
        return self.scorers.reward.scores(repeated, tokens, ended).reshape(len(ids), -1)

    def _log_probabilities(self, policy: Any, prefix: Prefix, tokens: Tensor) -> Float[Tensor, "images captions"]:
        return caption_log_probabilities(policy, prefix, tokens, self.sampling, self.processor.tokenizer.pad_token_id)

    def _log_ratios(self, model: Any, features: Tensor, tokens: Tensor, log_p: Tensor) -> np.ndarray | None:
        """Return log policy(caption) / start(caption), whose mean estimates the KL; None without a penalty."""
        if not self.start_weights:
            return None
        policy = unwrap_adapter(model)
        with torch.no_grad(), attention_kernel(self.args.device), swap_weights(model, self.start_weights):
            start = self._log_probabilities(policy, prefill(policy, self.prompt, features), tokens)
        return (log_p.detach() - start).double().cpu().numpy()

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Compute CIDEr-D ×100 of greedy captions of the validation images, and its gain over the start adapter."""
        rows: Any = self.eval_dataset
        local = self.cached_map("validation", self.eval_batches(), self._caption_batch)
        batches = self.processes.gather_in_order(local)
        captions = [Caption(*fields) for batch in batches for fields in batch]
        scores = 100 * self.scorers.validation.scores(rows.ids, tokenize([caption.text for caption in captions]))
        if self.start_scores is None:
            self.start_scores = scores
        low, high = interval(resampled_means((scores - self.start_scores)[None], seed=0)[0])
        metrics = {
            "eval_cider": float(scores.mean()),
            "eval_length": float(np.mean([len(caption.text.split()) for caption in captions])),
            "eval_ended": float(np.mean([caption.ended for caption in captions])),
            "gain": float(np.mean(scores - self.start_scores)),
            "gain_low": low,
            "gain_high": high,
        }
        return self.report_validation(metrics)

    def _caption_batch(self, numbers: range) -> list[tuple[Any, ...]]:
        rows: Any = self.eval_dataset
        features = torch.stack([rows[number]["features"] for number in numbers])
        policy = unwrap_adapter(self.model).eval()
        with torch.no_grad():
            prefix = prefill(policy, self.prompt, features.to(self.args.device))
        no_samples = torch.empty(len(features), 0, self.settings.maximum_tokens, device=self.args.device)
        tokens = self._decode(policy, prefix, no_samples, greedy=True)[:, 0]
        return [astuple(caption) for caption in decode_suffixes(self.processor, tokens)]


class Sample(NamedTuple):
    """A sampled caption; rewards from 0 to 10, KL in nats."""

    text: str
    ended: bool
    reward: float
    baseline: float
    advantage: float
    kl: float | None


def step_summary(loss: float, samples: Sequence[Sample]) -> dict[str, float]:
    """Return a step's record: means in the units of `Sample`, length in words, `distinct` as a share of the texts."""
    texts, ended, rewards, baselines, advantage, kl = zip(*samples, strict=True)
    return {
        "loss": loss,
        "reward": float(np.mean(rewards)),
        "baseline": float(np.mean(baselines)),
        "advantage": float(np.mean(advantage)),
        "advantage_deviation": float(np.std(advantage)),
        "length": float(np.mean([len(text.split()) for text in texts])),
        "ended": float(np.mean(ended)),
        "distinct": len(set(texts)) / len(texts),
    } | ({} if None in kl else {"kl": float(np.mean(kl))})
