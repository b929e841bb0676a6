"""Images per second and memory by batch of what the paper profile does, and hours for all its rows at that speed.

    python -m benchmarks.throughput CHECKPOINT DEVICE

CHECKPOINT: a folder of PaliGemma's true shape; `make rehearsal` calls this with its own on a GPU. Batches double from 1
until limits/memory.py says that the next would not fit. The last line is what docs/measured.json holds of a chip.
Steps are those of training: pictures decoded ahead, NF4's weights as `machine.dequantise` says, fused AdamW. Random
weights never end a caption, so that each is as long as a typical one is (`SUFFIX`); SCST's are sampled to that, too.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import stages  # noqa: F401  # how long threads spin
from benchmarks import scst as scst_benchmark
from benchmarks.planning import IMAGES, SUFFIX, epochs, refined_visits, visits
from benchmarks.supervised_step import our_step
from captioning.adapters.lora import attach_adapter, freeze_encoder, lora_config
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.limits.memory import Need, finetune_needs, free_bytes, generation_needs
from captioning.limits.scst import scst_needs
from captioning.paligemma.model import load_frozen, load_processor, prompt_inputs
from captioning.params.load import Params, load_params
from captioning.params.recipe import FinetuneSettings, ScstRecipe, ScstSettings, StartCheckpoint, VariantRecipe
from captioning.params.recipes import refined_rows
from captioning.params.sections import Launch, Machine
from captioning.supervised.pixels import DecodedCollator, decode_images

SIZES = (1, 2, 4, 8, 16, 32, 64)
STEPS = 3  # measured, after one that is not
Step = Callable[[], Any]


@dataclass(frozen=True)
class Speed:
    """What a batch of `items` does in a second, and bytes at the peak."""

    items: int
    per_second: float
    peak: int


@dataclass(frozen=True)
class Bench:
    """A checkpoint on a device, and the paper profile's parameters."""

    params: Params
    folder: Path
    device: str
    side: int

    @property
    def machine(self) -> Machine:
        return self.params.profiles["paper"].machine

    def recipes(self) -> tuple[VariantRecipe, ScstRecipe]:
        """The recipes of the default adapter and of its refinement, as the stage `recipes` makes them."""
        params, profile = self.params, self.params.profiles["paper"]
        shared = {
            "checkpoint": StartCheckpoint(name="base", origin="hub", files={}),
            "lora": params.lora,
            "machine": self.machine,
            "launch": Launch(processes=1),
        }
        finetune = params.finetune.model_dump() | {"learning_rate": profile.finetune.learning_rate}
        scst = params.scst.model_dump(exclude={"starts", "baselines"}) | profile.scst.model_dump()
        scst |= {"start": "mix", "baseline": "greedy", "prompt": params.finetune.prompt, "maximum_tokens": SUFFIX}
        return (
            VariantRecipe(variant="mix", finetune=FinetuneSettings(**finetune), **shared),
            ScstRecipe(variant="scst-mix-greedy", scst=ScstSettings(**scst), **shared),
        )

    def adapted(self) -> Any:
        base = load_frozen(self.folder, self.machine.compute, self.device, self.machine.dequantise)
        return attach_adapter(base, lora_config(**dict(self.params.lora)))

    def training(self, model: Any, rows: int) -> Step:
        """An optimizer step of one pass."""
        processor, seen = load_processor(self.folder), scst_benchmark.world(rows, self.side)
        with tempfile.TemporaryDirectory() as scratch:
            pictures = decode_images(processor, seen.images, Path(scratch) / "pixels")
        examples = [{"image": picture, "prompt": self.params.finetune.prompt, "caption": texts[0]}
                    for picture, texts in zip(pictures, seen.texts, strict=True)]  # fmt: skip
        collate, trained = DecodedCollator(processor), [one for one in model.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

        def step() -> None:
            our_step(model, collate, examples, self.device)
            optimizer.step()
            optimizer.zero_grad()

        return step

    def captioning(self, model: Any, images: int) -> Step:
        processor, seen = load_processor(self.folder), scst_benchmark.world(images, self.side)
        prompt = self.params.finetune.prompt
        return lambda: list(greedy_captions(model.eval(), processor, seen.images, prompt, SUFFIX, images))

    def refining(self, model: Any, images: int) -> Step:
        """SCST's step, encoding included, which a run does once an image."""
        freeze_encoder(model)
        processor, seen = load_processor(self.folder), scst_benchmark.world(images, self.side)
        prompt = {key: value.to(self.device) for key, value in
                  prompt_inputs(processor, seen.images, self.params.finetune.prompt).items()}  # fmt: skip
        with tempfile.TemporaryDirectory() as scratch:
            one = scst_benchmark.trainer(model, processor, seen, self.device, 1.0, Path(scratch))
        one.settings = self.recipes()[1].scst.model_copy(update={"temperature": 1.0})
        return scst_benchmark.our_step(one, prompt, seen.ids)

    def sweeps(self, sizes: Sequence[int]) -> dict[str, list[Speed]]:
        """Speeds by batch of each kind of work."""
        (supervised, refined), free = self.recipes(), free_bytes(self.device)
        asked = self.params.finetune.prompt, SUFFIX, self.machine, self.device, self.params.lora
        needs = {
            "training": finetune_needs(self.folder, supervised, SUFFIX, self.device)[0],
            "captioning": generation_needs(self.folder, *asked)[0],
            "SCST": scst_needs(self.folder, refined, self.device)[0],
        }
        works = {"training": self.training, "captioning": self.captioning, "SCST": self.refining}
        model = self.adapted()
        return {name: sweep(lambda items, of=work: of(model, items), needs[name], free, sizes, self.device)  # type: ignore[misc]
                for name, work in works.items()}  # fmt: skip


def sweep(
    work: Callable[[int], Step], need: Need, free: int, sizes: Sequence[int], device: str
) -> list[Speed]:  # fmt: skip
    """Speeds of `work` at `sizes` until one is predicted not to fit."""
    found = []
    for items in sizes:
        if replace(need, items=items).total_bytes > free:
            break
        found.append(measured(work(items), items, device))
    return found


def measured(step: Step, items: int, device: str) -> Speed:
    """Median of some steps, after a first that is not counted."""
    on_gpu = device.startswith("cuda")
    times = []
    for _ in range(STEPS + 1):
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Speed(items, items / statistics.median(times[1:]), peak)


def hours(params: Params, speeds: dict[str, Speed]) -> dict[str, dict[str, float]]:
    """Hours and gigabytes of each row of Table II, by its name, at these speeds."""
    test = IMAGES["test"] / speeds["captioning"].per_second
    peak = {name: speed.peak / 1e9 for name, speed in speeds.items()}
    found = {f"zero-shot-{name}": (test, peak["captioning"]) for name in params.zero_shot}
    for row in params.rows:
        held = IMAGES["validation"] * epochs(params, row) / 3  # a pass without its backward one
        found[row] = ((visits(params, row) + held) / speeds["training"].per_second + test, peak["training"])
    for row in refined_rows(params):
        found[row] = (refined_visits(params) / speeds["SCST"].per_second + test, peak["SCST"])
    return {
        row: {"hours": round(seconds / 3600, 3), "gigabytes": round(size, 2)} for row, (seconds, size) in found.items()
    }


def chosen(found: Sequence[Speed], wanted: int) -> Speed:
    """The speed at the profile's batch, or at the largest below it that was measured."""
    return max((speed for speed in found if speed.items <= wanted), key=lambda speed: speed.items)


def page(params: Params, found: dict[str, list[Speed]], chip: str) -> str:
    """Speeds, hours, and the line for docs/measured.json."""
    lines = ["| what | batch | images a second | GB |", "|---|---|---|---|"]
    lines += [f"| {name} | {one.items} | {one.per_second:.2f} | {one.peak / 1e9:.1f} |"
              for name, speeds in found.items() for one in speeds]  # fmt: skip
    if empty := [name for name, speeds in found.items() if not speeds]:
        return "\n".join([*lines, f"{chip}: not even one image at a time fits for {', '.join(empty)}"])
    profile = params.profiles["paper"]
    wanted = {"training": profile.machine.training_rows, "captioning": profile.machine.decoding_batch,
              "SCST": profile.scst.batch}  # fmt: skip
    rows = hours(params, {name: chosen(speeds, wanted[name]) for name, speeds in found.items()})
    total = sum(of["hours"] for of in rows.values())
    return "\n".join([*lines, "", f"{chip}: all rows of Table II in {total:.1f} h", json.dumps({chip: rows})])


def main(folder: Path, device: str, sizes: Sequence[int] = SIZES, threads: int = 2) -> str:
    params = load_params()
    seed_everything(1, threads)
    side = load_processor(folder).image_processor.size["height"]
    chip = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
    return page(params, Bench(params, folder, device, side).sweeps(sizes), chip)


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
