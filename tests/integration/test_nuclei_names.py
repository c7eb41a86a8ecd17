"""`pathencoder nuclei`: the names of its results, and that none replaces those of another input."""

import os

import numpy as np
import pytest
from nuclei_case import files, names, nuclei, picture, statuses
from synthetic_nuclei import tissue

pytestmark = pytest.mark.full

R1, R2 = ("--region", 0, 0, 60, 60), ("--region", 70, 0, 60, 60)


def test_another_image_of_the_same_name_overwrites_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    one, other = picture(tmp_path / "x/roi.png"), picture(tmp_path / "y/roi.png", seed=3)
    assert names(nuclei(capsys, one, "--out", out)[1]) == ["roi"]
    first = files(out)
    status, report = nuclei(capsys, other, "--out", out)
    assert (status, names(report)) == (0, ["roi.png"])
    assert f"roi is the name of {one} there" in report["inputs"][0]["notes"][-1]
    assert first.items() <= files(out).items()
    for again in (one, other):
        assert statuses(nuclei(capsys, again, "--out", out)[1]) == ["before"]


def test_names_do_not_depend_on_what_else_is_given(tmp_path, capsys):
    one, other = picture(tmp_path / "a/roi.png"), picture(tmp_path / "b/roi.png", seed=3)
    more = picture(tmp_path / "c/other.png", seed=4)
    alone = names(nuclei(capsys, one, "--out", tmp_path / "alone")[1])
    together = names(nuclei(capsys, one, more, other, "--out", tmp_path / "both")[1])
    assert alone == together[:1] == ["roi"]
    assert together[1:] == ["other", "roi.png"]


def test_equal_names_in_a_folder_are_kept_apart(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    for number, name in enumerate(("a.jpg", "a.png", "sub/a.png", "sub/b.ome.tif")):
        picture(data / name, seed=number)
    report = nuclei(capsys, data, "--out", out)[1]
    assert names(report) == ["a", "a.png", "sub/a", "sub/b"]
    assert (out / "sub/a.overlay.png").exists()
    assert statuses(nuclei(capsys, data, "--out", out)[1]) == ["before"] * 4


def test_files_of_other_origin_are_not_overwritten(tmp_path, capsys):
    image = picture(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("my,own\n")
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    assert names(nuclei(capsys, image, "--out", tmp_path)[1]) == ["a.png"]
    assert (tmp_path / "a.csv").read_text() == "my,own\n"


def test_regions_of_two_images_of_one_name_are_kept_apart(tmp_path, capsys):
    out = tmp_path / "out"
    one, other = picture(tmp_path / "x/roi.png"), picture(tmp_path / "y/roi.png", seed=3)
    assert names(nuclei(capsys, one, "--out", out, *R1)[1]) == ["roi_x0_y0_w60_h60"]
    _, report = nuclei(capsys, other, "--out", out, *R2)
    assert names(report) == ["roi.png_x70_y0_w60_h60"]
    assert f"roi is the name of {one} there" in report["inputs"][0]["notes"][-1]
    first = files(out)
    both = names(nuclei(capsys, one, "--out", out, *R1, *R2)[1])
    assert both == ["roi_x0_y0_w60_h60", "roi_x70_y0_w60_h60"]
    assert first.items() <= files(out).items()
    third = picture(tmp_path / "z/roi.png", seed=5)
    assert names(nuclei(capsys, third, "--out", out)[1]) == ["z/roi"]
    for image, regions in ((one, R1), (other, R2), (one, (*R1, *R2)), (third, ())):
        assert statuses(nuclei(capsys, image, "--out", out, *regions)[1]) == ["before"]


def test_a_name_that_two_images_share_already_is_left(tmp_path, capsys):
    out = tmp_path / "out"
    one, other = picture(tmp_path / "x/roi.png"), picture(tmp_path / "y/roi.png", seed=3)
    nuclei(capsys, one, "--out", out, *R1)
    nuclei(capsys, other, "--out", tmp_path / "theirs", *R2)
    for file in (tmp_path / "theirs").glob("roi*"):
        os.rename(file, out / file.name)
    first = files(out)
    assert statuses(nuclei(capsys, one, "--out", out, *R1)[1]) == ["before"]
    assert statuses(nuclei(capsys, other, "--out", out, *R2)[1]) == ["before"]
    both = names(nuclei(capsys, one, "--out", out, *R1, *R2)[1])
    assert both == ["roi.png_x0_y0_w60_h60", "roi.png_x70_y0_w60_h60"]
    assert first.items() <= files(out).items()


def test_slides_of_one_name_with_tissue_in_other_places_are_kept_apart(
    tmp_path, monkeypatch, capsys
):
    from small_slides import write_tiff

    from pathencoder.nuclei import regions

    monkeypatch.setattr(regions, "REGION", 512)
    monkeypatch.setattr(regions, "_OVERLAP", 0)
    image, _, _ = tissue((512, 512), nuclei=60, radius=7)
    glass = np.full((512, 2048, 3), 255, np.uint8)
    found = []
    for folder, pieces in (("x", [image, glass]), ("y", [glass, image])):
        (tmp_path / folder).mkdir()
        write_tiff(tmp_path / folder / "s.tif", np.concatenate(pieces, 1), mpp=0.5)
        command = [tmp_path / folder / "s.tif", "--as", "slides", "--out", tmp_path / "out"]
        found.append([name.split("_", 1) for name in names(nuclei(capsys, *command, mpp=None)[1])])
    one, other = found
    assert not {place for _, place in one} & {place for _, place in other}
    assert [{stem for stem, _ in each} for each in found] == [{"s"}, {"s.tif"}]


def test_a_tile_named_like_a_region_does_not_take_the_name_of_a_slide(tmp_path, capsys):
    picture(tmp_path / "s_x0_y0.png")
    slide, out = picture(tmp_path / "s.png", seed=3), tmp_path / "out"
    assert names(nuclei(capsys, tmp_path / "s_x0_y0.png", "--out", out)[1]) == ["s_x0_y0"]
    assert names(nuclei(capsys, slide, "--out", out, *R1)[1]) == ["s_x0_y0_w60_h60"]


def test_results_that_another_process_wrote_meanwhile_are_kept(tmp_path, monkeypatch, capsys):
    from pathencoder.cli import nuclei_run
    from pathencoder.cli.nuclei_names import Name

    out = tmp_path / "out"
    one, other = picture(tmp_path / "x/roi.png"), picture(tmp_path / "y/roi.png", seed=3)
    nuclei(capsys, one, "--out", out)
    first = files(out)
    monkeypatch.setattr(nuclei_run, "choose_name", lambda *_: Name("roi"))
    status, report = nuclei(capsys, other, "--out", out)
    assert (status, statuses(report)) == (1, ["failed"])
    assert f"results of {one} are there" in report["inputs"][0]["failures"][0]["reason"]
    assert first.items() <= files(out).items()
