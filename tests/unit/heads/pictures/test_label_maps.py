"""Files of label maps: types, channels, arrays."""

import numpy as np
import pytest
import small_pictures as small
from PIL import Image

from pathencoder.errors import ImageError
from pathencoder.heads.data.label_maps import LabelMap, read_label_map

pytestmark = pytest.mark.full


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
def test_integers_of_any_type_are_the_same(tmp_path, kind):
    file = small.write(tmp_path / "a.tif", small.labels().astype(kind))
    assert np.array_equal(read_label_map(file), small.labels())


def test_grey_pictures_with_three_channels_and_palettes(tmp_path):
    grey = small.labels().astype(np.uint8)
    file = small.write(tmp_path / "a.png", np.stack([grey] * 3 + [np.full_like(grey, 255)], -1))
    assert np.array_equal(read_label_map(file), grey)
    palette = Image.fromarray(grey)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_label_map(tmp_path / "p.png"), grey)
    Image.fromarray(grey > 0).save(tmp_path / "b.png")
    assert read_label_map(tmp_path / "b.png").max() == 1


def test_pictures_with_colours_are_refused(tmp_path):
    file = small.write(tmp_path / "a.png", small.image())
    with pytest.raises(ImageError, match="a picture with colours"):
        read_label_map(file)


def test_large_numbers_are_made_small(tmp_path):
    packed = small.labels().astype(np.int64) << 40
    found = read_label_map(small.write(tmp_path / "a.npy", packed))
    assert np.array_equal(found, small.labels())


def test_arrays_of_other_shapes(tmp_path):
    both = np.stack([small.labels(), small.labels() > 0], -1)
    assert np.array_equal(read_label_map(small.write(tmp_path / "a.npy", both)), small.labels())
    with pytest.raises(ImageError, match=r"an array of shape \[2, 3, 4, 5\]"):
        read_label_map(small.write(tmp_path / "b.npy", np.zeros((2, 3, 4, 5))))
    np.save(tmp_path / "c.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ImageError, match="cannot be read"):
        read_label_map(tmp_path / "c.npy")


@pytest.mark.parametrize(("kind", "value"), [(np.uint8, 1), (np.uint8, 255), (bool, True)])
def test_a_channel_for_the_background_is_no_map(tmp_path, kind, value):
    mask = small.labels() > 0
    both = (np.stack([~mask, mask], -1) * value).astype(kind)
    with pytest.raises(ImageError, match=r"two channels .*save mask\.argmax\(-1\)"):
        read_label_map(small.write(tmp_path / "a.npy", both))
    kinds = np.stack([small.labels(), mask], -1)  # of HoVer-Net: objects, then their classes
    for made in (kinds, np.zeros_like(kinds)):
        found = read_label_map(small.write(tmp_path / "a.npy", made))
        assert np.array_equal(found, made[..., 0])


def test_maps_of_hovernet(tmp_path):
    from scipy.io import savemat

    content = {
        "inst_map": small.labels().astype(float),
        "type_map": (small.labels() > 0) * 1.0,
        "inst_type": [[2], [1], [2]],
        "inst_centroid": np.array([disk[:2] for disk in small.DISKS], float),
    }
    savemat(tmp_path / "a.mat", content)
    assert np.array_equal(read_label_map(tmp_path / "a.mat"), small.labels())
    marks = LabelMap(tmp_path / "a.mat").read(0.25)
    assert marks.points.tolist() == [list(disk[:2]) for disk in small.DISKS]
    assert list(marks.names) == ["2", "1", "2"]
    savemat(tmp_path / "b.mat", {"one": np.ones((9, 9)), "two": np.ones((9, 9))})
    with pytest.raises(ImageError, match=r"no variable inst_map.*\(one, two\)"):
        read_label_map(tmp_path / "b.mat")


def test_damage_and_absence_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ImageError, match=r"label map .*a\.png cannot be read"):
        read_label_map(tmp_path / "a.png")
    for name in ("b.png", "b.npy", "b.mat"):
        with pytest.raises(ImageError, match=f"{name}: no such file"):
            read_label_map(tmp_path / name)
