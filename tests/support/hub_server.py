"""A Hub on loopback, for the real huggingface_hub client: the HTTP interface of downloads.

It answers resolve (HEAD and GET, branches, tags and commits), X-Repo-Commit, ETag, the redirect of
large files to a CDN with X-Linked-Etag and X-Linked-Size, Range requests, gated and private
repositories with their error codes, and the model information API.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

LARGE = (".safetensors", ".bin", ".pth", ".pt")
# the second is valid, but has access to nothing that is gated
GOOD_TOKEN, OTHER_TOKEN = "hf_good", "hf_other"


@dataclass
class Repo:
    """One repository: its commits, and the names that point to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Mapping[str, bytes], *names: str) -> str:
        """Add a commit; `main` and the given names then point to it. Returns its hash."""
        content = b"".join(k.encode() + b"\0" + v for k, v in sorted(files.items()))
        sha = hashlib.sha1(content + str(len(self.commits)).encode()).hexdigest()
        self.commits[sha] = dict(files)
        for name in ("main", *names):
            self.refs[name] = sha
        return sha


class Hub(ThreadingHTTPServer):
    """The server: its repositories, the requests it got, and the faults it simulates."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        # bytes of the next large file after which the connection breaks, once
        self.cut_after: int | None = None
        self.broken: int | None = None  # a status with which every request is answered

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def cdn(self) -> str:
        """The same server under another host name: the client must not send its token there."""
        return f"http://localhost:{self.server_address[1]}"

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        *names: str,
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Add a repository, or a commit to one. Returns the commit's hash."""
        repo = self.repos.setdefault(name, Repo(gated=gated, private=private))
        return repo.commit(files, *names)

    def gets(self, ending: str) -> list[dict[str, str]]:
        """Headers of every GET whose path ends so."""
        return [
            headers
            for method, path, headers in self.asked
            if method == "GET" and path.endswith(ending)
        ]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def answer(self, *, body: bool) -> None:
        path = unquote(self.path.split("?", 1)[0])
        self.server.asked.append(
            (self.command, path, {k.lower(): v for k, v in self.headers.items()})
        )
        if self.server.broken is not None:
            self.refuse(self.server.broken, "", "out of order")
        elif path.startswith("/cdn/"):
            self.serve_large(path.removeprefix("/cdn/"), body=body)
        elif path.startswith("/api/models/"):
            self.serve_info(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            self.serve_file(path, body=body)
        else:
            self.refuse(404, "RepoNotFound", "Repository not found")

    def repo_for(self, name: str) -> Repo | None:
        """The repository if this token may read it; otherwise the refusal has been sent.

        As on the Hub, a private repository looks missing to those without access.
        """
        repo, token = self.server.repos.get(name), self.token()
        if token is not None and token not in (GOOD_TOKEN, OTHER_TOKEN):
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and token != GOOD_TOKEN):
            self.refuse(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif repo.gated and token != GOOD_TOKEN:
            self.refuse(
                401 if token is None else 403, "GatedRepo", f"Access to model {name} is restricted"
            )
        else:
            return repo
        return None

    def token(self) -> str | None:
        value = self.headers.get("Authorization")
        return value.removeprefix("Bearer ") if value else None

    def serve_file(self, path: str, *, body: bool) -> None:
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, filename = rest.partition("/")
        repo = self.repo_for(name)
        if repo is None:
            return
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        data = repo.commits[commit].get(filename)
        if data is None:
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if filename.endswith(LARGE):
            headers |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.server.cdn}/cdn/{digest}",
            }
            self.send(302, headers, b"", body=body)
        else:
            self.send(200, headers | {"ETag": f'"{digest[:40]}"'}, data, body=body)

    def serve_large(self, digest: str, *, body: bool) -> None:
        files = (
            data
            for repo in self.server.repos.values()
            for commit in repo.commits.values()
            for data in commit.values()
        )
        data = next(d for d in files if hashlib.sha256(d).hexdigest() == digest)
        start, status = 0, 200
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut, self.server.cut_after = self.server.cut_after, None
        self.send(status, headers, data[start:], body=body, cut=cut)

    def serve_info(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        repo = self.repo_for(name)
        if repo is None:
            return
        commit = repo.refs.get(revision or "main", revision)
        if commit not in repo.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        info = {
            "id": name,
            "modelId": name,
            "sha": commit,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
        }
        info["siblings"] = [{"rfilename": f} for f in repo.commits[commit]]
        self.send(200, {"Content-Type": "application/json"}, json.dumps(info).encode(), body=True)

    def refuse(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        named = {"X-Error-Code": code} if code else {}
        self.send(
            status,
            {**(headers or {}), **named, "X-Error-Message": message},
            json.dumps({"error": message}).encode(),
            body=True,
        )

    def send(
        self,
        status: int,
        headers: Mapping[str, str],
        data: bytes,
        *,
        body: bool,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and self.command == "GET":
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that serves until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
