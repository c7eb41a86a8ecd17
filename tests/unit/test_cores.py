"""Threads are as many as the cores that a scheduler leaves to the process."""

import os

import pytest

from pathencoder import cores
from pathencoder.runtime import pick_workers


def test_cores_of_an_array_job(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert cores.available() == 3
    assert pick_workers(None) == 3


@pytest.mark.parametrize(("count", "used"), [(64, 16), (None, 1)])
def test_without_affinity(monkeypatch, count, used):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert pick_workers(None) == used
