"""Predict hours and memory of the paper profile's rows on several chips.

    python -m benchmarks.planning > docs/planning.md

Torch's FlopCounterMode counts the operations of the model's true shape without weights, and limits/memory.py counts
its bytes; nothing is timed. Operations, and the bytes of training, grow by the same amount with each layer, so models
of one and two layers are counted and the rest is added. `CHIPS` turns operations into hours, by shares of peaks that
the page states. The last column has the measurements of docs/measured.json.
"""

import copy
import json
import math
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

import stages  # noqa: F401  # sets how long threads spin
from benchmarks import true_shape
from captioning.adapters.lora import freeze_encoder
from captioning.checkpoints.miniature import make_processor
from captioning.limits.activations import MetaModel, meta_model
from captioning.limits.memory import Need, adapter_bytes, count_trainable, limit_size, weight_bytes
from captioning.limits.scst import measure_scst_step
from captioning.limits.sizes import largest_size
from captioning.params.load import load_params
from captioning.params.recipes import refined_rows
from captioning.params.sections import Lora, Params, SizeKey
from captioning.report.table_text import format_markdown
from captioning.scst.sampling import Sampling

MEASURED = Path("docs/measured.json")
IMAGES = {"train": 26_712, "validation": 8_904, "test": 8_905}  # 60/20/20 of 44,521 (III)
PROMPT, SUFFIX = 5, 16  # tokens: <bos>, the prompt, a newline; a caption of 15 and <eos>
LONGEST = 60  # tokens of the longest caption, which must fit in memory; RISC's has 51 words
Counts = tuple[float, ...]
PAPER_HOURS = 46.0  # of SCST, on an A100 (VI.A)

SPEED_HEADER = ("what", "rows or images at a time", "images a second", "GB", "GB, predicted")
PEER_HEADER = ("beside a peer", "ours, ms", "peer, ms", "peer / ours, median of pairs (min-max)")


@dataclass(frozen=True)
class Shares:
    """Shares of a chip's peaks that the work reaches."""

    training: float
    prefill: float
    decoding: float  # of the bandwidth: each token of a batch reads the weights once


FREE = 0.94  # assumed share of the memory that is free
ASSUMED = Shares(0.35, 0.45, 0.40)
MEASURED_SHARES = Shares(0.13, 0.18, 0.15)  # of an H100 (docs/measured.json), which often waits for kernels to start


@dataclass(frozen=True)
class Chip:
    """Published peaks: dense matrix operations a second in the named dtype, bytes a second, bytes."""

    operations: float
    bandwidth: float
    memory: float
    shares: Shares = ASSUMED

    def size(self, need: Need) -> int:
        """Return how many rows or images at a time fit, or 0."""
        return largest_size(need, int(self.memory * FREE))


CHIPS = {  # NVIDIA's data sheets; a T4 has no bfloat16 units, so its float32 units compute such products
    "T4 in bfloat16": Chip(8.1e12, 320e9, 16e9),
    "T4 in float16": Chip(65e12, 320e9, 16e9),
    "A100 80 GB": Chip(312e12, 2039e9, 80e9),
    "H100": Chip(989e12, 3350e9, 80e9, MEASURED_SHARES),
    "H200": Chip(989e12, 4800e9, 141e9, MEASURED_SHARES),
}


@dataclass(frozen=True)
class Work:
    """The work of a row: operations of training and of prompts, images whose captions are decoded, bytes of the weights
    that each token of a batch reads, and the memory of its step and of decoding."""

    label: str
    name: str
    training: float
    prefill: float
    sampled: int  # images, at a time those of a step's micro-batch
    captioned: int  # images, in batches
    weights: float
    need: Need  # of a training step; of captioning if there is none
    decoding: Need

    def hours(self, chip: Chip) -> float:
        """Return the hours on `chip`, with as many rows or images at a time as fit there."""
        shares = chip.shares
        seconds = self.training / (chip.operations * shares.training)
        seconds += self.prefill / (chip.operations * shares.prefill)
        pairs = (self.sampled, self.need), (self.captioned, self.decoding)
        batches = sum(math.ceil(images / max(1, chip.size(need))) for images, need in pairs)
        return (seconds + batches * SUFFIX * self.weights / (chip.bandwidth * shares.decoding)) / 3600


