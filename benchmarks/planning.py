"""Predict hours and memory of the paper profile's rows on several chips.

    python -m benchmarks.planning > docs/planning.md

Torch's FlopCounterMode counts the operations of the model's true shape without weights, and limits/memory.py counts
its bytes; nothing is timed. `CHIPS` and `EFFICIENCY` turn operations into hours; the page states them. The last column
has the measurements of docs/measured.json.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

import stages  # noqa: F401  # sets how long threads spin
from benchmarks import true_shape
from captioning.adapters.lora import freeze_encoder
from captioning.checkpoints.miniature import make_processor
from captioning.limits.activations import meta_model
from captioning.limits.memory import Need, adapter_bytes, count_trainable, weight_bytes
from captioning.limits.scst import measure_scst_step
from captioning.params.load import load_params
from captioning.params.recipes import refined_rows
from captioning.params.sections import Lora, Params, Targets
from captioning.scst.sampling import Sampling

MEASURED = Path("docs/measured.json")
IMAGES = {"train": 26_712, "validation": 8_904, "test": 8_905}  # 60/20/20 of 44,521 (III)
PROMPT, SUFFIX = 5, 16  # tokens: <bos>, the prompt, a newline; a caption of 15 and <eos>
LONGEST = 60  # tokens of the longest caption, which must fit in memory; RISC's has 51 words
PAPER_HOURS = 46.0  # of SCST, on an A100 (VI.A)


@dataclass(frozen=True)
class Chip:
    """Published peaks: dense matrix operations a second in the dtype used for bfloat16, bytes a second, bytes."""

    operations: float
    bandwidth: float
    memory: float


CHIPS = {  # NVIDIA's data sheets; a T4 has no bfloat16 units, so its float32 units compute such products
    "T4": Chip(8.1e12, 320e9, 16e9),
    "A100 80 GB": Chip(312e12, 2039e9, 80e9),
    "H200": Chip(989e12, 4800e9, 141e9),
}


@dataclass(frozen=True)
class Efficiency:
    """Assumed shares of the peaks, and of memory that is free."""

    training: float = 0.35
    prefill: float = 0.45
    decoding: float = 0.40  # of the bandwidth: each token of a batch reads the weights once
    free: float = 0.94


EFFICIENCY = Efficiency()


@dataclass(frozen=True)
class Work:
    """The work of a row: operations of training and of prompts, bytes that decoding reads, and its memory."""

    label: str
    name: str
    training: float
    prefill: float
    read: float
    need: Need

    def hours(self, chip: Chip) -> float:
        seconds = self.training / (chip.operations * EFFICIENCY.training)
        seconds += self.prefill / (chip.operations * EFFICIENCY.prefill)
        return (seconds + self.read / (chip.bandwidth * EFFICIENCY.decoding)) / 3600


def count_operations(work: Callable[[], Any]) -> float:
    """Count multiplications and additions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def row_visits(params: Params, row: str) -> int:
    """Return how many training rows a variant sees in all epochs."""
    variant = params.variants[row]
    captions = 5 if (variant.captions or params.finetune.captions) == "all" else 1
    return IMAGES["train"] * captions * row_epochs(params, row)


def row_epochs(params: Params, row: str) -> int:
    return params.variants[row].epochs or params.finetune.epochs


def scst_visits(params: Params) -> int:
    """Return how many images SCST sees in all epochs."""
    scst = params.profiles["paper"].scst
    return (scst.images or IMAGES["train"]) * scst.epochs


