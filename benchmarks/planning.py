"""Predicted hours and memory of the paper profile, row by row, on several chips: `python -m benchmarks.planning`.

    python -m benchmarks.planning > docs/planning.md

Operations are counted by torch's FlopCounterMode on the model's true shape without weights, bytes by
limits/memory.py on the same model; nothing is timed. From operations to hours lead the assumptions in `CHIPS` and
`Assumed`, which the page states. What was measured on a chip stands in docs/measured.json and is shown beside.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

import stages  # noqa: F401  # how long threads spin
from benchmarks import true_shape
from captioning.adapters.lora import freeze_encoder
from captioning.checkpoints.miniature import make_processor
from captioning.limits.activations import meta_model
from captioning.limits.memory import Need, adapter_bytes, count_trainable, weight_bytes
from captioning.limits.scst import measure_scst_step
from captioning.params.load import Params, load_params
from captioning.params.recipes import refined_rows
from captioning.scst.sampling import Sampling

MEASURED = Path("docs/measured.json")  # {chip: {row: {"hours", "gigabytes"}}}
IMAGES = {"train": 26_712, "validation": 8_904, "test": 8_905}  # 60/20/20 of 44,521 (III)
PROMPT, SUFFIX = 5, 16  # tokens: <bos>, the prompt, a newline; a caption of 15 and <eos>
LONGEST = 60  # tokens of the longest caption, which memory must hold; RISC's has 51 words
PAPER_HOURS = 46.0  # of SCST, on an A100 (VI.A)


@dataclass(frozen=True)
class Chip:
    """Published peaks: dense matrix operations a second in the dtype that bfloat16 runs in, bytes a second, bytes."""

    operations: float
    bandwidth: float
    memory: float


CHIPS = {  # NVIDIA's data sheets; a T4 has no bfloat16 units, so that such products run on its float32 ones
    "T4": Chip(8.1e12, 320e9, 16e9),
    "A100 80 GB": Chip(312e12, 2039e9, 80e9),
    "H200": Chip(989e12, 4800e9, 141e9),
}


@dataclass(frozen=True)
class Assumed:
    """Shares of the peaks that are reached, and of memory that is free."""

    training: float = 0.35
    prefill: float = 0.45
    decoding: float = 0.40  # of the bandwidth: every step of decoding reads the weights once a batch
    free: float = 0.94


ASSUMED = Assumed()


@dataclass(frozen=True)
class Work:
    """What a row takes: operations to train and to run prompts, bytes that decoding reads, and its memory."""

    label: str
    name: str
    training: float
    prefill: float
    read: float
    need: Need

    def hours(self, chip: Chip) -> float:
        seconds = self.training / (chip.operations * ASSUMED.training) + self.prefill / (
            chip.operations * ASSUMED.prefill
        )
        return (seconds + self.read / (chip.bandwidth * ASSUMED.decoding)) / 3600


def counted(work: Callable[[], Any]) -> float:
    """Operations of `work`, a multiplication and an addition each."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def visits(params: Params, row: str) -> int:
    """Training rows a variant sees, all epochs."""
    variant = params.variants[row]
    captions = 5 if (variant.captions or params.finetune.captions) == "all" else 1
    return IMAGES["train"] * captions * epochs(params, row)


def epochs(params: Params, row: str) -> int:
    return params.variants[row].epochs or params.finetune.epochs


def refined_visits(params: Params) -> int:
    """Images SCST sees, all epochs."""
    scst = params.profiles["paper"].scst
    return (scst.images or IMAGES["train"]) * scst.epochs


