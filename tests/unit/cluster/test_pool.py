"""The pool with small jobs: errors, workers that are killed, an interrupt."""

import os
import signal
import threading

import pytest
import toy_jobs

from pathencoder.cluster.pool import Watcher, WorkerLost, results
from pathencoder.cluster.session import Plan, Share, session
from pathencoder.cluster.worker import JobFailed

pytestmark = pytest.mark.full

TWO = Plan(2, 2, Share(1))


@pytest.fixture(scope="module", autouse=True)
def open_session():
    # a module of the tests, which workers cannot import
    pytest.importorskip("ray").cloudpickle.register_pickle_by_value(toy_jobs)
    with session("local", cores=2) as nodes:
        assert [node.cpus for node in nodes] == [2]
        yield


class Listener(Watcher):
    """Keeps what it is called with."""

    def __init__(self):
        self.said, self.again_, self.fewer_ = [], [], []

    def seen(self, seen):
        self.said += seen.said

    def again(self, number, reason):
        self.again_.append((number, reason))

    def fewer(self, reason):
        self.fewer_.append(reason)


def run(kinds, tmp_path, **options):
    """Results by kind, and what each job wrote."""
    jobs = [(kind, str(tmp_path / "log")) for kind in kinds]
    found = list(results(jobs, toy_jobs.make, TWO, **options))
    assert sorted(result.number for result in found) == list(range(len(kinds)))
    written = (tmp_path / "log").read_text().splitlines()
    return {kinds[result.number]: result for result in found}, written


def test_every_job_has_one_result_whatever_becomes_of_the_others(tmp_path):
    listener = Listener()
    kinds = ["dies once", "raises", "raises odd", "returns what cannot be sent", "dies", "fine"]
    found, written = run(kinds, tmp_path, watcher=listener)
    assert found["fine"].value not in (None, os.getpid())
    assert found["dies once"].value == "done after all"
    assert found["dies once"].attempts == 2
    assert isinstance(found["raises"].error, ValueError)
    assert str(found["raises"].error) == "a bad slide"
    assert "_raise" in found["raises"].trace
    assert isinstance(found["raises odd"].error, JobFailed)
    assert str(found["raises odd"].error) == "Odd: 1 and 2"
    assert "generator" in str(found["returns what cannot be sent"].error)
    assert isinstance(found["dies"].error, WorkerLost)
    assert "died (2 times)" in str(found["dies"].error)
    assert "process ended unexpectedly" in str(found["dies"].error)
    assert [number for number, _ in sorted(listener.again_)] == [0, 4]
    assert sorted(written) == sorted([f"{kind} 1" for kind in kinds] + ["dies once 2", "dies 2"])
    assert {"raises begins", "fine begins"} <= set(listener.said)


def test_retries_are_a_setting(tmp_path):
    found, written = run(["dies once"], tmp_path, retries=0)
    assert isinstance(found["dies once"].error, WorkerLost)
    assert written == ["dies once 1"]


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (toy_jobs.make_nothing, ValueError, "no weights here"),
        (toy_jobs.die_at_start, WorkerLost, "did not start"),
    ],
)
def test_workers_that_cannot_start_end_the_run(make, error, said):
    listener = Listener()
    with pytest.raises(error, match=said):
        list(results([1, 2], make, TWO, retries=0, watcher=listener))
    assert len(listener.fewer_) == 1


def test_an_interrupt_stops_the_jobs_and_ends(tmp_path):
    jobs = [("waits", str(tmp_path / "log"))] * 3
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    begun = threading.Semaphore(0)

    class Begun(Watcher):
        def seen(self, seen):
            begun.release()

    def interrupt():
        for _ in range(2):
            begun.acquire()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    found = []
    try:
        with pytest.raises(KeyboardInterrupt):
            found.extend(results(jobs, toy_jobs.make, TWO, watcher=Begun()))
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted((result.number, result.stopped) for result in found) == [(0, True), (1, True)]
