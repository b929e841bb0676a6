"""A `Trainer` whose rows are encoded images, and whose loss samples, rewards and weighs captions (scst/refine.py).

The loss is all that is ours: accumulation, clipping, schedule and the choice of the best step are the library's. What
is drawn for an image depends on seed, step and image alone, so several processes draw what one would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PaliGemmaProcessor

from captioning.adapters.lora import swap_weights, unwrap_adapter
from captioning.decoding import Caption, decode_suffixes, forbidden_tokens
from captioning.metrics.bootstrap import interval, resampled_means
from captioning.metrics.cider import CiderD
from captioning.metrics.ptb import tokenize
from captioning.paligemma.model import prompt_tokens
from captioning.params.recipe import ScstSettings
from captioning.runtime.progress import Stopwatch
from captioning.scst.features import collate
from captioning.scst.loss import advantages, caption_log_probabilities, policy_loss
from captioning.scst.packing import Prefix, prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling, uniform
from captioning.training.states import trainable_weights
from captioning.training.trainer import SharedTrainer, attention_kernel

STEP_COLUMNS = ("loss", "reward", "baseline", "advantage", "advantage_deviation", "length", "ended", "distinct", "kl")
VALIDATION_COLUMNS = ("validation_cider", "validation_length", "validation_ended", "gain", "gain_low", "gain_high")
PARTS = ("prefill", "decode", "reward", "update")  # of a step's seconds


class SCSTTrainer(SharedTrainer):
    """A `SharedTrainer` whose rows are encoded images, and whose loss samples, rewards and weighs captions."""

    def __init__(
        self,
        *arguments: Any,
        processor: PaliGemmaProcessor,
        settings: ScstSettings,
        reward: CiderD,
        plain: CiderD,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, data_collator=collate, **options)
        self.processor, self.settings, self.reward, self.plain = processor, settings, reward, plain
        cuts = settings.temperature, settings.top_k, settings.top_p
        self.sampling = Sampling(tuple(forbidden_tokens(processor)), *cuts)
        self.prompt = prompt_tokens(processor, settings.prompt).to(self.args.device)
        self.start_weights = trainable_weights(self.model) if settings.kl else {}
        self.stopwatch = Stopwatch(torch.cuda.synchronize if self.args.device.type == "cuda" else lambda: None)
        self.seconds: list[dict[str, float]] = []
        self.start_scores: Float[np.ndarray, " images"] | None = None
        self.drawn: list[list[Sample]] = []

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The start adapter's scores, with which gains are reckoned, and the seconds so far."""
        scores = {} if self.start_scores is None else {"start_scores": torch.from_numpy(self.start_scores)}
        return scores, {"seconds": self.seconds}

    def load_extra_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.start_scores, self.seconds = tensors["start_scores"].numpy(), list(values["seconds"])

    def training_step(self, *arguments: Any, **options: Any) -> Tensor:
        """Forward and backward of one batch, timed by part; what is not prefill, decode or reward is the update."""
        self.drawn = []
        with self.stopwatch("step"):
            loss = super().training_step(*arguments, **options)
        lap = self.stopwatch.lap()
        lap["update"] = lap.pop("step") - sum(lap.values())
        self.seconds.append(lap)
        drawn = [Sample(*one) for of_image in self.processes.gather_in_order(self.drawn) for one in of_image]
        self.log(step_summary(loss.item(), drawn))
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's share of the step's mean; what was drawn is left in `drawn`, a list an image."""
        policy, greedy = unwrap_adapter(model).eval(), self.settings.baseline == "greedy"
        drawn = slice(int(greedy), None)  # of an image's captions, the greedy one stands first
        with self.stopwatch("prefill"), attention_kernel(self.args.device):
            prefix = prefill(policy, self.prompt, inputs["features"])
        with self.stopwatch("decode"):
            tokens = self._decode(policy, prefix, self.settings.samples, greedy, self._points(inputs["id"]))
        with self.stopwatch("reward"):
            captions = [decode_suffixes(self.processor, of_image) for of_image in tokens]
            rewards = self._rewards(inputs["id"], captions)
        with attention_kernel(self.args.device):
            log_p = self._log_probabilities(policy, prefix, tokens[:, drawn])
        kl = self._log_ratio(model, inputs["features"], tokens[:, drawn], log_p)
        penalised = rewards[:, drawn] - self.settings.kl * (0.0 if kl is None else kl)
        advantage = advantages(penalised, rewards[:, 0] if greedy else None)
        loss = policy_loss(log_p, advantage)
        if num_items_in_batch is not None:
            loss = loss * (len(inputs["id"]) / num_items_in_batch)
        self.drawn = samples([of[drawn] for of in captions], rewards[:, drawn], penalised - advantage, advantage, kl)
        return (loss, {}) if return_outputs else loss

    def _points(self, ids: Sequence[str]) -> Float[Tensor, "images samples tokens"]:
        seed, step = self.args.seed, self.state.global_step
        shape = self.settings.samples, self.settings.maximum_tokens
        return torch.stack([uniform(seed, step, id_, *shape) for id_ in ids]).to(self.args.device)

    def _decode(
        self, policy: Any, prefix: Prefix, samples: int, greedy: bool, points: Tensor | None = None
    ) -> Int[Tensor, "images captions tokens"]:
        tokenizer, limit = self.processor.tokenizer, self.settings.maximum_tokens
        ends = {"eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
        return rollout(policy, prefix, self.sampling, samples, greedy, limit, **ends, points=points)

    def _rewards(
        self, ids: Sequence[str], captions: Sequence[Sequence[Caption]]
    ) -> Float[np.ndarray, "images captions"]:
        said = [(id_, caption) for id_, of_image in zip(ids, captions, strict=True) for caption in of_image]
        tokens = tokenize([caption.text for _, caption in said])
        scores = self.reward.scores([id_ for id_, _ in said], tokens, [caption.ended for _, caption in said])
        return scores.reshape(len(ids), -1)

    def _log_probabilities(self, policy: Any, prefix: Prefix, tokens: Tensor) -> Float[Tensor, "images captions"]:
        return caption_log_probabilities(policy, prefix, tokens, self.sampling, self.processor.tokenizer.pad_token_id)

    def _log_ratio(self, model: Any, features: Tensor, tokens: Tensor, log_p: Tensor) -> np.ndarray | None:
        """log policy(caption) / start(caption), whose mean estimates the divergence; None where it is not wanted."""
        if not self.start_weights:
            return None
        policy = unwrap_adapter(model)
        with torch.no_grad(), attention_kernel(self.args.device), swap_weights(model, self.start_weights):
            start = self._log_probabilities(policy, prefill(policy, self.prompt, features), tokens)
        return (log_p.detach() - start).double().cpu().numpy()

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Greedy CIDEr-D ×100 on the validation images, document frequencies of the training split, no `<eos>`."""
        rows: Any = self.eval_dataset

        def of_batch(batch: range) -> list[tuple[Any, ...]]:
            return self._greedy(torch.stack([rows[place]["features"] for place in batch]))

        mine = self.cached_map("validation", self.eval_batches(), of_batch)
        captions = [Caption(*one) for batch in self.processes.gather_in_order(mine) for one in batch]
        scores = 100 * self.plain.scores(rows.ids, tokenize([caption.text for caption in captions]))
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

    def _greedy(self, features: Tensor) -> list[tuple[Any, ...]]:
        policy = unwrap_adapter(self.model).eval()
        with torch.no_grad():
            prefix = prefill(policy, self.prompt, features.to(self.args.device))
        tokens = self._decode(policy, prefix, samples=0, greedy=True)[:, 0]
        return [astuple(caption) for caption in decode_suffixes(self.processor, tokens)]