class Planner:
    """The paper profile's rows on PaliGemma-3B's shape, whose configuration lies in `folder`."""

    def __init__(self, params: Params, folder: Path) -> None:
        self.params, self.folder, self.profile = params, folder, params.profiles["paper"]

    def meta(self, rank: int, targets: str) -> Any:
        """The model with an adapter; alpha and the like change no shape."""
        lora = {"rank": rank, "alpha": 16.0, "dropout": 0.0, "rslora": False, "targets": targets}
        return meta_model(self.folder, self.params.profiles["paper"].machine.compute, "cuda", lora)

    def bare(self) -> Any:
        return meta_model(self.folder, self.params.profiles["paper"].machine.compute, "cuda")

    def captioning(self, meta: Any, images: int) -> tuple[float, float]:
        """Operations of `images`' prompts, and bytes read while their captions are decoded."""
        machine = self.profile.machine
        prompt = counted(lambda: meta.measure_validation(1, PROMPT, 1)) * images
        size = sum(weight_bytes(meta, machine.dequantise).values())
        return prompt, size * SUFFIX * -(-images // machine.decoding_batch)

    @cache  # noqa: B019
    def supervised(self, rank: int, targets: str) -> tuple[float, float, int, int]:
        """Operations to train and to validate a row; bytes of a training step of one row and of two."""
        meta = self.meta(rank, targets)
        trained = counted(lambda: meta.measure_training(1, PROMPT, SUFFIX))
        held_out = counted(lambda: meta.measure_validation(1, PROMPT, SUFFIX))
        one, two = (meta.measure_training(rows, PROMPT, LONGEST).peak for rows in (1, 2))
        return trained, held_out, one, two

    @cache  # noqa: B019
    def refined(self, rank: int, targets: str, greedy: bool) -> tuple[Any, float, int, int]:
        """The model whose decoder alone is trained; operations of an image, bytes of a step of one and of two."""
        scst, meta = self.params.scst, self.meta(rank, targets)
        freeze_encoder(meta.model)
        sampling = Sampling((0,), self.profile.scst.temperature, scst.top_k, scst.top_p)
        limit = self.params.decoding.maximum_tokens
        step = counted(lambda: measure_scst_step(meta, 1, PROMPT, scst.samples, greedy, SUFFIX, sampling))
        one, two = (measure_scst_step(meta, n, PROMPT, scst.samples, greedy, limit, sampling).peak for n in (1, 2))
        return meta, step, one, two

    def need(self, meta: Any, key: str, items: int, of: int, unit: str, one: int, two: int) -> Need:
        """A step's bytes grow evenly with what is in it: those of `one` and of `two` say all."""
        machine = self.profile.machine
        fixed = weight_bytes(meta, machine.dequantise) | adapter_bytes(meta.model, machine.optimizer)
        return Need(key, items, unit, fixed, lambda number: one + (number - 1) * (two - one), "cuda", of)

    def zero_shot(self, name: str) -> Work:
        meta, machine = self.bare(), self.profile.machine
        fixed, batch = weight_bytes(meta, machine.dequantise), machine.decoding_batch
        one, two = (meta.measure_generation(images, PROMPT, self.params.decoding.maximum_tokens) for images in (1, 2))
        need = Need("decoding_batch", batch, "images", fixed, lambda n: one + (n - 1) * (two - one), "cuda")
        return Work(f"zero-shot {name}", f"zero-shot-{name}", 0.0, *self.captioning(meta, IMAGES["test"]), need)

    def variant(self, name: str) -> Work:
        params, variant = self.params, self.params.variants[name]
        adapter = (variant.rank or params.lora.rank, variant.targets or params.lora.targets)
        meta, (trained, held_out, one, two) = self.meta(*adapter), self.supervised(*adapter)
        rows = params.finetune.batch * params.finetune.accumulation
        training = trained * visits(params, name)
        held = held_out * IMAGES["validation"] * epochs(params, name)
        prompts, read = self.captioning(meta, IMAGES["test"])
        at_once = min(self.profile.machine.training_rows, rows)
        need = self.need(meta, "training_rows", at_once, rows, "rows", one, two)
        return Work(f"{name} ({count_trainable(meta.model):,} weights)", name, training, held + prompts, read, need)

    def scst(self, row: str, start: str, baseline: str) -> Work:
        params, profile, variant = self.params, self.profile.scst, self.params.variants[start]
        adapter = (variant.rank or params.lora.rank, variant.targets or params.lora.targets)
        meta, image, one, two = self.refined(*adapter, baseline == "greedy")
        seen = refined_visits(params)
        encoded = counted(lambda: meta.measure_encoding(1)) * IMAGES["train"]
        steps, size = -(-seen // profile.batch), sum(weight_bytes(meta, True).values()) * SUFFIX
        held, _ = self.captioning(meta, params.scst.validation_images * (1 + steps // profile.validate_every))
        tested, read = self.captioning(meta, IMAGES["test"])
        need = self.need(meta, "scst.batch", profile.batch, 0, "images", one, two)
        label = f"SCST of {start}, {baseline}"
        return Work(label, row, image * seen, encoded + held + tested, read + size * steps, need)

    def works(self) -> list[Work]:
        params = self.params
        return [
            *(self.zero_shot(name) for name in params.zero_shot[:1]),
            *(self.variant(name) for name in params.rows),
            *(self.scst(row, *pair) for row, pair in refined_rows(params).items()),
        ]


def cell(work: Work, chip: Chip) -> str:
    """Hours, memory at the profile's size, and the most that fit where that does not."""
    needed, free = work.need.total_bytes, int(chip.memory * ASSUMED.free)
    most = work.need.largest_fit(free)
    fits = "" if needed <= free else f"; fits {most}" if most else "; does not fit"
    return f"{work.hours(chip):.2f} h, {needed / 1e9:.0f} GB{fits}"


def measured(work: Work, found: Mapping[str, Any]) -> str:
    told = [f"{chip}: {of[work.name]['hours']:.2f} h, {of[work.name]['gigabytes']:.0f} GB"
            for chip, of in found.items() if work.name in of]  # fmt: skip
    return "; ".join(told) or "not measured"


NOTES = f"""# What the paper profile takes

Predicted, not measured, unless the last column says otherwise; written by `python -m benchmarks.planning`. A row's
hours are training, validation and the captions of the test images; memory is that of its training step (zero-shot
rows: of captioning). Validation and captioning take `machine.decoding_batch` rows at a time: 64 take up to 16 GB.

Assumed: {IMAGES["train"]:,} training, {IMAGES["validation"]:,} validation and {IMAGES["test"]:,} test images; prompts
of {PROMPT} and captions of {SUFFIX} tokens after 256 of the image (memory: of {LONGEST} tokens; SCST: of the limit).
Reached are {ASSUMED.training:.0%} of a chip's peak in training, {ASSUMED.prefill:.0%} where prompts are run, and
{ASSUMED.decoding:.0%} of its bandwidth in decoding, which reads all weights once a token and batch. Of its memory
{ASSUMED.free:.0%} is free. Not counted: reading and decoding images, loading weights, checkpoints,
starting kernels, rewards, and captions longer than assumed, for which a whole batch waits; on a fast chip these may
double SCST's hours. A T4 has no bfloat16 units: such products run on its float32 ones, at an eighth of what it does in
float16."""
CLOSING = f"""\"fits N\" names the largest number of rows or images at a time that fits (`machine.training_rows`,
`scst.batch`, `machine.decoding_batch`); a smaller `training_rows` changes no gradient. `machine.dequantise: false`
frees some 4 GB, `machine.optimizer: paged-adamw-8bit` three quarters of the optimizer's. The paper reports
{PAPER_HOURS:.0f} hours for its two epochs of SCST on an A100, with one sampled caption."""


def page(params: Params, found: Mapping[str, Any]) -> str:
    """docs/planning.md."""
    with tempfile.TemporaryDirectory() as scratch:
        processor = make_processor(true_shape.tokenizer(), true_shape.SIDE)
        true_shape.config(processor.image_token_id).save_pretrained(scratch)
        works = Planner(params, Path(scratch)).works()
    header = ["row", *(f"{name} ({chip.operations / 1e12:g} TFLOP/s, {chip.bandwidth / 1e9:g} GB/s, "
                       f"{chip.memory / 1e9:g} GB)" for name, chip in CHIPS.items()), "measured"]  # fmt: skip
    lines = [[work.label, *(cell(work, chip) for chip in CHIPS.values()), measured(work, found)] for work in works]
    alike = len(params.zero_shot)
    total = [alike * works[0].hours(chip) + sum(work.hours(chip) for work in works[1:]) for chip in CHIPS.values()]
    lines.append([f"all rows, {alike} zero-shot ones", *(f"{hours:.1f} h" for hours in total), ""])
    table = "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])
    return f"{NOTES}\n\n{table}\n\n{CLOSING}\n"


def committed() -> dict[str, Any]:
    """What was measured on real chips."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


if __name__ == "__main__":
    print(page(load_params(), committed()), end="")
