"""Compare SCST with the paper's way, in images per second: same model, batch and samples, in turn, in one run.

    python -m benchmarks.scst                                the miniature, after it has learnt some captions
    python -m benchmarks.scst --shape 3b --device cuda       PaliGemma-3B's true shape, random weights
    python -m benchmarks.scst --shape 3b --device cuda --batch 32 --updated 4

Both start from decoded pixels. Ours encodes its images in each step here, although a run encodes each image once. Five
samples and the greedy baseline have at most 24 tokens; the miniature's batch and temperature are those of params.yaml.
Random weights never end a caption: at the true shape each one has 24 tokens, not about 15.
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
from peft import get_peft_model
from PIL import Image

import stages  # noqa: F401  # sets how long threads spin
from benchmarks import true_shape
from benchmarks.papers_scst import PeerSampling, Rewards, papers_step, rewards_from_text, rewards_from_tokens
from benchmarks.side_by_side import HEADER, make_parser, parse_options, side_by_side
from benchmarks.tutorial import Collator
from captioning.adapters.lora import freeze_encoder, lora_config
from captioning.checkpoints import miniature
from captioning.commands.caption import parse_positive_int
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
from captioning.scst.scorers import Scorers
from captioning.scst.trainer import PARTS, SCSTTrainer
from captioning.training.run import TrainingRun
from captioning.training.trainer import training_arguments

PARAMS = load_params().profiles["miniature"]
SIDE, PROMPT, SAMPLES, TOKENS, STEPS = PARAMS.data.image_size, "caption en", 5, 24, 5
PAPER_HOURS, PAPER_IMAGES, PAPER_EPOCHS = 46.0, 26_712, 2  # VI.A; 60 % of 44,521 images
FLOOR_MINUTES = {"greedy, one sample": 8, "leave-one-out, five samples": 11, "the same, eager": 21}  # of an H200


@dataclass(frozen=True)
class World:
    """Drawn images with five captions each, as texts and as tokens."""

    ids: list[str]
    images: list[bytes]
    texts: list[list[str]]
    tokens: list[list[str]]


def draw_world(number: int, side: int) -> World:
    rng, images, texts = random.Random(1), [], []
    for _ in range(number):
        scene, png = sample_scene(rng), BytesIO()
        image = draw_scene(scene, SIDE, rng)
        (image if side == SIDE else image.resize((side, side), Image.Resampling.BICUBIC)).save(png, "PNG")
        images.append(png.getvalue())
        texts.append(write_captions(scene, "NWPU", rng))
    return World([str(i) for i in range(number)], images, texts, [tokenize(captions) for captions in texts])


def write_miniature(folder: Path, world: World) -> None:
    """Train a miniature on a few captions until its own captions end."""
    model, processor = miniature.make_checkpoint({}, SIDE)
    processor.tokenizer.padding_side = "right"
    rows = zip(world.images, world.texts, strict=True)
    batch = Collator(processor)([{"image": image, "prompt": PROMPT, "caption": texts[0]} for image, texts in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def add_adapter(base: Any) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(16, 16, 0.0, False, "table2"))
    freeze_encoder(model)
    return model


def settings(temperature: float) -> ScstSettings:
    """Return the miniature's recipe with this benchmark's values."""
    shared = load_params().scst.model_dump(exclude={"starts", "baselines"}) | PARAMS.scst.model_dump()
    sampling = {"samples": SAMPLES, "temperature": temperature, "top_k": 0, "top_p": 1.0, "kl": 0.0}
    row = {"start": "mix", "baseline": "greedy", "prompt": PROMPT, "maximum_tokens": TOKENS}
    return ScstSettings.model_validate(shared | sampling | row)


def make_trainer(
    model: Any, processor: Any, world: World, device: str, temperature: float, folder: Path
) -> SCSTTrainer:
    references = dict(zip(world.ids, world.tokens, strict=True))
    frequencies = DocumentFrequencies.from_references(references.values(), eos=True)
    trainer = SCSTTrainer(
        model=model,
        args=training_arguments(TrainingRun(1, device, folder)),
        processor=processor,
        settings=settings(temperature),
        scorers=Scorers(CiderD(frequencies, references, eos=True), CiderD(frequencies, references)),
    )
    trainer.log = lambda *_: None  # type: ignore[method-assign, assignment]
    return trainer


def make_optimizer(model: Any) -> torch.optim.Optimizer:
    """Return AdamW with rate 0: it does the work of a step and leaves the model as it is."""
    return torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.0)


def our_step(trainer: SCSTTrainer, prompt: Mapping[str, torch.Tensor], ids: Sequence[str]) -> Callable[[], None]:
    optimizer = make_optimizer(trainer.model)

    def step() -> None:
        with trainer.stopwatch("encode"), torch.no_grad():
            features = image_features(trainer.model.get_base_model(), prompt["pixel_values"]).pooler_output
        with trainer.stopwatch("step"):
            trainer.compute_loss(trainer.model, {"id": ids, "features": features}).backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def profile_dtype(shape: str) -> str:
    """Return the dtype of the shape's profile."""
    return load_params().profiles["miniature" if shape == "miniature" else "paper"].machine.compute


