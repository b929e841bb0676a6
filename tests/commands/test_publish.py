"""Uploads to a stand-in for the Hub: the adapter's bytes, a card that the Hub's library reads, and no token."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import save_file

from captioning.adapters.card import extract_recipe, model_card
from captioning.params.recipe import VariantRecipe
from tests.helpers.hub_uploads import COMMIT, TOKEN, Hub, hub_uploads
from tests.helpers.invented_run import MANIFEST, SPLITS
from tests.helpers.small_recipes import variant_recipe

ROOT = Path(__file__).parents[2]
REPOSITORY = "somebody/mix-captions"
UNQUANTISED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]  # of paligemma/model.py
COUNTS = {"trainable_parameters": 10, "all_parameters": 20, "share": 50.0}
SIGNATURE = "CIDEr-D|refs:5|df:test|n:319"
METRICS = {"CIDEr": 242.96, "BLEU-1": 74.83, "BLEU-2": 62.68, "BLEU-3": 49.96, "BLEU-4": 37.43}
METRICS |= {"METEOR": 35.38, "ROUGE-L": 56.52}
INTERVAL = {"CIDEr low": 230.95, "CIDEr high": 254.96}
SIGNATURES = {"signature": SIGNATURE, "signature caption_1": "CIDEr-D|refs:caption_1|n:319"}
SCORES = METRICS | INTERVAL | SIGNATURES | {"CIDEr caption_1": 233.48}
ROWS = {"mix": SCORES, "zero-shot-mix": SCORES | {"CIDEr": 47.12}, "nearest-image": SCORES | {"CIDEr": 168.23}}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_scores(project: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Write the files of data/scores, with the unrounded form of `rows`."""
    entries, intervals = {}, {}
    for row, scores in rows.items():
        mean = {name: value for name, value in scores.items() if name not in SIGNATURES | INTERVAL}
        entries[row] = {"kind": "adapted", "seeds": {"1": mean}, "mean": mean, "deviation": None}
        entries[row] |= {"sources": {}, "vocabulary": {}} | {name: scores[name] for name in SIGNATURES}
        intervals[row] = {end: scores[f"CIDEr {end}"] + 0.001 for end in ("low", "high")} | {"letters": "a"}
    write(project / "data/scores/scores.json", {"images": 257, "rows": entries})
    settings = {"measure": "CIDEr", "resamples": 10_000, "seed": 1, "level": 0.95, "pairs": []}
    write(project / "data/scores/significance.json", settings | {"rows": intervals})


def recipe(origin: str) -> VariantRecipe:
    return variant_recipe(origin=origin, files={"config.json": "ab" * 32}, compute="bfloat16")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one adapter, files beside it that must not be sent, and the results of later stages."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    make_adapter(tmp_path, "miniature")
    write_scores(tmp_path, ROWS)
    write(tmp_path / "data/splits/statistics.json", SPLITS.model_dump())
    write(tmp_path / "data/captions/manifest.json", MANIFEST.model_dump())
    (tmp_path / "data/packages").mkdir()
    (tmp_path / "data/packages/model.txt").write_text("numpy==2.0\ntorch==2.0\npeft==0.1\npillow==9\n")
    return tmp_path


def make_adapter(project: Path, origin: str) -> None:
    folder = project / "models/adapters/mix-1"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"a": np.arange(5000, dtype=np.float32)}, folder / "adapter_model.safetensors")
    write(folder / "adapter_config.json", {"r": 16, "base_model_name_or_path": f"{project}/models/checkpoints/mix"})
    (folder / "README.md").write_text(model_card("mix-1", recipe(origin), COUNTS), encoding="utf-8")
    (folder / "optimizer.pt").write_bytes(b"pickled")
    (folder / ".env").write_text(f"HF_TOKEN={TOKEN}")
    write(project / "data/recipes/mix.json", recipe(origin).model_dump())


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_uploads() as hub:
        yield hub


