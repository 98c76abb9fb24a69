"""A hub that answers over HTTP as the real one does, faults included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers import running

REVISION = "0123456789abcdef0123456789abcdef01234567"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Hub:
    """What the server holds, and the faults it is told to show."""

    files: dict[str, bytes]
    name: str = "tiny/model"
    revision: str = REVISION
    endpoint: str = ""
    served: dict[str, bytes] = field(default_factory=dict)  # file -> other bytes than those listed
    gone: set[str] = field(default_factory=set)  # listed, but answered with 404
    cuts: dict[str, int] = field(default_factory=dict)  # file -> connections that break in the middle
    requests: list[str] = field(default_factory=list)

    def listing(self) -> dict[str, object]:
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": self.blob(data)}
            if name.endswith(".safetensors"):
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {"id": self.name, "sha": self.revision, "siblings": siblings, "cardData": {"license": "mit"}, "tags": []}

    @staticmethod
    def blob(data: bytes) -> str:
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub, path = self.server.hub, self.path.split("?")[0].removeprefix("/datasets")
        hub.requests.append(f"{self.command} {self.path}")
        resolve = f"/{hub.name}/resolve/{hub.revision}/"
        if path in (f"/api/models/{hub.name}/revision/{hub.revision}", f"/api/datasets/{hub.name}/revision/{hub.revision}"):
            self._send(json.dumps(hub.listing()).encode(), {"Content-Type": "application/json"}, body=body)
        elif path.startswith(resolve) and (name := path.removeprefix(resolve)) in hub.files and name not in hub.gone:
            self._file(name, body=body)
        elif path.startswith(resolve):
            self._send(b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.revision}, status=404, body=body)
        else:
            self._send(b"", {"X-Error-Code": "RevisionNotFound" if hub.name in path else "RepoNotFound"}, status=404, body=body)

    def _file(self, name: str, *, body: bool) -> None:
        hub = self.server.hub
        data = hub.served.get(name, hub.files[name])
        listed = hub.files[name]
        etag = sha256(listed) if name.endswith(".safetensors") else hub.blob(listed)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": hub.revision, "Accept-Ranges": "bytes"}
        start, status = 0, 200
        if requested := self.headers.get("Range"):
            start, status = int(requested.removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = body and hub.cuts.get(name, 0) > 0
        if cut:
            hub.cuts[name] -= 1
            # The first connection breaks half-way; those after it break before the first byte.
            keep = len(data) // 2 if start == 0 else start
        self._send(data[start:], headers, status=status, body=body, keep=keep - start if cut else None)

    def _send(self, data: bytes, headers: dict[str, str], *, status: int = 200, body: bool, keep: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:keep])
        if keep is not None:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub behind a port of this machine; its address is `hub.endpoint`."""
    server = _Server(hub)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    with running(server):
        yield hub
