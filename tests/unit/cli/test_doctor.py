"""doctor: what is missing and how to fix it, and what the measured speeds predict."""

import importlib.metadata
import json
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from small_slides import MemorySlide, section

from pathencoder.cli import doctor_checks as checks
from pathencoder.cli import doctor_speed as speeds
from pathencoder.cli.main import run
from pathencoder.errors import ChecksumError
from pathencoder.pretrained import catalogue, locate, reach

REQUIRES = ["torch>=2.4", "gadget>=1", 'wand>=2; extra == "wsi"', 'rod>=1; extra == "wsi"']


@pytest.fixture
def installed(monkeypatch):
    """The metadata of this package, and the versions that are installed."""
    versions = {"torch": "2.13.0+cpu", "gadget": "1.5", "wand": "2.1", "rod": "1.0"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


def test_versions_are_compared_with_the_supported_range(installed):
    report = checks.Report()
    found = checks.versions(report)
    assert found["torch"] == "2.13.0+cpu (supported: >=2.4)"
    assert "wand" not in found
    assert not report.problems
    installed["gadget"] = "0.9"
    del installed["torch"]
    assert "NOT SUPPORTED" in checks.versions(report)["gadget"]
    assert report.problems == [
        "torch is not installed: pip install 'torch>=2.4'",
        "gadget 0.9 is not supported (>=1): pip install 'gadget>=1'",
    ]


def test_a_missing_extra_is_named_with_its_command(installed):
    report = checks.Report()
    assert checks.extras(report) == {"wsi": "wand 2.1 (supported: >=2), rod 1.0 (supported: >=1)"}
    del installed["rod"]
    found = checks.extras(report)["wsi"]
    assert found == "not installed (whole slides): pip install 'pathencoder[wsi]'"
    assert not report.problems
    installed.update(rod="1.0", wand="1.9")
    checks.extras(report)
    assert report.problems == ["wand 1.9 is not supported (>=2): pip install 'wand>=2'"]


def test_extras_are_those_of_the_package():
    listed = {line for line in importlib.metadata.metadata("pathencoder").get_all("Provides-Extra")}
    assert {"wsi", "nuclei", "heads"} <= set(checks.EXTRAS) & listed


def test_little_space_and_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000_000))
    monkeypatch.setattr(checks.os, "access", lambda *_: False)
    report = checks.Report()
    text = checks._folder(tmp_path / "cache", report)
    assert "READ-ONLY, 1 GB free, does not exist yet" in text
    assert len(report.advice) == 2
    assert all("choose another folder" in line for line in report.advice)


def test_unused_cores_a_busy_machine_and_a_gpu_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(checks.cores, "available", lambda: 64)
    monkeypatch.setattr(checks.os, "getloadavg", lambda: (200.0, 0, 0))
    monkeypatch.setattr(checks.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    report = checks.Report()
    assert "64 cores" in checks.devices(report)["cpu"]
    text = "\n".join(report.advice)
    assert "OMP_NUM_THREADS=64" in text
    assert "load 200.0 on 64 cores" in text
    assert "finds no GPU" in text


@pytest.mark.parametrize("offline", [True, False])
def test_the_network_is_named(monkeypatch, offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(reach, "unreachable", lambda _: "no answer")
    found = checks.hub(checks.Report())["network"]
    assert ("from the cache only" in found) == offline
    assert ("cannot be reached (no answer)" in found) != offline


def test_damaged_weights_are_a_problem(monkeypatch, capsys):
    def damaged(name, **_):
        raise ChecksumError(f"{name} is not the file that was published")

    monkeypatch.setattr(locate, "locate", damaged)
    monkeypatch.setattr(reach, "unreachable", lambda _: "no answer")
    assert run(["doctor", "--no-speed"]) == 1
    text = capsys.readouterr().out
    assert "PROBLEM: pathencoder-tiny is not the file" in text
    assert "pip install --force-reinstall pathencoder" in text


def test_a_section_that_fails_does_not_stop_the_others(monkeypatch, capsys):
    monkeypatch.setattr(checks, "devices", lambda _: 1 / 0)
    monkeypatch.setattr(reach, "unreachable", lambda _: "no answer")
    assert run(["doctor", "--no-speed", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["devices"] == {"failed": "division by zero"}
    assert set(found["bundled weights"]) == set(catalogue.bundled())
    assert found["problems"] == ["devices: division by zero"]


def predicted(device, **numbers):
    encoder = SimpleNamespace(
        device=torch.device(device), spec=catalogue.catalogue()[catalogue.DEFAULT]
    )
    report = checks.Report(numbers=numbers)
    return speeds.prediction(encoder, report), report.numbers


MEASURED = {
    "encoder tiles/s": 100.0,
    "reading tiles/s": 50.0,
    "tiles of the slide": 1000,
    "seconds before the first tile": 5.0,
}


def test_on_a_cpu_reading_and_encoding_share_the_cores():
    text, numbers = predicted("cpu", **MEASURED)
    assert text["pace"] == "33.3 tiles/s (reading and the encoder share the cores)"
    assert numbers["slides like this an hour"] == pytest.approx(3600 / (5 + 30))


def test_beside_a_gpu_the_slower_sets_the_pace():
    text, numbers = predicted("cuda", **MEASURED)
    assert text["pace"] == "50 tiles/s (the slower of the two sets the pace: reading)"
    assert numbers["slides like this an hour"] == pytest.approx(3600 / (5 + 20))


def test_without_a_slide_the_assumptions_are_printed():
    text, numbers = predicted("cpu", **{"encoder tiles/s": 100.0})
    assert "reading was not measured: give --slide" in text["pace"]
    assert "20 x 15 mm with 30 % tissue (7,175 tiles)" in text["usual slides"]
    assert numbers["usual slides an hour"] == pytest.approx(3600 / 71.75, rel=1e-3)
    assert "slides like this one" not in text


def test_a_slide_is_read_as_encode_reads_it(monkeypatch, tmp_path):
    slide = MemorySlide(section(1000), broken=((0, 0, 300, 300),))
    monkeypatch.setattr("pathencoder.slides.reader.open_slide", lambda _: slide)
    monkeypatch.setattr(slide, "close", lambda: None, raising=False)
    report = checks.Report()
    spec = catalogue.catalogue()[catalogue.DEFAULT]
    found = speeds.reading(tmp_path / "memory.svs", spec, None, report)
    assert report.numbers["tiles of the slide"] > 4
    assert (
        f"{report.numbers['tiles of the slide']:,} tiles of 224 px at 0.5 um/px" in found["tissue"]
    )
    assert report.numbers["reading tiles/s"] > 0
    assert "DAMAGED" in found["reading"]
    assert found["mpp"].startswith("0.5 ")


@pytest.mark.parametrize(
    ("rate", "text"), [(0.4231, "0.423"), (33.333, "33.3"), (1203.9, "1,204"), (99.99, "100")]
)
def test_rates_are_short(rate, text):
    assert speeds._short(rate) == text
