"""Choose the sizes that params.yaml leaves to the machine (`auto`): the most rows or images that fit into free memory.

Rows of a micro-batch change no gradient beyond rounding, and images that are decoded together no caption beyond it. So
the choice is in no recipe and no output.

1. A micro-batch divides the rows of a step and process.
2. Images are decoded in a power of two, so that some megabytes more or less give the same choice. From 256 on, a GPU is
   limited by its arithmetic and no longer by reading the weights, so more would gain nothing.
3. Processes with unequal GPUs all take the smallest choice.
4. A run's choice is saved beside its states. A run that was interrupted takes it again, to the same bytes, unless less
   memory is free by then.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from captioning.base.errors import UserError
from captioning.base.files import write_json
from captioning.compute.processes import Processes, device_folder
from captioning.limits.memory import Need, available_bytes, generation_needs, require_memory, suggest_remedy
from captioning.params.sections import AUTO, Lora, Machine
from captioning.runtime.resume import run_folder

SIZES_FILE = "sizes.json"


def fit_generation(
    checkpoint: Path,
    prompt: str,
    maximum_tokens: int,
    machine: Machine,
    device: str,
    lora: Lora | None,
    processes: Processes | None,
) -> Machine:
    """Return `machine` fit for greedy captions, with an adapter unless `lora` is None (`fit_machine`)."""
    return fit_machine(generation_needs(checkpoint, prompt, maximum_tokens, machine, device, lora), machine, processes)


def fit_machine(needs: Sequence[Need], machine: Machine, processes: Processes | None) -> Machine:
    """Return `machine` with a number for each `auto` that `needs` name, and report the choice. `processes`: of a stage,
    whose choice is saved. Raises `UserError` if a number, or a single item of an `auto`, does not fit."""
    free = available_bytes(needs[0])
    sizes = _largest_sizes(needs, machine, free)
    if sizes and processes is not None:
        sizes = _agree(sizes, device_folder(run_folder(), torch.device(needs[0].device)) / SIZES_FILE, processes)
    fitted = machine.model_copy(update=sizes)
    chosen = [replace(need, items=sizes.get(need.key.removeprefix("machine."), need.items)) for need in needs]
    require_memory(chosen, fitted, free)
    if processes is None or processes.is_main:
        _report(sizes, chosen, free)
        _note_emulation(machine, needs[0].device)
    return fitted


def _largest_sizes(needs: Sequence[Need], machine: Machine, free: int) -> dict[str, int]:
    """Return the most items that fit for each key that is `auto`. Raises `UserError` if not even one fits."""
    sizes = dict[str, int]()
    for need in needs:
        key = need.key.removeprefix("machine.")
        if getattr(machine, key) == AUTO:
            if not (size := largest_size(need, free)):
                single = replace(need, items=1)
                raise UserError(f"{single.describe(free)}; {suggest_remedy(single, free, machine)}")
            sizes[key] = min(size, sizes.get(key, size))
    return sizes


def largest_size(need: Need, free: int) -> int:
    """Return the most items that fit into `free` bytes, at most `need.items`, or 0: a divisor of a step's items or, if
    there is no step, a power of two."""
    most = min(need.largest_fit(free), need.items)
    return most if need.total_items or not most else 1 << (most.bit_length() - 1)


def _agree(sizes: dict[str, int], path: Path, processes: Processes) -> dict[str, int]:
    """Return the smallest choice of all processes and of the interrupted run, if any, that wrote `path`."""
    choices = processes.gather_in_order([sizes])
    with suppress(OSError, ValueError):
        choices.append(json.loads(path.read_text(encoding="utf-8")))
    agreed = {key: min(choice[key] for choice in choices) for key in sizes}
    processes.wait()  # all have read the file
    if processes.is_main:
        write_json(path, agreed)
    return agreed


def _report(sizes: dict[str, int], needs: Sequence[Need], free: int) -> None:
    if not sizes:
        return
    choices, most = ", ".join(f"machine.{key} {size}" for key, size in sizes.items()), max(n.total_bytes for n in needs)
    memory = f"{most / 1e9:.1f} of {free / 1e9:.1f} GB free on {needs[0].device}"
    print(f"auto: {choices}: {memory}", file=sys.stderr)


def _note_emulation(machine: Machine, device: str) -> None:
    is_slow = device.startswith("cuda") and machine.compute == "bfloat16"
    if is_slow and not torch.cuda.is_bf16_supported(including_emulation=False):
        print(
            "note: this GPU has no units for bfloat16; machine.compute: float16 is several times as fast",
            file=sys.stderr,
        )
