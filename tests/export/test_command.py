"""`python -m captioning.export` writes a model that plain transformers loads, and measures how it differs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from captioning.export import command, merge
from captioning.export.command import main
from captioning.images.table import CaptionedImage, write_parquet
from tests.commands.conftest import LIMIT
from tests.conftest import png

CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINE = 'print(caption("picture.png"))\n'
ALL_PICTURES = """import json, pathlib
print(json.dumps({path.stem: caption(path) for path in sorted(pathlib.Path("../shots").iterdir())}))
"""
PEER = """
import json, sys, torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PaliGemmaForConditionalGeneration

model = PaliGemmaForConditionalGeneration.from_pretrained("models/checkpoints/mix")
factors = load_file("models/adapters/mix-1/adapter_model.safetensors")
scaling = 2.0  # alpha / rank
weights = dict(model.named_parameters())
for name, second in factors.items():
    if ".lora_B." in name:
        layer = name.removeprefix("base_model.model.").replace(".lora_B.weight", ".weight")
        weights[layer].data += scaling * second @ factors[name.replace("lora_B", "lora_A")]
merged = dict(PaliGemmaForConditionalGeneration.from_pretrained("merged").named_parameters())
print(json.dumps([merged.keys() == weights.keys(), max(float((merged[n] - weights[n]).abs().max()) for n in weights)]))
"""


@pytest.fixture
def scored(project: Path, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with test images, references, and the captions that the `generate` stage gives them."""
    from stages import generate

    (project / "shots").mkdir()
    images = []
    for index, data in enumerate([*pictures, png((90, 90, 10))]):
        (project / f"shots/{index}.png").write_bytes(data)
        images.append(CaptionedImage(str(index), "UCM", "test", data, f"{index}.png", ("a",)))
    write_parquet(images, project / "data/captions/images.parquet")
    (project / "data/splits").mkdir()
    ids = "".join(f"{image.id}\n" for image in images)
    (project / "data/splits/captioned.txt").write_text(ids)
    (project / "data/splits/test.txt").write_text(ids.removesuffix("4\n"))  # the last is in another split
    references = {"0": ["a red plane"], "1": ["two blue boats"], "2": ["many green trees"], "3": ["a white roof"]}
    (project / "data/references").mkdir()
    (project / "data/references/tokens.json").write_text(json.dumps(references))
    arguments = ["--recipe", "data/recipes/mix.json", "--adapter", "models/adapters/mix-1"]
    monkeypatch.setattr(sys, "argv", ["generate", *arguments, "--out", "data/predictions/mix-1.jsonl"])
    generate.main()
    return project


def isolated(code: str, folder: Path) -> Any:
    environment = {"PATH": "", "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-I", "-c", code]
    result = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_merged_model_is_the_sum_and_its_card_is_true(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocoevalcap.cider.cider import Cider

    assert main(["mix", "--merged", "merged"]) == 0
    printed = capsys.readouterr().out
    same_names, difference = isolated(PEER, scored)
    assert same_names and difference < 1e-6
    assert {path.suffix for path in (scored / "merged").iterdir()} == {".safetensors", ".json", ".md"}

    card = (scored / "merged/README.md").read_text(encoding="utf-8")
    (code,) = CODE.findall(card)
    captions = isolated(code.replace(LINE, ALL_PICTURES), scored / "merged")  # plain transformers, from the files
    records = [json.loads(line) for line in (scored / "data/predictions/mix-1.jsonl").read_text().splitlines()]
    before = {record["id"]: record["caption"] for record in records if record["id"] != "4"}
    captions.pop("4")
    equal = sum(captions[id_] == before[id_] for id_ in before)
    assert f"{equal} of 4 captions ({25 * equal:.1f} %) are the same." in card
    assert printed.startswith(f"merged: {equal} of 4 captions")
    references = json.loads((scored / "data/references/tokens.json").read_text())
    for label, texts in (("the adapter on NF4, as scored", before), ("this model", captions)):
        tokens = {id_: [" ".join(text.lower().replace(".", "").split())] for id_, text in texts.items()}
        score, _ = Cider().compute_score(references, tokens)
        assert f"| {label} | {100 * score:.2f} |" in card
    assert f"max_new_tokens={LIMIT}," in card
    data = ModelCard(card).data
    assert (data.library_name, data.license, data.base_model) == ("transformers", "apache-2.0", None)


def test_a_mistake_is_one_line_and_leaves_nothing(
    scored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (scored / "full").mkdir()
    (scored / "elsewhere/mix-1").mkdir(parents=True)
    for path in (scored / "models/adapters/mix-1").iterdir():
        (scored / "elsewhere/mix-1" / path.name).write_bytes(path.read_bytes())
    mistakes = {
        "mixx --merged out": "mixx: no such row",
        "zero-shot-mix --merged out": "zero-shot-mix: a checkpoint without an adapter",
        "elsewhere/mix-1 --merged out": "elsewhere/mix-1: only rows of this project were scored",
        "mix --merged full": "--merged full: not a new folder in an existing, writable folder",
        "mix --merged no/where": "--merged no/where: not a new folder in an existing, writable folder",
    }
    for arguments, message in mistakes.items():
        assert main(arguments.split()) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}") and error.count("\n") == 1
    with monkeypatch.context() as patch:
        patch.setattr(merge, "virtual_memory", lambda: type("", (), {"available": 10**9}))
        assert main(["mix", "--merged", "out"]) == 1
        assert "merging takes 1.0 GB, 1.0 GB are free on cpu" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        assert main(["mix", "--merged", "out", "--device", "cuda"]) == 1
        assert "--device cuda: torch finds none" in capsys.readouterr().err
    (scored / "data/predictions/mix-1.jsonl").unlink()
    assert main(["mix", "--merged", "out"]) == 1
    assert capsys.readouterr().err.startswith("error: data/predictions/mix-1.jsonl is missing; `dvc repro`")
    with pytest.raises(SystemExit):
        command.main(["mix", "--merged", "out", "--images", "0"])
    assert [path.name for path in scored.iterdir() if "out" in path.name] == []


def test_a_sample_of_images_is_named_in_the_card(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mix", "--merged", "merged", "--images", "3"]) == 0
    assert "of 3 captions" in capsys.readouterr().out
    assert "3 of the 4 test images, a seeded sample" in (scored / "merged/README.md").read_text(encoding="utf-8")
