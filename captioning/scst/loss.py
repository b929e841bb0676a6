"""The policy gradient of a caption's reward: the advantage of each caption, and its probability under the policy.

Sources: Rennie et al. 2017 (arXiv:1612.00563), section 3; Luo 2020 (arXiv:2003.09971) for the leave-one-out baseline;
Ahmadian et al. 2024 (arXiv:2402.14740) for the KL penalty within the reward.

With the penalty b * KL(policy || start), the objective is E[r - b log policy / start]. Its exact gradient is that of
the reward r - b log policy(caption) / start(caption): the penalty is part of the reward and needs no estimator.
Under top-k or top-p, a caption outside the start's support counts as just within it; else the penalty is infinite.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning.paligemma.model import head_logits
from captioning.scst.packing import Prefix, caption_states
from captioning.scst.sampling import Sampling


def advantages(
    rewards: Float[np.ndarray, "images samples"], greedy_rewards: Float[np.ndarray, " images"] | None
) -> Float[np.ndarray, "images samples"]:
    """Subtract the baseline: the greedy caption's reward or, without one, the mean reward of the other samples.

    Without a greedy caption, equal rewards of an image give exactly 0, and params.yaml must ask for two samples or
    more. `rewards` have the KL penalty, `greedy_rewards` have not.
    """
    if greedy_rewards is not None:
        return rewards - greedy_rewards[:, None]
    others = (rewards.sum(axis=1, keepdims=True) - rewards) / (rewards.shape[1] - 1)
    return np.where(np.ptp(rewards, axis=1, keepdims=True) == 0, 0.0, rewards - others)


def caption_log_probabilities(
    model: Any, prefix: Prefix, captions: Int[Tensor, "images captions tokens"], sampling: Sampling, pad: int
) -> Float[Tensor, "images captions"]:
    """Return the log-probability of each caption, including its `<eos>`, under the distribution it was drawn from. The
    head, 257,216 words wide at 3B, runs on tokens of captions only."""
    is_token = captions != pad
    logits = head_logits(model, caption_states(model, prefix, captions, is_token)[is_token])
    tokens = sampling.log_probabilities(logits, captions[is_token])
    return torch.zeros(is_token.shape, device=tokens.device).masked_scatter(is_token, tokens).sum(dim=2)


def policy_loss(
    log_p: Float[Tensor, "images captions"], advantage: Float[np.ndarray, "images captions"]
) -> Float[Tensor, ""]:
    """Return the mean over captions of -A log p."""
    return -(torch.as_tensor(advantage, dtype=log_p.dtype, device=log_p.device) * log_p).mean()
