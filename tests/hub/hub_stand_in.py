"""A Hub on this machine, as far as huggingface_hub's own client asks for it, with the faults that a network has.

Files of weights are kept as the Hub keeps large files: their names lead to a store, which gives parts of them too.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".ckpt", ".pth", ".png")
FILE = re.compile(r"/(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
TREE = re.compile(r"/api/(?:models|spaces)/(?P<repo>[\w.-]+/[\w.-]+)/tree/(?P<revision>[^/?]+)")
INFO = re.compile(r"/api/(?:models|spaces)/(?P<repo>[\w.-]+/[\w.-]+)(?:/revision/(?P<revision>[^/?]+))?")
CHUNK = 1 << 16


@dataclass
class Fault:
    """What goes wrong with a file in the store, `times` times; then it is given as it is.

    `status` is answered instead; at byte `cut_at` of the file the line breaks; `flip` alters the first byte; `ranges`
    False gives the whole file to who asks for a part; `pause` seconds lie between two chunks.
    """

    status: int = 200
    cut_at: int | None = None
    flip: bool = False
    ranges: bool = True
    pause: float = 0.0
    times: float = float("inf")


@dataclass
class Repository:
    """`files` by path: what is in them, or where they lie. `refused` is None, "gated" or "missing"."""

    files: dict[str, bytes | Path]
    refused: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted((path, self.oid(path)) for path in self.files)).encode()).hexdigest()

    def size(self, path: str) -> int:
        content = self.files[path]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def oid(self, path: str) -> str:
        """sha256 of a large file, else what git calls it."""
        if path not in self.sha256:
            content = self.files[path]
            if isinstance(content, Path):
                with content.open("rb") as file:
                    self.sha256[path] = hashlib.file_digest(file, "sha256").hexdigest()
            elif path.endswith(LARGE):
                self.sha256[path] = hashlib.sha256(content).hexdigest()
            else:
                self.sha256[path] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        return self.sha256[path]

    def chunks(self, path: str, start: int) -> Iterator[bytes]:
        content = self.files[path]
        if isinstance(content, bytes):
            yield from (content[at : at + CHUNK] for at in range(start, len(content), CHUNK))
            return
        with content.open("rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK * 16):
                yield chunk


class HubStandIn:
    """Serves at `url` what `add` was given. `requests` has (method, path, range) of everything that was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.connections: list[socket.socket] = []
        self.extra: list[Callable[[Handler], bool]] = []  # asked first; True: answered
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.store = f"http://localhost:{self.server.server_port}/store"  # another host, as the Hub's
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name: str, files: dict[str, bytes | Path] | Path, refused: str | None = None) -> Repository:
        """A repository of these files, or of those below a folder."""
        if isinstance(files, Path):
            files = {str(path.relative_to(files)): path for path in files.rglob("*") if path.is_file()}
        self.repositories[name] = Repository(files, refused)
        return self.repositories[name]

    def fail(self, path: str, **how: object) -> None:
        """From now on something goes wrong with the files whose path ends so."""
        self.faults[path] = Fault(**how)  # type: ignore[arg-type]

    def fault_of(self, path: str) -> Fault:
        for end, fault in self.faults.items():
            if path.endswith(end) and fault.times > 0:
                fault.times -= 1
                return fault
        return Fault()

    def asked(self, part: str, method: str = "GET") -> list[tuple[str, str, str | None]]:
        """The requests of that method with `part` in their path."""
        return [request for request in self.requests if request[0] == method and part in request[1]]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:  # those kept open would still be answered
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    do_PUT = do_DELETE = do_POST

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if any(answer(self) for answer in self.hub.extra):
            return
        if path == "/":
            self.answer(200, b"")
        elif path.startswith("/store/"):
            self._store(*path.removeprefix("/store/").split("/file/"))
        elif found := FILE.fullmatch(path):
            self._file(found["repo"], found["revision"], found["path"])
        elif found := TREE.fullmatch(path):
            self._tree(found["repo"], found["revision"])
        elif found := INFO.fullmatch(path):
            if repository := self._repository(found["repo"], found["revision"] or "main"):
                siblings = [{"rfilename": name} for name in repository.files]
                self.json({"id": found["repo"], "sha": repository.commit, "siblings": siblings})
        else:
            self.answer(404, b"nothing here")

    def _repository(self, name: str, revision: str) -> Repository | None:
        """None once it was answered why not."""
        repository = self.hub.repositories.get(name)
        if repository is None or repository.refused == "missing":
            self.answer(404, b"Repository not found", **{"X-Error-Code": "RepoNotFound"})
        elif repository.refused == "gated":
            words = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to model {name} is restricted."}
            self.answer(401, b"gated", **words)
        elif revision not in ("main", repository.commit):
            self.answer(404, b"no revision", **{"X-Error-Code": "RevisionNotFound"})
        else:
            return repository
        return None

    def _tree(self, name: str, revision: str) -> None:
        if not (repository := self._repository(name, revision)):
            return
        rows = []
        for path in repository.files:
            size, oid = repository.size(path), repository.oid(path)
            large = {"lfs": {"oid": oid, "size": size, "pointerSize": 134}} if path.endswith(LARGE) else {}
            rows.append({"type": "file", "path": path, "size": size, "oid": oid[:40], **large})
        self.json(rows)

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision)
        if not repository:
            return
        head = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if path not in repository.files:
            self.answer(404, b"Entry not found", **head, **{"X-Error-Code": "EntryNotFound"})
        elif path.endswith(LARGE):
            size, oid = repository.size(path), repository.oid(path)
            large = {"X-Linked-Size": str(size), "X-Linked-Etag": f'"{oid}"'}
            self.answer(302, b"", Location=f"{self.hub.store}/{name}/file/{path}", **head, **large)
        elif (fault := self.hub.fault_of(path)).status != 200:
            self.answer(fault.status, b"broken")
        else:
            content = repository.files[path]
            content = content.read_bytes() if isinstance(content, Path) else content
            self.answer(200, content, ETag=f'"{repository.oid(path)}"', **head)

    def _store(self, name: str, path: str) -> None:
        repository, fault = self.hub.repositories[name], self.hub.fault_of(path)
        if fault.status != 200:
            self.answer(fault.status, b"broken")
            return
        size, start = repository.size(path), 0
        if (asked := self.headers.get("Range")) and fault.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self._send(repository, path, start, fault)

    def _send(self, repository: Repository, path: str, start: int, fault: Fault) -> None:
        sent = 0
        for chunk in repository.chunks(path, start):
            if fault.flip and not sent and not start:
                chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
            if fault.cut_at is not None and start + sent + len(chunk) > fault.cut_at:
                self.wfile.write(chunk[: max(0, fault.cut_at - start - sent)])
                self.close_connection = True
                return
            try:
                self.wfile.write(chunk)
            except OSError:  # whoever asked has gone
                self.close_connection = True
                return
            sent += len(chunk)
            time.sleep(fault.pause)

    def json(self, content: object, status: int = 200) -> None:
        self.answer(status, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def hub_at(monkeypatch, cache: Path) -> Iterator[HubStandIn]:
    """A stand-in that huggingface_hub in this process takes for the Hub, with its cache in `cache`."""
    from huggingface_hub import constants

    hub = HubStandIn()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        yield hub
    finally:
        hub.close()
