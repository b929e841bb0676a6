"""A stand-in for the Hub that accepts uploads, on 127.0.0.1: it answers each request of a commit by huggingface_hub.

These are whoami, model information, repository and branch, the check of a card's metadata, preupload, LFS batch and
PUT, and the commit as NDJSON. It stores all uploads and requests in memory.
"""

import base64
import json
import re
from typing import Any

from tests.helpers.hub_server import Answer, HubServer, Request, sha256

TOKEN = "hf_not_a_real_token_0123456789"
COMMIT = "c0ffee" * 6 + "c0ff"
LFS_SUFFIX = ".safetensors"
Reply = tuple[int, Any]  # status and JSON
ROUTES = {
    r"GET /api/whoami-v2": "whoami",
    r"GET /api/models/([^/]+/[^/]+)": "information",
    r"POST /api/repos/create": "create",
    r"POST /api/models/([^/]+/[^/]+)/branch/([^/]+)": "branch",
    r"POST /api/validate-yaml": "validate",
    r"POST /api/models/([^/]+/[^/]+)/preupload/([^/]+)": "preupload",
    r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch": "batch",
    r"POST /api/models/([^/]+/[^/]+)/commit/([^/]+)": "commit",
}


class Hub(HubServer):
    """Repositories, the uploads to them, and the rights of the token."""

    def __init__(self) -> None:
        super().__init__()
        self.role = "write"  # of the token
        self.allowed = True  # to write to the repository
        self.fault = ""  # of the card's metadata
        self.private: dict[str, bool] = {}  # by repository
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}  # by repository and branch
        self.uploads: dict[str, bytes] = {}  # LFS files, by SHA-256
        self.messages: list[str] = []

    @property
    def address(self) -> str:
        return self.url

    @property
    def requests(self) -> list[Request]:
        return self.served

    def answer(self, request: Request) -> Answer:
        status, content = self._reply(request)
        headers = {"Content-Type": "application/json"} | ({"X-Error-Code": "RepoNotFound"} if status == 404 else {})
        return Answer(status, json.dumps(content).encode(), headers)

    def _reply(self, request: Request) -> Reply:
        if request.path.startswith("/storage/"):  # such an address is signed: it needs no token
            self.uploads[sha256(request.body)] = request.body
            return 200, {}
        if request.token != TOKEN:
            return 401, {"error": "Invalid credentials in Authorization header"}
        for pattern, method in ROUTES.items():
            if match := re.fullmatch(pattern, f"{request.method} {request.path}"):
                return getattr(self, method)(request, *match.groups())
        return 404, {"error": f"the stand-in has no route for {request.method} {request.path}"}

    def whoami(self, _: Request) -> Reply:
        return 200, {"name": "somebody", "type": "user", "auth": {"accessToken": {"role": self.role}}}

    def information(self, _: Request, name: str) -> Reply:
        if name not in self.private:
            return 404, {"error": "Repository not found"}
        return 200, {"id": name, "private": self.private[name], "sha": COMMIT, "siblings": [], "tags": []}

    def create(self, request: Request) -> Reply:
        options = json.loads(request.body)
        name = f"{options.get('organization') or 'somebody'}/{options['name']}"
        if not self.allowed:
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        self.private[name] = options.get("visibility", "public") == "private" or options.get("private") is True
        return 200, {"url": f"{self.url}/{name}"}

    def branch(self, _: Request, name: str, revision: str) -> Reply:
        self.files.setdefault((name, revision), {})
        return 200, {}

    def validate(self, _: Request) -> Reply:
        return (400, {"errors": [{"message": self.fault}]}) if self.fault else (200, {"errors": [], "warnings": []})

    def preupload(self, request: Request, *_: str) -> Reply:
        paths = [file["path"] for file in json.loads(request.body)["files"]]
        modes = [{"path": path, "uploadMode": "lfs" if path.endswith(LFS_SUFFIX) else "regular"} for path in paths]
        return 200, {"files": [mode | {"shouldIgnore": False} for mode in modes]}

    def batch(self, request: Request, _: str) -> Reply:
        objects = json.loads(request.body)["objects"]
        actions = [{"upload": {"href": f"{self.url}/storage/{entry['oid']}"}} for entry in objects]
        replies = [entry | {"actions": action} for entry, action in zip(objects, actions, strict=True)]
        return 200, {"transfer": "basic", "objects": replies}

    def commit(self, request: Request, name: str, revision: str) -> Reply:
        if not self.allowed:
            return 403, {"error": "no write access"}
        files = self.files.setdefault((name, revision), {})
        for line in map(json.loads, request.body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.uploads[value["oid"]]
            else:
                return 400, {"error": f"unexpected {line['key']}"}
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}


hub_uploads = Hub
