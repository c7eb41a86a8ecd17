"""The maps that `encode --pictures` draws: once, again where asked, and without a slide not."""

import os

import pytest
import small_maps
from PIL import Image

from pathencoder.cli.main import run
from pathencoder.cli.slide_maps import draw_slide_maps
from pathencoder.errors import SlideError
from pathencoder.pictures import ground
from pathencoder.slides.own_picture import notes_on


@pytest.fixture
def slide(tmp_path, monkeypatch):
    made = small_maps.slide(tmp_path / "slide.svs")
    monkeypatch.setattr(ground, "open_slide", lambda path: made)
    return made


def test_maps_are_drawn_once_and_again_where_the_features_are_new(tmp_path, slide):
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    drawn = [tmp_path / "pictures" / kind / "slide.jpg" for kind in ("pca", "clusters")]

    def draw(*, anew, overwrite=False):
        return draw_slide_maps(
            file, slide.path, tmp_path / "pictures", anew=anew, overwrite=overwrite
        )

    assert draw(anew=False) == []
    assert all(picture.stat().st_size > 10_000 for picture in drawn)
    os.utime(drawn[0], (0, 0))
    assert draw(anew=False) == []
    assert drawn[0].stat().st_mtime == 0
    assert draw(anew=True) == []
    assert drawn[0].stat().st_mtime > 0

    drawn[0].write_bytes(b"of the user")
    drawn[1].unlink()
    for anew in (False, True):
        assert draw(anew=anew) == notes_on(drawn[0], overwrite=False) != []
        assert drawn[0].read_bytes() == b"of the user"
        assert drawn[1].exists()
    assert draw(anew=True, overwrite=True) == []
    assert drawn[0].stat().st_size > 10_000


def test_a_slide_that_cannot_be_read_again_is_a_note(tmp_path, slide, monkeypatch):
    def gone(path):
        raise SlideError(f"{path}: gone")

    monkeypatch.setattr(ground, "open_slide", gone)
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    notes = draw_slide_maps(file, slide.path, tmp_path / "pictures", anew=False, overwrite=False)
    assert notes == [f"no maps of its features: {slide.path}: gone"]
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("more", [[], ["--only-tissue"], ["--dry-run"], ["--overwrite"]])
@pytest.mark.parametrize("place", ["pictures", "pictures/pca", "pictures/uni/clusters"])
def test_no_picture_takes_the_place_of_an_input(tmp_path, monkeypatch, capsys, place, more):
    monkeypatch.chdir(tmp_path)
    slide, other = tmp_path / place / "scan.jpg", tmp_path / "other" / "scan.jpg"
    for file in (slide, other):
        file.parent.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(file)
    before = slide.read_bytes()
    line = ["encode", str(slide.relative_to(tmp_path)), "--as", "slides", "--mpp", "0.5"]
    assert run([*line, "--out", ".", "--pictures", *more]) == 2
    assert "--pictures would replace the input" in capsys.readouterr().err
    other.unlink()
    other.hardlink_to(slide)  # another path of a picture that is an input
    line[1] = "other/scan.jpg"
    assert run([*line, "--out", ".", "--pictures", *more]) == 2
    assert slide.read_bytes() == before
