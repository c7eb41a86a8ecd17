"""`pathencoder picture` with a slide head: the attention lies on the tissue that it is of."""

import numpy as np
import pytest
import small_bags
import small_maps
from PIL import Image

from pathencoder.cli.main import run
from pathencoder.pictures import ground

BLUE = list(small_maps.KINDS).index("blue")


@pytest.fixture
def slide(tmp_path, monkeypatch):
    made = small_maps.slide(tmp_path / "slide.svs")
    monkeypatch.setattr(ground, "open_slide", lambda path: made)
    return made


@pytest.fixture
def head(tmp_path):
    """A head that attends to the blue tissue."""
    _, kinds = small_maps.corners()
    rows = small_maps.rows(kinds)
    centre = rows[kinds == BLUE].mean(0) - 3.0
    unit = centre / np.linalg.norm(centre)
    made = small_bags.head_that_attends(unit, np.linalg.norm(centre) / 2, 3.0)
    made.save(tmp_path / "head")
    return tmp_path / "head"


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("kind", ["attention", "scores"])
def test_the_map_lies_on_the_tissue_to_one_pixel(tmp_path, slide, head, kind, capsys):
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    out = tmp_path / "map.png"
    line = ["picture", str(file), "--kind", kind, "--head", str(head), "--out", str(out)]
    assert run([*line, *(["--label", "tumour"] if kind == "scores" else [])]) == 0
    assert "the head predicts tumour" in capsys.readouterr().err
    picture = np.asarray(Image.open(out)).astype(int)
    middle = picture.shape[1] // 2
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    panel = slice(104, 104 + small_maps.HEIGHT)  # without the colour scale below
    tissue = (blue - red > 50) & (blue > 140)  # blue, and not the green of the outline
    seen = box_of(tissue[panel, :middle])
    drawn = box_of(((red > 150) & (green > 130) & (blue < 90))[panel, middle:])  # yellow
    assert abs(drawn[1] - seen[1]) <= 1
    assert abs(drawn[3] - seen[3]) <= 1
    assert abs((drawn[2] - drawn[0]) - (seen[2] - seen[0])) <= 1
    # both panels begin after a gap, and are as wide
    assert abs(drawn[0] + middle - seen[0] - (middle - 12)) <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kind", "attention"], "--kind attention needs --head"),
        (["--head", "HEAD"], "--kind pca is of the features alone"),
        (["--kind", "attention", "--head", "HEAD", "--label", "x"], "--label is for --kind scores"),
        (["--kind", "scores", "--head", "HEAD", "--label", "x"], "the head knows normal, tumour"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, slide, head, options, words, capsys):
    file = small_maps.feature_file(tmp_path, made_from=slide.path)
    options = [str(head) if option == "HEAD" else option for option in options]
    assert run(["picture", str(file), *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_features_of_another_encoder(tmp_path, slide, head, capsys):
    file = small_maps.feature_file(tmp_path, recipe={"sha256": "34" * 32})
    assert run(["picture", str(file), "--kind", "attention", "--head", str(head)]) == 1
    assert "the head was fitted on those of small" in capsys.readouterr().err
