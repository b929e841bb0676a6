"""Fake secrets for the environment of tested commands, and a search for them in all that these write or print.

They are computed, so that no file of the project or of its copies holds one.
"""

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq


def _fake(name: str, length: int) -> str:
    return hashlib.sha512(f"planted {name}".encode()).hexdigest()[:length]


ENVIRONMENT = {
    "HF_TOKEN": "hf_" + _fake("HF_TOKEN", 34),
    "HUGGING_FACE_HUB_TOKEN": "hf_" + _fake("HUGGING_FACE_HUB_TOKEN", 34),
    "WANDB_API_KEY": _fake("WANDB_API_KEY", 40),
}
IN_FILE = "hf_" + _fake("file", 34)  # `hf auth login` writes one to HF_HOME
SECRETS = {**ENVIRONMENT, "HF_HOME/token": IN_FILE}


def plant(home: Path) -> dict[str, str]:
    """Return an environment with all secrets; `home` becomes HF_HOME and gets a token's file."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "token").write_text(IN_FILE, encoding="utf-8")
    return ENVIRONMENT | {"HF_HOME": str(home)}


def spellings(secret: str) -> set[bytes]:
    """Return a secret as plain text, quoted for an address, and in base64 at each position in a text."""
    texts = {secret.encode(), quote(secret).encode()}
    for preceding_bytes in range(3):  # they decide how base64 cuts the secret into groups of three
        encoded = base64.b64encode(b"\0" * preceding_bytes + secret.encode()).rstrip(b"=")
        text = encoded[4 if preceding_bytes else 0 : -2]
        texts |= {text, text.translate(bytes.maketrans(b"+/", b"-_"))}
    return texts


def secret_names(content: bytes) -> list[str]:
    """Name the secrets that `content` holds in some spelling."""
    return [name for name, secret in SECRETS.items() if any(text in content for text in spellings(secret))]


def leaks(folder: Path) -> dict[str, list[str]]:
    """Name the files below `folder`, and objects of its git repository, that hold secrets, with the secrets' names."""
    contents = [*_files(folder), *_objects(folder)]
    return {path: names for path, content in contents if (names := secret_names(content))}


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            yield str(path.relative_to(folder)), content
            if content[:4] == b"PAR1":  # compressed
                yield str(path.relative_to(folder)), str(pq.read_table(path).to_pylist()).encode()


def _objects(folder: Path) -> Iterator[tuple[str, bytes]]:
    if (folder / ".git").exists():
        command = ["git", "cat-file", "--batch-all-objects", "--batch"]
        yield ".git", subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
