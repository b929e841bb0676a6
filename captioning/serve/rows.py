"""Load several trained rows, with one copy of the weights that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from captioning.commands.loading import load_row
from captioning.commands.trained_rows import TrainedRow
from captioning.runtime.progress import progress


@dataclass(frozen=True)
class LoadedRow:
    """A row that is ready to caption."""

    name: str
    prompt: str
    model: Any
    processor: Any


def load_rows(rows: Sequence[TrainedRow], device: str | None) -> list[LoadedRow]:
    """Load `rows`; those with the same checkpoint and settings share its weights. Raises `UserError`."""
    loaded, bases = list[LoadedRow](), dict[str, Any]()
    for row in progress(rows, len(rows), "rows"):
        model, processor = load_row(row, device or row.machine.device)
        kind = f"{row.checkpoint} {row.machine.compute} {row.machine.dequantise} {model.device}"
        share_weights(model, bases.setdefault(kind, model))
        loaded.append(LoadedRow(row.name, row.prompt, model, processor))
    return loaded


def share_weights(model: Any, base: Any) -> None:
    """Let `model` use the checkpoint's weights in `base`, so that its own copy is freed; adapters stay its own."""
    weights = {_checkpoint_name(name): weight for name, weight in base.named_parameters() if "lora_" not in name}
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            weight.data = weights[_checkpoint_name(name)].data


def _checkpoint_name(name: str) -> str:
    """Return the name that a weight has without an adapter around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
