"""TIFFs that OpenSlide does not read, as scanners and converters write them."""

import io

import numpy as np
from PIL import Image
from tiff_headers import page, tiff


def write_subifds(path, pixels, *, levels=(1, 2, 4), tile=128, mpp=0.5):
    """An OME-TIFF whose smaller levels lie in SubIFDs."""
    import tifffile

    image = Image.fromarray(pixels)
    options = {"tile": (tile, tile), "photometric": "rgb", "compression": "zlib"}
    metadata = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            size = (image.width // level, image.height // level)
            small = np.asarray(image.resize(size, Image.Resampling.BOX))
            file.write(small, subfiletype=1, metadata=None, **options)
    return path


def write_wrong_header(path, pixels, *, tile=256, mpp=0.5):
    """A tiled TIFF whose header says RGB and whose JPEG tiles hold YCbCr, as Bio-Formats writes."""
    height, width = pixels.shape[:2]
    data, places = bytearray(b"II*\0\0\0\0\0"), []
    for y in range(0, height, tile):
        for x in range(0, width, tile):
            piece = np.full((tile, tile, 3), 255, np.uint8)
            part = pixels[y : y + tile, x : x + tile]
            piece[: part.shape[0], : part.shape[1]] = part
            stream = io.BytesIO()
            Image.fromarray(piece).save(stream, "JPEG", quality=95, subsampling=0)
            places.append((len(data), len(stream.getvalue())))
            data += stream.getvalue()
    numbers = {258: (8, 8, 8), 259: 7, 262: 2, 277: 3, 322: tile, 323: tile}
    offsets = {324: tuple(at for at, _ in places), 325: tuple(count for _, count in places)}
    tags = page(width, height, resolution=1e4 / mpp, unit="centimeter") | numbers | offsets
    path.write_bytes(tiff(tags, front=data))
    return path
