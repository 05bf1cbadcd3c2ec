"""A server that speaks as much of the Hugging Face hub's protocol as its client needs to push and load a model."""

import base64
import contextlib
import hashlib
import http.server
import json
import urllib.parse

from tests.support import server


class Hub:
    """Repositories in memory: ``{name: {revision: {file: content}}}``, the newest commit under ``main``, too.

    refuse: status with which every request is refused, if it is not 0; sizes: stated in place of the true ones;
    requests: method and path of all so far; token: without it, nothing can be written.
    """

    def __init__(self):
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.uploaded: dict[str, bytes] = {}
        self.commits: dict[tuple[str, str], str] = {}
        self.private: dict[str, bool] = {}
        self.sizes: dict[str, int] = {}
        self.requests: list[str] = []
        self.refuse = 0
        self.token = "hf_secret"
        self.url = ""

    def commit(self, repository, files, deleted=()):
        """Add a commit with these files changed and deleted, and return its id."""
        revisions = self.repositories[repository]
        content = revisions.get("main", {}) | files
        content = {name: content[name] for name in content if name not in deleted}
        number = hashlib.sha1(repr((len(revisions), sorted(content.items()))).encode()).hexdigest()
        revisions[number] = revisions["main"] = content
        self.commits[repository, "main"] = number
        return number


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.hub.refuse:
            return self._answer(self.hub.refuse)
        parts = urllib.parse.unquote(self.path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._describe("/".join(parts[2:4]))
        if parts[2:3] != ["resolve"]:
            return self._answer(404)
        repository, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if repository not in self.hub.repositories:
            return self._answer(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in self.hub.repositories[repository]:
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        commit = self.hub.commits.get((repository, revision), revision)
        files = self.hub.repositories[repository][revision]
        if name not in files:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[name]
        size, etag = self.hub.sizes.get(name, len(content)), f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"X-Repo-Commit": commit, "ETag": etag, "Content-Length": str(size)}
        return self._answer(200, headers, content)

    def _describe(self, repository):
        if repository not in self.hub.repositories or (self.hub.private[repository] and not self._authorised()):
            return self._answer(404, {"X-Error-Code": "RepoNotFound"})
        return self._answer(200, body={"id": repository, "sha": self.hub.commits.get((repository, "main"))})

    def do_POST(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.hub.refuse or (self.path != "/api/validate-yaml" and not self._authorised()):
            return self._answer(self.hub.refuse or 401, body={"error": "Invalid username or password."})
        match self.path.split("?")[0].strip("/").split("/"):
            case ["api", "validate-yaml"]:
                return self._answer(200, body={"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                request = json.loads(body)
                name = (
                    f"{request['organization']}/{request['name']}" if request.get("organization") else request["name"]
                )
                if name in self.hub.repositories:
                    url = f"{self.hub.url}/{name}"
                    return self._answer(409, body={"error": "You already created this model repo", "url": url})
                self.hub.repositories[name] = {"main": {}}
                self.hub.private[name] = bool(request.get("private")) or request.get("visibility") == "private"
                return self._answer(200, body={"url": f"{self.hub.url}/{name}"})
            case ["api", "models", _, _, "preupload", "main"]:
                files = [
                    {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                    for f in json.loads(body)["files"]
                ]
                return self._answer(200, body={"files": [f | {"shouldIgnore": False} for f in files]})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    entry | {"actions": {"upload": {"href": f"{self.hub.url}/upload/{entry['oid']}"}}}
                    for entry in json.loads(body)["objects"]
                ]
                return self._answer(200, body={"transfer": "basic", "objects": objects})
            case ["api", "models", user, name, "commit", "main"]:
                changed: dict[str, bytes] = {}
                deleted = []
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        changed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    elif line["key"] == "lfsFile":
                        changed[line["value"]["path"]] = self.hub.uploaded[line["value"]["oid"]]
                    elif line["key"] == "deletedFile":
                        deleted.append(line["value"]["path"])
                if not set(deleted) <= set(self.hub.repositories[f"{user}/{name}"]["main"]):
                    return self._answer(404, {"X-Error-Code": "EntryNotFound"})
                number = self.hub.commit(f"{user}/{name}", changed, deleted)
                url = f"{self.hub.url}/{user}/{name}/commit/{number}"
                return self._answer(200, body={"success": True, "commitOid": number, "commitUrl": url})
        raise AssertionError(self.path)

    def do_PUT(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == f"/upload/{hashlib.sha256(content).hexdigest()}"
        self.hub.uploaded[self.path.rpartition("/")[2]] = content
        self._answer(200)

    def _authorised(self):
        return self.headers["Authorization"] == f"Bearer {self.hub.token}"

    def _answer(self, status, headers=None, body=None):
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        self.send_response(status)
        stated = {"Content-Type": "application/json", "Content-Length": str(len(content))} | (headers or {})
        for key, value in stated.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    """Run a server; yield its :class:`Hub`."""
    hub = Hub()
    with server.running(type("Handler", (_Handler,), {"hub": hub})) as hub.url:
        yield hub
