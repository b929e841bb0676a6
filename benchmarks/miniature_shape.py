"""Write a miniature of random weights: `python -m benchmarks.miniature_shape FOLDER`."""

import sys
from pathlib import Path

from captioning.checkpoints import miniature

SIDE = 48  # pixels


def write(folder: Path) -> None:
    """Write the checkpoint; torch's global seed decides its weights."""
    for part in miniature.make_checkpoint({}, SIDE):
        part.save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
