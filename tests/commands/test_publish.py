"""What goes to the Hub, against a stand-in that keeps what arrives: the adapter's bytes, a card that the Hub's own
library reads, and the token nowhere."""

import json
import os
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
from tests.helpers.small_recipes import variant_recipe

ROOT = Path(__file__).parents[2]
HERE = "somebody/mix-captions"
COUNTS = {"trainable_parameters": 10, "all_parameters": 20, "share": 50.0}
SIGNATURE = "CIDEr-D|refs:5|n:319"
SCORES = {"CIDEr": 242.96, "BLEU-1": 74.83, "BLEU-2": 62.68, "BLEU-3": 49.96, "BLEU-4": 37.43, "METEOR": 35.38,
          "ROUGE-L": 56.52, "CIDEr caption_1": 233.48, "CIDEr low": 230.95, "CIDEr high": 254.96,
          "signature": SIGNATURE, "signature caption_1": "CIDEr-D|refs:caption_1|n:319"}  # fmt: skip
METRICS = ["CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L"]
MANIFEST = {"images": {"NWPU": 1132, "UCM": 75}, "set_aside": 3, "sha256": {"images.parquet": "ab" * 32}}
SPLITS = {
    "method": "ratio",
    "images": {"train": 700, "validation": 250, "test": 257},
    "images_by_source": {"NWPU": {"train": 660, "validation": 236, "test": 236}, "UCM": {"train": 40}},
    "leakage": {"ratio": {"groups_whole": {"captions": 0.1423, "near_images": 0.0}}},
}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def recipe(origin: str) -> VariantRecipe:
    return variant_recipe(origin=origin, files={"config.json": "ab" * 32}, compute="bfloat16")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one adapter and what later stages found of it; something beside the adapter that must not go."""
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    make_adapter(tmp_path, "miniature")
    write(tmp_path / "metrics/scores.json", {"mix": SCORES, "zero-shot-mix": SCORES | {"CIDEr": 47.12},
                                             "nearest-image": SCORES | {"CIDEr": 168.23}})  # fmt: skip
    write(tmp_path / "metrics/splits.json", SPLITS)
    write(tmp_path / "data/captions/manifest.json", MANIFEST)
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
    """The command in a process of its own, signed in, and with nothing of this machine's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {
        "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(project / "home"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    call = [sys.executable, "-m", "captioning.commands.publish", row, "--repository", HERE, *arguments]
    return subprocess.run(call, cwd=project, env=clean | own | environment, capture_output=True, text=True)


def card(project: Path, hub: Hub) -> str:
    """The card as a dry run shows it."""
    done = publish(project, hub)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n\n", 1)[1]


def test_without_upload_nothing_is_asked_or_sent(project: Path, hub: Hub) -> None:
    done = publish(project, hub)
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    assert done.stderr.splitlines()[-1] == "nothing was sent; add --upload to send it"
    shown = done.stdout.split("\n\n", 1)[0].splitlines()
    weights = (project / "models/adapters/mix-1/adapter_model.safetensors").stat().st_size
    assert shown[0] == f"{HERE} (private), branch main:"
    assert [line.split()[0] for line in shown[1:4]] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert shown[3].split()[1:] == [f"{weights:,}", "bytes"]
    assert {line.strip() for line in shown[5:]} == {"stays here: .env", "stays here: optimizer.pt"}
    assert not (project / "home").exists()


