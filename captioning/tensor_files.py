"""The head of a safetensors file: that the file is whole, and which tensors of which shape it holds.

Format: eight bytes for the length of a JSON map `{name: {dtype, shape, data_offsets}}`, that map, the tensors' bytes.
Nothing of it is run, and no tensor is read.
"""

import json
import math
from pathlib import Path
from typing import Any

from captioning.quoting import short
from captioning.runlog import UserError

LENGTH = 8  # bytes
LARGEST_HEAD = 100_000_000  # bytes, as the library has it
BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "BF16": 16, "F16": 16, "I16": 16, "U8": 8, "I8": 8, "BOOL": 8}
AGAIN = "fetch it again, or run `dvc repro`"

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name


def read_shapes(path: Path) -> Shapes:
    """The tensors of `path`. Raises `UserError` where it is no safetensors file, or not as long as its head says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH), "little")
            size = path.stat().st_size
            told = file.read(length) if LENGTH + length <= min(size, LARGEST_HEAD) else b""
        head = json.loads(told)
        tensors = {name: _tensor(one) for name, one in head.items() if name != "__metadata__"}
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; {AGAIN}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: no safetensors file, or cut short; {AGAIN}") from None
    wanted = LENGTH + length + max((end for _, _, end in tensors.values()), default=0)
    if wanted != size:
        raise UserError(f"{path}: {size} bytes where its head says {wanted}; {AGAIN}")
    return {name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}


def _tensor(told: dict[str, Any]) -> tuple[str, tuple[int, ...], int]:
    """Type, shape and end of a tensor. Raises `ValueError` where they do not hold together."""
    shape, (begin, end) = tuple(told["shape"]), told["data_offsets"]
    whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    bits = BITS.get(told["dtype"])
    if not whole or begin > end or (bits and math.prod(shape) * bits != 8 * (end - begin)):
        raise ValueError(f"tensor {short(told)}")
    return told["dtype"], shape, end
