"""Leases between machines: real processes without the system's locks, killed and stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT

from pathencoder import leases
from pathencoder.cli import names
from pathencoder.features.job import partial_path
from pathencoder.features.journal import lock_of
from pathencoder.leases import Lease
from pathencoder.locks import Busy, Lock, Lost

BEAT = 0.2
# a process of another machine: the system's locks do not hold between it and others
HOLD = f"""
import errno, sys, time
from pathlib import Path
import filelock
from pathencoder import leases
from pathencoder.locks import Lock, Lost

def refuse(*_, **__):
    raise OSError(errno.ENOLCK, "No locks available")

filelock.FileLock.acquire = refuse
leases.BEAT, leases.STALE, leases._SETTLE = {BEAT}, {10 * BEAT}, 0.05
leases._machine = lambda device: "another"
lock = Lock(Path(sys.argv[1]), "busy", between_machines=True)
print("held", flush=True)
for line in sys.stdin:
    try:
        lock.check()
        lock.confirm()
        print("mine", flush=True)
    except Lost as error:
        print("lost", flush=True)
lock.release()
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(leases, "BEAT", BEAT)
    monkeypatch.setattr(leases, "STALE", 10 * BEAT)
    monkeypatch.setattr(leases, "_SETTLE", 0.05)


@pytest.fixture
def other(tmp_path):
    """A process that stands for another machine; it holds the lease of tmp_path/x.lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "x.lock")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def ask(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def take(tmp_path, seconds=0.0):
    return Lock(tmp_path / "x.lock", "try later", seconds=seconds, between_machines=True)


def test_a_lease_that_is_renewed_is_respected_for_as_long_as_it_is(other, tmp_path):
    with pytest.raises(Busy, match="try later") as first:
        take(tmp_path)
    with pytest.raises(Busy) as second:
        take(tmp_path, seconds=15 * BEAT)
    assert second.value.seen.name == first.value.seen.name
    assert second.value.seen.renewed > first.value.seen.renewed
    other.stdin.close()
    other.wait()
    lock = take(tmp_path)
    assert not lock.taken_over
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_the_lease_of_a_killed_process_is_taken_over_when_it_is_stale(other, tmp_path):
    other.kill()
    other.wait()
    with pytest.raises(Busy):
        take(tmp_path)
    lock = take(tmp_path, seconds=30 * BEAT)
    assert lock.taken_over
    lock.confirm()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("held", [True, False])
def test_a_process_that_was_stopped_finds_that_it_lost_the_lease(other, tmp_path, held):
    """Also where the one that took over has finished meanwhile."""
    assert ask(other) == "mine\n"
    other.send_signal(signal.SIGSTOP)
    lock = take(tmp_path, seconds=30 * BEAT)
    assert lock.taken_over
    if not held:
        lock.release()
    other.send_signal(signal.SIGCONT)
    assert ask(other) == "lost\n"
    if held:
        lock.confirm()
        other.stdin.close()
        other.wait()
        lock.confirm()  # the loser has not removed it
    lock.release()


def test_a_process_of_this_machine_that_was_killed_is_followed_at_once(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from pathencoder.locks import Lock\n"
        "lock = Lock(Path(sys.argv[1]), 'busy', between_machines=True); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.lock")], cwd=ROOT, check=False)
    assert (tmp_path / "x.lease").exists()
    lock = take(tmp_path)
    assert not lock.taken_over
    lock.release()


def test_the_clock_of_the_machine_does_not_matter(other, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 9e9)
    with pytest.raises(Busy):
        take(tmp_path)


def test_of_two_that_take_over_at_once_one_has_it(tmp_path, monkeypatch):
    path = tmp_path / "x.lease"
    path.write_text("cut off")
    os.utime(path, (1e9, 1e9))
    winner = Lease(path, alone=False)
    settle = time.sleep

    def meanwhile(seconds):
        monkeypatch.setattr(time, "sleep", settle)
        os.utime(path, (1e9, 1e9))  # the second had looked before the first renewed it
        assert winner.take() is None

    monkeypatch.setattr(time, "sleep", meanwhile)
    assert Lease(path, alone=False).take().name == winner._name
    winner.release()
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_it_works_as_well(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    first = Lease(tmp_path / "x.lease", alone=False)
    assert first.take() is None
    assert Lease(tmp_path / "x.lease", alone=False).take().name == first._name
    first.release()


def test_a_lock_that_was_lost_is_said(tmp_path):
    lock = take(tmp_path)
    (tmp_path / "x.lease").unlink()
    with pytest.raises(Lost, match="another process has taken over x"):
        lock.confirm()
    with pytest.raises(Lost):
        lock.check()
    lock.release()


def test_drafts_of_killed_processes_of_this_machine_go_at_once(tmp_path, monkeypatch):
    lease = Lease(tmp_path / "a.lease", alone=True)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "_write", lambda draft: draft.touch() or 1 / 0)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # as in a killed process
        with pytest.raises(ZeroDivisionError):
            lease.take()
    (draft,) = tmp_path.iterdir()
    earlier = tmp_path / f"a.lease.{draft.name.split('.', 2)[2]}"  # as other versions name it
    earlier.touch()
    other = tmp_path / "a.lease.another-machine.incomplete"
    other.touch()
    assert len(list(tmp_path.iterdir())) == 3
    again = Lease(tmp_path / "a.lease", alone=True)
    assert again.take() is None
    again.release()
    assert list(tmp_path.iterdir()) == [other]  # its process may still run


def test_the_longest_names_of_outputs_have_leases(tmp_path):
    name = names.cut_short("x" * 300, "0123456789ab")
    assert len(name) == names._LONGEST
    lock = lock_of(partial_path(tmp_path / f"{name}.zarr"))
    lock.confirm()
    lock.release()
    assert list(tmp_path.iterdir()) == []
