"""One process at a time, and never a lock that outlives its process."""

import errno
import subprocess
import sys

import pytest
from paths import ROOT

from pathencoder.errors import StoreError
from pathencoder.locks import Busy, Lock

HOLD = (
    "import sys, time; from pathlib import Path; from pathencoder.locks import Lock\n"
    "lock = Lock(Path(sys.argv[1]), 'busy'); print('held', flush=True); time.sleep(99)"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_killed(holder, tmp_path):
    with pytest.raises(Busy, match="try later"):
        Lock(tmp_path / "lock", "try later")
    holder.kill()
    holder.wait()
    lock = Lock(tmp_path / "lock", "try later")
    assert lock.held
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    lock = Lock(tmp_path / "lock", "")
    with pytest.raises(Busy):
        Lock(tmp_path / "lock", "", seconds=0.1)
    lock.release()
    lock.release()  # the second time does nothing
    Lock(tmp_path / "lock", "").release()


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    lock = Lock(tmp_path / "lock", "")
    assert not lock.held
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file"):
        Lock(tmp_path / "file" / "lock", "")
