"""A hub that runs here: repositories of models over HTTP, answering as the Hugging Face hub does.

It keeps files in memory by repository and path, with one revision each, and takes commits with
small files inline and large ones by Git LFS's batch API.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import suppress
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE_BYTES = 10_000  # from here on files travel by LFS


class Hub:
    """A server on this machine; `url` is what clients take for the hub's."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.rubbish = False
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments: Any) -> None:
                self.hub = hub
                super().__init__(*arguments)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def revision(self, name: str) -> str:
        files = sorted(self.repositories[name].items())
        return hashlib.sha1(
            repr([(path, sha256(data)) for path, data in files]).encode()
        ).hexdigest()


@lru_cache
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_PUT(self) -> None:
        self.hub.objects[self.path.rsplit("/", 1)[1]] = self._given()
        self._send(200, b"")

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path}")
        given = self._given()
        if self.hub.rubbish:
            self._send(200, b"<html>a captive portal</html>")
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self._create(json.loads(given))
        elif match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            self._preupload(json.loads(given))
        elif match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.path):
            self._batch(json.loads(given))
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            self._commit(match[1], given)
        else:
            self._send(404, b"{}")

    def _answer(self, *, body: bool) -> None:
        self.hub.requests.append(f"GET {self.path}")
        if self.hub.rubbish:
            self._send(200, b"<html>a captive portal</html>", body=body)
            return
        if match := re.fullmatch(
            r"/api/models/([^/]+/[^/?]+)(?:/revision/\w+)?(?:\?.*)?", self.path
        ):
            self._info(match[1])
        elif match := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/(\w+)/(.+)", self.path):
            self._file(match[1], match[3], body=body)
        else:
            self._send(404, b"{}")

    def _info(self, name: str) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            self._missing("RepoNotFound")
            return
        siblings = [{"rfilename": path} for path in files]
        record = {"id": name, "modelId": name, "sha": self.hub.revision(name), "siblings": siblings}
        self._json(record | {"private": False, "tags": [], "downloads": 0, "likes": 0})

    def _file(self, name: str, path: str, *, body: bool) -> None:
        files = self.hub.repositories.get(name)
        if files is None or path not in files:
            self._missing("RepoNotFound" if files is None else "EntryNotFound")
            return
        etag = f'"{sha256(files[path])}"'
        self._send(
            200, files[path], body=body, ETag=etag, **{"X-Repo-Commit": self.hub.revision(name)}
        )

    def _create(self, given: dict[str, Any]) -> None:
        owner = given.get("organization") or "me"
        name = f"{owner}/{given['name']}"
        if name in self.hub.repositories:
            self._json({"url": f"{self.hub.url}/{name}"}, 409)
            return
        self.hub.repositories[name] = {".gitattributes": b""}
        self.hub.private[name] = given.get("visibility") == "private"
        self._json({"url": f"{self.hub.url}/{name}", "id": name, "name": name})

    def _preupload(self, given: dict[str, Any]) -> None:
        modes = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["size"] >= LARGE_BYTES else "regular",
                "shouldIgnore": False,
            }
            for each in given["files"]
        ]
        self._json({"files": modes})

    def _batch(self, given: dict[str, Any]) -> None:
        objects = [
            each
            | {
                "actions": {
                    "upload": {"href": f"{self.hub.url}/objects/{each['oid']}", "header": {}}
                }
            }
            for each in given["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, given: bytes) -> None:
        files = dict(self.hub.repositories[name])
        for line in given.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        self.hub.repositories[name] = files
        revision = self.hub.revision(name)
        self._json(
            {
                "success": True,
                "commitOid": revision,
                "commitUrl": f"{self.hub.url}/{name}/commit/{revision}",
            }
        )

    def _given(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _missing(self, code: str) -> None:
        self._send(404, b'{"error": "not found"}', **{"X-Error-Code": code})

    def _json(self, record: Any, status: int = 200) -> None:
        self._send(status, json.dumps(record).encode(), **{"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, *, body: bool = True, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            with suppress(OSError):
                self.wfile.write(data)
