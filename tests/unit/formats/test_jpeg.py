"""A JPEG is decoded completely or refused; libjpeg silently fills missing pixels with grey."""

import io

import numpy as np
import pytest
from PIL import Image
from small_encoders import picture

from pathencoder.errors import ImageError
from pathencoder.images import decode_image, open_image

END = b"\xff\xd9"
SEQUENTIAL = [
    {"quality": 90},
    {"quality": 60, "subsampling": 0},
    {"quality": 95, "optimize": True},
    {"quality": 75, "restart_marker_rows": 1},
    {"quality": 85, "restart_marker_blocks": 3},
]


def smooth():
    """Half tissue-like, half white: a white half is common in pathology and must pass."""
    image = Image.fromarray(picture(height=24, width=24)).resize((96, 96))
    image.paste("white", (0, 48, 96, 96))
    return image


def jpeg(image=None, **how):
    buffer = io.BytesIO()
    (image or smooth()).save(buffer, "JPEG", **how)
    return buffer.getvalue()


def plain(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("how", [*SEQUENTIAL, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_whole_files_give_pillows_pixels_also_with_data_after_the_end_marker(how, mode):
    data = jpeg(smooth().convert(mode), **how)
    np.testing.assert_array_equal(decode_image(data), plain(data))
    np.testing.assert_array_equal(decode_image(data + b"\0" * 500), plain(data))
    for blank in ("white", "black"):
        decode_image(jpeg(Image.new(mode, (96, 96), blank), **how))


@pytest.mark.parametrize("how", SEQUENTIAL)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_half_a_file_with_an_end_marker_is_refused(how, part):
    data = jpeg(**how)
    start = data.index(b"\xff\xda") + 14
    half = data[: start + int(part * (len(data) - start))] + END
    assert plain(half).shape == (96, 96, 3)  # Pillow accepts it
    for damaged in (half, half + b"\0" * 500, half + data[len(half) :]):
        with pytest.raises(
            ImageError,
            match=r"^x: cannot be read.*(data end before|left over after) its last pixel",
        ):
            decode_image(damaged, "x")


def test_another_marker_inside_the_data_is_damage():
    data = jpeg()
    at = len(data) - 300
    for marker in (b"\xff\xd4", b"\xff\xc4"):
        with pytest.raises(ImageError, match=r"copy it again|broken data"):
            decode_image(data[:at] + marker + data[at + 2 :])


def test_a_progressive_file_that_lacks_scans_is_refused():
    data = jpeg(progressive=True)
    scans = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xda"]
    for cut in (scans[-1], scans[2] + 20):
        with pytest.raises(ImageError, match="lacks scans"):
            decode_image(data[:cut] + END)


def test_headers_without_image_data_are_refused():
    data = jpeg()
    with pytest.raises(ImageError):
        decode_image(data[: data.index(b"\xff\xda")] + END)


def test_opened_files_are_checked_like_paths(tmp_path):
    data = jpeg()
    (tmp_path / "half.jpg").write_bytes(data[:-400] + END)
    with pytest.raises(ImageError, match="last pixel"):
        open_image(tmp_path / "half.jpg")
    with Image.open(tmp_path / "half.jpg") as image, pytest.raises(ImageError, match="last pixel"):
        open_image(image)
    (tmp_path / "whole.jpg").write_bytes(data)
    with Image.open(tmp_path / "whole.jpg") as image:
        np.testing.assert_array_equal(open_image(image), plain(data))


def test_a_second_picture_in_the_file_is_refused_and_a_preview_is_not(tmp_path):
    image = smooth()
    image.save(tmp_path / "two.jpg", "MPO", save_all=True, append_images=[image])
    with pytest.raises(ImageError, match=r"two\.jpg.*holds 2 images"):
        open_image(tmp_path / "two.jpg")
    image.save(
        tmp_path / "preview.jpg", "MPO", save_all=True, append_images=[image.resize((24, 24))]
    )
    np.testing.assert_array_equal(open_image(tmp_path / "preview.jpg"), plain(jpeg(image)))


def test_cmyk_is_accepted_only_with_adobes_marker():
    data = jpeg(smooth().convert("CMYK"), quality=95)
    assert np.abs(decode_image(data).astype(int) - np.asarray(smooth())).mean() < 20
    at = data.index(b"\xff\xee")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    with pytest.raises(ImageError, match="CMYK without Adobe's marker"):
        decode_image(data[:at] + data[at + 2 + length :])
