"""Write the card of a merged model: what it is, how it differs from the adapter that was scored, how to load it."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from captioning.commands.trained_rows import TrainedRow
from captioning.export.comparison import MergeComparison
from captioning.params.packages import MODEL_PACKAGES

TEMPLATE = Path(__file__).with_name("card.md")


@dataclass(frozen=True)
class Merged:
    """A merged model; `base` is its checkpoint's repository on the Hub, None for the miniature or a local folder."""

    row: TrainedRow
    adapter_hash: str  # SHA-256 of the adapter's weights
    base: str | None
    is_gemma: bool  # whether the weights are PaliGemma's
    maximum_tokens: int


def make_card(merged: Merged, comparison: MergeComparison) -> str:
    """Return the card as Markdown in the Hub's format."""
    data = ModelCardData(
        model_name=merged.row.name,
        base_model=merged.base,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        language="en",
        license="gemma" if merged.is_gemma else "apache-2.0",
        tags=["paligemma", "remote-sensing", "image-captioning"],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        merged=merged,
        comparison=comparison,
        text=json.dumps(f"<image>{merged.row.prompt}", ensure_ascii=False),
        versions=", ".join(f"{name} {version(name)}" for name in (*MODEL_PACKAGES, "pillow")),
    )
    return f"{card}\n"