def extrapolate(count: Callable[[int, int], Counts], vision: int, decoder: int) -> Counts:
    """Return `count(vision, decoder)` from models of one and two layers."""
    first, deeper_vision, deeper_decoder = count(1, 1), count(2, 1), count(1, 2)
    return tuple(
        a + (vision - 1) * (b - a) + (decoder - 1) * (c - a)
        for a, b, c in zip(first, deeper_vision, deeper_decoder, strict=True)
    )


def count_operations(work: Callable[[], Any]) -> float:
    """Count multiplications and additions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def row_visits(params: Params, row: str) -> int:
    """Return how many training rows a variant sees in all epochs."""
    variant = params.variants[row]
    captions = 5 if (variant.captions or params.profiles["paper"].finetune.captions) == "all" else 1
    return IMAGES["train"] * captions * row_epochs(params, row)


def row_epochs(params: Params, row: str) -> int:
    return params.variants[row].epochs or params.finetune.epochs


def scst_visits(params: Params) -> int:
    """Return how many images SCST sees in all epochs."""
    scst = params.profiles["paper"].scst
    return (scst.images or IMAGES["train"]) * scst.epochs


class Planner:
    """Count the work of the paper profile's rows on the true shape; configurations of fewer layers go to `folder`."""

    def __init__(self, params: Params, folder: Path) -> None:
        self.params, self.folder, self.profile = params, folder, params.profiles["paper"]
        self.processor = make_processor(true_shape.make_tokenizer(), true_shape.SIDE)
        self.config = true_shape.make_config(self.processor.image_token_id)
        self.depths = self.config.vision_config.num_hidden_layers, self.config.text_config.num_hidden_layers

    @cache  # noqa: B019
    def model(self, vision: int, decoder: int, lora: Lora | None, is_refined: bool = False) -> MetaModel:
        """Return a model of so many layers with an adapter, if any; SCST refines the decoder's alone."""
        folder = self.folder / f"{vision}-{decoder}"
        if not folder.exists():
            config = copy.deepcopy(self.config)
            config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers = vision, decoder
            config.save_pretrained(folder)
        meta = meta_model(folder, self.profile.machine.compute, "cuda", lora)
        if is_refined:
            freeze_encoder(meta.model)
        return meta

    def lora(self, name: str) -> Lora:
        """Return a variant's adapter; alpha, dropout and scale change no shape."""
        variant, shared = self.params.variants[name], self.params.lora
        rank, targets = variant.rank or shared.rank, variant.targets or shared.targets
        return Lora(rank=rank, alpha=16.0, dropout=0.0, rslora=False, targets=targets)

    @cache  # noqa: B019
    def captioned(self, lora: Lora | None) -> Counts:
        """Count a prompt's operations, and bytes of decoding one image and two."""

        def count(*depths: int) -> Counts:
            meta = self.model(*depths, lora)
            return (count_operations(lambda: meta.measure_validation(1, PROMPT, 1)),)

        # Without gradients, the tower's layers live one after another, so one layer has the peak of all.
        meta, limit = self.model(1, self.depths[1], lora), self.params.decoding.maximum_tokens
        peaks = (meta.measure_generation(images, PROMPT, limit) for images in (1, 2))
        return *extrapolate(count, *self.depths), *peaks

    @cache  # noqa: B019
    def supervised(self, lora: Lora) -> Counts:
        """Count operations of training and of validation on a row, and bytes of a step of one row and of two."""
        return extrapolate(lambda *depths: count_supervised(self.model(*depths, lora)), *self.depths)

    @cache  # noqa: B019
    def refined(self, lora: Lora, greedy: bool) -> Counts:
        """Count an image's operations in a step and in the encoder, and bytes of a step of one image and of two."""
        scst, temperature = self.params.scst, self.profile.scst.temperature
        sampling = Sampling((0,), temperature, scst.top_k, scst.top_p)

        def count(*depths: int) -> Counts:
            meta = self.model(*depths, lora, is_refined=True)

            def measure(images: int, tokens: int) -> int:
                return measure_scst_step(meta, images, PROMPT, scst.samples, greedy, tokens, sampling)

            operations = (count_operations(work) for work in (lambda: measure(1, SUFFIX), lambda: meta.features(1)))
            return *operations, *(measure(images, self.params.decoding.maximum_tokens) for images in (1, 2))

        return extrapolate(count, *self.depths)

    def need(self, meta: MetaModel, key: SizeKey, unit: str, sizes: Counts, step: int = 0) -> Need:
        """Predict memory from the bytes of a step of one item and of two: they grow linearly."""
        machine, (first, second) = self.profile.machine, map(int, sizes)
        fixed = weight_bytes(meta, machine.dequantise)
        if step:
            fixed |= adapter_bytes(meta.model, machine.optimizer)
        items = limit_size(getattr(machine, key), step)
        return Need(key, items, unit, fixed, lambda n: first + (n - 1) * (second - first), "cuda", step)

    def work(
        self, label: str, name: str, meta: MetaModel, lora: Lora | None, need: Need | None = None, **counts: float
    ) -> Work:
        """Return the work of a row: `counts`, and the captions of the test images."""
        prompt, *sizes = self.captioned(lora)
        decoding, test = self.need(meta, "decoding_batch", "images", tuple(sizes)), IMAGES["test"]
        weights = sum(weight_bytes(meta, self.profile.machine.dequantise).values())
        values: dict[str, Any] = {"training": 0.0, "prefill": 0.0, "sampled": 0} | counts
        values["prefill"] += prompt * test
        return Work(label, name, captioned=test, weights=weights, need=need or decoding, decoding=decoding, **values)

    def zero_shot(self, name: str) -> Work:
        return self.work(f"zero-shot {name}", f"zero-shot-{name}", self.model(*self.depths, None), None)

    def variant(self, name: str) -> Work:
        params, lora = self.params, self.lora(name)
        meta, (training, validation, *sizes) = self.model(*self.depths, lora), self.supervised(lora)
        step = params.finetune.batch * params.finetune.accumulation
        need = self.need(meta, "training_rows", "rows", tuple(sizes), step)
        counts = {"training": training * row_visits(params, name)}
        counts["prefill"] = validation * IMAGES["validation"] * row_epochs(params, name)
        return self.work(f"{name} ({count_trainable(meta.model):,} weights)", name, meta, lora, need, **counts)

    def scst(self, row: str, start: str, baseline: str) -> Work:
        params, profile, lora = self.params, self.profile.scst, self.lora(start)
        meta = self.model(*self.depths, lora, is_refined=True)
        operations, encoding, *sizes = self.refined(lora, baseline == "greedy")
        images = scst_visits(params)
        validations = 1 + math.ceil(images / profile.batch) // profile.validate_every
        need = self.need(meta, "scst_images", "images", tuple(sizes), profile.batch)
        counts = {"training": operations * images, "sampled": images, "prefill": encoding * IMAGES["train"]}
        counts["prefill"] += self.captioned(lora)[0] * params.scst.validation_images * validations
        return self.work(f"SCST of {start}, {baseline}", row, meta, lora, need, **counts)

    def works(self) -> list[Work]:
        params = self.params
        return [
            *(self.zero_shot(name) for name in params.zero_shot[:1]),
            *(self.variant(name) for name in params.rows),
            *(self.scst(row, *pair) for row, pair in refined_rows(params).items()),
        ]


