"""Instances of a DICOM slide that are missing."""

import pytest
from dicom_headers import EXPLICIT, IMPLICIT, dicom

from pathencoder.errors import SlideError
from pathencoder.slides.dicom import missing_instances
from pathencoder.slides.reader import open_slide

FULL = {"size": (1000, 600), "tile": 256, "frames": 12}
HALF = {"size": (500, 300), "tile": 256, "frames": 4, "derived": "RESAMPLED"}


def write(folder, **files):
    for name, options in files.items():
        (folder / f"{name}.dcm").write_bytes(dicom(**options))
    return folder


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_whole_slide_lacks_nothing(tmp_path, syntax):
    write(
        tmp_path, a=FULL | {"syntax": syntax}, b=HALF, c={"kind": "LABEL", "derived": "RESAMPLED"}
    )
    assert missing_instances(tmp_path) == ""
    assert missing_instances(tmp_path / "a.dcm") == ""


def test_a_slide_without_its_full_resolution_is_refused(tmp_path):
    """Else the next level would pass for level 0."""
    write(
        tmp_path, b=HALF, c=HALF | {"size": (250, 150), "frames": 1}, other=FULL | {"series": "7"}
    )
    assert "full resolution is missing" in missing_instances(tmp_path / "b.dcm")
    with pytest.raises(SlideError, match=r"all 2 instances of series 1\.2\.3 .*500 x 300 px"):
        open_slide(tmp_path / "b.dcm")


def test_a_missing_part_of_a_split_image_is_named(tmp_path):
    parts = {f"p{i}": FULL | {"frames": 3, "part": ("1.7", i, 4)} for i in (1, 2, 4)}
    write(tmp_path, **parts, half=HALF)
    assert "instance 3 of 4 is missing" in missing_instances(tmp_path)
    assert "ConcatenationUID 1.7" in missing_instances(tmp_path)
    write(tmp_path, p3=FULL | {"frames": 3, "part": ("1.7", 3, 4)})
    assert missing_instances(tmp_path) == ""


def test_missing_tiles_are_counted(tmp_path):
    write(tmp_path, a=FULL | {"frames": 11})
    assert "a.dcm holds 11 of 12 tiles" in missing_instances(tmp_path)


@pytest.mark.parametrize("frames", ["x", "-1", ""])
def test_a_damaged_number_says_nothing(tmp_path, frames):
    write(tmp_path, a=FULL | {"frames": frames})
    assert missing_instances(tmp_path) == ""
