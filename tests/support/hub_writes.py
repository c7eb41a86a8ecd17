"""The loopback Hub's HTTP interface of uploads: create, branch, tag, preupload, LFS, commit."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import yaml
from hub_repos import GOOD_TOKEN, READ_TOKEN, Repo, blob_id, is_large, sha256

if TYPE_CHECKING:
    from hub_server import Handler

CHUNK = 65_536


class ConnectionCut(Exception):
    """The connection is to be closed without an answer."""


def post(self: Handler) -> None:
    """Answer a POST."""
    path, _, query = self.path.partition("?")
    steps = [unquote(step) for step in path.strip("/").split("/")]
    body = read_body(self)
    if path == "/api/repos/create":
        return create(self, json.loads(body))
    if path == "/api/validate-yaml":
        return check_card(self, json.loads(body)["content"])
    if steps[0] == "lfs-complete":
        return complete(self, steps[1], json.loads(body))
    if steps[0] == "lfs-verify":
        there = steps[1] in self.server.large
        return self.answer_json({}) if there else self.refuse(404, "", "no such object")
    name = "/".join(steps[2:4]) if steps[0] == "api" else "/".join(steps[:2]).removesuffix(".git")
    repo = repo_to_write(self, name)
    if repo is None:
        return None
    if steps[-3:] == ["lfs", "objects", "batch"]:
        return batch(self, json.loads(body))
    verb, revision = steps[4], steps[5] if len(steps) > 5 else "main"
    if verb == "preupload":
        return preupload(self, repo, revision, json.loads(body), pull="create_pr" in query)
    if verb == "commit":
        lines = [json.loads(line) for line in body.splitlines()]
        return commit(self, name, repo, revision, lines, pull="create_pr" in parse_qs(query))
    if verb in ("branch", "tag"):
        return point(self, repo, verb, revision, json.loads(body))
    return self.refuse(404, "", "Not found")


def read_body(self: Handler) -> bytes:
    """The body of a request, by its length or in chunks."""
    if self.headers.get("Transfer-Encoding") != "chunked":
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))
    parts = []
    while size := int(self.rfile.readline(), 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
    self.rfile.readline()
    return b"".join(parts)


def repo_to_write(self: Handler, name: str) -> Repo | None:
    """The repository if this token may write to it; otherwise the refusal has been sent."""
    repo = self.repo_for(name)
    if repo is None or self.token() == GOOD_TOKEN:
        return repo
    message = "You don't have the required permissions to perform this action."
    self.refuse(401 if self.token() is None else 403, "", message)
    return None


def create(self: Handler, values: dict[str, Any]) -> None:
    name = f"{values['organization'] or 'me'}/{values['name']}"
    if self.token() != GOOD_TOKEN:
        known = self.token() in (READ_TOKEN, "hf_other")
        return self.refuse(403 if known else 401, "", f"You can't create a model under {name}")
    url = {"url": f"{self.server.url}/{name}"}
    if name in self.server.repos:
        message = {"error": "You already created this model repo", **url}
        return self.answer_json(message, status=409)
    self.server.add(name, {".gitattributes": b""}, private=values.get("visibility") == "private")
    return self.answer_json(url)


def check_card(self: Handler, text: str) -> None:
    """The front matter of a README, as far as the Hub requires it."""
    front = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    faults = []
    if front is None:
        faults.append("empty or missing yaml metadata in repo card")
    elif not isinstance(front.get("license", "mit"), str):
        faults.append('"license" must be a string')
    elif "model-index" in front and not all("name" in model for model in front["model-index"]):
        faults.append('"model-index[0].name" is required')
    bad = faults if front is not None else []
    warned = faults if front is None else []
    answer = {k: [{"message": m} for m in v] for k, v in (("errors", bad), ("warnings", warned))}
    self.answer_json(answer, status=400 if bad else 200)


def preupload(
    self: Handler, repo: Repo, revision: str, values: dict[str, Any], *, pull: bool
) -> None:
    """How every file is uploaded, and the id of the one that is there."""
    if not pull and repo.resolve(revision) is None:
        return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    there = repo.at(revision)
    files = []
    for one in values["files"]:
        path, old = one["path"], there.get(one["path"])
        oid = None if old is None else (sha256(old) if is_large(path) else blob_id(old))
        mode = "lfs" if is_large(path) else "regular"
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return self.answer_json({"files": files})


def batch(self: Handler, values: dict[str, Any]) -> None:
    """Where the large files are to be sent, in one piece or in parts; nothing for known ones."""
    size, objects = self.server.part_size, []
    for one in values["objects"]:
        oid, known = one["oid"], one["oid"] in self.server.large
        # the storage is another host: it must not be sent the token
        href, header = f"{self.server.cdn}/lfs/{oid}", {}
        if one["size"] > size:
            count = -(-one["size"] // size)
            header = {"chunk_size": str(size)}
            header |= {str(i): f"{href}/{i}" for i in range(1, count + 1)}
            href = f"{self.server.url}/lfs-complete/{oid}"
        actions = {
            "upload": {"href": href, "header": header},
            "verify": {"href": f"{self.server.url}/lfs-verify/{oid}"},
        }
        objects.append(one if known else {**one, "actions": actions})
    self.answer_json({"transfer": "basic", "objects": objects})


def put(self: Handler) -> None:
    """One large file, or a part of it."""
    _, oid, *part = self.path.strip("/").split("/")
    left = int(self.headers.get("Content-Length") or 0)
    chunked = self.headers.get("Transfer-Encoding") == "chunked"
    if self.server.cut_uploads is not None and (not part or part[0] != "1"):
        self.rfile.read(min(left, self.server.cut_uploads))
        raise ConnectionCut
    data = read_body(self) if chunked else self.rfile.read(left)
    if part:
        self.server.parts.setdefault(oid, {})[int(part[0])] = data
    elif sha256(data) != oid:
        return self.refuse(400, "", "the content is not that of its sha256")
    else:
        self.server.large[oid] = data
    return self.send(200, {"ETag": f'"{sha256(data)[:32]}"'}, b"", body=True)


def complete(self: Handler, oid: str, values: dict[str, Any]) -> None:
    """Join the parts of a large file."""
    parts = self.server.parts.pop(oid, {})
    data = b"".join(parts[p["partNumber"]] for p in values["parts"])
    if values["oid"] != oid or sha256(data) != oid:
        return self.refuse(400, "", "the parts are not the file")
    self.server.large[oid] = data
    return self.answer_json({})


def commit(
    self: Handler,
    name: str,
    repo: Repo,
    revision: str,
    lines: list[dict[str, Any]],
    *,
    pull: bool,
) -> None:
    """One commit of all operations, or none."""
    header, *operations = lines
    start = repo.resolve(revision)
    if start is None:
        return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    if header["value"].get("parentCommit") not in (None, start):
        return self.refuse(412, "", "A commit has happened since. Please refresh and try again.")
    files = dict(repo.commits[start])
    for line in operations:
        kind, value = line["key"], line["value"]
        if kind == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif kind == "lfsFile":
            if value["oid"] not in self.server.large:
                return self.refuse(400, "", f"LFS pointer to a file that is not there: {value}")
            files[value["path"]] = self.server.large[value["oid"]]
        elif files.pop(value["path"], None) is None:
            return self.refuse(404, "EntryNotFound", "A file with this name doesn't exist")
    target = f"refs/pr/{1 + sum('pr' in ref for ref in repo.refs)}" if pull else revision
    sha = repo.commit_to(target, files, header["value"]["summary"])
    if self.server.lose_answers:
        raise ConnectionCut
    url = f"{self.server.url}/{name}"
    return self.answer_json(
        {
            "success": True,
            "commitOid": sha,
            "commitUrl": f"{url}/commit/{sha}",
            "pullRequestUrl": f"{url}/discussions/{target.rpartition('/')[2]}" if pull else None,
        }
    )


def point(self: Handler, repo: Repo, verb: str, name: str, values: dict[str, Any]) -> None:
    """Make a branch from a starting point, or a tag of a revision."""
    names = repo.refs if verb == "branch" else repo.tags
    revision = values.get("startingPoint", "main") if verb == "branch" else name
    new = name if verb == "branch" else values["tag"]
    sha = repo.resolve(revision)
    if sha is None:
        return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    if new in names:
        return self.refuse(409, "", f"Reference already exists: {new}")
    names[new] = sha
    return self.answer_json({})