def count_supervised(meta: MetaModel) -> Counts:
    """Count operations of training and of validation on a row, and bytes of a step of one row and of two."""
    works = meta.measure_training, meta.measure_validation
    training, validation = (count_operations(partial(work, 1, PROMPT, SUFFIX)) for work in works)
    return training, validation, *(meta.measure_training(rows, PROMPT, LONGEST).peak for rows in (1, 2))


def format_cell(work: Work, chip: Chip) -> str:
    """Format hours, and rows or images at a time with their memory."""
    if not (size := chip.size(work.need)):
        return "does not fit"
    return f"{work.hours(chip):.2f} h, {size} in {replace(work.need, items=size).total_bytes / 1e9:.0f} GB"


def format_measured(work: Work, measured: Mapping[str, Any]) -> str:
    values = [(chip, entry["rows"][work.name]) for chip, entry in measured.items() if work.name in entry["rows"]]
    texts = [f"{chip}: {value['hours']:.2f} h, {value['gigabytes']:.0f} GB" for chip, value in values]
    return "; ".join(texts) or "not measured"


def format_steps(chip: str, entry: Mapping[str, Any]) -> str:
    """Return a chip's speeds and its comparison with a peer, as two tables."""
    speeds = [list(map(str, step.values())) for step in entry["steps"]]
    peers = []
    for what, ours, peer, ratio, lowest, highest in (values.values() for values in entry.get("beside_a_peer", [])):
        peers.append([what, f"{ours:.0f}", f"{peer:.0f}", f"{ratio:.2f} ({lowest:.2f}-{highest:.2f})"])
    notes = "\n".join(textwrap.fill(f"- {note}", 118, subsequent_indent="  ") for note in entry.get("notes", []))
    return "\n\n".join(
        [f"## Measured: {chip}", format_markdown(SPEED_HEADER, speeds), format_markdown(PEER_HEADER, peers), notes]
    )


