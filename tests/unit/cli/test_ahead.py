"""Inputs are prepared one ahead, in order, and what is not used is closed."""

import threading

import pytest

from pathencoder.cli.ahead import Ahead
from pathencoder.errors import SlideError


class Opened:
    def __init__(self, name):
        self.name, self.closed = name, False

    def close(self):
        self.closed = True


class Jobs:
    """Jobs by name; records what was prepared, and lets a test wait for it."""

    def __init__(self, *names):
        self.names = list(names)
        self.opened = {}
        self.seen = {name: threading.Event() for name in names}
        self.thread = {}

    def prepare(self, name):
        self.thread[name] = threading.current_thread()
        self.seen[name].set()
        if name.startswith("bad"):
            raise SlideError(f"{name}: damaged")
        self.opened[name] = Opened(name)
        return self.opened[name]


def test_the_next_one_is_prepared_while_one_is_processed_and_no_more():
    jobs = Jobs("a", "b", "c", "d")
    with Ahead(jobs.names, jobs.prepare) as ahead:
        assert ahead.take(jobs.names[0]).name == "a"
        assert jobs.seen["b"].wait(10)
        assert jobs.thread["b"] is not threading.current_thread()
        assert not jobs.seen["c"].wait(0.05)
        assert ahead.take(jobs.names[1]).name == "b"
        assert jobs.seen["c"].wait(10)
    assert jobs.opened["c"].closed
    assert "d" not in jobs.opened
    assert not [t for t in threading.enumerate() if t.name.startswith("pathencoder-ahead")]


def test_an_error_is_raised_at_its_own_turn():
    jobs = Jobs("a", "bad", "c")
    with Ahead(jobs.names, jobs.prepare) as ahead:
        ahead.take(jobs.names[0])
        assert jobs.seen["bad"].wait(10)
        with pytest.raises(SlideError, match="bad: damaged"):
            ahead.take(jobs.names[1])
        assert ahead.take(jobs.names[2]).name == "c"


def test_what_must_not_be_prepared_ahead_is_prepared_when_it_is_taken():
    jobs = Jobs("a", "large", "c")
    with Ahead(jobs.names, jobs.prepare, wanted=lambda name: name != "large") as ahead:
        ahead.take(jobs.names[0])
        assert not jobs.seen["large"].wait(0.05)
        assert ahead.take(jobs.names[1]).name == "large"
        assert jobs.thread["large"] is threading.current_thread()
        assert jobs.seen["c"].wait(10)


def test_the_end_stops_what_still_waits():
    jobs, stopped = Jobs("a", "b"), threading.Event()

    def prepare(name):
        jobs.prepare(name)
        assert name == "a" or stopped.wait(10)
        return jobs.opened[name]

    def interrupted(ahead):
        ahead.take(jobs.names[0])
        assert jobs.seen["b"].wait(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Ahead(jobs.names, prepare, stop=stopped.set) as ahead:
        interrupted(ahead)
    assert jobs.opened["b"].closed
