"""The maps that `encode --pictures` draws: once, again where asked, and without a slide not."""

import pytest
import small_maps

from pathencoder.cli.slide_maps import draw_slide_maps
from pathencoder.errors import SlideError
from pathencoder.pictures import ground


@pytest.fixture
def slide(tmp_path, monkeypatch):
    made = small_maps.slide(tmp_path / "slide.svs")
    monkeypatch.setattr(ground, "open_slide", lambda path: made)
    return made


def test_maps_are_drawn_once_and_again_where_the_features_are_new(tmp_path, slide):
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    drawn = [tmp_path / "pictures" / kind / "slide.jpg" for kind in ("pca", "clusters")]
    assert draw_slide_maps(file, slide.path, tmp_path / "pictures", anew=False) == []
    assert all(picture.stat().st_size > 10_000 for picture in drawn)
    drawn[0].write_bytes(b"of the user")
    drawn[1].unlink()
    draw_slide_maps(file, slide.path, tmp_path / "pictures", anew=False)
    assert drawn[0].read_bytes() == b"of the user"
    assert drawn[1].exists()
    draw_slide_maps(file, slide.path, tmp_path / "pictures", anew=True)
    assert drawn[0].stat().st_size > 10_000


def test_a_slide_that_cannot_be_read_again_is_a_note(tmp_path, slide, monkeypatch):
    def gone(path):
        raise SlideError(f"{path}: gone")

    monkeypatch.setattr(ground, "open_slide", gone)
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    assert draw_slide_maps(file, slide.path, tmp_path / "pictures", anew=False) == [
        f"no maps of its features: {slide.path}: gone"
    ]
    assert not (tmp_path / "pictures").exists()
