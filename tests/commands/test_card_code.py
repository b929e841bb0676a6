"""The code in a published adapter's card, run as a stranger runs it, gives the captions that were scored.

A new environment would take minutes to install. So the code runs in this interpreter, isolated (`-I`: no variable and
no current folder on its path), in an empty folder with the pushed files, the base and pictures; its last line shows
that no module of the project was imported.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captioning.adapters.lora import load_adapter
from captioning.decoding import greedy_captions
from captioning.images.table import read_ids, read_images
from captioning.paligemma.model import load_frozen, load_processor
from tests.commands.test_publish import publish
from tests.helpers.hub_uploads import hub_uploads
from tests.helpers.project_copy import Project

REPOSITORY = "somebody/mix-captions"
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINE = 'print(caption("picture.png"))\n'
ALL_PICTURES = """import json, pathlib, sys
paths = sorted(pathlib.Path("pictures").iterdir())
print(json.dumps({path.stem: caption(path) for path in paths}))
logits = []
model.get_output_embeddings().register_forward_hook(lambda *call: logits.append(call[2][0, -1].tolist()))
caption(paths[0])
print(json.dumps(logits[0]))
print(sorted(name for name in sys.modules if name.split(".")[0] in ("captioning", "stages", "pipeline", "benchmarks")))
"""


@pytest.fixture(scope="module")
def desk(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with some test images and the base checkpoint."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "pictures").mkdir()
    ids = read_ids(world.folder / "data/splits/test.txt")
    for image in read_images(world.folder / "data/captions/images.parquet", ids):
        (folder / f"pictures/{image.id}.png").write_bytes(image.image)
    (folder / "models").mkdir()
    (folder / "models/checkpoints").symlink_to(world.folder / "models/checkpoints")
    return folder


def push(world: Project, row: str, folder: Path) -> str:
    """Publish a row to a stand-in for the Hub, write what it received to `folder`, and return the card."""
    with hub_uploads() as hub:
        result = publish(world.folder, hub, "--upload", row=row)
        assert result.returncode == 0, result.stderr
        files = hub.files[REPOSITORY, "main"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files["README.md"].decode()


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run `code` with one thread: on a busy machine, several spend their time waiting for each other."""
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, cwd=folder, env=clean | settings, capture_output=True, text=True)


def first_logits(model: Any, checkpoint: Path, picture: bytes) -> list[float]:
    """Return the logits of a caption's first token, which the small world's models hardly get beyond."""
    logits: list[list[float]] = []
    model.get_output_embeddings().register_forward_hook(lambda *call: logits.append(call[2][0, -1].tolist()))
    list(greedy_captions(model, load_processor(checkpoint), [picture], "caption en", 1, 1))
    return logits[0]


@pytest.mark.parametrize("row", ["mix-1", "scst-mix-greedy-1"])
def test_the_code_of_the_card_gives_the_scored_captions(world: Project, desk: Path, row: str) -> None:
    card = push(world, row, desk / REPOSITORY)
    (code,) = CODE.findall(card)
    assert code.endswith(LINE)
    result = run(code.replace(LINE, ALL_PICTURES), desk)
    assert result.returncode == 0, result.stderr
    captions, logits, modules = result.stdout.splitlines()
    records = map(json.loads, world.read(f"data/predictions/{row}.jsonl").splitlines())
    assert json.loads(captions) == {record["id"]: record["caption"] for record in records}
    checkpoint, picture = world.folder / "models/checkpoints/mix", min((desk / "pictures").iterdir()).read_bytes()
    base = load_frozen(checkpoint, "float32", "cpu", True)
    without_adapter = first_logits(base, checkpoint, picture)
    model = load_adapter(base, world.folder / f"models/adapters/{row}")
    assert json.loads(logits) == pytest.approx(first_logits(model, checkpoint, picture), abs=1e-3)
    assert json.loads(logits) != pytest.approx(without_adapter, abs=1e-2)
    assert modules == "[]"


def test_the_code_stops_if_a_tensor_is_not_found(world: Project, desk: Path) -> None:
    """As after a release of a library that names layers anew."""
    from safetensors.numpy import load_file, save_file

    (code,) = CODE.findall(push(world, "mix-1", desk / REPOSITORY))
    path = desk / REPOSITORY / "adapter_model.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    tensors[name.replace("layers.0", "blocks.0")] = tensors.pop(name)
    save_file(tensors, path)
    result = run(code, desk)
    assert result.returncode == 1
    assert "Found missing adapter keys" in result.stderr.splitlines()[-1], result.stderr
