"""Jobs for tests of the pool: each is (what to do, a file or None)."""

import os
import signal
import time
from pathlib import Path


class Odd(Exception):
    """An error that pickle cannot copy."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def make(share):
    assert share.cpus == 1
    return do


def make_nothing(_):
    raise ValueError("no weights here")


def die_at_start(_):
    os.kill(os.getpid(), signal.SIGKILL)


def do(job, report):
    kind, file = job
    report.say(f"{kind} begins")
    report.progress(0, 4)
    with Path(file).open("a") as stream:
        stream.write(f"{kind} {report.attempt}\n")
    return KINDS[kind](report)


def _raise(_):
    raise ValueError("a bad slide")


def _raise_odd(_):
    raise Odd(1, 2)


def _die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once(report):
    return _die(report) if report.attempt == 1 else "done after all"


def _wait(report):
    for n in range(4000):
        report.progress(n, 4000)
        time.sleep(0.01)


KINDS = {
    "fine": lambda report: os.getpid(),
    "raises": _raise,
    "raises odd": _raise_odd,
    "dies": _die,
    "dies once": _die_once,
    "returns what cannot be sent": lambda report: (_ for _ in ()),
    "waits": _wait,
}
