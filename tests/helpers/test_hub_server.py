"""The Hub's own client downloads from the stand-in exactly what it holds."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from tests.helpers.hub_server import HubServer, sha256
from tests.helpers.online import online

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 900, "data/train.parquet": b"PAR1" * 50}


def test_the_client_downloads_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as server, online(server, monkeypatch, str(tmp_path)):
        commit = server.add("dataset", "us/them", FILES, "refs/convert/parquet")
        revision = "refs/convert/parquet"
        info = HfApi().dataset_info("us/them", revision=revision, files_metadata=True)
        folder = Path(snapshot_download("us/them", repo_type="dataset", revision=revision, local_dir=tmp_path / "got"))
        options = {"repo_type": "dataset", "revision": commit, "local_dir": tmp_path / "file", "endpoint": server.url}
        file = hf_hub_download("us/them", "config.json", **options)
    assert info.sha == commit
    assert {file.rfilename: file.size for file in info.siblings or []} == {name: len(b) for name, b in FILES.items()}
    lfs = {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs}
    assert lfs == {name: sha256(FILES[name]) for name in FILES if name != "config.json"}
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert Path(file).read_bytes() == FILES["config.json"]


def test_the_client_distinguishes_the_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as server, online(server, monkeypatch, str(tmp_path)):
        api = HfApi()
        server.add("model", "us/gated", FILES, gated=True, readers={"hf_reader"})
        server.add("model", "us/hidden", FILES, private=True, readers={"hf_reader"})
        assert api.model_info("us/gated", token=False).gated == "manual"
        with pytest.raises(GatedRepoError):
            api.auth_check("us/gated", token=False)
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("us/hidden", token=False)
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("us/nothing", token="hf_reader")
        with pytest.raises(RevisionNotFoundError):
            api.model_info("us/gated", revision="none", token=False)
        api.auth_check("us/gated", token="hf_reader")
        assert api.model_info("us/hidden", token="hf_reader").private
