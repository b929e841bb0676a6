"""Measure images per second and memory by batch of the paper profile's work, and hours of all rows at that speed.

    python -m benchmarks.throughput CHECKPOINT DEVICE

CHECKPOINT is a folder of PaliGemma's true shape; `make rehearsal` passes its own on a GPU. Batches double from 1 until
limits/memory.py predicts that the next does not fit. The last line is a chip's entry for docs/measured.json. Steps are
those of training: images decoded in advance, NF4's weights as `machine.dequantise` says, fused AdamW. Random weights
never end a caption, so each one, SCST's samples too, gets the length of a typical caption (`SUFFIX`).
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

import stages  # noqa: F401  # sets how long threads spin
from benchmarks import scst as scst_benchmark
from benchmarks.planning import IMAGES, SPEED_HEADER, SUFFIX, row_epochs, row_visits, scst_visits
from benchmarks.supervised_step import our_step
from captioning.adapters.lora import freeze_encoder, lora_config
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.limits.memory import Need, finetune_needs, free_bytes, generation_needs, limit_size
from captioning.limits.scst import scst_needs
from captioning.paligemma.model import load_frozen, load_processor, prompt_inputs
from captioning.params.load import load_params
from captioning.params.recipe import FinetuneSettings, ScstRecipe, ScstSettings, StartCheckpoint, VariantRecipe
from captioning.params.recipes import refined_rows
from captioning.params.sections import Launch, Machine, Params
from captioning.report.table_text import format_markdown
from captioning.training.pixels import DecodedCollator, decode_images

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEPS = 3  # after a first that is not counted
Step = Callable[[], Any]


@dataclass(frozen=True)
class Speed:
    """Items per second with a batch of `items`, bytes at the peak, and those that limits/memory.py predicts."""

    items: int
    per_second: float
    peak: int
    predicted: int = 0


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
        """Return the recipes of the default adapter and of its refinement, as the stage `recipes` makes them."""
        params, profile = self.params, self.params.profiles["paper"]
        checkpoint = StartCheckpoint(name="base", origin="published", files={})
        launch = Launch(processes=1)
        shared: dict[str, Any] = dict(checkpoint=checkpoint, lora=params.lora, machine=self.machine, launch=launch)
        finetune = params.finetune.model_dump() | profile.finetune.model_dump(exclude={"learning_rates"})
        scst = params.scst.model_dump(exclude={"starts", "baselines"}) | profile.scst.model_dump()
        scst |= {"start": "mix", "baseline": "greedy", "prompt": params.finetune.prompt, "maximum_tokens": SUFFIX}
        supervised = VariantRecipe(variant="mix", finetune=FinetuneSettings(**finetune), **shared)
        return supervised, ScstRecipe(variant="scst-mix-greedy", scst=ScstSettings(**scst), **shared)

    def load_model(self) -> Any:
        base = load_frozen(self.folder, self.machine.compute, self.device, self.machine.dequantise)
        return get_peft_model(base, lora_config(**dict(self.params.lora)))

    def training(self, model: Any, rows: int) -> Step:
        """Return an optimizer step of one micro-batch."""
        processor, world = load_processor(self.folder), scst_benchmark.draw_world(rows, self.side)
        prompt = self.params.finetune.prompt
        with tempfile.TemporaryDirectory() as scratch:
            images = decode_images(processor, world.images, Path(scratch) / "pixels")
        pairs = zip(images, world.texts, strict=True)
        examples = [
            {"image": image, "prompt": prompt, "caption": shorten(processor.tokenizer, texts[0], SUFFIX)}
            for image, texts in pairs
        ]
        collate, trained = DecodedCollator(processor), [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

        def step() -> None:
            our_step(model, collate, examples, self.device)
            optimizer.step()
            optimizer.zero_grad()

        return step

    def captioning(self, model: Any, images: int) -> Step:
        processor, world = load_processor(self.folder), scst_benchmark.draw_world(images, self.side)
        prompt = self.params.finetune.prompt
        return lambda: list(greedy_captions(model.eval(), processor, world.images, prompt, SUFFIX, images))

    def refining(self, model: Any, images: int) -> Step:
        """Return a step of SCST that encodes its images, although a run encodes each image once."""
        freeze_encoder(model)
        processor, world = load_processor(self.folder), scst_benchmark.draw_world(images, self.side)
        inputs = prompt_inputs(processor, world.images, self.params.finetune.prompt)
        prompt = {key: value.to(self.device) for key, value in inputs.items()}
        with tempfile.TemporaryDirectory() as scratch:
            trainer = scst_benchmark.make_trainer(model, processor, world, self.device, 1.0, Path(scratch))
        trainer.settings = self.recipes()[1].scst.model_copy(update={"temperature": 1.0})
        return scst_benchmark.our_step(trainer, prompt, world.ids)

    def sweeps(self, sizes: Sequence[int]) -> dict[str, list[Speed]]:
        """Measure speeds by batch for each kind of work."""
        (supervised, refined), free = self.recipes(), free_bytes(self.device)
        settings = self.params.finetune.prompt, SUFFIX, self.machine, self.device, self.params.lora
        needs = {
            "training": finetune_needs(self.folder, supervised, SUFFIX, self.device)[0],
            "captioning": generation_needs(self.folder, *settings)[0],
            "SCST": scst_needs(self.folder, refined, self.device)[0],
        }
        works = {"training": self.training, "captioning": self.captioning, "SCST": self.refining}
        model = self.load_model()
        return {
            name: sweep(partial(work, model), needs[name], free, sizes, self.device) for name, work in works.items()
        }


def shorten(tokenizer: Any, text: str, limit: int) -> str:
    """Return as many words of `text` as fit in `limit` tokens with `<eos>`: a random tokenizer splits long words."""
    words = text.split()
    while len(words) > 1 and len(tokenizer.encode(" ".join(words), add_special_tokens=False)) >= limit:
        words.pop()
    return " ".join(words)


def sweep(make_step: Callable[[int], Step], need: Need, free: int, sizes: Sequence[int], device: str) -> list[Speed]:
    """Measure speeds at `sizes` until the next batch is predicted not to fit."""
    speeds = []
    for items in sizes:
        predicted = replace(need, items=items).total_bytes
        if predicted > free:
            break
        speeds.append(replace(measure(make_step(items), items, device), predicted=predicted))
    return speeds


def measure(step: Step, items: int, device: str) -> Speed:
    """Return the median of some steps after a first that is not counted."""
    on_gpu = device.startswith("cuda")
    times = []
    for _ in range(STEPS + 1):
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Speed(items, items / statistics.median(times[1:]), peak)


def hours(params: Params, speeds: dict[str, Speed]) -> dict[str, dict[str, float]]:
    """Return hours and gigabytes of each row of Table II at these speeds."""
    test = IMAGES["test"] / speeds["captioning"].per_second
    gigabytes = {name: round(speed.peak / 1e9, 2) for name, speed in speeds.items()}
    seconds = {f"zero-shot-{name}": ("captioning", test) for name in params.zero_shot}
    for row in params.rows:
        validation = IMAGES["validation"] * row_epochs(params, row) / 3  # a step without backward
        seconds[row] = ("training", (row_visits(params, row) + validation) / speeds["training"].per_second + test)
    for row in refined_rows(params):
        seconds[row] = ("SCST", scst_visits(params) / speeds["SCST"].per_second + test)
    return {
        row: {"hours": round(duration / 3600, 3), "gigabytes": gigabytes[kind]}
        for row, (kind, duration) in seconds.items()
    }


def choose_speed(speeds: Sequence[Speed], batch: int) -> Speed:
    """Return the speed at `batch`, or at the largest smaller one."""
    return max((speed for speed in speeds if speed.items <= batch), key=lambda speed: speed.items)


def make_page(params: Params, sweeps: dict[str, list[Speed]], chip: str) -> str:
    """Return speeds, hours, and the line for docs/measured.json."""
    steps = [step for name, speeds in sweeps.items() for step in step_entries(name, speeds)]
    speeds_table = format_markdown(SPEED_HEADER, [list(map(str, step.values())) for step in steps])
    if empty := [name for name, speeds in sweeps.items() if not speeds]:
        return "\n".join([speeds_table, f"{chip}: not even one image at a time fits for {', '.join(empty)}"])
    profile = params.profiles["paper"]
    machine, step = profile.machine, params.finetune.batch * params.finetune.accumulation
    batches = {
        "training": limit_size(machine.training_rows, step),
        "captioning": limit_size(machine.decoding_batch),
        "SCST": limit_size(machine.scst_images, profile.scst.batch),
    }
    rows = hours(params, {name: choose_speed(speeds, batches[name]) for name, speeds in sweeps.items()})
    total = sum(row["hours"] for row in rows.values())
    entry = {chip: {"rows": rows, "steps": steps}}
    return "\n".join([speeds_table, "", f"{chip}: all rows of Table II in {total:.1f} h", json.dumps(entry)])


def step_entries(name: str, speeds: Sequence[Speed]) -> list[dict[str, Any]]:
    """Return speeds as docs/measured.json has them."""
    return [
        {
            "what": name,
            "batch": speed.items,
            "images_per_second": round(speed.per_second, 2),
            "gigabytes": round(speed.peak / 1e9, 1),
            "predicted_gigabytes": round(speed.predicted / 1e9, 1),
        }
        for speed in speeds
    ]


def main(folder: Path, device: str, sizes: Sequence[int] = SIZES, threads: int = 2) -> str:
    params = load_params()
    seed_everything(1, threads)
    side = load_processor(folder).image_processor.size["height"]
    chip = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
    return make_page(params, Bench(params, folder, device, side).sweeps(sizes), chip)


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
