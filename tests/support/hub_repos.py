"""The repositories of the loopback Hub: commits, branches, tags, and the files of an upload."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

# as .gitattributes of a new repository has them
LARGE = (".safetensors", ".bin", ".pth", ".pt", ".zip")
# the second is valid, but has access to nothing that is gated or private; the third reads only
GOOD_TOKEN, OTHER_TOKEN, READ_TOKEN = "hf_good", "hf_other", "hf_read"


@dataclass
class Repo:
    """One repository: its commits, and the branches and tags that point to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # branches, and refs/pr/N
    tags: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Mapping[str, bytes], *names: str) -> str:
        """Add a commit; `main` and the given branches then point to it. Returns its hash."""
        content = b"".join(k.encode() + b"\0" + v for k, v in sorted(files.items()))
        sha = hashlib.sha1(content + str(len(self.commits)).encode()).hexdigest()
        self.commits[sha] = dict(files)
        for name in ("main", *names):
            self.refs[name] = sha
        return sha

    def commit_to(self, branch: str, files: Mapping[str, bytes], message: str) -> str:
        """Add a commit; only this branch then points to it. Returns its hash."""
        kept = dict(self.refs)
        sha = self.commit(files)
        self.refs = {**kept, branch: sha}
        self.messages[sha] = message
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, a tag, or a commit's hash; None without it."""
        sha = self.refs.get(revision) or self.tags.get(revision) or revision
        return sha if sha in self.commits else None

    def at(self, revision: str) -> dict[str, bytes]:
        """The files of a revision."""
        sha = self.resolve(revision)
        return self.commits[sha] if sha else {}


def is_large(path: str) -> bool:
    """Whether a file is stored by LFS."""
    return path.endswith(LARGE)


def sha256(data: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def tree_of(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    """The files of a commit, as the tree of the Hub's API."""
    return [
        {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
        | (
            {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 134}}
            if is_large(path)
            else {}
        )
        for path, data in sorted(files.items())
    ]
