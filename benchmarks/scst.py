"""SCST in images per second: ours against the paper's way, same model, batch and samples, in turn and in one run.

    python -m benchmarks.scst                                the miniature, taught some captions first
    python -m benchmarks.scst --shape 3b --device cuda       PaliGemma-3B's true shape, random weights
    python -m benchmarks.scst --shape 3b --device cuda --batch 64

Both begin with decoded pixels. Ours is charged the encoding of its images at every step, though a run encodes each
image once. Five samples and the greedy baseline, 24 tokens at most; the miniature's batch and temperature are those of
params.yaml. Random weights never end a caption: at the true shape every one is 24 tokens long, against about 15.
"""

import random
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import stages  # noqa: F401  # how long threads spin
from benchmarks import true_shape
from benchmarks.papers_scst import Rewards, papers_step, rewards_from_text, rewards_from_tokens
from benchmarks.side_by_side import HEADER, ask, parser, side_by_side
from benchmarks.tutorial import Collator
from captioning.adapters.lora import attach_adapter, freeze_encoder, lora_config
from captioning.checkpoints import miniature
from captioning.commands.caption import positive_int
from captioning.compute.seeds import seed_everything
from captioning.data.world.captions import write_captions
from captioning.data.world.draw import draw_scene
from captioning.data.world.scenes import sample_scene
from captioning.evaluation.scores import java_on_path
from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.metrics.ptb import tokenize
from captioning.paligemma.model import image_features, load_frozen, load_processor, load_quantised, prompt_inputs
from captioning.params.load import load_params
from captioning.params.recipe import ScstSettings
from captioning.runtime.progress import Stopwatch
from captioning.scst.trainer import PARTS, SCSTTrainer
from captioning.training.run import TrainingRun
from captioning.training.trainer import training_arguments

PARAMS = load_params().profiles["miniature"]
SIDE, PROMPT, SAMPLES, TOKENS, STEPS = PARAMS.data.image_size, "caption en", 5, 24, 5
PAPER_HOURS, PAPER_IMAGES, PAPER_EPOCHS = 46.0, 26_712, 2  # VI.A; 60 % of 44,521 images
FLOOR_MINUTES = {"greedy, one sample": 8, "leave-one-out, five samples": 11, "the same, eager": 21}  # of an H200


@dataclass(frozen=True)
class World:
    """Drawn pictures with five captions each, as tokens."""

    ids: list[str]
    images: list[bytes]
    texts: list[list[str]]
    tokens: list[list[str]]


def world(number: int, side: int) -> World:
    rng, images, texts = random.Random(1), [], []
    for _ in range(number):
        scene, png = sample_scene(rng), BytesIO()
        picture = draw_scene(scene, SIDE, rng)
        (picture if side == SIDE else picture.resize((side, side), Image.Resampling.BICUBIC)).save(png, "PNG")
        images.append(png.getvalue())
        texts.append(write_captions(scene, "NWPU", rng))
    return World([str(i) for i in range(number)], images, texts, [tokenize(of_image) for of_image in texts])


