"""What a worker and the driver of `--ray` do by themselves; nothing here starts Ray."""

from dataclasses import replace
from pathlib import Path

import pytest
import small_encoders
import torch

from pathencoder.cli import ray_run
from pathencoder.cli.job import Job
from pathencoder.cli.ray_encode import EncoderRef
from pathencoder.cli.ray_meter import RayMeter
from pathencoder.cluster.session import Plan, Share
from pathencoder.cluster.worker import Report, Seen
from pathencoder.encoder import load_encoder
from pathencoder.errors import ChecksumError, ConfigError, StoreError
from pathencoder.features.job import Outcome
from pathencoder.locks import Busy

ONE = Plan(1, 1, Share(1))


@pytest.fixture
def slide(tmp_path):
    (tmp_path / "s.svs").write_bytes(b"x")
    return Job(tmp_path / "s.svs", "slide", "s")


def test_a_slide_that_the_worker_does_not_see_fails_alone():
    (outcome,) = ray_run._one(None, False, Job(Path("/nowhere/s.svs"), "slide", "s"), Report(0, 1))
    assert outcome.status == "failed"
    assert "does not see /nowhere/s.svs: shared storage is needed" in outcome.failures[0].reason


@pytest.mark.parametrize("what", ["here", "out"])
def test_a_worker_that_does_not_see_the_folders_refuses_to_work(what, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_run, "_PROBE_SECONDS", 0)
    monkeypatch.chdir(tmp_path)
    missing = tmp_path / "missing"
    here = str(missing) if what == "here" else None
    make = ray_run._Make(lambda *_: None, ONE, here, missing / ".probe", False)
    with pytest.raises(StoreError, match="missing: shared storage is needed"):
        make(ONE.share)


def test_what_a_job_prints_and_how_far_it_is_go_to_the_driver(slide):
    report = Report(7, 1)

    def do(job, meter):
        import click

        click.echo("s: note: coarse", err=True)
        meter(3, 8)
        return Outcome(job.source, "done")

    (outcome,) = ray_run._one(do, False, slide, report)
    assert outcome.status == "done"
    assert report.take() == Seen(7, 3, 8, ["s: note: coarse"])


def test_a_stopped_job_ends_as_after_ctrl_c(slide):
    report = Report(0, 1)
    report.stop()
    with pytest.raises(KeyboardInterrupt):
        ray_run._one(lambda job, meter: meter(1, 2), False, slide, report)


@pytest.mark.parametrize(("attempt", "status"), [(1, "busy"), (2, "done")])
def test_only_after_a_death_is_a_lock_waited_for(attempt, status, slide, monkeypatch):
    monkeypatch.setattr(ray_run.time, "sleep", lambda _: None)
    tries = []

    def do(job, _):
        tries.append(job)
        if len(tries) < 4:
            raise Busy("another process")
        return Outcome(job.source, "done")

    (outcome,) = ray_run._one(do, False, slide, Report(0, attempt))
    assert outcome.status == status


def test_the_line_of_all_workers(capsys):
    meter = RayMeter([Path("a.svs"), Path("b.svs"), Path("c.svs")], "slide")
    meter.begun(0, "node, process 1")
    meter.seen(Seen(0, 100, 300, ["a: note: coarse"]))  # 100 of an earlier run
    meter.seen(Seen(1, 0, 50, ["b: note: coarse"]))
    meter.seen(Seen(0, 200, 300))
    meter.tick(2)
    assert "0 of 3 slides done, 100 tiles by 2 workers, " in meter.line()
    assert "left" not in meter.line()
    meter.ended(1, [Outcome(Path("b.svs"), "done", rows=50, new=50)])
    meter.again(0, "killed")
    meter.ended(0, [Outcome(Path("a.svs"), "failed")])
    assert "2 of 3 slides done, 150 tiles by 2 workers, " in meter.line()
    assert meter.line().endswith(" left")
    errors = capsys.readouterr().err
    assert errors.count("coarse") == 1
    assert "[1/3] b.svs: done" in errors
    assert "a.svs: its worker died (killed)" in errors


def test_a_worker_loads_the_encoder_of_the_driver_or_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of the whole process
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("./small", device="cpu")
    ref = EncoderRef.of("./small", None, encoder)
    assert ref.name == str(tmp_path / "small")
    monkeypatch.chdir("/")
    assert ref.load(Share(1)).spec == encoder.spec
    with pytest.raises(ChecksumError, match="other weights"):
        replace(ref, weights="0" * 64).load(Share(1))
    assert EncoderRef.of(None, None, encoder).name is None


def test_a_worker_refuses_a_folder_that_differs_though_it_states_no_checksum(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of the whole process
    folder = small_encoders.in_timm_format(tmp_path / "small", 0)
    ref = EncoderRef.of(str(folder), None, load_encoder(folder, device="cpu"))
    assert ref.load(Share(1)).spec == ref.spec
    with pytest.raises(ConfigError, match=r"in another way than this machine \(mean\)"):
        replace(ref, spec=replace(ref.spec, mean=(0.1, 0.2, 0.3))).load(Share(1))
    small_encoders.in_timm_format(folder, 1)
    with pytest.raises(ChecksumError, match="other weights"):
        ref.load(Share(1))


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("lab/net", None, ("lab/net", "abc")),
        ("lab/net@v1", None, ("lab/net", "abc")),
        ("uni2-h", "v1", ("uni2-h", "v1")),
    ],
)
def test_a_repository_is_loaded_at_the_commit_of_the_driver(name, asked, expected):
    encoder = small_encoders.encoder("cnn", revision="abc")
    ref = EncoderRef.of(name, asked, encoder)
    assert (ref.name, ref.revision) == expected
