"""Inputs spread over lanes: order, failures, and what ends them all."""

import signal
import threading
import time
from pathlib import Path

import pytest
import small_encoders
import torch

import pathencoder
from pathencoder.cli.jobs import Loop
from pathencoder.cli.lanes import folders_of, load_lanes, run_lanes
from pathencoder.errors import ConfigError, ImageError, StoreError
from pathencoder.features.job import Outcome
from pathencoder.runtimes.unchanged import sha256_in_use
from pathencoder.stream import Settings

JOBS = list("abcdefgh")


def lanes(do, count=2):
    return run_lanes([Loop(do, Path, str) for _ in range(count)], JOBS)


def statuses(ended):
    return "".join(outcome.status[0] for outcome in ended.outcomes)


def test_outcomes_come_in_the_order_of_the_inputs_and_an_error_costs_one():
    threads = set()

    def do(job, meter):
        threads.add(threading.get_ident())
        time.sleep(0.02 if job == "a" else 0.002)
        if job == "c":
            raise ImageError("c: no image")
        return Outcome(Path(job), "done")

    ended = lanes(do)
    assert [outcome.source.name for outcome in ended.outcomes] == JOBS
    assert statuses(ended) == "ddfddddd"
    assert (len(threads), ended.status) == (2, 3)


def test_a_full_disk_ends_all_lanes():
    failed = threading.Event()

    def do(job, meter):
        if job == "a":
            failed.set()
            raise StoreError("the disk is full")
        assert failed.wait(10)
        for done in range(10_000):
            time.sleep(0.001)
            meter(done, 10_000)
        return Outcome(Path(job), "done")

    ended = lanes(do)
    assert statuses(ended)[0] == "s"
    assert "d" not in statuses(ended)
    assert statuses(ended).count("u") >= 6
    assert str(ended.stopped_by) == "the disk is full"


def test_ctrl_c_ends_all_lanes_between_two_tiles():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = threading.Barrier(2)

    def do(job, meter):
        meter(0, 10_000)
        if started.wait(10) == 0:
            signal.raise_signal(signal.SIGINT)
        for done in range(10_000):
            time.sleep(0.001)
            meter(done, 10_000)
        return Outcome(Path(job), "done")

    try:
        ended = lanes(do)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.status, statuses(ended)) == (130, "ssuuuuuu")
    assert "of 10,000 done" in ended.outcomes[0].notes[0]


def test_an_error_of_the_loop_itself_is_raised():
    def do(job, meter):
        raise SystemExit(5)

    with pytest.raises(SystemExit):
        lanes(do)


def test_each_of_several_encoders_has_its_folder():
    out = Path("out")
    assert folders_of(out, ["x"]) == [out]
    assert folders_of(out, ["x", "owner/y"]) == [out / "x", out / "owner_y"]
    with pytest.raises(ConfigError, match="have the name x"):
        folders_of(out, ["x", "x"])


@pytest.mark.parametrize(("precision", "folded"), [("auto", True), ("bf16", False)])
def test_encoders_that_only_encode_let_their_first_weights_go(precision, folded):
    [[encoder]] = load_lanes(
        [], devices="cpu", settings=Settings(precision=precision, runtime="torch")
    )
    norms = [m for m in encoder.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert bool(norms) != folded


def test_an_encoder_whose_batch_norms_are_folded_counts_as_the_published_one(tmp_path):
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "small")
    loaded = pathencoder.load_encoder(tmp_path / "small", device="cpu")
    folded = load_lanes([str(tmp_path / "small")], devices="cpu", settings=Settings())[0][0]
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.network.modules())
    for encoder in (loaded, folded):
        assert sha256_in_use(encoder.network, encoder.origin) == loaded.spec.sha256
    next(folded.network.parameters()).data.mul_(2)
    assert sha256_in_use(folded.network, folded.origin) not in (None, loaded.spec.sha256)