NOTES = f"""# Hours and memory of the paper profile

These are predictions; the last column has measurements. `python -m benchmarks.planning` writes this page. A row's
hours are training, validation and the captions of the test images. "2 in 13 GB": a micro-batch of the row's training
(zero-shot rows: a batch of captions) has two rows or images and needs 13 GB. These are the sizes that `auto` chooses
for `machine.training_rows`, `machine.scst_images` and `machine.decoding_batch`. They change no gradient.

Assumptions: {IMAGES["train"]:,} training, {IMAGES["validation"]:,} validation and {IMAGES["test"]:,} test images;
prompts of {PROMPT} and captions of {SUFFIX} tokens after 256 of the image (memory: of {LONGEST} tokens; SCST: of the
limit). Training reaches {ASSUMED.training:.0%} of a chip's peak, prompts {ASSUMED.prefill:.0%}, and decoding
{ASSUMED.decoding:.0%} of the bandwidth, since each token of a batch reads all weights. For H100 and H200 these shares
are those measured on an H100, which often waits for kernels to start: {MEASURED_SHARES.training:.0%},
{MEASURED_SHARES.prefill:.0%} and {MEASURED_SHARES.decoding:.0%}. {FREE:.0%} of the memory is free. Not included:
reading and decoding images, loading weights, checkpoints, rewards, and longer captions, for which a whole batch waits.
A T4 has no bfloat16 units: its float32 units compute such products, at an eighth of its speed in float16
(`machine.compute: float16`; the bytes are the same)."""
CLOSING = f"""`machine.dequantise: false` frees about 4 GB, `machine.optimizer: paged-adamw-8bit` three quarters of the
optimizer's memory. The paper reports {PAPER_HOURS:.0f} hours for its two epochs of SCST on an A100, with one sampled
caption."""


def make_page(params: Params, measured: Mapping[str, Any]) -> str:
    """Return docs/planning.md."""
    with tempfile.TemporaryDirectory() as scratch:
        works = Planner(params, Path(scratch)).works()
    header = ["row", *(format_chip(name, chip) for name, chip in CHIPS.items()), "measured"]
    lines = [[work.label, *(format_cell(work, chip) for chip in CHIPS.values())] for work in works]
    lines = [[*line, format_measured(work, measured)] for line, work in zip(lines, works, strict=True)]
    zero_shot = len(params.zero_shot)  # equal rows, of which the page has the first
    totals = [zero_shot * works[0].hours(chip) + sum(work.hours(chip) for work in works[1:]) for chip in CHIPS.values()]
    lines.append([f"all rows, {zero_shot} zero-shot ones", *(f"{hours:.1f} h" for hours in totals), ""])
    sections = [NOTES, format_markdown(header, lines), CLOSING]
    return "\n\n".join([*sections, *(format_steps(chip, entry) for chip, entry in measured.items())]) + "\n"


def format_chip(name: str, chip: Chip) -> str:
    peaks = f"{chip.operations / 1e12:g} TFLOP/s, {chip.bandwidth / 1e9:g} GB/s, {chip.memory / 1e9:g} GB"
    return f"{name} ({peaks})"


def read_measured() -> dict[str, Any]:
    """Return what was measured on chips: {chip: {"rows": {row: {"hours", "gigabytes"}}, "steps", "beside_a_peer"}}."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


if __name__ == "__main__":
    print(make_page(load_params(), read_measured()), end="")
