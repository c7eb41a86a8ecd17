"""Fields of several scanners."""

import numpy as np
import pytest
from PIL import Image

from training.evaluation.whole import places

pytestmark = pytest.mark.full


def test_the_scans_of_one_field_are_read_without_those_of_the_other(tmp_path):
    assert places.open_scans(tmp_path) == []
    folder = tmp_path / "slides" / "thumbnails" / "five_scanners_SCC"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    (scans,) = places.open_scans(tmp_path)
    assert scans.row.name == "five_scanners"
    assert scans.count == len(scans.fields()) == 2
