"""The policy gradient of a caption's reward: what each caption is worth, and how likely the policy is to say it.

Sources: Rennie et al. 2017 (arXiv:1612.00563), section 3; Luo 2020 (arXiv:2003.09971) for the leave-one-out baseline;
Ahmadian et al. 2024 (arXiv:2402.14740) for the KL penalty within the reward.

With b * KL(policy || start) as penalty, the objective is E[r - b log policy / start], whose exact gradient is that of
the reward r - b log policy(caption) / start(caption): the penalty is a part of the reward and needs no estimator.
Under top-k or top-p a caption outside the start's own support counts as just within it; else the penalty is infinite.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning.paligemma.model import head_logits
from captioning.scst.packing import Prefix, hidden_states
from captioning.scst.sampling import Sampling


def advantages(
    rewards: Float[np.ndarray, "images samples"], greedy: Float[np.ndarray, " images"] | None
) -> Float[np.ndarray, "images samples"]:
    """Reward minus baseline: the greedy caption's reward, or the mean of the other samples where there is none.

    Equal rewards of an image leave exactly nothing. Raises `ValueError` for the mean of no other sample.
    """
    if greedy is not None:
        return rewards - greedy[:, None]
    if rewards.shape[1] < 2:
        raise ValueError("leave-one-out needs two samples an image or more")
    others = (rewards.sum(axis=1, keepdims=True) - rewards) / (rewards.shape[1] - 1)
    return np.where(np.ptp(rewards, axis=1, keepdims=True) == 0, 0.0, rewards - others)


def caption_log_probabilities(
    model: Any, prefix: Prefix, captions: Int[Tensor, "images captions tokens"], sampling: Sampling, pad: int
) -> Float[Tensor, "images captions"]:
    """Log-probability of each caption under the distribution it was drawn from, `<eos>` counted where it was said.

    The head, 257,216 words wide at 3B, sees the tokens of captions only.
    """
    said = captions != pad
    logits = head_logits(model, hidden_states(model, prefix, captions, said)[said])
    tokens = sampling.log_probabilities(logits, captions[said])
    return torch.zeros(said.shape, device=tokens.device).masked_scatter(said, tokens).sum(dim=2)


def policy_loss(
    log_p: Float[Tensor, "images captions"], advantage: Float[np.ndarray, "images captions"]
) -> Float[Tensor, ""]:
    """Mean over captions of -A log p."""
    return -(torch.as_tensor(advantage, dtype=log_p.dtype, device=log_p.device) * log_p).mean()
