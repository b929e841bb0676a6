"""Compare supervised training with the tutorial's way, in images per second, from image files to an optimizer step.

    python -m benchmarks.supervised_step                            the miniature
    python -m benchmarks.supervised_step --shape 3b --device cuda   PaliGemma-3B's true shape, random weights

The tutorial's way: the collator runs the processor on each row of a step, `model(**batch).loss` computes logits for all
positions, batch and accumulation are 4 as in the paper, AdamW is torch's. Ours: images are decoded once before training
(not counted), logits are for the suffix alone, NF4's weights are dequantised, the 16 rows are one micro-batch, AdamW is
fused, and a CPU computes attention in plain products. With the miniature, both losses and gradients are compared first.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

import stages  # noqa: F401  # sets how long threads spin
from benchmarks import true_shape
from benchmarks.scst import PARAMS, PROMPT, SIDE, draw_world, profile_dtype
from benchmarks.side_by_side import HEADER, make_parser, parse_options, side_by_side
from benchmarks.tutorial import Collator
from captioning.adapters.lora import lora_config, unwrap_adapter
from captioning.checkpoints import miniature
from captioning.compute.seeds import seed_everything
from captioning.paligemma.model import IGNORED, load_frozen, load_processor, load_quantised, supervised_loss
from captioning.training.pixels import DecodedCollator, decode_images
from captioning.training.trainer import attention_kernel

BATCH, ACCUMULATION = 4, 4  # V.B
Example = dict[str, Any]
Gradients = dict[str, torch.Tensor]


def draw_examples(number: int, side: int) -> list[Example]:
    """Draw images as PNG, with a caption each."""
    world = draw_world(number, side)
    rows = zip(world.images, world.texts, strict=True)
    return [{"image": image, "prompt": PROMPT, "caption": texts[0]} for image, texts in rows]


def tutorials_step(model: Any, collate: Collator, rows: Sequence[Example], device: str) -> float:
    """Run forward and backward, four rows at a time; return the mean loss of the step's tokens."""
    batches = [collate(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    tokens = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        pixels = batch["pixel_values"].to(unwrap_adapter(model).dtype)
        inputs = {key: value.to(device) for key, value in (batch | {"pixel_values": pixels}).items()}
        loss = model(**inputs).loss * (int((batch["labels"][:, 1:] != IGNORED).sum()) / tokens)
        loss.backward()
        total += loss.item()
    return total


def our_step(model: Any, collate: DecodedCollator, rows: Sequence[Example], device: str) -> float:
    """Do the same in one micro-batch of decoded rows, like training/trainer.py."""
    batch = {key: value.to(device) for key, value in collate(rows).items()}
    with attention_kernel(torch.device(device)):
        loss = supervised_loss(unwrap_adapter(model), batch)
    loss.backward()
    return loss.item()


def add_adapter(base: Any) -> Any:
    """Add the same adapter to any base; B is not zero, so that A has a gradient."""
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(16, 16, 0.0, False, "table2")).train()
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    return model


def compute_gradients(model: Any, step: Callable[[Any], float]) -> tuple[float, Gradients]:
    """Return loss and gradients of a step, and clear the gradients."""
    loss = step(model)
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    return loss, gradients


def largest_difference(ours: tuple[float, Gradients], theirs: tuple[float, Gradients]) -> float:
    """Return the largest relative difference of loss or gradients; gradients are relative to their largest value."""
    differences = [abs(ours[0] - theirs[0]) / abs(theirs[0])]
    for name, value in theirs[1].items():
        differences.append(float((value - ours[1][name]).abs().max() / value.abs().max().clamp(min=1e-12)))
    return max(differences)


def compare(shape: str, device: str, pairs: int) -> list[str]:
    """Return rows of the table. Raises `AssertionError` if the two ways do not compute the same step."""
    seed_everything(1, PARAMS.machine.threads if device == "cpu" else 8)
    compute = profile_dtype(shape)
    rows = draw_examples(BATCH * ACCUMULATION, SIDE if shape == "miniature" else true_shape.SIDE)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if shape == "miniature":
            for part in miniature.make_checkpoint({}, SIDE):
                part.save_pretrained(folder)
        else:
            true_shape.write(folder, device)
        processor = load_processor(folder)
        images = decode_images(processor, [row["image"] for row in rows], folder / "pixels")
        decoded = [row | {"image": image} for row, image in zip(rows, images, strict=True)]
        collate, collate_decoded = Collator(processor), DecodedCollator(processor)

        def theirs(model: Any) -> float:
            return tutorials_step(model, collate, rows, device)

        def ours(model: Any) -> float:
            return our_step(model, collate_decoded, decoded, device)

        notes = []
        if shape == "miniature":
            our_result = compute_gradients(add_adapter(load_frozen(folder, "float32", device, True)), ours)
            their_result = compute_gradients(add_adapter(load_quantised(folder, "float32", device)), theirs)
            difference = largest_difference(our_result, their_result)
            assert difference < 1e-4, f"loss or a gradient differs by {difference:.1e} of its size"
            losses = f"loss {our_result[0]:.6f} and {their_result[0]:.6f}"
            notes = [f"float32: {losses}; loss and gradients within {difference:.1e}"]
        our_model = add_adapter(load_frozen(folder, compute, device, True))
        their_model = add_adapter(load_quantised(folder, compute, device))
    our_work = _with_optimizer(our_model, ours, fused=True)
    their_work = _with_optimizer(their_model, theirs, fused=False)
    label = f"supervised step, {shape}, {BATCH} x {ACCUMULATION} rows from images to AdamW"
    return [side_by_side(label, our_work, their_work, pairs), *notes]


def _with_optimizer(model: Any, step: Callable[[Any], float], fused: bool) -> Callable[[], None]:
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=fused)  # a step's work, without a change

    def work() -> None:
        step(model)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if trained[0].is_cuda:
            torch.cuda.synchronize()

    return work


def run() -> str:
    """Return the miniature's row, for `make bench`."""
    return "\n".join(compare("miniature", "cpu", pairs=9))


if __name__ == "__main__":
    options = parse_options(make_parser(__doc__, pairs=9))
    print("\n".join([HEADER, *compare(options.shape, options.device, options.pairs)]))
