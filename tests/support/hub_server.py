"""A Hub on loopback, for the real huggingface_hub client: its HTTP interface.

Downloads, here: resolve (HEAD and GET, branches, tags and commits), X-Repo-Commit, ETag, the
redirect of large files to a CDN with X-Linked-Etag and X-Linked-Size, Range requests, gated and
private repositories with their error codes, the model information, trees and references. Uploads
are in hub_writes.py. Not simulated: the Xet storage, which clients use where HF_HUB_DISABLE_XET is
not set.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import hub_writes
from hub_repos import GOOD_TOKEN, OTHER_TOKEN, READ_TOKEN, Repo, blob_id, is_large, sha256, tree_of

__all__ = ["GOOD_TOKEN", "OTHER_TOKEN", "READ_TOKEN", "Handler", "Hub", "Repo", "running"]


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
        self.spoil = False  # whether a byte of the next large file is changed on the way, once
        self.large: dict[str, bytes] = {}  # sha256 -> a large file that was uploaded
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_size = 50_000  # larger uploads are sent in parts
        # bytes of every large file (of its second part) after which its upload breaks
        self.cut_uploads: int | None = None
        self.lose_answers = False  # whether commits are made, but the connection then breaks

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

    def do_POST(self) -> None:
        self.receive(hub_writes.post)

    def do_PUT(self) -> None:
        self.receive(hub_writes.put)

    def receive(self, act: Callable[[Handler], None]) -> None:
        self.note()
        if self.server.broken is not None:
            hub_writes.read_body(self)
            return self.refuse(self.server.broken, "", "out of order")
        try:
            return act(self)
        except hub_writes.ConnectionCut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def note(self) -> str:
        """Record the request. Returns its path."""
        path = unquote(self.path.split("?", 1)[0])
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.server.asked.append((self.command, path, headers))
        return path

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def answer(self, *, body: bool) -> None:
        path = self.note()
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
        if token is not None and token not in (GOOD_TOKEN, OTHER_TOKEN, READ_TOKEN):
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and token not in (GOOD_TOKEN, READ_TOKEN)):
            self.refuse(401 if token is None else 404, "RepoNotFound", "Repository not found")
        elif repo.gated and token not in (GOOD_TOKEN, READ_TOKEN):
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
        commit = repo.resolve(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        data = repo.commits[commit].get(filename)
        if data is None:
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        digest = sha256(data)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if is_large(filename):
            headers |= {
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.server.cdn}/cdn/{digest}",
            }
            self.send(302, headers, b"", body=body)
        else:
            self.send(200, headers | {"ETag": f'"{blob_id(data)}"'}, data, body=body)

    def serve_large(self, digest: str, *, body: bool) -> None:
        files = (
            data
            for repo in self.server.repos.values()
            for commit in repo.commits.values()
            for data in commit.values()
        )
        data = next(d for d in files if sha256(d) == digest)
        start, status = 0, 200
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.command == "GET" and self.server.spoil:
            self.server.spoil, data = False, data[:-1] + bytes([data[-1] ^ 1])
        cut, self.server.cut_after = self.server.cut_after, None
        self.send(status, headers, data[start:], body=body, cut=cut)

    def serve_info(self, rest: str) -> None:
        steps = rest.split("/")
        name, what = "/".join(steps[:2]), "".join(steps[2:3])
        revision = "/".join(steps[3:]) or "main"
        repo = self.repo_for(name)
        if repo is None:
            return None
        if what == "refs":
            return self.answer_json(
                {
                    "branches": _named("heads", repo.refs),
                    "tags": _named("tags", repo.tags),
                    "converts": [],
                }
            )
        commit = repo.resolve(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what == "tree":
            return self.answer_json(tree_of(repo.commits[commit]))
        info = {
            "id": name,
            "modelId": name,
            "sha": commit,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
        }
        info["siblings"] = [{"rfilename": f} for f in repo.commits[commit]]
        return self.answer_json(info)

    def answer_json(self, content: object, *, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send(status, {"Content-Type": "application/json"}, data, body=True)

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
        if body and self.command != "HEAD":
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


def _named(kind: str, names: Mapping[str, str]) -> list[dict[str, str]]:
    """Branches or tags, as the API lists them."""
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}
        for name, sha in names.items()
    ]


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
