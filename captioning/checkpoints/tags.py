"""Pre-train the miniature on the tags of real images: which words an image is described with, never a sentence.

The tower learns which tags the captions of an image hold; the decoder then reads them as lists. An overhead image has
no upright: the tower sees each one turned and mirrored by chance, in one of the eight symmetries of a square.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor

from captioning.data.tags import TaggedImage
from captioning.training.pixels import decode_images, normalise
from captioning.training.run import TrainingRun

SYMMETRIES = 8
LISTED_TAGS = 6  # at most, of one image
PROMPT = "tag en"
SMALLEST_SHARE = 1e-4  # of the images, in the first bias of the tags


@dataclass(frozen=True)
class TaggedPixels:
    """Decoded training images and their tags; `epochs` is how often the decoder reads each list."""

    processor: PaliGemmaProcessor
    pixels: UInt8[Tensor, "images 3 height width"]
    tags: Sequence[dict[str, float]]
    epochs: int

    def examples(self) -> list[tuple[str, str]]:
        """Return prompts and suffixes, image after image, epoch after epoch."""
        lists = [" , ".join(list(tags)[:LISTED_TAGS]) for tags in self.tags]
        return [(PROMPT, text) for _ in range(self.epochs) for text in lists]

    def normalised(self) -> Float[Tensor, "images 3 height width"]:
        """Return the pixels as the processor normalises them."""
        return normalise(self.processor, self.pixels)


def decode_tagged(
    processor: PaliGemmaProcessor, images: Sequence[TaggedImage], examples: int, run: TrainingRun
) -> TaggedPixels | None:
    """Decode those of `images` that have tags, for about so many `examples`; return None without images."""
    tagged = [image for image in images if image.words]
    if not tagged:
        return None
    encoded, file = [image.image for image in tagged], run.folder / "tagged.pixels"
    pixels = decode_images(processor, encoded, file, processes=run.processes)
    tags = [dict(zip(image.words, image.shares, strict=True)) for image in tagged]
    return TaggedPixels(processor, pixels, tags, count_tag_epochs(examples, len(tags)))


def count_tag_epochs(examples: int, images: int) -> int:
    """Return in how many epochs a training sees about so many `examples`, however few `images` there are."""
    return max(1, round(examples / images)) if examples else 0


class TagRows(Dataset):
    """Rows `{pixels, tags}` for the Trainer, which sets `epoch`; it decides, with the seed, how an image is turned."""

    def __init__(self, tagged: TaggedPixels, seed: int):
        self.tagged, self.seed, self.epoch = tagged, seed, 0
        self.words = sorted({word for tags in tagged.tags for word in tags})
        self.columns = {word: column for column, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.tagged.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        symmetry = random.Random(f"{self.seed} {self.epoch} {index}").randrange(SYMMETRIES)
        return {"pixels": turn(self.tagged.pixels[index], symmetry), "tags": self.shares(index)}

    def shares(self, index: int) -> Float[Tensor, " words"]:
        """Return the share of the image's captions that hold each word."""
        shares = torch.zeros(len(self.words))
        for word, share in self.tagged.tags[index].items():
            shares[self.columns[word]] = share
        return shares

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Stack examples, with normalised pixels."""
        pixels = normalise(self.tagged.processor, torch.stack([example["pixels"] for example in examples]))
        return {"pixels": pixels, "tags": torch.stack([example["tags"] for example in examples])}


def turn(image: Tensor, symmetry: int) -> Tensor:
    """Return a square image [..., size, size] turned by `symmetry` % 4 right angles, and mirrored from 4 on."""
    turned = torch.rot90(image, symmetry % 4, (-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


class TagHead(nn.Module):
    """A vision tower with a temporary classifier for each tag, on the mean of its patch features."""

    def __init__(self, tower: nn.Module, width: int, shares: Float[Tensor, " words"]):
        super().__init__()
        self.tower, self.head = tower, nn.Linear(width, len(shares))
        with torch.no_grad():
            self.head.bias.copy_(torch.logit(shares.clamp(SMALLEST_SHARE, 1 - SMALLEST_SHARE)))

    def forward(self, pixels: Tensor, tags: Tensor) -> Tensor:
        """Return the binary cross-entropy of all tags in nats, summed over the images."""
        features = self.tower(pixels).last_hidden_state.mean(dim=1)
        return binary_cross_entropy_with_logits(self.head(features), tags, reduction="sum")
