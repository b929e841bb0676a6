"""Tensors that may be larger than memory: small ones are in memory, large ones in a file that the system maps."""

from pathlib import Path
from shutil import disk_usage

import torch
from torch import Tensor

from captioning.base.errors import UserError

MAX_RAM_BYTES = 4 * 2**30  # a larger tensor is put into a file


def allocate(
    shape: tuple[int, ...], dtype: torch.dtype, file: Path, label: str, max_ram_bytes: int = MAX_RAM_BYTES
) -> Tensor:
    """Return an unfilled tensor; one of more than `max_ram_bytes` lives in `file`. Raises `UserError` if the disk is
    too small: a mapped file that does not fit would kill the process later."""
    size = torch.Size(shape).numel()
    if (needed := size * dtype.itemsize) <= max_ram_bytes:
        return torch.empty(shape, dtype=dtype)
    file.parent.mkdir(parents=True, exist_ok=True)
    if needed > (free := disk_usage(file.parent).free):
        raise UserError(f"{file}: {label} take {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free")
    return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)
