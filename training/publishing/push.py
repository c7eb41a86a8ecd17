"""A release beside what its repository holds, and its upload to a branch or tag."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.errors import ConfigError, PathEncoderError, StoreError
from pathencoder.pretrained import push
from pathencoder.pretrained.folder import CARD, FILES, METRICS, sha256_of
from training.publishing.release import SCORES, STATE, TRAINING, refuse_edited_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_OURS = (f"{TRAINING}/", f"{STATE}/", f"{SCORES}/")
_KEPT = ".gitattributes"


@dataclass(frozen=True)
class Target:
    """Where a release goes.

    Attributes:
        repo: owner/name.
        branch: Of the commit; None: main.
        tag: The commit gets it; None: none.
        token: Of the Hub.
        private: Of a new repository; None: the default of the account.
    """

    repo: str
    branch: str | None
    tag: str | None
    token: str | None
    private: bool | None


@dataclass(frozen=True)
class Difference:
    """What a release changes in its repository.

    Attributes:
        parent: The commit that was compared with; None: there is no repository or branch yet.
        new: Files that are added.
        changed: Files that change.
        same: Files that stay as they are.
        gone: Files of an earlier release that are deleted.
        others: Files that are not of a release.
        card: The card's difference, as lines.
    """

    parent: str | None
    new: list[str]
    changed: list[str]
    same: list[str]
    gone: list[str]
    others: list[str]
    card: list[str]

    def lines(self, *, others: str | None) -> list[str]:
        """The difference in words; `others`: what happens to other files."""
        if self.parent is None:
            head = "the repository or branch is new"
        else:
            head = f"compared with commit {self.parent[:12]}"
        kinds = [
            ("new", self.new),
            ("changed", self.changed),
            ("unchanged", self.same),
            ("deleted, of an earlier release", self.gone),
            ("deleted" if others == "delete" else "not of a release, kept", self.others),
        ]
        words = [f"  {kind}: {', '.join(names)}" for kind, names in kinds if names]
        return [head, *words, *(["", *self.card] if self.card else [])]


def difference(folder: Path, target: Target, *, overwrite_card: bool = False) -> Difference:
    """Compare a release with the branch that it goes to.

    Args:
        folder: The release.
        target: Where it goes.
        overwrite_card: Whether a card that was edited on the Hub may be replaced.

    Returns:
        What would change.

    Raises:
        ConfigError: The card there was edited by hand, or the tag exists with other files.
        StoreError: The Hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=target.token, library_name="pathencoder")
    local = {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    try:
        _refuse_moved_tag(api, target, local)
        there = _there(api, target, target.branch)
        if there is None:
            return Difference(None, [*local], [], [], [], [], [])
        commit, files = there
        lines = _card(api, target, commit, files, folder, overwrite_card=overwrite_card)
    except PathEncoderError:
        raise
    # the client raises errors of its own and of its HTTP library
    except Exception as error:
        raise push.explained(error, target.repo) from error
    same = [name for name in local if name in files and _is_same(local[name], files[name])]
    rest = [name for name in files if name not in local and name != _KEPT]
    ours = [name for name in rest if name in FILES or name.startswith(_OURS)]
    return Difference(
        parent=commit,
        new=[name for name in local if name not in files],
        changed=[name for name in local if name in files and name not in same],
        same=same,
        gone=ours,
        others=[name for name in rest if name not in ours],
        card=lines,
    )


def publish(
    folder: Path, target: Target, found: Difference, *, others: str | None, message: str
) -> str:
    """Upload a release in one commit, and tag it.

    Args:
        folder: The release.
        target: Where it goes.
        found: What it changes.
        others: "keep" or "delete" the repository's other files; None: refuse where there are any.
        message: Of the commit.

    Returns:
        The URL of the commit.

    Raises:
        ConfigError: The repository holds other files, and `others` does not say what to do.
        StoreError: The upload failed, or the repository has changed since it was compared.
    """
    if found.others and others is None:
        raise ConfigError(
            f"{target.repo} holds other files: {', '.join(found.others)}. --others keep leaves them"
            " beside the encoder, --others delete deletes them"
        )
    deleted = [*found.gone, *(found.others if others == "delete" else [])]
    address = push.upload(
        folder,
        target.repo,
        FILES,
        commit_message=message,
        private=target.private,
        token=target.token,
        branch=target.branch,
        delete_patterns=[_escaped(name) for name in deleted],
        parent=found.parent,
    )
    if target.tag and not _has_tag(target):
        commit = address.rpartition("/")[2]
        push.tag(target.repo, target.tag, revision=commit, token=target.token)
    return address


def _there(
    api: HfApi, target: Target, revision: str | None
) -> tuple[str, dict[str, tuple[str, bool]]] | None:
    """Commit and files (id, whether it is a sha256) of a revision; None where there is none."""
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        commit = str(api.model_info(target.repo, revision=revision).sha)
        tree = api.list_repo_tree(target.repo, revision=commit, recursive=True)
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
    return commit, {
        f.path: (f.lfs.sha256, True) if f.lfs else (str(f.blob_id), False) for f in files
    }


def _is_same(file: Path, there: tuple[str, bool]) -> bool:
    from huggingface_hub.utils import sha

    digest, large = there
    return digest == (sha256_of(file) if large else sha.git_hash(file.read_bytes()))


def _card(
    api: HfApi,
    target: Target,
    commit: str,
    files: Container[str],
    folder: Path,
    *,
    overwrite_card: bool,
) -> list[str]:
    """The card's difference to the one of a commit, which must not have been edited by hand."""
    if CARD not in files:
        return []
    with tempfile.TemporaryDirectory() as temporary:
        for name in (CARD, METRICS):
            if name in files:
                api.hf_hub_download(target.repo, name, revision=commit, local_dir=temporary)
        if not overwrite_card:
            refuse_edited_card(Path(temporary), f"the card of {target.repo}")
        old = (Path(temporary) / CARD).read_text(encoding="utf-8").splitlines()
    new = (folder / CARD).read_text(encoding="utf-8").splitlines()
    return list(difflib.unified_diff(old, new, f"{target.repo}/{CARD}", CARD, lineterm="", n=1))


def _refuse_moved_tag(api: HfApi, target: Target, local: dict[str, Path]) -> None:
    """Raise ConfigError where the tag exists with other files: a tag never changes its bytes."""
    if target.tag is None:
        return
    there = _there(api, target, target.tag)
    if there is None:
        return
    _, files = there
    wrong = [name for name in local if name not in files or not _is_same(local[name], files[name])]
    if wrong:
        raise ConfigError(
            f"{target.repo} has the tag {target.tag} already, with another {', '.join(wrong)}: a"
            " tag never changes its files. Choose the next version"
        )


def _has_tag(target: Target) -> bool:
    from huggingface_hub import HfApi

    try:
        refs = HfApi(token=target.token).list_repo_refs(target.repo)
    except Exception as error:
        raise StoreError(
            f"the commit is made, but its tag {target.tag} is not: {error}. Publish again"
        ) from error
    return target.tag in [one.name for one in refs.tags]


def _escaped(name: str) -> str:
    """A file's name as a pattern that matches nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