class Sample(NamedTuple):
    """What one drawn caption came to; rewards from 0 to 10, KL in nats."""

    reward: float
    baseline: float
    advantage: float
    words: int
    ended: bool
    text: str
    kl: float | None


def samples(
    captions: Sequence[Sequence[Caption]],
    rewards: Float[np.ndarray, "images samples"],
    baseline: Float[np.ndarray, "images samples"],
    advantage: Float[np.ndarray, "images samples"],
    kl: Float[np.ndarray, "images samples"] | None,
) -> list[list[Sample]]:
    """The samples of each image."""
    ratio = np.full(rewards.shape, None) if kl is None else kl
    columns = zip(captions, *(of.tolist() for of in (rewards, baseline, advantage, ratio)), strict=True)
    return [
        [
            Sample(reward, base, gained, len(caption.text.split()), caption.ended, caption.text, log_ratio)
            for caption, reward, base, gained, log_ratio in zip(*of_image, strict=True)
        ]
        for of_image in columns
    ]


def step_summary(loss: float, drawn: Sequence[Sample]) -> dict[str, float]:
    """A step's record: rewards and baseline from 0 to 10, length in words, `ended` and `distinct` shares, KL in
    nats."""
    rewards, baseline, advantage, words, ended, texts, kl = zip(*drawn, strict=True)
    return {
        "loss": loss,
        "reward": float(np.mean(rewards)),
        "baseline": float(np.mean(baseline)),
        "advantage": float(np.mean(advantage)),
        "advantage_deviation": float(np.std(advantage)),
        "length": float(np.mean(words)),
        "ended": float(np.mean(ended)),
        "distinct": len(set(texts)) / len(texts),
    } | ({} if None in kl else {"kl": float(np.mean(kl))})
