"""A small stand-in for the Hub on 127.0.0.1 that answers its client's requests to read repositories.

It serves information, file trees, access checks and files (HEAD, GET, Range, ETag); Git LFS files through a redirect to
another host, as the Hub does; gated and private repositories; and connections that break on demand.
`tests/helpers/test_hub_server.py` tests it with the Hub's own client. A subclass overrides `answer` to answer more.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".parquet", ".model", ".zip")
KINDS = {"models": "model", "datasets": "dataset"}


@dataclass
class Repository:
    """Files by commit. `readers`: tokens that may read a gated or private repository."""

    kind: str
    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)  # branch or tag to commit
    gated: bool = False
    private: bool = False
    readers: set[str] = field(default_factory=set)


@dataclass
class Request:
    """A request, and later the answer's status and the bytes of its body."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # lower-case names
    body: bytes = b""
    status: int = 0
    sent: int = 0

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None

    @property
    def host(self) -> str:
        return self.headers["host"]


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # bytes of the body after which the connection breaks


class HubServer:
    """The stand-in. `cuts`: by file name, the offset where connections break; `status`: the answer to all requests."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.stored: dict[str, tuple[str, bytes]] = {}  # by SHA-256: the file's name and content
        self.served: list[Request] = []
        self.cuts: dict[str, int] = {}
        self.status: int | None = None
        self.known_tokens: set[str] = set()

    def add(self, kind: str, name: str, files: dict[str, bytes], revision: str = "main", **options: Any) -> str:
        """Commit `files` to a repository, which is created if needed; return the commit's hash."""
        repository = self.repositories.setdefault((kind, name), Repository(kind, name, **options))
        commit = hashlib.sha1(repr((name, len(repository.commits), sorted(files))).encode()).hexdigest()
        repository.commits[commit], repository.revisions[revision] = dict(files), commit
        self.known_tokens |= repository.readers
        self.stored |= {sha256(content): (path, content) for path, content in files.items() if is_lfs(path)}
        return commit

    def sent(self, name: str) -> int:
        """Return how many bytes of a file's content were served."""
        return sum(request.sent for request in self.served if request.method == "GET" and request.path.endswith(name))

    def answer(self, request: Request) -> Answer:
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        if self.status:
            return Answer(self.status)
        if request.token and request.token not in self.known_tokens:
            return Answer(401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        if parts[0] == "stored":
            return self._content(request, parts[1], *self.stored[parts[1]], {})
        if parts[0] == "api" and parts[1] in KINDS:
            return self._api(request, self.repositories.get((KINDS[parts[1]], "/".join(parts[2:4]))), *parts[4:])
        kind, parts = ("dataset", parts[1:]) if parts[0] == "datasets" else ("model", parts)
        if parts[2:3] != ["resolve"]:
            return Answer(404)
        repository = self.repositories.get((kind, "/".join(parts[:2])))
        return self._resolve(request, repository, parts[3], "/".join(parts[4:]))

    def _api(
        self, request: Request, repository: Repository | None, action: str = "", revision: str = "main", *_: str
    ) -> Answer:
        if repository is None or _is_hidden(repository, request.token):
            return _missing(request.token)
        if action == "auth-check":
            return _gate(repository, request.token) or Answer(200)
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            return Answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[commit]
        content: Any = [_tree_entry(path, content) for path, content in files.items()]
        if action != "tree":
            siblings = [_sibling(path, content, "blobs" in request.query) for path, content in files.items()]
            gate = "manual" if repository.gated else False
            content = {"id": repository.name, "sha": commit, "gated": gate, "private": repository.private}
            content["siblings"] = siblings
        return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _resolve(self, request: Request, repository: Repository | None, revision: str, path: str) -> Answer:
        if repository is None or _is_hidden(repository, request.token):
            return _missing(request.token)
        if refusal := _gate(repository, request.token):
            return refusal
        commit = repository.revisions.get(revision, revision)
        if path not in repository.commits.get(commit, {}):
            part = "Entry" if commit in repository.commits else "Revision"
            return Answer(404, headers={"X-Error-Code": f"{part}NotFound"})
        content, headers = repository.commits[commit][path], {"X-Repo-Commit": commit}
        if not is_lfs(path):
            return self._content(request, blob_id(content), path, content, headers)
        headers |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        return Answer(302, headers=headers | {"Location": f"{self.storage}/stored/{sha256(content)}/{path}"})

    def _content(self, request: Request, tag: str, name: str, content: bytes, headers: dict[str, str]) -> Answer:
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = headers | {"ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        if start and start >= len(content):
            return Answer(416, headers=headers | {"Content-Range": f"bytes */{len(content)}"})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = max(self.cuts[name] - start, 0) if name in self.cuts else None
        return Answer(206 if start else 200, content[start:], headers, cut)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def storage(self) -> str:
        """Return the address of LFS files: another host's, which must not get a token."""
        return f"http://localhost:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
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
        request = Request(self.command, split.path, parse_qs(split.query), headers, self._read_body(headers))
        self.hub.served.append(request)
        answer = self.hub.answer(request)
        body = b"" if self.command == "HEAD" else answer.body[: answer.cut]
        request.status, request.sent = answer.status, len(body)
        self.send_response(answer.status)
        for name, value in (answer.headers | {"Content-Length": str(len(answer.body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection |= answer.cut is not None and answer.cut < len(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *_: object) -> None:
        pass


def _is_hidden(repository: Repository, token: str | None) -> bool:
    return repository.private and token not in repository.readers


def _missing(token: str | None) -> Answer:
    """Answer as the Hub does for a missing and for a hidden repository alike."""
    return Answer(404 if token else 401, headers={"X-Error-Code": "RepoNotFound"})


def _gate(repository: Repository, token: str | None) -> Answer | None:
    is_closed = repository.gated and token not in repository.readers
    return Answer(403 if token else 401, headers={"X-Error-Code": "GatedRepo"}) if is_closed else None


def _sibling(path: str, content: bytes, with_blobs: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        entry |= {"size": len(content), "blobId": blob_id(_git_content(path, content))}
        if is_lfs(path):
            entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    oid = blob_id(_git_content(path, content))
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if is_lfs(path):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _git_content(path: str, content: bytes) -> bytes:
    """Return what Git stores of a file: of an LFS file a pointer."""
    return f"oid sha256:{sha256(content)}".encode() if is_lfs(path) else content


def is_lfs(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
