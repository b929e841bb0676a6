"""Stand-in secrets for the environment of what is tested, and a search for them in everything it wrote or said.

They are made up when they are wanted, so that no file of the project, nor a copy of it, holds one.
"""

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq


def _stand_in(name: str, length: int) -> str:
    return hashlib.sha512(f"planted {name}".encode()).hexdigest()[:length]


ENVIRONMENT = {
    "HF_TOKEN": "hf_" + _stand_in("HF_TOKEN", 34),
    "HUGGING_FACE_HUB_TOKEN": "hf_" + _stand_in("HUGGING_FACE_HUB_TOKEN", 34),
    "WANDB_API_KEY": _stand_in("WANDB_API_KEY", 40),
}
IN_FILE = "hf_" + _stand_in("file", 34)  # what `hf auth login` leaves in HF_HOME
SECRETS = {**ENVIRONMENT, "HF_HOME/token": IN_FILE}


def plant(home: Path) -> dict[str, str]:
    """The environment that holds them all; `home` becomes HF_HOME, with a token's file."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "token").write_text(IN_FILE, encoding="utf-8")
    return ENVIRONMENT | {"HF_HOME": str(home)}


def forms(secret: str) -> set[bytes]:
    """A secret as it is, quoted for an address, and in base64 wherever in a text it stood."""
    encoded = {secret.encode(), quote(secret).encode()}
    for before in range(3):  # bytes ahead of it decide how it is cut into groups of three
        text = base64.b64encode(b"\0" * before + secret.encode()).rstrip(b"=")
        encoded |= {
            text[4 if before else 0 : -2],
            text[4 if before else 0 : -2].translate(bytes.maketrans(b"+/", b"-_")),
        }
    return encoded


def told(content: bytes) -> list[str]:
    """The names of secrets that `content` holds in some form."""
    return [name for name, secret in SECRETS.items() if any(form in content for form in forms(secret))]


def leaks(folder: Path) -> dict[str, list[str]]:
    """Files below `folder`, and objects of its git repository, that hold a secret, and which."""
    contents = [*_files(folder), *_objects(folder)]
    return {name: found for name, content in contents if (found := told(content))}


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            yield str(path.relative_to(folder)), content
            if content[:4] == b"PAR1":  # compressed
                yield str(path.relative_to(folder)), str(pq.read_table(path).to_pylist()).encode()


def _objects(folder: Path) -> Iterator[tuple[str, bytes]]:
    if (folder / ".git").exists():
        every = ["git", "cat-file", "--batch-all-objects", "--batch"]
        yield ".git", subprocess.run(every, cwd=folder, capture_output=True, check=True).stdout