def compare(shape: str, device: str, batch: int, pairs: int, updated: int | None = None) -> list[str]:
    """Return rows of the table, and the seconds of our step by part. The peer scores the samples of `updated` images at
    a time with gradients, because its rows repeat image and prompt and it computes the logits of all positions."""
    seed_everything(1, PARAMS.machine.threads if device == "cpu" else 8)
    compute = profile_dtype(shape)
    world = draw_world(batch, SIDE if shape == "miniature" else true_shape.SIDE)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_miniature(folder, world) if shape == "miniature" else true_shape.write(folder, device)
        processor = load_processor(folder)
        theirs = add_adapter(load_quantised(folder, compute, device))
        ours = add_adapter(load_frozen(folder, compute, device, dequantise=True))
    prompt = {key: value.to(device) for key, value in prompt_inputs(processor, world.images, PROMPT).items()}
    prompt["pixel_values"] = prompt["pixel_values"].to(getattr(torch, compute))
    temperature = PARAMS.scst.temperature if shape == "miniature" else 1.0
    trainer = make_trainer(ours, processor, world, device, temperature, folder)
    step = our_step(trainer, prompt, world.ids)
    label = f"{shape}, {batch} images, greedy + {SAMPLES} samples"

    sampling = PeerSampling(SAMPLES, TOKENS, temperature, updated or batch)

    def peer(references: Sequence[Sequence[str]], rewards: Rewards) -> Callable[[], Any]:
        optimizer = make_optimizer(theirs)

        def step_and_wait() -> float:
            loss = papers_step(theirs, processor, prompt, references, sampling, rewards)
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()  # waits for the GPU

        return step_and_wait

    def our_rewards(captions: Sequence[str], references: Sequence[Sequence[str]]) -> torch.Tensor:
        ids = [id_ for id_ in world.ids for _ in range(len(captions) // len(references))]
        return torch.from_numpy(trainer.scorers.reward.scores(ids, tokenize(captions)))

    peers = {
        f"SCST step, {label}": peer(world.texts, rewards_from_text),
        "the same, the peer's references tokenised beforehand": peer(world.tokens, rewards_from_tokens),
        "the same, the peer with our reward": peer(world.tokens, our_rewards),
    }
    with java_on_path():
        rows = [side_by_side(name, step, peers_step, pairs) for name, peers_step in peers.items()]
    return [*rows, "", *measure_parts(trainer, step, batch, device)]


def measure_parts(trainer: SCSTTrainer, step: Callable[[], None], batch: int, device: str) -> list[str]:
    """Return median seconds of a step by part, memory, and the duration of the paper's SCST at this speed."""
    trainer.stopwatch = Stopwatch(torch.cuda.synchronize if device != "cpu" else lambda: None)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    laps = []
    for _ in range(STEPS):
        step()
        lap = trainer.stopwatch.lap()
        lap["update"] = lap.pop("step") - sum(lap[part] for part in PARTS if part in lap)
        laps.append(lap)
    seconds = {part: statistics.median(lap[part] for lap in laps) for part in ("encode", *PARTS)}
    visit, encoding = sum(seconds[part] for part in PARTS) / batch, seconds["encode"] / batch
    parts = ", ".join(f"{part} {1000 * value:.0f} ms" for part, value in seconds.items())
    speed = f"{parts} a step: {1 / visit:.2f} images a second, and {1 / encoding:.1f} encoded, once a run"
    return [speed, *(describe_duration(visit, encoding) if device != "cpu" else [])]


def describe_duration(visit: float, encoding: float) -> list[str]:
    """Return peak memory, and the duration of the paper's SCST at these seconds per image."""
    hours = PAPER_IMAGES * (PAPER_EPOCHS * visit + encoding) / 3600
    peak = torch.cuda.max_memory_allocated() / 2**30
    floor = ", ".join(f"{name}: {minutes} min" for name, minutes in FLOOR_MINUTES.items())
    memory = f"{torch.cuda.get_device_name()}: {peak:.1f} GiB at the peak, with the peer's model and update"
    duration = f"{PAPER_IMAGES:,} images x {PAPER_EPOCHS} epochs: {hours:.2f} h; the paper: {PAPER_HOURS:.0f} h"
    floor = f"estimated minimum of an H200: {floor}; not included: reading images, validations, checkpoints"
    return [memory, f"{duration}; {floor}"]


def run() -> str:
    """Return the miniature's rows, for `make bench`."""
    return "\n".join(compare("miniature", "cpu", PARAMS.scst.batch, pairs=5)[:3])


if __name__ == "__main__":
    parser = make_parser(__doc__, pairs=5)
    parser.add_argument("--batch", type=parse_positive_int, help="images a step; 16 by default")
    parser.add_argument("--updated", type=parse_positive_int, help="images at a time in the peer's update; 3b: 4")
    options = parse_options(parser)
    batch, updated = options.batch or PARAMS.scst.batch, options.updated or (4 if options.shape == "3b" else None)
    print("\n".join([HEADER, *compare(options.shape, options.device, batch, options.pairs, updated)]))