def test_what_arrives_is_the_adapter(project: Path, hub: Hub) -> None:
    shown = card(project, hub)
    done = publish(project, hub, "--upload")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.address}/{HERE}/commit/{COMMIT}"
    assert hub.private == {HERE: True}
    arrived = hub.files[HERE, "main"]
    folder = project / "models/adapters/mix-1"
    assert set(arrived) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert arrived["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    assert json.loads(arrived["adapter_config.json"]) == {"r": 16, "base_model_name_or_path": "models/checkpoints/mix"}
    assert arrived["README.md"].decode().strip() == shown.strip()
    assert hub.messages == ["Adapter mix"]


def test_the_token_is_nowhere_but_in_the_request(project: Path, hub: Hub) -> None:
    (project / "models/adapters/mix-1/.env").unlink()
    done = publish(project, hub, "--upload")
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in content for files in hub.files.values() for content in files.values())
    assert not any(TOKEN.encode() in request.body for request in hub.requests)
    stored = next(request for request in hub.requests if request.path.startswith("/storage/"))
    assert "authorization" not in stored.headers
    written = [path for path in project.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_the_cards_metadata_is_the_hubs(project: Path, hub: Hub) -> None:
    parsed = ModelCard(card(project, hub))
    data = parsed.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("peft", "image-text-to-text", "apache-2.0")
    assert data.base_model is None
    assert {"paligemma", "qlora", "remote-sensing", "lora"} <= set(data.tags)
    results = data.eval_results
    assert [(one.metric_type, one.metric_value) for one in results] == [
        (name.lower(), SCORES[name]) for name in METRICS
    ]
    assert all(one.metric_args["signature"] == SIGNATURE for one in results)
    assert (results[0].metric_args["interval_low"], results[0].metric_args["interval_high"]) == (230.95, 254.96)
    assert {(one.dataset_name, one.dataset_split) for one in results} == {("Drawn overhead scenes", "test")}


def test_the_card_tells_scores_data_licence_and_recipe(project: Path, hub: Hub) -> None:
    text = card(project, hub)
    assert "| mix | 242.96 [230.95, 254.96] | 74.83 |" in text
    assert "| zero-shot-mix | 47.12 [" in text
    assert "| nearest-image | 168.23 [" in text
    assert "| mix | 233.48 |" in text
    assert f"`{SIGNATURE}`" in text
    assert "| NWPU | 1,132 | 660 | 236 | 236 |" in text
    assert "3 rows or captions were set aside" in text
    assert "captions 0.1423" in text
    assert "under Apache-2.0" in text
    assert extract_recipe(text) == recipe("miniature")
    assert f'from_pretrained(model, "{HERE}")' in text
    assert str(project) not in text
    order = [text.index(f"\n## {title}\n") for title in ("Scores", "Data", "Licence", "Recipe")]
    assert order == sorted(order)


def test_an_adapter_of_paligemma_names_its_base_and_its_terms(project: Path, hub: Hub) -> None:
    params = (project / "params.yaml").read_text(encoding="utf-8")
    changed = params.replace("profile: miniature ", "profile: paper ", 1)
    assert changed != params
    (project / "params.yaml").write_text(changed, encoding="utf-8")
    make_adapter(project, "hub")
    base = "google/paligemma-3b-mix-224"
    assert base in params
    assert publish(project, hub, "--upload").returncode == 0
    arrived = hub.files[HERE, "main"]
    text = arrived["README.md"].decode()
    parsed = ModelCard(text)
    assert (parsed.data.base_model, parsed.data.license) == (base, "gemma")
    assert parsed.data.eval_results[0].dataset_name == "RISC"
    assert json.loads(arrived["adapter_config.json"])["base_model_name_or_path"] == base
    assert f'from_pretrained("{base}")' in text
    assert "Gemma is provided under and subject to the Gemma\nTerms of Use found at" in text
    assert "RISC's" in text


def test_the_stages_own_card_is_not_touched(project: Path, hub: Hub) -> None:
    path = project / "models/adapters/mix-1/README.md"
    before = path.read_bytes()
    publish(project, hub, "--upload")
    assert path.read_bytes() == before


def test_public_branch_and_message(project: Path, hub: Hub) -> None:
    done = publish(project, hub, "--upload", "--public", "--revision", "seed-1", "--message", "First", row="mix-1")
    assert done.returncode == 0, done.stderr
    assert hub.private == {HERE: False}
    assert hub.messages == ["First"]
    assert set(hub.files) == {(HERE, "seed-1")}


def test_a_public_repository_is_left_alone_unless_told(project: Path, hub: Hub) -> None:
    hub.private[HERE] = False
    done = publish(project, hub, "--upload")
    assert (done.returncode, hub.files) == (1, {})
    assert done.stderr.startswith(f"error: {HERE} is public already; add --public")
    assert publish(project, hub, "--upload", "--public").returncode == 0


def test_a_private_repository_stays_so(project: Path, hub: Hub) -> None:
    hub.private[HERE] = True
    done = publish(project, hub, "--upload", "--public")
    assert done.returncode == 0
    assert "is private and stays so" in done.stderr
    assert hub.private[HERE] is True


@pytest.mark.parametrize(
    ("environment", "state", "told"),
    [
        ({"HF_TOKEN": ""}, {}, "no token for the Hub; run `hf auth login`"),
        ({"HF_TOKEN": "hf_another_000"}, {}, "the Hub does not know this token (401)"),
        ({"HF_HUB_OFFLINE": "1"}, {}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {}, f"{HERE}: the Hub cannot be reached (Connect"),
        ({}, {"role": "read"}, "the token of somebody can only read"),
        ({}, {"allowed": False}, f"{HERE}: no write access (403)"),
        ({}, {"fault": f"no {TOKEN} here"}, f"{HERE}: Invalid metadata in README.md. - no *** here"),
        ({}, {"fault": "license must be one of"}, f"{HERE}: Invalid metadata in README.md. - license must be one of"),
    ],
)
def test_a_refusal_is_one_line(
    project: Path, hub: Hub, environment: dict[str, str], state: dict[str, Any], told: str
) -> None:
    for name, value in state.items():
        setattr(hub, name, value)
    done = publish(project, hub, "--upload", **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {told}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert TOKEN not in done.stdout + done.stderr
    assert hub.files == {}


def test_what_is_missing_here_is_one_line(project: Path, hub: Hub) -> None:
    write(project / "metrics/scores.json", {"base": SCORES})
    assert publish(project, hub).stderr == "error: metrics/scores.json: no scores of mix; run `dvc repro evaluate`\n"
    (project / "metrics/scores.json").unlink()
    assert publish(project, hub).stderr.startswith("error: metrics/scores.json is not there; `dvc repro`")
    assert publish(project, hub, row="mixx").stderr.startswith("error: mixx: no such row")
    assert publish(project, hub, row="zero-shot-mix").stderr.startswith("error: zero-shot-mix: no such row")
    assert hub.requests == []


def test_pickles_in_disguise_stay(project: Path, hub: Hub) -> None:
    (project / "models/adapters/mix-1/adapter_model.safetensors").write_bytes(b"\x80\x04 pickled" * 9)
    done = publish(project, hub, "--upload")
    assert done.returncode == 1
    assert "models/adapters/mix-1/adapter_model.safetensors: no safetensors" in done.stderr
    assert hub.requests == []


def test_a_card_that_was_published_before_is_made_anew(project: Path, hub: Hub) -> None:
    first = card(project, hub)
    (project / "models/adapters/mix-1/README.md").write_text(first, encoding="utf-8")
    again = card(project, hub)
    assert again.strip() == first.strip()
