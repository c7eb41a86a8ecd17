"""Pictures of pathencoder are known by their mark; everything else is kept."""

import pytest
from PIL import Image

from pathencoder.slides.own_picture import may_replace, notes_on, save_picture


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png"])
def test_own_pictures_may_be_replaced_and_others_not(tmp_path, name):
    file, image = tmp_path / name, Image.new("RGB", (8, 8))
    assert may_replace(file, overwrite=False)
    file.touch()
    assert may_replace(file, overwrite=False)
    save_picture(image, file)
    assert may_replace(file, overwrite=False)
    assert notes_on(file, overwrite=False) == []
    image.save(file)
    assert not may_replace(file, overwrite=False)
    assert "is kept" in notes_on(file, overwrite=False)[0]
    assert may_replace(file, overwrite=True)
    file.write_bytes(b"no picture")
    assert not may_replace(file, overwrite=False)
