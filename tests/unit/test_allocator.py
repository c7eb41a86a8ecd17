"""Freed memory is kept by commands that train, and by nothing else."""

import subprocess
import sys

import pytest

from pathencoder import allocator
from pathencoder.cli.main import run

FAULTS = """
import resource
import numpy as np
from pathencoder import allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(40 * 2**20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
print(int(allocator.keep_freed_memory()))
faults()  # the first round fills the heap
print(plain, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    accepted, counts = done.stdout.splitlines()
    if accepted == "0":
        pytest.skip("not glibc")
    plain, kept = map(int, counts.split())
    if plain < 20:
        pytest.skip("this system does not count page faults")
    assert kept < plain / 4


@pytest.mark.full
@pytest.mark.parametrize("command", ["adapt", "fit"])
def test_commands_that_train_a_network_keep_it(command, tmp_path, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    import labelled_tissue
    import small_tiles

    monkeypatch.setattr(allocator, "keep_freed_memory", stop)
    if command == "adapt":
        data = ("--data", str(small_tiles.folder(tmp_path / "tiles")))
    else:
        labelled_tissue.folder(tmp_path / "data", count=2)
        data = ("--data", str(tmp_path / "data"), "--head", "nuclei", "--mpp", "0.5")
    assert run([command, *data, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 130
