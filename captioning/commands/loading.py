"""Load a trained row as the `generate` stage does, and resize images as its processor would."""

from typing import Any

from captioning.base.errors import UserError
from captioning.base.hashes import require_hashes
from captioning.commands.trained_rows import TrainedRow
from captioning.params.sections import AUTO


def choose_batch(batch: int | None, row: TrainedRow, device: str, maximum_tokens: int) -> int:
    """Return `batch` if the user gave one, or the recipe's; `auto` needs the row's checkpoint and device."""
    if batch or row.machine.decoding_batch != AUTO:
        return batch or row.machine.chosen("decoding_batch")
    require_hashes(row.checkpoint, row.files)
    require_device(device)
    from captioning.limits.sizes import fit_generation

    machine = fit_generation(row.checkpoint, row.prompt, maximum_tokens, row.machine, device, None, None)
    return machine.chosen("decoding_batch")


def require_device(device: str) -> None:
    """Raise `UserError` if torch finds no such device."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device.split(":")[0]]:
        raise UserError(f"--device {device}: torch finds none; choose another, for example cpu")


def load_row(row: TrainedRow, device: str) -> tuple[Any, Any]:
    """Load a row's model and processor as the `generate` stage does."""
    require_hashes(row.checkpoint, row.files)
    require_device(device)  # imports torch, which takes seconds, so the error above comes first
    from captioning.adapters.lora import load_adapter
    from captioning.compute.seeds import seed_everything
    from captioning.paligemma.model import load_frozen, load_processor

    seed_everything(0, row.machine.threads)
    model = load_frozen(row.checkpoint, row.machine.compute, device, row.machine.dequantise)
    processor = load_processor(row.checkpoint)
    return (load_adapter(model, row.adapter) if row.adapter else model), processor


def resize_for_model(image: Any, processor: Any) -> Any:
    """Resize `image` as the processor would, which then changes nothing more."""
    size = processor.image_processor.size
    return image.resize((size["width"], size["height"]), resample=processor.image_processor.resample)
