"""The memory of the machine, and the limits of a container or a scheduler."""

import os
import sys

import pytest

from pathencoder import memory

MAX = 1 << 62  # more than any machine has


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
@pytest.mark.parametrize(
    ("own", "limits", "found"),
    [
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "5000\n"}, 5000),
        ("0::/job/step\n", {"job/step/memory.max": "max", "job/memory.max": "700"}, 700),
        ("0::/not/mounted\n", {"memory.max": "300"}, 300),
        ("4:cpu:/a\n3:memory:/a\n", {"memory/a/memory.limit_in_bytes": "400"}, 400),
        ("3:memory:/a\n", {"memory/a/memory.limit_in_bytes": str(MAX)}, None),
        (None, {}, None),
    ],
)
def test_a_limit_counts_where_it_is_less(tmp_path, monkeypatch, own, limits, found):
    for name, text in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")
    monkeypatch.setattr(memory, "_ROOT", tmp_path / "groups")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.available() == (found or machine)


def test_a_system_that_does_not_say(monkeypatch):
    def unknown(_):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown, raising=False)
    assert memory.available() is None
