"""Load a trained row as the `generate` stage does, and resize images as its processor would."""

from typing import Any

from captioning.base.errors import UserError
from captioning.base.hashes import require_hashes
from captioning.commands.trained_rows import TrainedRow


def load_row(row: TrainedRow, device: str) -> tuple[Any, Any]:
    """Load a row's model and processor as the `generate` stage does."""
    require_hashes(row.checkpoint, row.files)
    import torch  # takes seconds, so user errors above come first

    from captioning.adapters.lora import load_adapter
    from captioning.compute.seeds import seed_everything
    from captioning.paligemma.model import load_frozen, load_processor

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device.split(":")[0]]:
        raise UserError(f"--device {device}: torch finds none; choose another, for example cpu")
    seed_everything(0, row.machine.threads)
    model = load_frozen(row.checkpoint, row.machine.compute, device, row.machine.dequantise)
    processor = load_processor(row.checkpoint)
    return (load_adapter(model, row.adapter) if row.adapter else model), processor


def resize_for_model(image: Any, processor: Any) -> Any:
    """Resize `image` as the processor would, which then changes nothing more."""
    size = processor.image_processor.size
    return image.resize((size["width"], size["height"]), resample=processor.image_processor.resample)