def taught_miniature(folder: Path, seen: World) -> None:
    """A miniature that has seen a few captions often enough to speak in captions that end."""
    model, processor = miniature.make_checkpoint([], SIDE)
    processor.tokenizer.padding_side = "right"
    rows = zip(seen.images, seen.texts, strict=True)
    batch = Collator(processor)([{"image": image, "prompt": PROMPT, "caption": own[0]} for image, own in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def adapted(base: Any) -> Any:
    torch.manual_seed(0)
    model = attach_adapter(base, lora_config(16, 16, 0.0, False, "table2"))
    freeze_encoder(model)
    return model


def settings(temperature: float) -> ScstSettings:
    """The miniature's recipe with what this benchmark fixes."""
    shared = load_params().scst.model_dump(exclude={"starts", "baselines"}) | PARAMS.scst.model_dump()
    sampling = {"samples": SAMPLES, "temperature": temperature, "top_k": 0, "top_p": 1.0, "kl": 0.0}
    row = {"start": "mix", "baseline": "greedy", "prompt": PROMPT, "maximum_tokens": TOKENS}
    return ScstSettings.model_validate(shared | sampling | row)


def trainer(model: Any, processor: Any, seen: World, device: str, temperature: float, folder: Path) -> SCSTTrainer:
    references = dict(zip(seen.ids, seen.tokens, strict=True))
    counted = DocumentFrequencies.from_references(references.values(), eos=True)
    one = SCSTTrainer(
        model=model,
        args=training_arguments(TrainingRun(1, device, folder)),
        processor=processor,
        settings=settings(temperature),
        reward=CiderD(counted, references, eos=True),
        plain=CiderD(counted, references),
    )
    one.log = lambda *_: None  # type: ignore[method-assign, assignment]
    return one


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    """AdamW at rate 0: the work of a step, and the same model after it."""
    return torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.0)


def our_step(one: SCSTTrainer, prompt: Mapping[str, torch.Tensor], ids: Sequence[str]) -> Callable[[], None]:
    optimizer = optimizer_of(one.model)

    def step() -> None:
        with one.stopwatch("encode"), torch.no_grad():
            features = image_features(one.model.get_base_model(), prompt["pixel_values"]).pooler_output
        with one.stopwatch("step"):
            one.compute_loss(one.model, {"id": ids, "features": features}).backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def dtype(shape: str) -> str:
    """What a shape computes in: as its profile's machine does."""
    return load_params().profiles["miniature" if shape == "miniature" else "paper"].machine.compute


def compare(shape: str, device: str, batch: int, pairs: int) -> list[str]:
    """Rows of the table, and what ours does by part."""
    seed_everything(1, PARAMS.machine.threads if device == "cpu" else 8)
    compute = dtype(shape)
    seen = world(batch, SIDE if shape == "miniature" else true_shape.SIDE)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        taught_miniature(folder, seen) if shape == "miniature" else true_shape.write(folder, device)
        processor = load_processor(folder)
        theirs = adapted(load_quantised(folder, compute, device))
        ours = adapted(load_frozen(folder, compute, device, dequantise=True))
    prompt = {key: value.to(device) for key, value in prompt_inputs(processor, seen.images, PROMPT).items()}
    prompt["pixel_values"] = prompt["pixel_values"].to(getattr(torch, compute))
    temperature = PARAMS.scst.temperature if shape == "miniature" else 1.0
    one = trainer(ours, processor, seen, device, temperature, folder)
    step = our_step(one, prompt, seen.ids)
    what = f"{shape}, {batch} images, greedy + {SAMPLES} samples"

    def peer(references: Sequence[Sequence[str]], rewards: Rewards) -> Callable[[], Any]:
        optimizer = optimizer_of(theirs)

        def step_and_wait() -> float:
            loss = papers_step(theirs, processor, prompt, references, SAMPLES, TOKENS, temperature, rewards)
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()  # waits for all that a GPU has queued before

        return step_and_wait

    def our_rewards(said: Sequence[str], references: Sequence[Sequence[str]]) -> torch.Tensor:
        ids = [id_ for id_ in seen.ids for _ in range(len(said) // len(references))]
        return torch.from_numpy(one.reward.scores(ids, tokenize(said)))

    peers = {
        f"SCST step, {what}": peer(seen.texts, rewards_from_text),
        "the same, the peer's references tokenised beforehand": peer(seen.tokens, rewards_from_tokens),
        "the same, the peer with our reward": peer(seen.tokens, our_rewards),
    }
    with java_on_path():
        rows = [side_by_side(name, step, of_peer, pairs) for name, of_peer in peers.items()]
    return [*rows, "", *by_part(one, step, batch, device)]


def by_part(one: SCSTTrainer, step: Callable[[], None], batch: int, device: str) -> list[str]:
    """Median seconds of a step by part, memory, and what the paper's whole SCST would take."""
    one.stopwatch = Stopwatch(torch.cuda.synchronize if device != "cpu" else lambda: None)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    laps = []
    for _ in range(STEPS):
        step()
        lap = one.stopwatch.lap()
        lap["update"] = lap.pop("step") - sum(lap[part] for part in PARTS if part in lap)
        laps.append(lap)
    seconds = {part: statistics.median(lap[part] for lap in laps) for part in ("encode", *PARTS)}
    visit, encoding = sum(seconds[part] for part in PARTS) / batch, seconds["encode"] / batch
    parts = ", ".join(f"{part} {1000 * value:.0f} ms" for part, value in seconds.items())
    return [f"{parts} a step: {1 / visit:.2f} images a second, and {1 / encoding:.1f} encoded, once a run",
            *(_at_true_size(visit, encoding) if device != "cpu" else [])]  # fmt: skip


def _at_true_size(visit: float, encoding: float) -> list[str]:
    """Peak memory, and what the paper's whole SCST would take at so many seconds an image."""
    hours = PAPER_IMAGES * (PAPER_EPOCHS * visit + encoding) / 3600
    peak = torch.cuda.max_memory_allocated() / 2**30
    floor = ", ".join(f"{what}: {minutes} min" for what, minutes in FLOOR_MINUTES.items())
    return [f"{torch.cuda.get_device_name()}: {peak:.1f} GiB at the peak, the peer's model and update among them",
            f"{PAPER_IMAGES:,} images x {PAPER_EPOCHS} epochs: {hours:.2f} h; the paper: {PAPER_HOURS:.0f} h; "
            f"reckoned floor of an H200: {floor}; not counted: reading images, validations, checkpoints"]  # fmt: skip


def run() -> str:
    """The miniature's rows, for `make bench`."""
    return "\n".join(compare("miniature", "cpu", PARAMS.scst.batch, pairs=5)[:3])


if __name__ == "__main__":
    arguments = parser(__doc__, pairs=5)
    arguments.add_argument("--batch", type=positive_int, help="images a step; at the true shape 32")
    asked = ask(arguments)
    batch = asked.batch or (32 if asked.shape == "3b" else PARAMS.scst.batch)
    print("\n".join([HEADER, *compare(asked.shape, asked.device, batch, asked.pairs)]))
