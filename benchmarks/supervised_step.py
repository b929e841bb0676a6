"""Supervised training in images per second: ours against the tutorial's way, from encoded images to an optimizer step.

    python -m benchmarks.supervised_step                            the miniature
    python -m benchmarks.supervised_step --shape 3b --device cuda   PaliGemma-3B's true shape, random weights

The tutorial's way: the collator runs the processor on every row of every step, `model(**batch).loss` computes logits
for all positions, batch 4 and accumulation 4 as the paper has them, torch's AdamW. Ours: pictures decoded once ahead of
training (not counted), logits for the suffix only, NF4's weights spelt out, the 16 rows in one pass, fused AdamW, and
on a CPU attention in plain products. In the miniature, loss and gradients of both are compared before they are timed.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import stages  # noqa: F401  # how long threads spin
from benchmarks import true_shape
from benchmarks.scst import PARAMS, PROMPT, SIDE, dtype, world
from benchmarks.side_by_side import HEADER, ask, parser, side_by_side
from benchmarks.tutorial import Collator
from captioning.adapters.lora import attach_adapter, lora_config, unwrap_adapter
from captioning.checkpoints import miniature
from captioning.compute.seeds import seed_everything
from captioning.paligemma.model import IGNORED, load_frozen, load_processor, load_quantised, supervised_loss
from captioning.supervised.pixels import DecodedCollator, decode_images
from captioning.training.trainer import attention_kernel

BATCH, ACCUMULATION = 4, 4  # V.B
Example = dict[str, Any]
Gradients = dict[str, torch.Tensor]


def examples(number: int, side: int) -> list[Example]:
    """Drawn pictures as PNG, with a caption each."""
    seen = world(number, side)
    return [{"image": image, "prompt": PROMPT, "caption": texts[0]}
            for image, texts in zip(seen.images, seen.texts, strict=True)]  # fmt: skip


def tutorials_step(model: Any, collate: Collator, rows: Sequence[Example], device: str) -> float:
    """Forward and backward of a step, four rows at a time; the sum of the losses over the step's tokens."""
    batches = [collate(rows[begin : begin + BATCH]) for begin in range(0, len(rows), BATCH)]
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
    """The same in one pass over decoded rows, as training/trainer.py does it."""
    batch = {key: value.to(device) for key, value in collate(rows).items()}
    with attention_kernel(torch.device(device)):
        loss = supervised_loss(unwrap_adapter(model), batch)
    loss.backward()
    return loss.item()


def adapted(base: Any) -> Any:
    """The same adapter on any base, B not zero so that A has a gradient."""
    torch.manual_seed(0)
    model = attach_adapter(base, lora_config(16, 16, 0.0, False, "table2")).train()
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    return model


def gradients(model: Any, step: Callable[[Any], float]) -> tuple[float, Gradients]:
    """Loss and gradients of one step, which are cleared again."""
    loss = step(model)
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    return loss, found


def furthest(ours: tuple[float, Gradients], theirs: tuple[float, Gradients]) -> float:
    """The largest difference of loss or gradients, each over the size of its largest value."""
    apart = [abs(ours[0] - theirs[0]) / abs(theirs[0])]
    apart += [
        float((value - ours[1][name]).abs().max() / value.abs().max().clamp(min=1e-12))
        for name, value in theirs[1].items()
    ]
    return max(apart)


def compare(shape: str, device: str, pairs: int) -> list[str]:
    """Rows of the table; raises `AssertionError` where the two are not the same step."""
    seed_everything(1, PARAMS.machine.threads if device == "cpu" else 8)
    compute = dtype(shape)
    rows = examples(BATCH * ACCUMULATION, SIDE if shape == "miniature" else true_shape.SIDE)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if shape == "miniature":
            for part in miniature.make_checkpoint([], SIDE):
                part.save_pretrained(folder)
        else:
            true_shape.write(folder, device)
        processor = load_processor(folder)
        decoded = [
            row | {"image": picture}
            for row, picture in zip(
                rows, decode_images(processor, [row["image"] for row in rows], folder / "pixels"), strict=True
            )
        ]
        theirs_of, ours_of = Collator(processor), DecodedCollator(processor)

        def theirs_step(model: Any) -> float:
            return tutorials_step(model, theirs_of, rows, device)

        def ours_step(model: Any) -> float:
            return our_step(model, ours_of, decoded, device)

        said = []
        if shape == "miniature":
            bases = (load_frozen(folder, "float32", device, True), load_quantised(folder, "float32", device))
            ours, theirs = (
                gradients(adapted(base), step) for base, step in zip(bases, (ours_step, theirs_step), strict=True)
            )
            apart = furthest(ours, theirs)
            assert apart < 1e-4, f"loss or a gradient differs by {apart:.1e} of its size"
            said = [f"float32: loss {ours[0]:.6f} and {theirs[0]:.6f}; loss and gradients within {apart:.1e}"]
        ours_model = adapted(load_frozen(folder, compute, device, True))
        theirs_model = adapted(load_quantised(folder, compute, device))
    work = [_with_optimizer(ours_model, ours_step, fused=True), _with_optimizer(theirs_model, theirs_step, fused=False)]
    what = f"supervised step, {shape}, {BATCH} x {ACCUMULATION} rows from images to AdamW"
    return [side_by_side(what, *work, pairs), *said]


def _with_optimizer(model: Any, step: Callable[[Any], float], fused: bool) -> Callable[[], None]:
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=fused)  # the work of a step, and the same model after it

    def work() -> None:
        step(model)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if trained[0].is_cuda:
            torch.cuda.synchronize()

    return work


def run() -> str:
    """The miniature's row, for `make bench`."""
    return "\n".join(compare("miniature", "cpu", pairs=9))


if __name__ == "__main__":
    asked = ask(parser(__doc__, pairs=9))
    print("\n".join([HEADER, *compare(asked.shape, asked.device, asked.pairs)]))
