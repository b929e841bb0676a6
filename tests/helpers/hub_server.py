"""A small local stand-in for the Hub: what its client asks of it to read repositories, on 127.0.0.1.

Information, file trees, access checks and files (HEAD, GET, Range, ETag), Git LFS files by way of a redirect to
another host as the Hub's storage is, gated and private repositories, and connections that break where they are told to.
`tests/helpers/test_hub_server.py` holds it to the Hub's own client. A subclass answers more by overriding `answer`.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", ".parquet", ".model", ".zip")
KINDS = {"models": "model", "datasets": "dataset"}


@dataclass
class Repository:
    """Files at each revision's commit. `readers`: tokens that may read a gated or private one."""

    kind: str
    name: str
    commits: dict[str, dict[str, bytes]]
    revisions: dict[str, str]  # branch or tag to commit
    gated: bool = False
    private: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # lower-case names
    body: bytes = b""

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # bytes of the body after which the connection breaks


@dataclass(frozen=True)
class Served:
    """One request and what it got."""

    method: str
    path: str
    host: str
    token: str | None
    status: int
    sent: int  # bytes of the body


class HubServer:
    """The stand-in. `cuts`: by file name, the offset nothing is served beyond; `status`: what every request gets."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.stored: dict[str, tuple[str, bytes]] = {}  # by SHA-256: the file's name and content
        self.served: list[Served] = []
        self.cuts: dict[str, int] = {}
        self.status: int | None = None
        self.known_tokens: set[str] = set()

    def add(self, kind: str, name: str, files: dict[str, bytes], revision: str = "main", **options: Any) -> str:
        """A commit of `files` at `revision` of a repository, which is made where there is none; its hash."""
        new = Repository(kind, name, {}, {}, **options)
        repository = self.repositories.setdefault((kind, name), new)
        commit = hashlib.sha1(repr((name, len(repository.commits), sorted(files))).encode()).hexdigest()
        repository.commits[commit], repository.revisions[revision] = dict(files), commit
        self.known_tokens |= repository.readers
        for path, content in files.items():
            if is_lfs(path):
                self.stored[sha256(content)] = (path, content)
        return commit

    def sent(self, name: str) -> int:
        """Bytes of a file's content served so far."""
        return sum(one.sent for one in self.served if one.method == "GET" and one.path.endswith(name))

    def answer(self, request: Request) -> Answer:
        """What the Hub says. Override for more, and call this for the rest."""
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        if self.status:
            return Answer(self.status)
        if request.token and request.token not in self.known_tokens:
            return Answer(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        if parts[0] == "stored":
            return self._content(request, parts[1], *self.stored[parts[1]])
        if parts[0] == "api" and parts[1] in KINDS:
            return self._api(request, KINDS[parts[1]], "/".join(parts[2:4]), parts[4:])
        kind, parts = ("dataset", parts[1:]) if parts[0] == "datasets" else ("model", parts)
        if parts[2:3] != ["resolve"]:
            return Answer(404)
        return self._resolve(request, kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _api(self, request: Request, kind: str, name: str, rest: list[str]) -> Answer:
        repository = self.repositories.get((kind, name))
        if refused := _refusal(repository, request.token):
            return refused
        assert repository is not None
        if rest[:1] == ["auth-check"]:
            return _gate(repository, request.token) or Answer(200)
        commit = _commit(repository, rest[1] if len(rest) > 1 else "main")
        if commit is None:
            return Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[commit]
        listed: Any = [_tree_entry(path, content) for path, content in files.items()]
        if rest[:1] != ["tree"]:
            siblings = [_sibling(path, content, "blobs" in request.query) for path, content in files.items()]
            gate = "manual" if repository.gated else False
            listed = {"id": name, "sha": commit, "gated": gate, "private": repository.private, "siblings": siblings}
        return Answer(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _resolve(self, request: Request, kind: str, name: str, revision: str, path: str) -> Answer:
        repository = self.repositories.get((kind, name))
        if refused := _refusal(repository, request.token):
            return refused
        assert repository is not None
        if refused := _gate(repository, request.token):
            return refused
        commit = _commit(repository, revision)
        if commit is None or path not in repository.commits[commit]:
            return Answer(404, headers={"X-Error-Code": "EntryNotFound" if commit else "RevisionNotFound"})
        content, told = repository.commits[commit][path], {"X-Repo-Commit": commit}
        if not is_lfs(path):
            return self._content(request, blob_id(content), path, content, told)
        told |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        return Answer(302, headers=told | {"Location": f"{self.storage}/stored/{sha256(content)}/{path}"})

    def _content(
        self, request: Request, tag: str, name: str, content: bytes, told: dict[str, str] | None = None
    ) -> Answer:
        begin = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = (told or {}) | {"ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        if begin and begin >= len(content):
            return Answer(416, headers=headers | {"Content-Range": f"bytes */{len(content)}"})
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        cut = max(self.cuts[name] - begin, 0) if name in self.cuts else None
        return Answer(206 if begin else 200, content[begin:], headers, cut)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def storage(self) -> str:
        """Where LFS files are: another host, to which no token belongs."""
        return f"http://localhost:{self._http.server_port}"

    def __enter__(self) -> "HubServer":
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        split = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, split.path, parse_qs(split.query), headers, body)
        answer = self.hub.answer(request)
        body = b"" if self.command == "HEAD" else answer.body[: answer.cut]
        told = Served(self.command, split.path, headers["host"], request.token, answer.status, len(body))
        self.hub.served.append(told)
        self.send_response(answer.status)
        for name, value in (answer.headers | {"Content-Length": str(len(answer.body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection |= answer.cut is not None and answer.cut < len(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, *_: object) -> None:
        pass


def _refusal(repository: Repository | None, token: str | None) -> Answer | None:
    """A repository that is not there, or not for this reader: the Hub tells neither from the other."""
    hidden = repository is None or (repository.private and token not in repository.readers)
    return Answer(404 if token else 401, headers={"X-Error-Code": "RepoNotFound"}) if hidden else None


def _gate(repository: Repository, token: str | None) -> Answer | None:
    shut = repository.gated and token not in repository.readers
    return Answer(403 if token else 401, headers={"X-Error-Code": "GatedRepo"}) if shut else None


def _commit(repository: Repository, revision: str) -> str | None:
    return revision if revision in repository.commits else repository.revisions.get(revision)


def _sibling(path: str, content: bytes, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    told: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob_id(_pointer(path, content))}
    if is_lfs(path):
        told["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    return told


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    told["oid"] = blob_id(_pointer(path, content))
    if is_lfs(path):
        told["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return told


def _pointer(path: str, content: bytes) -> bytes:
    """What Git itself holds of a file."""
    return f"oid sha256:{sha256(content)}".encode() if is_lfs(path) else content


def is_lfs(path: str) -> bool:
    return path.endswith(LFS)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
