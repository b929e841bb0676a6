"""What a stage needs in bytes, told before it loads a weight: a batch is found by parameter, never by a crash.

    bytes = weights + adapters + gradients + optimizer + (what the largest step keeps and makes) + margin

Weights are counted by the storage that each has once loaded: NF4 with double quantisation (Dettmers et al. 2023,
arXiv:2305.14314, section 3) takes 4 bits a weight, one byte a block of 64, one float32 a group of 256 such blocks; a
step's activations come from limits/activations.py.

1. The longest caption stands in every row, and every sampled caption runs to the limit: what is met once is met.
2. The margin is a share of the step, for what an allocator cannot reuse, beside what the libraries hold themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from captioning.params.sections import Lora, Machine

BLOCK, GROUP = 64, 256  # weights a block of NF4, blocks a group of its scales
TABLES = 4 * (16 + 256 + 1)  # bytes a layer: both quantisations' code books in float32, and an offset
OPTIMIZER = {"adamw": 8, "paged-adamw-8bit": 2}  # bytes a weight, two moments
FLOAT32 = 4
MARGIN = {"cpu": 0.35}  # of a step's bytes, what an allocator cannot reuse; glibc's was measured at 3B
GPU_MARGIN = 0.1
LIBRARIES = 500_000_000  # bytes: what torch and its kernels take before any tensor of ours


@dataclass(frozen=True)
class Need:
    """Bytes by part of `items` at a time: `fixed` whatever their number, and `step(items)`.

    `key`: what sets their number; `of`: what the number must divide (0: any number); `unit`: what is counted.
    """

    key: str
    items: int
    unit: str
    fixed: dict[str, int]
    step: Callable[[int], int]
    device: str
    of: int = 0
    processes: int = 1  # that share the batch `key` sets, and on a CPU the memory

    @cached_property
    def parts(self) -> dict[str, int]:
        """All of it, by part."""
        step = self.step(self.items)
        return {**self.fixed, f"{self.items} {self.unit}": step, "margin": int(self.share * step) + LIBRARIES}

    @property
    def share(self) -> float:
        return MARGIN.get(self.device, GPU_MARGIN)

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def largest(self, free: int) -> int:
        """The largest number that fits into `free` bytes, 0 where none does; a step's bytes grow evenly with it."""
        one, two = self.step(1), self.step(2)
        room = (free - sum(self.fixed.values()) - LIBRARIES) / (1 + self.share)
        most = 0 if room < one else 1 + int((room - one) // (two - one))
        return max((size for size in range(1, most + 1) if self.of % size == 0), default=0) if self.of else most


def require(needs: Sequence[Need], machine: Machine) -> None:
    """Raises `UserError` with every need that its device's free memory cannot meet; `machine` is the recipe's."""
    free = free_bytes(needs[0].device)
    if needs[0].device == "cpu":
        free //= needs[0].processes
    faults = [f"{told(need, free)}; {remedy(need, free, machine)}" for need in needs if need.total > free]
    if faults:
        raise UserError("\n  ".join(faults))


def told(need: Need, free: int) -> str:
    """What needs how much, by part, and how much there is."""
    parts = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in need.parts.items())
    return (
        f"{need.key}: {need.items} {need.unit} at a time need {need.total / 1e9:.1f} GB ({parts}), "
        f"{free / 1e9:.1f} GB are free on {need.device}"
    )


def remedy(need: Need, free: int, machine: Machine) -> str:
    """What to set."""
    if most := need.largest(free):
        shared = need.processes if need.key == "scst.batch" else 1  # the key counts what all take together
        return f"the most that fit are {most}: set the profile's {need.key}: {most * shared}"
    ways = ["a larger device"]
    if machine.optimizer == "adamw" and not need.unit.startswith("test"):
        ways.insert(0, "machine.optimizer: paged-adamw-8bit")
    if machine.dequantise:
        ways.insert(0, "machine.dequantise: false, which is slower")
    return f"not even one fits; set the profile's {', or '.join(ways)}" if ways[1:] else f"it needs {ways[0]}"


def free_bytes(device: str) -> int:
    """Memory of `device` that a new tensor can take."""
    return int(torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else virtual_memory().available)


