"""The policy gradient of a caption's reward: advantage, log-probability, and the batch both are taken on.

Sources: Rennie et al. 2017 (arXiv:1612.00563), section 3; Luo 2020 (arXiv:2003.09971) for the leave-one-out baseline.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from captioning.paligemma import IGNORED, hidden_states, suffix_logits


def advantages(
    rewards: Float[np.ndarray, "images samples"], greedy: Float[np.ndarray, " images"] | None
) -> Float[np.ndarray, "images samples"]:
    """Reward minus baseline: the greedy caption's reward, or the mean of the other samples where there is none."""
    if greedy is not None:
        return rewards - greedy[:, None]
    others = (rewards.sum(axis=1, keepdims=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def caption_log_probabilities(
    model: Any, batch: dict[str, Any], barred: Sequence[int], temperature: float
) -> Float[Tensor, " rows"]:
    """Log-probability of each row's labelled tokens under the distribution they were drawn from."""
    logits, targets, labelled = suffix_logits(model, hidden_states(model, batch), batch["labels"])
    logits = logits / temperature
    logits[:, list(barred)] = -torch.inf
    chosen = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]
    return torch.zeros(labelled.shape, device=chosen.device).masked_scatter(labelled, chosen).sum(dim=1)


def with_suffix(
    prompt: dict[str, Tensor], suffixes: Int[Tensor, "rows tokens"], pad: int, features: Tensor
) -> dict[str, Any]:
    """The training batch of prompts and sampled suffixes: suffix tokens are labels, padding is neither seen nor
    learnt."""
    real = (suffixes != pad).long()
    return {
        "input_ids": torch.cat([prompt["input_ids"], suffixes], dim=1),
        "attention_mask": torch.cat([prompt["attention_mask"], real], dim=1),
        "token_type_ids": torch.cat([prompt["token_type_ids"], real], dim=1),
        "labels": torch.cat(
            [torch.full_like(prompt["input_ids"], IGNORED), suffixes.masked_fill(real == 0, IGNORED)], dim=1
        ),
        "features": BaseModelOutputWithPooling(pooler_output=features),
    }