class Planner:
    """Count the work of the paper profile's rows on the shape whose configuration is in `folder`."""

    def __init__(self, params: Params, folder: Path) -> None:
        self.params, self.folder, self.profile = params, folder, params.profiles["paper"]

    def adapted(self, rank: int, targets: Targets) -> Any:
        """Return the model with an adapter; alpha, dropout and scale change no shape."""
        lora = Lora(rank=rank, alpha=16.0, dropout=0.0, rslora=False, targets=targets)
        return meta_model(self.folder, self.profile.machine.compute, "cuda", lora)

    def captioning(self, meta: Any, images: int) -> tuple[float, float]:
        """Count operations of the prompts of `images`, and bytes that decoding their captions reads."""
        machine = self.profile.machine
        prompts = count_operations(lambda: meta.measure_validation(1, PROMPT, 1)) * images
        size = sum(weight_bytes(meta, machine.dequantise).values())
        return prompts, size * SUFFIX * -(-images // machine.decoding_batch)

    @cache  # noqa: B019
    def supervised(self, rank: int, targets: Targets) -> tuple[float, float, tuple[int, int]]:
        """Count operations of training and of validation on a row, and bytes of a step of one row and of two."""
        meta = self.adapted(rank, targets)
        training = count_operations(lambda: meta.measure_training(1, PROMPT, SUFFIX))
        validation = count_operations(lambda: meta.measure_validation(1, PROMPT, SUFFIX))
        one_row, two_rows = (meta.measure_training(rows, PROMPT, LONGEST).peak for rows in (1, 2))
        return training, validation, (one_row, two_rows)

    @cache  # noqa: B019
    def refined(self, rank: int, targets: Targets, greedy: bool) -> tuple[Any, float, tuple[int, int]]:
        """Return the model with a trainable decoder, an image's operations, and bytes of a step of one and of two."""
        scst, meta = self.params.scst, self.adapted(rank, targets)
        freeze_encoder(meta.model)
        sampling = Sampling((0,), self.profile.scst.temperature, scst.top_k, scst.top_p)

        def measure(images: int, tokens: int) -> Any:
            return measure_scst_step(meta, images, PROMPT, scst.samples, greedy, tokens, sampling)

        operations = count_operations(lambda: measure(1, SUFFIX))
        one_image, two_images = (measure(n, self.params.decoding.maximum_tokens) for n in (1, 2))
        return meta, operations, (one_image, two_images)

    def need(self, meta: Any, key: str, items: int, unit: str, sizes: tuple[int, int], step: int = 0) -> Need:
        """Predict memory from the bytes of a step of one item and of two: they grow linearly."""
        machine, (first, second) = self.profile.machine, sizes
        fixed = weight_bytes(meta, machine.dequantise)
        if key != "decoding_batch":
            fixed |= adapter_bytes(meta.model, machine.optimizer)
        return Need(key, items, unit, fixed, lambda n: first + (n - 1) * (second - first), "cuda", step)

    def zero_shot(self, name: str) -> Work:
        machine = self.profile.machine
        meta = meta_model(self.folder, machine.compute, "cuda")
        sizes = [meta.measure_generation(images, PROMPT, self.params.decoding.maximum_tokens) for images in (1, 2)]
        need = self.need(meta, "decoding_batch", machine.decoding_batch, "images", (sizes[0], sizes[1]))
        return Work(f"zero-shot {name}", f"zero-shot-{name}", 0.0, *self.captioning(meta, IMAGES["test"]), need)

    def variant(self, name: str) -> Work:
        params, variant = self.params, self.params.variants[name]
        adapter = (variant.rank or params.lora.rank, variant.targets or params.lora.targets)
        meta, (training, validation, sizes) = self.adapted(*adapter), self.supervised(*adapter)
        prompts, read = self.captioning(meta, IMAGES["test"])
        prefill = validation * IMAGES["validation"] * row_epochs(params, name) + prompts
        step = params.finetune.batch * params.finetune.accumulation
        need = self.need(meta, "training_rows", min(self.profile.machine.training_rows, step), "rows", sizes, step)
        label = f"{name} ({count_trainable(meta.model):,} weights)"
        return Work(label, name, training * row_visits(params, name), prefill, read, need)

    def scst(self, row: str, start: str, baseline: str) -> Work:
        params, profile, variant = self.params, self.profile.scst, self.params.variants[start]
        adapter = (variant.rank or params.lora.rank, variant.targets or params.lora.targets)
        meta, operations, sizes = self.refined(*adapter, baseline == "greedy")
        images = scst_visits(params)
        encoding = count_operations(lambda: meta.features(1)) * IMAGES["train"]
        steps, size = -(-images // profile.batch), sum(weight_bytes(meta, True).values()) * SUFFIX
        validations = 1 + steps // profile.validate_every
        validation, _ = self.captioning(meta, params.scst.validation_images * validations)
        test, read = self.captioning(meta, IMAGES["test"])
        need, prefill = self.need(meta, "scst.batch", profile.batch, "images", sizes), encoding + validation + test
        return Work(f"SCST of {start}, {baseline}", row, operations * images, prefill, read + size * steps, need)

    def works(self) -> list[Work]:
        params = self.params
        return [
            *(self.zero_shot(name) for name in params.zero_shot[:1]),
            *(self.variant(name) for name in params.rows),
            *(self.scst(row, *pair) for row, pair in refined_rows(params).items()),
        ]


def format_cell(work: Work, chip: Chip) -> str:
    """Format hours, memory at the profile's batch, and the largest batch that fits if this does not."""
    size, free = work.need.total_bytes, int(chip.memory * EFFICIENCY.free)
    largest = work.need.largest_fit(free)
    fits = "" if size <= free else f"; fits {largest}" if largest else "; does not fit"
    return f"{work.hours(chip):.2f} h, {size / 1e9:.0f} GB{fits}"


def format_measured(work: Work, measured: Mapping[str, Any]) -> str:
    values = [(chip, rows[work.name]) for chip, rows in measured.items() if work.name in rows]
    texts = [f"{chip}: {value['hours']:.2f} h, {value['gigabytes']:.0f} GB" for chip, value in values]
    return "; ".join(texts) or "not measured"


NOTES = f"""# Hours and memory of the paper profile

These are predictions; the last column has measurements. `python -m benchmarks.planning` writes this page. A row's
hours are training, validation and the captions of the test images; memory is that of its training step (zero-shot
rows: of captioning). Validation and captioning take `machine.decoding_batch` rows at a time: 64 need up to 16 GB.

Assumptions: {IMAGES["train"]:,} training, {IMAGES["validation"]:,} validation and {IMAGES["test"]:,} test images;
prompts of {PROMPT} and captions of {SUFFIX} tokens after 256 of the image (memory: of {LONGEST} tokens; SCST: of the
limit). Training reaches {EFFICIENCY.training:.0%} of a chip's peak, prompts {EFFICIENCY.prefill:.0%}, and decoding
{EFFICIENCY.decoding:.0%} of the bandwidth, since each token of a batch reads all weights. {EFFICIENCY.free:.0%} of the
memory is free. Not included: reading and decoding images, loading weights, checkpoints, starting kernels, rewards, and
longer captions, for which a whole batch waits; on a fast chip these may double SCST's hours. A T4 has no bfloat16
units: its float32 units compute such products, at an eighth of its speed in float16."""
CLOSING = f"""\"fits N\" is the largest number of rows or images at a time that fits (`machine.training_rows`,
`scst.batch`, `machine.decoding_batch`); a smaller `training_rows` changes no gradient. `machine.dequantise: false`
frees about 4 GB, `machine.optimizer: paged-adamw-8bit` three quarters of the optimizer's memory. The paper reports
{PAPER_HOURS:.0f} hours for its two epochs of SCST on an A100, with one sampled caption."""


def page(params: Params, measured: Mapping[str, Any]) -> str:
    """Return docs/planning.md."""
    with tempfile.TemporaryDirectory() as scratch:
        processor = make_processor(true_shape.make_tokenizer(), true_shape.SIDE)
        true_shape.make_config(processor.image_token_id).save_pretrained(scratch)
        works = Planner(params, Path(scratch)).works()
    header = ["row", *(format_chip(name, chip) for name, chip in CHIPS.items()), "measured"]
    lines = [[work.label, *(format_cell(work, chip) for chip in CHIPS.values())] for work in works]
    lines = [[*line, format_measured(work, measured)] for line, work in zip(lines, works, strict=True)]
    zero_shot = len(params.zero_shot)  # equal rows, of which the page has the first
    totals = [zero_shot * works[0].hours(chip) + sum(work.hours(chip) for work in works[1:]) for chip in CHIPS.values()]
    lines.append([f"all rows, {zero_shot} zero-shot ones", *(f"{hours:.1f} h" for hours in totals), ""])
    table = "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])
    return f"{NOTES}\n\n{table}\n\n{CLOSING}\n"


def format_chip(name: str, chip: Chip) -> str:
    peaks = f"{chip.operations / 1e12:g} TFLOP/s, {chip.bandwidth / 1e9:g} GB/s, {chip.memory / 1e9:g} GB"
    return f"{name} ({peaks})"


def read_measured() -> dict[str, Any]:
    """Return what was measured on chips: {chip: {row: {"hours", "gigabytes"}}}."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


if __name__ == "__main__":
    print(page(load_params(), read_measured()), end="")
