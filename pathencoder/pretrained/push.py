"""Upload a folder to a repository of the Hub, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.errors import OfflineError, PathEncoderError, StoreError
from pathencoder.pretrained.hub_errors import TOKEN

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    Operations = list[CommitOperationAdd | CommitOperationDelete]


def upload(
    folder: Path,
    repo_id: str,
    names: Sequence[str],
    *,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    delete_patterns: list[str] | str | None = None,
    parent: str | None = None,
) -> str:
    """Upload a folder to a repository of the Hub, which is created where it does not exist.

    All files change in one commit: a reader finds the old files or the new ones, never a mixture.

    Args:
        folder: The folder.
        repo_id: owner/name.
        names: Files that the repository must not keep where the folder lacks them: those of an
            earlier upload would count as files of this one.
        commit_message: As in `Encoder.push_to_hub`, as are the rest.
        private: Of a new repository.
        token: Of the Hub.
        branch: To commit to; created where it does not exist.
        create_pr: Open a pull request.
        allow_patterns: Upload these files only.
        ignore_patterns: Leave these files out.
        delete_patterns: Also delete these files.
        parent: The commit that the branch must still be at; None: any.

    Returns:
        The URL of the commit; of the branch's last one where nothing differs.

    Raises:
        StoreError: The upload failed; the message says what the repository holds.
        OfflineError: The network is disabled (HF_HUB_OFFLINE).
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="pathencoder")
    try:
        # the client adds the owner to a name without one
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if branch is not None and branch != "main":
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=branch)
        operations = _operations(
            folder,
            there,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            delete=[*(n for n in names if not (folder / n).exists()), *_list(delete_patterns)],
        )
        return str(
            api.create_commit(
                repo_id,
                operations,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
                parent_commit=parent,
            )
        )
    except PathEncoderError:
        raise
    # the client raises errors of its own, of its HTTP library, RuntimeError and ValueError
    except Exception as error:
        raise explained(error, repo_id) from error


def tag(repo_id: str, name: str, *, revision: str | None, token: str | bool | None) -> None:
    """Tag a revision of a repository.

    Args:
        repo_id: owner/name.
        name: Of the tag.
        revision: A commit or branch; None: the main branch.
        token: Of the Hub.

    Raises:
        StoreError: The tag exists, or cannot be made.
        OfflineError: The network is disabled.
    """
    from huggingface_hub import HfApi

    try:
        HfApi(token=token).create_tag(repo_id, tag=name, revision=revision)
    except Exception as error:
        raise explained(error, f"the tag {name} of {repo_id}") from error


def explained(error: Exception, what: str) -> PathEncoderError:
    """The error to raise for a failed upload.

    Args:
        error: What the client raised.
        what: That was to be written.
    """
    from huggingface_hub import errors

    causes: list[BaseException] = [error, *_causes(error)]
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return OfflineError(f"{what} cannot be uploaded: HF_HUB_OFFLINE is set. Unset it")
    answers = [c for c in causes if isinstance(c, errors.HfHubHTTPError)]
    status = answers[0].response.status_code if answers else None
    said = (answers[0].server_message if answers else None) or _first_line(causes)
    advice = {
        401: f"The Hub does not accept the token, or none was given: {TOKEN}",
        403: f"The account of the token may not write there. Give one that may: {TOKEN}",
        404: f"Check the name, and that the token may read and write it: {TOKEN}",
        409: "It exists already",
        412: "The repository has changed since it was read: look at it and push again",
    }
    if status in advice:
        return StoreError(f"{what} could not be uploaded: {said}. {advice[status]}")
    if isinstance(error, ValueError):  # a card's front matter that the Hub refuses
        return StoreError(f"{what} could not be uploaded: {error}")
    return StoreError(
        f"{what} could not be uploaded: {said}. The repository holds all old files, or all new ones"
        " if only the answer was lost. Push again: large files that have arrived are not sent twice"
    )


def _first_line(causes: list[BaseException]) -> str:
    """The client's words, and what they are caused by."""
    words = [
        str(cause).strip().split("\n")[0].rstrip(".") or type(cause).__name__ for cause in causes
    ]
    return words[0] if words[0] == words[-1] else f"{words[0]} ({words[-1]})"


def _causes(error: BaseException) -> list[BaseException]:
    cause = error.__cause__ or error.__context__
    return [] if cause is None else [cause, *_causes(cause)]


def _operations(
    folder: Path,
    there: Sequence[str],
    *,
    allow_patterns: list[str] | str | None,
    ignore_patterns: list[str] | str | None,
    delete: list[str],
) -> Operations:
    """Every file of the folder, and the deletion of others; deletions first."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    # documented, but not exported to type checkers
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    files = {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    added = list(
        filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
    )
    gone = set(filter_repo_objects(there, allow_patterns=delete)) if delete else set()
    return [
        *(
            CommitOperationDelete(path_in_repo=name, is_folder=False)
            for name in sorted(gone - {*added, ".gitattributes"})
        ),
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in added),
    ]


def _list(patterns: list[str] | str | None) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns or [])
