"""The journal of finished rows: cut off, damaged, of other settings, and opened twice."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathencoder import leases
from pathencoder.errors import StoreError
from pathencoder.features.journal import Journal
from pathencoder.locks import Busy, Lost


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=1, max_size=30),
    st.integers(0, 400),
    st.integers(1, 6),
)
def test_a_journal_survives_being_cut_anywhere(tmp_path_factory, keys, cut, dim):
    """Cut off at any byte: whole records are kept, the rest is appended, all rows are right."""
    path = tmp_path_factory.mktemp("journal") / ".slide.h5.partial"
    rows = np.random.default_rng(0).normal(size=(len(keys), dim)).astype(np.float32)
    first = Journal(path, {"a": 1})
    for key, row in zip(keys, rows, strict=True):
        first.append(key, row)
    first.close()
    path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - cut)])
    again = Journal(path, {"a": 1})
    assert all(key in keys for key in keys if key in again)
    assert len(again) >= len(keys) - 1 - cut // (12 + 4 * dim) or cut > path.stat().st_size
    for key, row in zip(keys, rows, strict=True):
        if key not in again:
            again.append(key, row)
    assert np.array_equal(again.rows(keys[::-1]), rows[::-1])
    again.delete()
    assert not path.exists()


def test_a_damaged_record_is_computed_again(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, {})
    for key in range(4):
        journal.append(key, np.full(3, key, np.float32))
    journal.close()
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF  # the last record: its checksum is wrong now
    path.write_bytes(data)
    again = Journal(path, {})
    assert [key in again for key in range(4)] == [True, True, True, False]
    again.close()


def test_a_journal_keeps_a_tag_with_each_row_and_the_last_row_of_an_id(tmp_path):
    path = tmp_path / "j"
    journal = Journal(path, {}, facts={"source_path": "/a"}, tag_bytes=2)
    for key, value, tag in ((1, 1.0, b"aa"), (2, 2.0, b"bb"), (1, 3.0, b"cc")):
        journal.append(key, np.full(3, value, np.float32), tag)
    assert (journal.tag(1), journal.tag(2), len(journal)) == (b"cc", b"bb", 2)
    journal.close()
    again = Journal(path, {}, facts={"source_path": "/b"}, tag_bytes=2)
    assert (again.tag(1), again.tag(2), again.facts) == (b"cc", b"bb", {"source_path": "/a"})
    assert again.rows([1, 2])[:, 0].tolist() == [3.0, 2.0]
    again.close()


def test_a_journal_of_other_settings_is_refused_and_named(tmp_path):
    journal = Journal(tmp_path / "j", {"encoder": "a", "target_mpp": 0.5})
    journal.append(1, np.zeros(2, np.float32))
    journal.close()
    with pytest.raises(StoreError, match="encoder: a there, b now"):
        Journal(tmp_path / "j", {"encoder": "b", "target_mpp": 0.5})


def test_two_processes_never_share_a_journal(tmp_path):
    journal = Journal(tmp_path / "j", {})
    journal.append(1, np.zeros(2, np.float32))
    code = (
        "import sys; from pathlib import Path; from pathencoder.features.journal import Journal;"
        " Journal(Path(sys.argv[1]), {})"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "j")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 1
    assert Busy.__name__ in other.stderr
    journal.close()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "j")], check=True)


def test_starting_again_never_drops_the_rows_of_a_running_process(tmp_path):
    journal = Journal(tmp_path / "j", {})
    journal.append(1, np.ones(2, np.float32))
    with pytest.raises(Busy):
        Journal(tmp_path / "j", {}, anew=True)
    journal.close()
    journal = Journal(tmp_path / "j", {})
    assert journal.rows([1]).tolist() == [[1, 1]]
    journal.close()
    Journal(tmp_path / "j", {}, anew=True).close()
    assert os.listdir(tmp_path) == []


def test_an_unused_journal_leaves_no_file(tmp_path):
    Journal(tmp_path / "j", {}).close()
    assert os.listdir(tmp_path) == []


def test_a_writer_that_was_stopped_changes_nothing_of_the_one_that_took_over(tmp_path, monkeypatch):
    """On two machines, between which the system's locks do not hold."""

    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr(leases, "_SETTLE", 0.01)
    path = tmp_path / ".a.h5.partial"
    stopped = Journal(path, {})
    stopped.append(1, np.ones(2, np.float32))
    stopped.flush()
    (lease,) = tmp_path.glob("*.lease")
    os.utime(lease, (1e9, 1e9))  # not renewed for long
    running = Journal(path, {})
    running.append(2, np.full(2, 2, np.float32))
    running.flush()
    stopped.append(3, np.full(2, 3, np.float32))  # it has not noticed yet
    stopped.flush()
    assert running.rows([1, 2]).tolist() == [[1, 1], [2, 2]]
    with pytest.raises(Lost, match=r"has taken over a\.h5"):
        stopped.confirm()
    with pytest.raises(Lost):
        stopped.append(4, np.ones(2, np.float32))
    stopped.close()
    running.confirm()
    running.close()
    again = Journal(path, {})
    assert (len(again), 3 in again) == (2, False)
    again.delete()
    assert os.listdir(tmp_path) == []