def finetune_needs(folder: Path, recipe: VariantRecipe, suffix: int, device: str) -> list[Need]:
    """Return what fine-tuning needs for its training step and for validation. `suffix`: tokens of the longest
    caption."""
    machine, processes = recipe.machine, recipe.launch.processes
    meta = meta_model(folder, machine.compute, device, recipe.lora)
    prompt = prompt_length(load_processor(folder), recipe.prompt)
    fixed = weights(meta, machine.dequantise) | adapters(meta.model, machine.optimizer)
    share = recipe.finetune.batch * recipe.finetune.accumulation // processes

    def train(rows: int) -> int:
        return meta.train(rows, prompt, suffix).peak

    def validate(rows: int) -> int:
        return meta.validate(rows, prompt, suffix)

    rows = min(machine.training_rows, share)
    return [
        Need("machine.training_rows", rows, "rows", fixed, train, device, of=share, processes=processes),
        Need("machine.decoding_batch", machine.decoding_batch, "validation rows", fixed, validate, device),
    ]


def generation_needs(
    folder: Path, prompt: str, maximum_tokens: int, machine: Machine, device: str, lora: Lora | None
) -> list[Need]:
    """Return what greedy captions of test images need, with an adapter unless `lora` is None."""
    meta = meta_model(folder, machine.compute, device, lora)
    length = prompt_length(load_processor(folder), prompt)
    fixed = weights(meta, machine.dequantise)
    if lora is not None:
        fixed["adapter"] = FLOAT32 * trainable(meta.model)

    def generate(images: int) -> int:
        return meta.generate(images, length, maximum_tokens)

    return [Need("machine.decoding_batch", machine.decoding_batch, "test images", fixed, generate, device)]


def weights(meta: MetaModel, dequantised: bool) -> dict[str, int]:
    """Bytes of the loaded model by part; with `dequantised`, the decoder's layers in the compute dtype."""
    layers = decoder_layers(meta.base)
    values, size = sum(layer.weight.numel() for layer in layers), meta.base.dtype.itemsize
    others = sum(one.numel() for name, one in meta.model.named_parameters() if "lora_" not in name) - values
    parts = {"embeddings, SigLIP and projector": others * size}
    parts["decoder in NF4"] = sum(nf4_bytes(layer) for layer in layers)
    if dequantised:  # beside it: what replaces the 4-bit weights does not free them at once
        return parts | {"decoder, dequantised": values * size}
    return parts | {"one layer spelt out": max(layer.weight.numel() for layer in layers) * size}


def decoder_layers(base: Any) -> list[nn.Linear]:
    """The decoder's linear layers, without their adapters: those that are loaded in 4 bits."""
    found = base.model.language_model.named_modules()
    return [module for name, module in found if isinstance(module, nn.Linear) and "lora_" not in name]


def nf4_bytes(layer: nn.Linear) -> int:
    """Of a layer's weights, their scales and its code books."""
    blocks = -(-layer.weight.numel() // BLOCK)
    return -(-layer.weight.numel() // 2) + blocks + FLOAT32 * -(-blocks // GROUP) + TABLES


def adapters(model: Any, optimizer: str) -> dict[str, int]:
    """Bytes of adapters in float32, of the gradients of those that are trained, and of the optimizer's moments."""
    every = sum(one.numel() for name, one in model.named_parameters() if "lora_" in name)
    trained = trainable(model)
    return {
        "adapters and gradients": FLOAT32 * (every + trained),
        f"optimizer ({optimizer})": OPTIMIZER[optimizer] * trained,
    }


def trainable(model: Any) -> int:
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


def prompt_length(processor: PaliGemmaProcessor, prompt: str) -> int:
    """Tokens between an image's and the caption's: `<bos>`, the prompt, a newline."""
    return len(prompt_tokens(processor, prompt)) - processor.image_seq_length


def longest_suffix(processor: PaliGemmaProcessor, captions: Sequence[str]) -> int:
    """Tokens of the longest caption, `<eos>` counted."""
    return 1 + max(map(len, processor.tokenizer(list(captions), add_special_tokens=False)["input_ids"]))
