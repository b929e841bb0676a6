"""Count the bytes that a stage needs before it loads a weight, so that it ends with advice and not by a crash.

    bytes = weights + adapters + gradients + optimizer + (what the largest step saves and makes) + margin

NF4 with double quantisation (Dettmers et al. 2023, arXiv:2305.14314, section 3) takes 4 bits per weight, one byte per
block of 64 weights, and one float32 per group of 256 blocks. The bytes of a step come from limits/activations.py, with
the longest caption in every row. The margin is a share of the step, for memory that an allocator cannot reuse, and what
the libraries themselves take.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from psutil import virtual_memory
from torch import nn
from transformers import PaliGemmaProcessor

from captioning.base.errors import UserError
from captioning.limits.activations import MetaModel, meta_model
from captioning.paligemma.model import load_processor, prompt_tokens
from captioning.params.recipe import VariantRecipe
from captioning.params.sections import AUTO, Lora, Machine, Size

BLOCK, GROUP = 64, 256  # weights per block of NF4, blocks per group of its scales
TABLE_BYTES = 4 * (16 + 256 + 1)  # per layer: the code books of both quantisations in float32, and an offset
MOMENT_BYTES = {"adamw": 8, "paged-adamw-8bit": 2}  # per weight
FLOAT32_BYTES = 4
CPU_MARGIN, GPU_MARGIN = 0.35, 0.1  # of a step's bytes; glibc's was measured at 3B
MAX_DECODING = 256  # images for `auto` (limits/sizes.py)
LIBRARY_BYTES = 500_000_000  # what torch and its kernels take before the first tensor


@dataclass(frozen=True)
class Need:
    """The bytes of `items` at a time: `fixed` for any number, and `step(items)`. `key` of params.yaml sets their
    number, which must divide `total_items` (0: any) of a process; `processes` share the machine."""

    key: str
    items: int
    unit: str
    fixed: dict[str, int]
    step: Callable[[int], int]
    device: str
    total_items: int = 0
    processes: int = 1

    @property
    def margin_share(self) -> float:
        return CPU_MARGIN if self.device == "cpu" else GPU_MARGIN

    @cached_property
    def bytes_by_part(self) -> dict[str, int]:
        step = self.step(self.items)
        margin = int(self.margin_share * step) + LIBRARY_BYTES
        return {**self.fixed, f"{self.items} {self.unit}": step, "margin": margin}

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes_by_part.values())

    def describe(self, free: int) -> str:
        """Say what is needed, part by part, and that only `free` bytes are free."""
        parts = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in self.bytes_by_part.items())
        need = f"{self.key}: {self.items} {self.unit} at a time need {self.total_bytes / 1e9:.1f} GB ({parts})"
        return f"{need}, {free / 1e9:.1f} GB are free on {self.device}"

    def largest_fit(self, free: int) -> int:
        """Return the largest number of items that fits into `free` bytes, or 0; a step's bytes are linear in it."""
        first, second = self.step(1), self.step(2)
        available = (free - sum(self.fixed.values()) - LIBRARY_BYTES) / (1 + self.margin_share)
        most = 0 if available < first else 1 + int((available - first) // (second - first))
        divisors = (size for size in range(1, most + 1) if self.total_items % size == 0)
        return max(divisors, default=0) if self.total_items else most


def require_memory(needs: Sequence[Need], machine: Machine, free: int) -> None:
    """Raise `UserError` with each need that is larger than `free` bytes; `machine` is the recipe's."""
    if large := [need for need in needs if need.total_bytes > free]:
        raise UserError("\n  ".join(f"{need.describe(free)}; {suggest_remedy(need, free, machine)}" for need in large))


def suggest_remedy(need: Need, free: int, machine: Machine) -> str:
    if most := need.largest_fit(free):
        return f"the most that fit are {most}: set the profile's {need.key}: {most}, or {AUTO}"
    remedies = ["machine.dequantise: false, which is slower"] if machine.dequantise else []
    if machine.optimizer == "adamw" and not need.unit.startswith("test"):
        remedies.append("machine.optimizer: paged-adamw-8bit")
    if not remedies:
        return "not even one fits; a larger device is needed"
    return f"not even one fits; set the profile's {', or '.join([*remedies, 'use a larger device'])}"


def available_bytes(need: Need) -> int:
    """Return the free memory of the need's device; processes share that of a CPU, and have a GPU each."""
    return free_bytes(need.device) // (need.processes if need.device == "cpu" else 1)


def free_bytes(device: str) -> int:
    """Return the memory of `device` that a new tensor can take."""
    return int(torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else virtual_memory().available)


def finetune_needs(folder: Path, recipe: VariantRecipe, suffix: int, device: str) -> list[Need]:
    """Return what fine-tuning needs for a training step and for validation, if captions have `suffix` tokens."""
    machine, processes = recipe.machine, recipe.launch.processes
    meta = meta_model(folder, machine.compute, device, recipe.lora)
    prompt = prompt_length(load_processor(folder), recipe.prompt)
    fixed = weight_bytes(meta, machine.dequantise) | adapter_bytes(meta.model, machine.optimizer)
    step_rows = recipe.finetune.batch * recipe.finetune.accumulation // processes

    def train(rows: int) -> int:
        return meta.measure_training(rows, prompt, suffix).peak

    rows, decoded = limit_size(machine.training_rows, step_rows), limit_size(machine.decoding_batch)
    validate = partial(meta.measure_validation, prompt=prompt, suffix=suffix)
    return [
        Need("machine.training_rows", rows, "rows", fixed, train, device, step_rows, processes),
        Need("machine.decoding_batch", decoded, "validation rows", fixed, validate, device),
    ]


def limit_size(size: Size, step: int = 0) -> int:
    """Return `size`, at most the items of a `step`; for `auto` return the most that are useful."""
    if size == AUTO:
        return step or MAX_DECODING
    return min(size, step) if step else size


def generation_needs(
    folder: Path, prompt: str, maximum_tokens: int, machine: Machine, device: str, lora: Lora | None
) -> list[Need]:
    """Return what greedy captions of test images need, with an adapter unless `lora` is None."""
    meta = meta_model(folder, machine.compute, device, lora)
    length = prompt_length(load_processor(folder), prompt)
    fixed = weight_bytes(meta, machine.dequantise)
    if lora is not None:
        fixed["adapter"] = FLOAT32_BYTES * count_trainable(meta.model)
    generate = partial(meta.measure_generation, prompt=length, tokens=maximum_tokens)
    return [Need("machine.decoding_batch", limit_size(machine.decoding_batch), "test images", fixed, generate, device)]


def weight_bytes(meta: MetaModel, dequantise: bool) -> dict[str, int]:
    """Return the bytes of the loaded model by part; `dequantise` keeps the decoder's layers in the compute dtype."""
    modules = meta.base.model.language_model.named_modules()
    layers = [module for name, module in modules if isinstance(module, nn.Linear) and "lora_" not in name]
    size, counts = meta.base.dtype.itemsize, [layer.weight.numel() for layer in layers]
    total = sum(value.numel() for name, value in meta.model.named_parameters() if "lora_" not in name)
    parts = {"embeddings, SigLIP and projector": (total - sum(counts)) * size}
    parts["decoder in NF4"] = sum(map(nf4_bytes, counts))  # with `dequantise` too, since it is not freed at once
    if dequantise:
        return parts | {"decoder, dequantised": sum(counts) * size}
    return parts | {"one dequantised layer": max(counts) * size}


def nf4_bytes(count: int) -> int:
    """Return the bytes of a layer of `count` weights, with scales and code books."""
    blocks = math.ceil(count / BLOCK)
    return math.ceil(count / 2) + blocks + FLOAT32_BYTES * math.ceil(blocks / GROUP) + TABLE_BYTES


def adapter_bytes(model: Any, optimizer: str) -> dict[str, int]:
    """Return the bytes of adapters in float32, of the gradients of trainable ones, and of the optimizer's moments."""
    total = sum(value.numel() for name, value in model.named_parameters() if "lora_" in name)
    trainable = count_trainable(model)
    return {
        "adapters and gradients": FLOAT32_BYTES * (total + trainable),
        f"optimizer ({optimizer})": MOMENT_BYTES[optimizer] * trainable,
    }


def count_trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def prompt_length(processor: PaliGemmaProcessor, prompt: str) -> int:
    """Return the number of tokens between image and caption: `<bos>`, the prompt, a newline."""
    return len(prompt_tokens(processor, prompt)) - processor.image_seq_length


def longest_suffix(processor: PaliGemmaProcessor, captions: Sequence[str]) -> int:
    """Return the number of tokens of the longest caption, with `<eos>`."""
    return 1 + max(map(len, processor.tokenizer(list(captions), add_special_tokens=False)["input_ids"]))
