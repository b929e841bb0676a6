"""The head of a safetensors file: that the file is whole, and which tensors of which shape it holds."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from captioning.base.errors import UserError

REMEDY = "fetch it again, or run `dvc repro`"

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name


def read_shapes(path: Path) -> Shapes:
    """Read dtypes and shapes of the tensors of `path`. Raises `UserError` if it is no whole safetensors file."""
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; {REMEDY}") from None
    except SafetensorError:
        raise UserError(f"{path}: no safetensors file, or cut short; {REMEDY}") from None
