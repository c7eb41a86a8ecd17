"""`pathencoder nuclei`: its inputs, their scales, and its notes."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from nuclei_case import first_row, head, names, nuclei, picture, statuses
from PIL import Image
from synthetic_nuclei import tissue

from pathencoder.cli.main import run

pytestmark = pytest.mark.full


def test_done_before_is_known_by_content(tmp_path, capsys):
    out, image = tmp_path / "out", picture(tmp_path / "data/a.png")
    nuclei(capsys, tmp_path / "data", "--out", out)
    os.utime(image, (1, 1))
    assert statuses(nuclei(capsys, image, "--out", out)[1]) == ["before"]
    shutil.move(tmp_path / "data", tmp_path / "moved")
    report = nuclei(capsys, tmp_path / "moved", "--out", out)[1]
    assert (statuses(report), names(report)) == (["before"], ["a"])
    moved = tmp_path / "moved/a.png"
    data, times = moved.read_bytes(), moved.stat()
    picture(moved, seed=5)
    # the same size and time
    moved.write_bytes(moved.read_bytes()[: len(data)].ljust(len(data), b"\0"))
    os.utime(moved, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert statuses(nuclei(capsys, moved, "--out", out)[1]) != ["before"]


def test_results_of_two_runs_are_not_taken_for_finished(tmp_path, capsys):
    from pathencoder.nuclei import outputs

    out, image = tmp_path / "out", picture(tmp_path / "a.png")
    nuclei(capsys, image, "--out", out)
    old = (out / "a.geojson").read_bytes()
    nuclei(capsys, image, "--out", out, mpp="0.3")
    (out / "a.geojson").write_bytes(old)
    assert outputs.read_finished(out, "a") is None


def test_every_region_has_results_of_its_own(tmp_path, capsys):
    image, out = picture(tmp_path / "a.png", size=(100, 100), nuclei=9), tmp_path / "out"
    regions = ["--region", 0, 0, 100, 100, "--region", 100, 100, 100, 100]
    status, report = nuclei(capsys, image, "--out", out, *regions)
    assert (status, names(report)) == (0, ["a_x0_y0_w100_h100", "a_x100_y100_w100_h100"])
    rows = list(csv.DictReader((out / "a_x100_y100_w100_h100.csv").read_text().splitlines()))
    assert rows
    assert all(100 <= float(row["x"]) < 200 for row in rows)
    assert names(nuclei(capsys, image, "--out", out)[1]) == ["a"]


def test_a_region_outside_is_refused_and_one_over_the_edge_clipped(tmp_path, capsys):
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    status, report = nuclei(capsys, image, "--out", out, "--region", 1000, 1000, 50, 50)
    assert status == 1
    assert "150 x 120 px" in report["inputs"][0]["failures"][0]["reason"]
    regions = ["--region", 150, 0, 9, 9, "--region", 0, 0, 40, 40]
    status, report = nuclei(capsys, image, "--out", out, *regions)
    assert (status, names(report)) == (3, ["a_x0_y0_w40_h40"])
    assert report["inputs"][0]["failures"][0]["part"] == "x150_y0_w9_h9"
    status, report = nuclei(capsys, image, "--out", out, "--region", 100, 60, 500, 500)
    assert (status, names(report)) == (0, ["a_x100_y60_w50_h60"])
    assert any("clipped to 50 x 60 px" in note for note in report["inputs"][0]["notes"])


def test_a_region_outside_a_slide_names_the_size_of_the_slide(tmp_path, capsys):
    from small_slides import write_tiff

    write_tiff(tmp_path / "s.tif", np.full((400, 700, 3), 240, np.uint8), mpp=0.5)
    command = [
        tmp_path / "s.tif",
        "--as",
        "slides",
        "--out",
        tmp_path / "out",
        "--region",
        9000,
        0,
        50,
        50,
    ]
    status, report = nuclei(capsys, *command, mpp=None)
    assert status == 1
    assert "700 x 400 px" in report["inputs"][0]["failures"][0]["reason"]


def test_a_folder_of_slides_is_done(tmp_path, capsys):
    from small_slides import write_tiff

    image, _, _ = tissue((500, 600), nuclei=60, radius=7)
    (tmp_path / "slides").mkdir()
    write_tiff(tmp_path / "slides/s.tif", image, mpp=0.5)
    os.rename(tmp_path / "slides/s.tif", tmp_path / "slides/s.svs")
    picture(tmp_path / "slides/deep/tile.png")
    status, report = nuclei(capsys, tmp_path / "slides", "--out", tmp_path / "out", mpp=None)
    assert status == 0
    assert names(report) == ["s_x0_y0", "deep/tile"]
    assert report["inputs"][0]["nuclei"] > 50
    assert report["inputs"][0]["results"][0]["mpp"] == 0.5


def test_a_slide_of_fluorescence_is_refused_with_the_reason(tmp_path, capsys):
    from small_slides import write_tiff

    image = np.zeros((600, 800, 3), np.uint8)
    image[200:400, 300:600, 2] = 120
    write_tiff(tmp_path / "s.tif", image, mpp=0.5)
    status, report = nuclei(
        capsys, tmp_path / "s.tif", "--as", "slides", "--out", tmp_path / "out", mpp=None
    )
    assert (status, statuses(report)) == (1, ["failed"])
    assert "dark background, as in fluorescence" in (tmp_path / "out/failures.csv").read_text()


def test_a_slide_has_one_stain_and_one_set_of_thresholds(tmp_path, monkeypatch, capsys):
    from small_slides import write_tiff

    from pathencoder.nuclei import regions, segment

    image, _, _ = tissue((500, 900), nuclei=120, radius=7)
    brown, _, _ = tissue((500, 200), nuclei=20, radius=7, stain="ihc", positive=1)
    write_tiff(tmp_path / "s.tif", np.concatenate([image, brown], 1), mpp=0.5)
    monkeypatch.setattr(regions, "REGION", 550)
    real, seen = segment.segment_nuclei, []
    monkeypatch.setattr(
        segment,
        "segment_nuclei",
        lambda image, **more: seen.append(more["slide"]) or real(image, **more),
    )
    command = [tmp_path / "s.tif", "--as", "slides", "--out", tmp_path / "out"]
    _, report = nuclei(capsys, *command, mpp=None)
    results = report["inputs"][0]["results"]
    assert len(results) == 2
    assert seen[0] is seen[1] is not None
    assert len({(r["stain"], r["stain_source"], r["stain_confidence"]) for r in results}) == 1
    # a field alone: as in the whole
    _, report = nuclei(capsys, *command, "--region", 900, 0, 200, 500, mpp=None)
    assert report["inputs"][0]["results"][0]["stain_confidence"] == results[0]["stain_confidence"]
    assert repr(seen[2]) == repr(seen[0])


def test_a_long_name_is_shortened(tmp_path, capsys):
    picture(tmp_path / ("ä" * 110 + ".png"))
    picture(tmp_path / ("ä" * 110 + "b.png"), seed=2)
    status, report = nuclei(capsys, tmp_path, "--out", tmp_path / "out")
    assert status == 0
    assert len(set(names(report))) == 2
    assert all(len(name.encode()) <= 180 for name in names(report))


def test_nothing_to_do_is_an_error(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert (
        run(
            [
                "nuclei",
                str(tmp_path / "empty"),
                str(tmp_path / "missing.png"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    text = capsys.readouterr().err
    assert "no images or slides in this folder" in text
    assert "no such file" in text
    assert not (tmp_path / "out").exists()


def test_a_folder_of_own_results_alone_is_an_error(tmp_path, capsys):
    image = picture(tmp_path / "a.png")
    nuclei(capsys, image, "--out", tmp_path)
    picture(tmp_path / "b.overlay.png")  # not ours: there are no outlines with it
    report = nuclei(capsys, tmp_path, "--out", tmp_path)[1]
    assert names(report) == ["a", "b.overlay"]
    assert any("2 label maps and overlays" in left["reason"] for left in report["left_out"])
    for path in (image, tmp_path / "b.overlay.png"):
        path.unlink()
    assert run(["nuclei", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "only results of an earlier run" in capsys.readouterr().err


def test_an_image_that_makes_any_error_fails_alone(tmp_path, monkeypatch, capsys):
    from pathencoder.nuclei import segment

    for name in "abc":
        picture(tmp_path / f"{name}.png", size=(60, 75 + ord(name)))
    real = segment.segment_nuclei

    def broken(image, **more):
        if image.shape[1] == 2 * (75 + ord("b")):
            raise ValueError("operands could not be broadcast")
        return real(image, **more)

    monkeypatch.setattr(segment, "segment_nuclei", broken)
    status, report = nuclei(capsys, tmp_path, "--out", tmp_path / "out")
    assert status == 3
    assert statuses(report) == ["done", "failed", "done"]
    assert "operands could not be broadcast" in (tmp_path / "out/failures.csv").read_text()


def test_an_interrupt_gives_the_summary(tmp_path, monkeypatch, capsys):
    from pathencoder.nuclei import segment

    for number, name in enumerate("abc"):
        picture(tmp_path / f"{name}.png", seed=number)
    real, calls = segment.segment_nuclei, []

    def interrupted(image, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(image, **more)

    monkeypatch.setattr(segment, "segment_nuclei", interrupted)
    status, report = nuclei(capsys, tmp_path, "--out", tmp_path / "out")
    assert status == 130
    assert statuses(report) == ["done", "stopped", "unreached"]
    assert names(report) == ["a"]
    monkeypatch.setattr(segment, "segment_nuclei", real)
    status, report = nuclei(capsys, tmp_path, "--out", tmp_path / "out")
    assert statuses(report) == ["before", "done", "done"]


def test_scales_come_from_the_table_the_command_and_the_file(tmp_path, capsys):
    image, _, _ = tissue((120, 150), nuclei=10)
    out = tmp_path / "out"
    for name in ("a.tif", "b.tif"):
        Image.fromarray(image).save(
            tmp_path / name, resolution_unit=3, x_resolution=20_000, y_resolution=20_000
        )
    picture(tmp_path / "c.png")
    (tmp_path / "mpp.csv").write_text("slide;mpp\nb.tif;0,4\nzzz.png;0,3\n")
    report = nuclei(capsys, tmp_path, "--mpp-csv", tmp_path / "mpp.csv", "--out", out, mpp=None)[1]
    found = [(r["mpp"], r["mpp_source"]) for i in report["inputs"] for r in i["results"]]
    assert found[0][0] == 0.5
    assert "esolution" in found[0][1]
    assert found[1] == (0.4, "--mpp-csv")
    assert found[2] == (0.25, "assumed")
    assert any("0.25 assumed" in note for note in report["inputs"][2]["notes"])
    assert "zzz.png" in report["notes"][0]
    for name, (mpp, source) in zip("abc", found, strict=True):
        assert (head(out, name)["mpp"], head(out, name)["mpp_source"]) == (mpp, source)
        assert (float(first_row(out, name)["mpp"]), first_row(out, name)["mpp_source"]) == (
            mpp,
            source,
        )


def test_images_of_one_folder_have_one_scale(tmp_path, capsys):
    for number, radius in enumerate((5, 22, 23)):  # alone: too few to say, and two guesses
        image, _, _ = tissue((500, 500), nuclei=40, radius=radius, seed=number)
        (tmp_path / "tiles").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"tiles/{number}.png")
    status, report = nuclei(capsys, tmp_path / "tiles", "--out", tmp_path / "out", mpp=None)
    found = [(r["mpp"], r["mpp_source"]) for i in report["inputs"] for r in i["results"]]
    assert status == 0
    assert len(found) == 3
    assert len(set(found)) == 1
    text = json.dumps(report)
    assert text.count("unknown") == 1
    assert found[0][1] == "size of nuclei"
    assert f"{found[0][0]:g} assumed, by the size of their nuclei" in report["notes"][0]
    alone = [
        nuclei(capsys, tmp_path / f"tiles/{n}.png", "--out", tmp_path / "alone", mpp=None)[1]
        for n in range(3)
    ]
    assert len({a["inputs"][0]["results"][0]["mpp"] for a in alone}) > 1


def test_a_stain_of_the_table_counts_where_the_scale_is_guessed(tmp_path, capsys):
    (tmp_path / "tiles").mkdir()
    for name, radius in (("a", 22), ("b", 23)):
        image, _, _ = tissue((500, 500), nuclei=40, radius=radius, seed=radius - 22)
        Image.fromarray(image).save(tmp_path / f"tiles/{name}.png")

    def found(stain, out, *more):
        table = tmp_path / f"{out}.csv"
        table.write_text(f"slide,stain\na,{stain}\nb,{stain}\n")
        command = [tmp_path / "tiles", "--slides-csv", table, "--out", tmp_path / out, *more]
        report = nuclei(capsys, *command, mpp=None)[1]
        return {(r["mpp"], r["mpp_source"]) for i in report["inputs"] for r in i["results"]}

    assert [source for _, source in found("he", "he", "--stain", "ihc")] == ["size of nuclei"]
    assert found("ihc", "ihc") == {(0.25, "assumed")}  # sizes are no evidence with DAB


def test_the_stain_and_its_confidence_are_recorded(tmp_path, capsys):
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    nuclei(capsys, image, "--out", out, "--stain", "ihc")
    row = first_row(out, "a")
    assert row["stain"] == head(out, "a")["stain"] == "ihc"
    assert row["stain_source"] == "given"
    assert 0 <= float(row["stain_confidence"]) <= 1


def test_a_scale_too_coarse_for_nuclei_is_refused_with_its_source(tmp_path, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "mpp.csv").write_text("slide,mpp\na.png,8\n")
    command = [tmp_path / "a.png", "--mpp-csv", tmp_path / "mpp.csv", "--out", tmp_path / "out"]
    status, report = nuclei(capsys, *command, mpp=None)
    assert status == 1
    assert "8 um/px (--mpp-csv)" in report["inputs"][0]["failures"][0]["reason"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes exist on Linux only")
def test_a_name_that_is_not_utf8_is_escaped(tmp_path, capsys):
    os.rename(os.fsencode(picture(tmp_path / "ok.png")), os.fsencode(tmp_path) + b"/M\xfcller.png")
    picture(tmp_path / "good.png")
    for status_now in ("done", "before"):
        status, report = nuclei(capsys, tmp_path, "--out", tmp_path / "out")
        assert status == 0
        assert names(report) == ["good", "M\\xfcller"]
        assert statuses(report) == [status_now, status_now]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "not an image"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50)), "not an image"),
        (lambda path: Image.new("RGB", (1, 1), "pink").save(path), None),
        (lambda path: Image.new("RGB", (70, 90), "white").save(path), None),
        (lambda path: Image.new("RGB", (70, 90), (120, 40, 90)).save(path), None),
        (lambda path: path.mkdir(), "no images or slides"),
    ],
    ids=["empty", "corrupt", "one pixel", "white", "one colour", "a folder"],
)
def test_strange_images_end_with_a_sentence(tmp_path, capsys, make, sentence):
    make(tmp_path / "a.png")
    status = run(
        ["nuclei", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--mpp", "0.25"]
    )
    text = capsys.readouterr()
    assert "Traceback" not in text.err + text.out
    assert "bug in pathencoder" not in text.err + text.out
    assert (status == 0) == (sentence is None)
    assert sentence is None or sentence in text.out + text.err


def test_an_output_folder_that_is_a_file_is_wrong_usage(tmp_path, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "out").write_text("")
    assert run(["nuclei", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "b.svs").write_bytes(b"no slide")
    status, report = nuclei(capsys, tmp_path, "--out", tmp_path / "out", "--dry-run")
    assert status == 3
    plans = {Path(p["input"]).name: p for p in report["inputs"]}
    assert (plans["a.png"]["results"], plans["a.png"]["mpp"]) == ("a", 0.25)
    assert "problem" in plans["b.svs"]
    assert not (tmp_path / "out").exists()


def test_a_table_gives_single_images_a_stain(tmp_path, capsys):
    for number, name in enumerate(("a", "b")):
        picture(tmp_path / f"in/{name}.png", seed=number)
    (tmp_path / "slides.csv").write_text("slide,stain\na,he\n")
    command = [tmp_path / "in", "--slides-csv", tmp_path / "slides.csv", "--stain", "ihc"]
    report = nuclei(capsys, *command, "--out", tmp_path / "out")[1]
    assert [entry["results"][0]["stain"] for entry in report["inputs"]] == ["he", "ihc"]
    assert statuses(nuclei(capsys, *command, "--out", tmp_path / "out")[1]) == ["before"] * 2
