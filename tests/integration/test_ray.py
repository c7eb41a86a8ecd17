"""`pathencoder encode --ray`: the same files as without, whatever becomes of the workers."""

import json
import os
import re
import signal

import numpy as np
import pytest
import small_encoders
from object_servers import web_server
from PIL import Image
from small_slides import section, write_tiff

from pathencoder.cli.ray_meter import RayMeter
from pathencoder.cli.ray_options import ray_options
from pathencoder.cluster import pool
from pathencoder.cluster.session import session
from pathencoder.errors import ConfigError
from pathencoder.features.store import read_features

pytestmark = pytest.mark.full

SLIDES = 3


@pytest.fixture(scope="module", autouse=True)
def open_session():
    """One session of Ray for all tests, which the command uses."""
    pytest.importorskip("ray")
    with session("local", cores=2):
        yield


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Small slides, of which one is no slide, and a folder of tiles."""
    folder = tmp_path_factory.mktemp("inputs")
    for n in range(SLIDES):
        pixels = section(1100, 900, tissue=((100, 100, 1000, 800),), seed=n)
        write_tiff(folder / f"s{n}.tif", pixels)
    (folder / "bad.svs").write_bytes(b"no slide")
    (folder / "tiles").mkdir()
    for n in range(3):
        Image.fromarray(small_encoders.picture(n)).save(folder / "tiles" / f"{n}.png")
    return folder


@pytest.fixture(scope="module")
def expected(slides, folder, tmp_path_factory):
    """The files and the summary without Ray."""
    from pathencoder.cli.main import run

    out = tmp_path_factory.mktemp("expected")
    given = ["--encoder", str(folder), "--device", "cpu", "--as", "slides"]
    assert run(["encode", *inputs(slides), "--out", str(out), *given]) == 3
    return out


def inputs(folder):
    return [str(p) for p in (*sorted(folder.glob("s*.tif")), folder / "bad.svs")]


def check(out, expected):
    """Every slide once, as without Ray, and nothing else in the folder."""
    names = sorted(p.name for p in expected.iterdir())
    assert sorted(p.name for p in out.iterdir()) == names
    for name in (n for n in names if n.endswith(".h5")):
        here, there = read_features(out / name), read_features(expected / name)
        assert len(here.rows) > 100
        assert np.array_equal(here.rows, there.rows)
        assert np.array_equal(here.coords, there.coords)
        for key in ("recipe", "slide_path", "slide_hash", "notes", "device"):
            assert here.attributes[key] == there.attributes[key]
    assert (out / "failures.csv").read_text() == (expected / "failures.csv").read_text()


def outcomes(text):
    """The summary's statuses by input."""
    return {os.path.basename(o["input"]): o["status"] for o in json.loads(text)["inputs"]}


