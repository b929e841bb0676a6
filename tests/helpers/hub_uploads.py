"""A stand-in for the Hub that takes uploads, on 127.0.0.1: what huggingface_hub calls to make a repository and commit.

whoami, model information, repository and branch, check of the card's metadata, preupload, LFS batch and PUT, and the
commit as NDJSON. It keeps what arrived, and every request with its headers, in memory.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_not_a_real_token_0123456789"
COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = ".safetensors"  # what the Hub stores as LFS


@dataclass
class Request:
    """One that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hub:
    """Repositories, what was sent to them, and who may."""

    address: str = ""
    role: str = "write"  # of the token
    allowed: bool = True  # to write where it asks to
    fault: str = ""  # found in the card's metadata
    private: dict[str, bool] = field(default_factory=dict)  # by repository
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)  # by repository and branch
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS, by SHA-256
    messages: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, Any]:
        """Status and JSON."""
        if request.path.startswith("/storage/"):  # an address signed for this once: it takes no token
            self.stored[hashlib.sha256(request.body).hexdigest()] = request.body
            return 200, {}
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials in Authorization header"}
        for pattern, method in self.routes.items():
            if match := re.fullmatch(pattern, f"{request.method} {request.path}"):
                return getattr(self, method)(request, *match.groups())
        return 404, {"error": f"the stand-in knows no {request.method} {request.path}"}

    routes = {  # noqa: RUF012
        r"GET /api/whoami-v2": "whoami",
        r"GET /api/models/([^/]+/[^/]+)": "information",
        r"POST /api/repos/create": "create",
        r"POST /api/models/([^/]+/[^/]+)/branch/([^/]+)": "branch",
        r"POST /api/validate-yaml": "validate",
        r"POST /api/models/([^/]+/[^/]+)/preupload/([^/]+)": "preupload",
        r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch": "batch",
        r"POST /api/models/([^/]+/[^/]+)/commit/([^/]+)": "commit",
    }

    def whoami(self, _: Request) -> tuple[int, Any]:
        return 200, {"name": "somebody", "type": "user", "auth": {"accessToken": {"role": self.role}}}

    def information(self, _: Request, name: str) -> tuple[int, Any]:
        if name not in self.private:
            return 404, {"error": "Repository not found"}
        return 200, {"id": name, "private": self.private[name], "sha": COMMIT, "siblings": [], "tags": []}

    def create(self, request: Request) -> tuple[int, Any]:
        wanted = json.loads(request.body)
        name = f"{wanted.get('organization') or 'somebody'}/{wanted['name']}"
        if not self.allowed:
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        self.private[name] = wanted.get("visibility", "public") == "private" or wanted.get("private") is True
        return 200, {"url": f"{self.address}/{name}"}

    def branch(self, _: Request, name: str, revision: str) -> tuple[int, Any]:
        self.files.setdefault((name, revision), {})
        return 200, {}

    def validate(self, _: Request) -> tuple[int, Any]:
        return (400, {"errors": [{"message": self.fault}]}) if self.fault else (200, {"errors": [], "warnings": []})

    def preupload(self, request: Request, *_: str) -> tuple[int, Any]:
        paths = [file["path"] for file in json.loads(request.body)["files"]]
        modes = [{"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular"} for path in paths]
        return 200, {"files": [mode | {"shouldIgnore": False} for mode in modes]}

    def batch(self, request: Request, _: str) -> tuple[int, Any]:
        wanted = json.loads(request.body)["objects"]
        upload = [{"upload": {"href": f"{self.address}/storage/{one['oid']}"}} for one in wanted]
        objects = [one | {"actions": actions} for one, actions in zip(wanted, upload, strict=True)]
        return 200, {"transfer": "basic", "objects": objects}

    def commit(self, request: Request, name: str, revision: str) -> tuple[int, Any]:
        if not self.allowed:
            return 403, {"error": "no write access"}
        held = self.files.setdefault((name, revision), {})
        for line in map(json.loads, request.body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                held[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                held[value["path"]] = self.stored[value["oid"]]
            else:
                return 400, {"error": f"no {line['key']} was expected"}
        return 200, {"commitUrl": f"{self.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT}


@contextmanager
def hub_uploads() -> Iterator[Hub]:
    """The stand-in, for as long as the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path.split("?")[0], headers, self.body(headers))
            hub.requests.append(request)
            status, answer = hub.answer(request)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_HEAD = handle_any

        def body(self, headers: dict[str, str]) -> bytes:
            """With its length told before, or in chunks."""
            if headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(headers.get("content-length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
