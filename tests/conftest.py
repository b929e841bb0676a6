"""A PaliGemma of 1.7 million weights that knows eight captions of four images of one colour, made once a session.

Fixtures import torch when they run, so that tests without it start in a second.
"""

import gc
import io
import os
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

import stages  # noqa: F401  # sets how long threads spin, before torch is imported

os.environ["HF_HUB_OFFLINE"] = "1"  # no test uses the network

SIZE = 24  # pixels: four image tokens
PROMPT = "caption en"
COLOURS = ((200, 20, 20), (20, 20, 200), (20, 180, 20), (230, 230, 230))
CAPTIONS = (  # of each image; the first is more likely
    ("a red plane", "a red plane parked near the terminal ."),
    ("two blue boats", "two blue boats docked neatly at the pier ."),
    ("many green trees are in the park", "trees"),
    ("a white roof .", "it is a big white roof"),
)
SLOW = ("test_rehearsal.py", "test_side_by_side.py", "test_own_images.py", "test_processes.py", "test_planning.py")
STEPS = {"gemma": 40, "gemma2": 60}  # until the model knows the captions


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Return one worker more than xdist would, because tests often wait for programs that they start."""
    return (yield) + 1


@pytest.fixture(scope="module", autouse=True)
def exempt_from_garbage_collection() -> None:
    """Exempt the objects that exist now: each training collects garbage, which would look at a million of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Return four PNG files, one colour each."""
    return [png(colour) for colour in COLOURS]


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def captions() -> list[list[str]]:
    return [list(texts) for texts in CAPTIONS]


@pytest.fixture(scope="session")
def recipe() -> Any:
    """Return a recipe of a supervised training of a few steps."""
    from tests.helpers.small_recipes import variant_recipe

    return variant_recipe()


@pytest.fixture(scope="session")
def decoder(request: pytest.FixtureRequest) -> str:
    """Name the model's decoder: `gemma`, or an indirect parameter of the test."""
    return getattr(request, "param", "gemma")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first. While one worker makes the small world, the others run files that do not need it."""
    using = list(dict.fromkeys(item.path for item in items if "world" in getattr(item, "fixturenames", ())))
    first = dict.fromkeys(using, 2) | dict.fromkeys(using[:1], 0)
    items.sort(key=lambda item: 1 if item.path.name in SLOW else first.get(item.path, 3))


Fill = Callable[[Path], object]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Fill], Path]:
    """Make a folder of the session: pytest's first worker fills it, the others wait. A failure is not repeated."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def make(name: str, fill: Fill) -> Path:
        folder, filled = base / name, base / f"{name}.filled"
        with FileLock(base / f"{name}.lock"):
            if folder.exists():
                assert filled.exists(), f"{name} could not be made; the first test that used it shows why"
                return folder
            folder.mkdir()
            fill(folder)
            filled.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def taught(shared: Callable[[str, Fill], Path], pictures: list[bytes]) -> Callable[[str], Path]:
    """Make the model with a decoder, once each."""
    return lambda decoder: shared(f"taught-{decoder}", partial(teach, decoder, pictures))


@pytest.fixture(scope="session")
def checkpoint(taught: Callable[[str], Path], decoder: str) -> Path:
    """Return the model's folder. It was trained with the library's loss, not with the project's."""
    return taught(decoder)


def teach(decoder: str, pictures: list[bytes], folder: Path) -> Path:
    """Train a new miniature until it knows the captions, and save it in `folder`."""
    import torch

    from benchmarks.tutorial import Collator
    from captioning.checkpoints.miniature import make_checkpoint

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, processor = make_checkpoint({}, SIZE, decoder)
    processor.tokenizer.padding_side = "right"
    rows = [
        {"image": image, "prompt": PROMPT, "caption": caption}
        for image, (likely, unlikely) in zip(pictures, CAPTIONS, strict=True)
        for caption in (likely, likely, unlikely)
    ]
    batch = Collator(processor)(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)  # as in trainings: its square root is exact
    for _ in range(STEPS[decoder]):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def processor(checkpoint: Path) -> Any:
    from captioning.paligemma.model import load_processor

    return load_processor(checkpoint)


@pytest.fixture
def quantised(checkpoint: Path) -> Any:
    """Load the model in NF4, computing in float32, for each test."""
    import torch

    from captioning.paligemma.model import load_quantised

    torch.set_num_threads(1)
    return load_quantised(checkpoint, "float32", "cpu")


@pytest.fixture
def adapted(checkpoint: Path) -> Callable[..., Any]:
    """Make the quantised model with a seeded adapter; `strength` is the deviation of B, otherwise zero."""
    import torch
    from peft import get_peft_model

    from captioning.adapters.lora import lora_config
    from captioning.paligemma.model import load_quantised

    def make(
        strength: float = 0.0,
        rank: int = 4,
        dropout: float = 0.0,
        targets: str = "table2",
        compute: str = "float32",
        rslora: bool = False,
    ) -> Any:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        base = load_quantised(checkpoint, compute, "cpu")
        model = get_peft_model(base, lora_config(rank, 2.0 * rank, dropout, rslora, targets))
        for name, parameter in model.named_parameters():
            if strength and "lora_B" in name:
                torch.nn.init.normal_(parameter, std=strength)
        return model

    return make


@pytest.fixture
def batch(processor: Any, pictures: list[bytes], captions: list[list[str]]) -> dict[str, Any]:
    """Return four images with captions of unequal length: three rows are padded on the right."""
    from benchmarks.tutorial import Collator

    rows = zip(pictures, captions, strict=True)
    return Collator(processor)([{"image": image, "prompt": PROMPT, "caption": texts[0]} for image, texts in rows])


@pytest.fixture(scope="session")
def world(shared: Callable[[str, Fill], Path]) -> Any:
    """Return a copy of the project after a run with fake secrets and an audit hook. Tests read it, or clone it."""
    from tests.helpers.project_copy import Project, make_world

    return Project(shared("world", make_world))
