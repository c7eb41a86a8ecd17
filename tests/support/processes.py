"""The processes that a command has started. Linux only: it reads /proc."""

from pathlib import Path


def children_of(pid):
    """The process numbers of the children, as texts."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_running(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