def test_a_worker_killed_in_mid_run_loses_nothing(slides, expected, encode, tmp_path, monkeypatch):
    """The slide that its worker was on is resumed by another; every slide is done once."""
    where, pids, killed = {}, set(), []
    begun, seen = RayMeter.begun, RayMeter.seen

    def remember(self, number, there):
        where[number] = int(re.search(r"process (\d+)", there)[1])
        pids.add(where[number])
        begun(self, number, there)

    def kill(self, now):
        seen(self, now)
        if not killed and 0 < now.done < now.total:
            killed.append(now.number)
            os.kill(where[now.number], signal.SIGKILL)

    monkeypatch.setattr(pool, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(pool, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(RayMeter, "begun", remember)
    monkeypatch.setattr(RayMeter, "seen", kill)
    given = ("--as", "slides", "--ray", "local", "--ray-cores", "1")
    status, text, errors = encode(*inputs(slides), *given, "--batch-size", "4", "--json")
    assert status == 3, errors
    assert len(killed) == 1
    assert errors.count("its worker died") == 1
    assert len(pids) >= 2
    found = outcomes(text)
    assert found == {f"s{n}.tif": "done" for n in range(SLIDES)} | {"bad.svs": "failed"}
    again = json.loads(text)["inputs"][killed[0]]
    assert again["new"] < again["rows"]
    assert "begun 2 times" in again["notes"][-1]
    check(tmp_path / "out", expected)
    status, text, _ = encode(*inputs(slides), "--as", "slides", "--json")  # without Ray
    assert outcomes(text)["s0.tif"] == "before"


def test_ctrl_c_keeps_what_is_done_and_the_rest_resumes_without_ray(
    slides, expected, encode, tmp_path, monkeypatch
):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    seen, sent = RayMeter.seen, []

    def interrupt(self, now):
        seen(self, now)
        if not sent and 0 < now.done < now.total:
            sent.append(now)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pool, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(pool, "_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(RayMeter, "seen", interrupt)
    given = ("--as", "slides", "--batch-size", "4", "--json")
    try:
        status, text, errors = encode(*inputs(slides), *given, "--ray", "local", "--ray-cores", "2")
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert "Interrupted. Finished work is kept" in errors
    assert {"stopped", "unreached"} <= set(outcomes(text).values())
    assert re.search(r"\d+ of \d+ done", text)
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert any(name.endswith(".partial") for name in left)
    assert not any(name.endswith((".lock", ".probe", ".incomplete")) for name in left)
    status, text, errors = encode(*inputs(slides), *given)
    assert status == 3
    assert "resuming after" in errors
    check(tmp_path / "out", expected)


def test_tiles_tissue_and_notes_are_as_without(slides, encode, tmp_path):
    given = ("--ray", "local", "--ray-cores", "2")
    for ray, out in (((), "plain"), (given, "ray")):
        status, _, errors = encode(slides / "tiles", "--mpp", "1", *ray, out=out)
        assert status == 0
        assert errors.count("note: ") == 1
        encode(slides / "s0.tif", "--as", "slides", "--only-tissue", *ray, out=out)
    for name in ("coords/s0.h5", "tissue/s0.geojson", "tiles.h5"):
        assert (tmp_path / "ray" / name).exists()
    here, there = (read_features(tmp_path / out / "tiles.h5") for out in ("ray", "plain"))
    assert np.array_equal(here.rows, there.rows)
    assert (tmp_path / "ray/tissue/s0.geojson").read_text() == (
        tmp_path / "plain/tissue/s0.geojson"
    ).read_text()


def test_several_encoders_and_a_slide_of_a_web_server(slides, encode, tmp_path):
    other = tmp_path / "vit"
    small_encoders.encoder("vit").save_pretrained(other)
    both = ("--encoder", other, "--json")
    with web_server({"d/s0.tif": (slides / "s0.tif").read_bytes()}) as web:
        url = f"{web.address}/d/s0.tif"
        given = (*both, "--ray", "local", "--ray-cores", "2")
        status, text, errors = encode(url, *given, "--scratch", tmp_path / "scratch", out="ray")
    assert status == 0, errors
    assert outcomes(text) == {"s0.tif": "done"}
    assert list((tmp_path / "scratch").iterdir()) == []
    assert encode(slides / "s0.tif", "--as", "slides", *both, out="plain")[0] == 0
    for name in ("small-cnn", "small-vit"):
        here, there = (read_features(tmp_path / o / name / "s0.h5") for o in ("ray", "plain"))
        assert len(here.rows) > 100
        assert np.array_equal(here.rows, there.rows)
        assert here.attributes["slide_path"] == url


def test_settings_that_fit_nothing_are_refused_before_a_worker_starts(slides, encode, monkeypatch):
    monkeypatch.setattr(pool, "results", None)
    for options, said in (
        (("--ray", "ray://head:10001"), "client"),
        (("--ray", "local", "--overlap", "64"), "leaves no step"),
    ):
        status, _, errors = encode(slides / "s0.tif", "--as", "slides", *options)
        assert status == 2, errors
        assert said in errors
    with pytest.raises(ConfigError, match="a GPU of its own"):
        ray_options("local", 4, device="cuda:1", names=(), revision=None)
