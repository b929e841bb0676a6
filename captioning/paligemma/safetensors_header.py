"""Read the header of a safetensors file: dtypes and shapes, without the weights."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from captioning.base.errors import UserError

REMEDY = "fetch it again, or run `dvc repro`"

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name


def read_shapes(path: Path) -> Shapes:
    """Read dtypes and shapes of the tensors of `path`. Raises `UserError` if the file is not complete safetensors."""
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            return {name: (tensor.get_dtype(), tuple(tensor.get_shape())) for name, tensor in slices.items()}
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; {REMEDY}") from None
    except SafetensorError:
        raise UserError(f"{path}: no safetensors file, or incomplete; {REMEDY}") from None
