"""Training sees the pixels that encode sees: orientation, alpha, depth, inks, palettes."""

import numpy as np
import pytest
from PIL import Image

from pathencoder.images import open_image
from training.data.corpus import open_corpus

pytestmark = pytest.mark.full


def test_a_tile_opens_as_encode_opens_it(tmp_path):
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (40, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    rgb.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(rng.integers(0, 255, (40, 32), dtype=np.uint8)))
    alpha.save(tmp_path / "alpha.png")
    rgb.quantize(16).save(tmp_path / "palette.png")
    rgb.convert("L").save(tmp_path / "grey.png")
    grey16 = rng.integers(0, 65535, (40, 32), dtype=np.uint16)
    Image.fromarray(grey16).save(tmp_path / "deep.png")
    rgb.save(tmp_path / "plain.webp", lossless=True)
    rgb.convert("CMYK").save(tmp_path / "inks.tif")
    corpus = open_corpus(tmp_path)
    assert len(corpus) == 7
    for index in range(len(corpus)):
        expected = open_image(tmp_path / corpus.tiles.key(index))
        np.testing.assert_array_equal(corpus.read(index), expected)
    turned = next(i for i in range(7) if corpus.tiles.key(i) == "turned.jpg")
    assert corpus.read(turned).shape == (32, 40, 3)