def publish(
    project: Path, hub: Hub, *arguments: str, row: str = "mix", **environment: str
) -> subprocess.CompletedProcess:
    """Run the command in its own process, with a token and without this machine's settings of the Hub."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    signed_in = {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(project / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    call = [sys.executable, "-m", "captioning.commands.publish", row, "--repository", REPOSITORY, *arguments]
    settings = clean | signed_in | quiet | environment
    return subprocess.run(call, cwd=project, env=settings, capture_output=True, text=True)


def show_card(project: Path, hub: Hub) -> str:
    """Return the card that is printed without `--upload`."""
    result = publish(project, hub)
    assert result.returncode == 0, result.stderr
    return result.stdout.split("\n\n", 1)[1]


def test_without_upload_nothing_is_sent(project: Path, hub: Hub) -> None:
    result = publish(project, hub)
    assert result.returncode == 0, result.stderr
    assert hub.requests == []
    assert result.stderr.splitlines()[-1] == "nothing was sent; add --upload to send it"
    lines = result.stdout.split("\n\n", 1)[0].splitlines()
    size = (project / "models/adapters/mix-1/adapter_model.safetensors").stat().st_size
    assert lines[0] == f"{REPOSITORY} (private), branch main:"
    assert [line.split()[0] for line in lines[1:4]] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert lines[3].split()[1:] == [f"{size:,}", "bytes"]
    assert {line.strip() for line in lines[5:]} == {"stays here: .env", "stays here: optimizer.pt"}
    assert not (project / "home").exists()


def test_the_adapter_arrives_and_the_token_stays(project: Path, hub: Hub) -> None:
    card = show_card(project, hub)
    folder = project / "models/adapters/mix-1"
    (folder / ".env").unlink()
    before = (folder / "README.md").read_bytes()
    result = publish(project, hub, "--upload")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"{hub.address}/{REPOSITORY}/commit/{COMMIT}"
    assert (hub.private, hub.messages) == ({REPOSITORY: True}, ["Adapter mix"])
    uploads = hub.files[REPOSITORY, "main"]
    assert set(uploads) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert uploads["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    assert json.loads(uploads["adapter_config.json"]) == {"r": 16, "base_model_name_or_path": "models/checkpoints/mix"}
    assert uploads["README.md"].decode().strip() == card.strip()
    assert (folder / "README.md").read_bytes() == before

    assert TOKEN not in result.stdout + result.stderr
    assert not any(TOKEN.encode() in content for content in uploads.values())
    assert not any(TOKEN.encode() in request.body for request in hub.requests)
    storage = next(request for request in hub.requests if request.path.startswith("/storage/"))
    assert "authorization" not in storage.headers
    assert not any(TOKEN.encode() in path.read_bytes() for path in project.rglob("*") if path.is_file())


def test_the_cards_metadata_is_the_hubs(project: Path, hub: Hub) -> None:
    data = ModelCard(show_card(project, hub)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("peft", "image-text-to-text", "apache-2.0")
    assert data.base_model is None
    assert {"paligemma", "qlora", "remote-sensing", "lora"} <= set(data.tags)
    results = data.eval_results
    assert {result.metric_type: result.metric_value for result in results} == {
        name.lower(): value for name, value in METRICS.items()
    }
    signatures = {result.metric_type: result.metric_args["signature"] for result in results}
    assert signatures["cider"] == SIGNATURE
    assert signatures["meteor"] == SIGNATURE.replace("CIDEr-D", "METEOR").replace("|df:test", "")
    assert (results[0].metric_args["interval_low"], results[0].metric_args["interval_high"]) == (230.95, 254.96)
    assert {(result.dataset_name, result.dataset_split) for result in results} == {("Drawn overhead scenes", "test")}


def test_the_card_holds_scores_data_licence_and_recipe(project: Path, hub: Hub) -> None:
    card = show_card(project, hub)
    for text in (
        "| mix | 242.96 [230.95, 254.96] | 74.83 |",
        "| zero-shot-mix | 47.12 [",
        "| nearest-image | 168.23 [",
        "| mix | 233.48 |",
        f"`{SIGNATURE}`",
        "| NWPU | 1,132 | 660 | 236 | 236 |",
        "3 rows or captions were set aside",
        "captions 0.1423, equal images 0.0000, near images 0.0000.",
        "under Apache-2.0",
        f'BASE, ADAPTER = "models/checkpoints/mix", "{REPOSITORY}"\n',
        f"llm_int8_skip_modules={json.dumps(UNQUANTISED)},\n",
        "Known to load in torch 2.0, peft 0.1, pillow 9. All 1 tensors",
        "the adapter in float32.",
        "the folder `models/checkpoints/mix` of the pipeline",
    ):
        assert text in card
    assert extract_recipe(card) == recipe("miniature")
    assert str(project) not in card
    positions = [card.index(f"\n## {title}\n") for title in ("Use", "Scores", "Data", "Licence", "Recipe")]
    assert positions == sorted(positions)
    (project / "models/adapters/mix-1/README.md").write_text(card, encoding="utf-8")  # as after a download
    assert show_card(project, hub) == card


def test_an_adapter_of_paligemma_names_its_base_and_terms(project: Path, hub: Hub) -> None:
    params = (project / "params.yaml").read_text(encoding="utf-8")
    changed = params.replace("profile: miniature ", "profile: paper ", 1)
    assert changed != params
    (project / "params.yaml").write_text(changed, encoding="utf-8")
    make_adapter(project, "published")
    base = "google/paligemma-3b-mix-224"
    assert publish(project, hub, "--upload").returncode == 0
    uploads = hub.files[REPOSITORY, "main"]
    text = uploads["README.md"].decode()
    data = ModelCard(text).data
    assert (data.base_model, data.license, data.eval_results[0].dataset_name) == (base, "gemma", "RISC")
    assert json.loads(uploads["adapter_config.json"])["base_model_name_or_path"] == base
    assert f'BASE, ADAPTER = "{base}", "{REPOSITORY}"\nREVISION = "bfloat16"' in text
    assert text.count("revision=REVISION") == 2 and 'device_map={"": "cpu"}' in text
    assert "Gemma is provided under and subject to the Gemma\nTerms of Use found at" in text
    assert "RISC's" in text


def test_public_branch_and_message(project: Path, hub: Hub) -> None:
    result = publish(project, hub, "--upload", "--public", "--revision", "seed-1", "--message", "First", row="mix-1")
    assert result.returncode == 0, result.stderr
    assert (hub.private, hub.messages) == ({REPOSITORY: False}, ["First"])
    assert set(hub.files) == {(REPOSITORY, "seed-1")}


def test_an_existing_repository_keeps_its_visibility(project: Path, hub: Hub) -> None:
    hub.private[REPOSITORY] = False
    result = publish(project, hub, "--upload")
    assert (result.returncode, hub.files) == (1, {})
    assert result.stderr.startswith(f"error: {REPOSITORY} is public already; add --public")
    hub.private[REPOSITORY] = True
    result = publish(project, hub, "--upload", "--public")
    assert (result.returncode, hub.private[REPOSITORY]) == (0, True)
    assert "is private and stays so" in result.stderr


@pytest.mark.parametrize(
    ("environment", "state", "message"),
    [
        ({"HF_TOKEN": ""}, {}, "no token for the Hub; run `hf auth login`"),
        ({"HF_TOKEN": "hf_another_000"}, {}, "the Hub does not know this token (401)"),
        ({"HF_HUB_OFFLINE": "1"}, {}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {}, f"{REPOSITORY}: the Hub cannot be reached (Connect"),
        ({}, {"role": "read"}, "the token of somebody can only read"),
        ({}, {"allowed": False}, f"{REPOSITORY}: no write access (403)"),
        ({}, {"fault": f"no {TOKEN} here"}, f"{REPOSITORY}: Invalid metadata in README.md. - no *** here"),
    ],
)
def test_a_refusal_is_one_line(
    project: Path, hub: Hub, environment: dict[str, str], state: dict[str, Any], message: str
) -> None:
    for name, value in state.items():
        setattr(hub, name, value)
    result = publish(project, hub, "--upload", **environment)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {message}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert TOKEN not in result.stdout + result.stderr
    assert hub.files == {}


def test_a_missing_or_unsafe_input_is_one_line(project: Path, hub: Hub) -> None:
    weights = project / "models/adapters/mix-1/adapter_model.safetensors"
    weights.write_bytes(b"\x80\x04 pickled" * 9)
    assert f"{weights.relative_to(project)}: no safetensors" in publish(project, hub, "--upload").stderr
    write_scores(project, {"base": SCORES})
    error = "error: data/scores/scores.json: no scores of mix; run `dvc repro evaluate`\n"
    assert publish(project, hub).stderr == error
    (project / "data/scores/scores.json").unlink()
    assert publish(project, hub).stderr.startswith("error: data/scores/scores.json is missing; `dvc repro`")
    error = publish(project, hub, row="zero-shot-mix").stderr
    assert error.startswith("error: zero-shot-mix: no such row") and "zero-shot-" not in error.partition(";")[2]
    assert hub.requests == []
