"""Count the bytes that SCST needs, with every caption at the limit of tokens (limits/memory.py).

The step is the trainer's: prompts with gradients, the rollout's last step on a full cache, captions scored, backward.
The trainer's own functions cannot run on the meta device, because their shapes depend on values: which captions ended.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from captioning.adapters.lora import freeze_encoder
from captioning.limits.activations import META, MetaModel, append_tokens, empty_tokens, meta_model
from captioning.limits.memory import (
    FLOAT32_BYTES,
    Need,
    adapter_bytes,
    count_trainable,
    limit_size,
    prompt_length,
    weight_bytes,
)
from captioning.paligemma.model import head_logits, load_processor
from captioning.params.recipe import ScstRecipe
from captioning.scst.packing import Prefix, run_packed
from captioning.scst.sampling import Sampling


def scst_needs(folder: Path, recipe: ScstRecipe, device: str) -> list[Need]:
    """Return what SCST needs for its step and for validation, which encodes as many images at a time."""
    settings, machine, processes = recipe.scst, recipe.machine, recipe.launch.processes
    meta = meta_model(folder, machine.compute, device, recipe.lora)
    freeze_encoder(meta.model)
    prompt, tokens = prompt_length(load_processor(folder), settings.prompt), settings.maximum_tokens
    sampling = Sampling((0,), settings.temperature, settings.top_k, settings.top_p)
    fixed = weight_bytes(meta, machine.dequantise) | adapter_bytes(meta.model, machine.optimizer)
    if settings.kl:
        fixed["the start's adapter"] = FLOAT32_BYTES * count_trainable(meta.model)

    captions = settings.samples, settings.baseline == "greedy", tokens

    def step(images: int) -> int:
        return measure_scst_step(meta, images, prompt, *captions, sampling)

    share = settings.batch // processes
    images, decoded = limit_size(machine.scst_images, share), limit_size(machine.decoding_batch)
    validate = partial(meta.measure_generation, prompt=prompt, tokens=tokens)
    return [
        Need("machine.scst_images", images, "images", fixed, step, device, share, processes),
        Need("machine.decoding_batch", decoded, "validation images", fixed, validate, device),
    ]


def measure_scst_step(
    meta: MetaModel, images: int, prompt: int, samples: int, greedy: bool, tokens: int, sampling: Sampling
) -> int:
    """Count a step on encoded images: `samples` sampled captions and perhaps a greedy one, all of `tokens` tokens."""
    meta.zero_gradients()
    shape = (images, meta.image_tokens, meta.base.config.text_config.hidden_size)
    features = torch.empty(shape, dtype=meta.base.dtype, device=META)
    with meta.meter() as meter:
        cache = DynamicCache()
        last = meta.run(features, prompt, cache)[:, -1]
        prefix = Prefix(tuple((layer.keys, layer.values) for layer in cache.layers), last)
        with torch.no_grad():
            _decode_last_token(meta.base, prefix.detached(), sampling, samples, greedy, tokens)
        _score(meta.base, prefix, sampling, samples, tokens).sum().backward()
    return meter.peak


def _decode_last_token(base: Any, prefix: Prefix, sampling: Sampling, samples: int, greedy: bool, tokens: int) -> None:
    """Run the last step of a rollout, whose cache is full (scst/rollout.py)."""
    captions, added = samples + greedy, (samples + greedy) * (tokens - 1)
    full = DynamicCache([(append_tokens(keys, added), append_tokens(values, added)) for keys, values in prefix.layers])
    mask = torch.empty(1, captions, prefix.length + added + captions, dtype=torch.bool, device=META)
    ids, positions = empty_tokens(len(prefix.last), captions), empty_tokens(1, captions)
    logits = head_logits(base, run_packed(base, ids, mask, positions, full))
    if greedy:
        sampling.best(logits[:, 0])
    sampled = logits[:, int(greedy) :].flatten(0, 1)
    sampling.draw(sampled, torch.empty(len(sampled), dtype=torch.float64, device=META))


def _score(base: Any, prefix: Prefix, sampling: Sampling, captions: int, tokens: int) -> Float[Tensor, " tokens"]:
    """Return log-probabilities of captions in packed rows (scst/loss.py)."""
    images, row = len(prefix.last), captions * (tokens - 1)
    states = [prefix.last[:, None].expand(-1, captions, -1)]
    if row:
        mask = torch.empty(images, row, prefix.length + row, dtype=torch.bool, device=META)
        states.append(run_packed(base, empty_tokens(images, row), mask, empty_tokens(images, row), prefix.cache()))
    logits = head_logits(base, torch.cat(states, dim=1).flatten(0, 1))
    return sampling.log_probabilities(logits, empty_tokens(len(logits)))
