"""Valid small files of every kind that the package reads: what the mutator starts from."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import small_encoders
import small_pictures
import small_slides
import tifffile
from PIL import Image
from skimage import data as pictures

SIDE = 64


def tile(index: int = 0, side: int = SIDE) -> np.ndarray:
    """A piece of a real picture (scikit-image's IHC image): uint8 [side, side, 3]."""
    y, x = 16 + 48 * (index % 8), 32 + 40 * (index % 7)
    return np.ascontiguousarray(pictures.immunohistochemistry()[y : y + side, x : x + side, :3])


def images(folder: Path) -> dict[str, Path]:
    """Image files by name: one per container and depth that is accepted, and some refused ones."""
    folder.mkdir(parents=True)
    a = tile()
    picture, grey = Image.fromarray(a), Image.fromarray(a).convert("L")
    picture.save(folder / "baseline.jpg", quality=90)
    picture.save(folder / "progressive.jpg", progressive=True, dpi=(300, 300))
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.save(folder / "rgb.png", dpi=(300, 300))
    picture.convert("P").save(folder / "palette.png", transparency=3)
    picture.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "grey16.png")
    for name in ("a.webp", "a.gif", "a.bmp", "a.ppm", "a.jp2"):
        picture.save(folder / name)
    picture.save(folder / "flat.tif")
    picture.save(folder / "lzw.tif", compression="tiff_lzw")
    planes = np.ascontiguousarray(a.transpose(2, 0, 1))
    tifffile.imwrite(folder / "planar.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(folder / "rgb16.tif", a.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(
        folder / "imagej.tif",
        np.asarray(grey),
        imagej=True,
        resolution=(2, 2),
        metadata={"unit": "um"},
    )
    tifffile.imwrite(
        folder / "ome.ome.tif",
        a,
        photometric="rgb",
        metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    tifffile.imwrite(folder / "float.tif", a.astype(np.float32) / 255, photometric="rgb")
    return {path.name: path for path in folder.iterdir()}


def slide(file: Path) -> Path:
    """A pyramidal TIFF of two levels that OpenSlide reads."""
    return small_slides.write_tiff(
        file, small_slides.section(640, 512, tissue=((64, 64, 448, 384),)), mpp=0.5
    )


def encoder(folder: Path) -> Path:
    """A small encoder's folder."""
    small_encoders.encoder("cnn").save_pretrained(folder)
    return folder


def shards(folder: Path, *, by_slide: bool) -> Path:
    """A corpus of six tiles in one tar, with a table of tiles or of slides."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "a.tar", "w") as tar:
        for i in range(6):
            content = io.BytesIO()
            Image.fromarray(tile(i, 32)).save(content, "PNG")
            member = tarfile.TarInfo(f"t{i}.png")
            member.size = len(content.getvalue())
            tar.addfile(member, io.BytesIO(content.getvalue()))
    if by_slide:
        (folder / "slides.csv").write_text(
            "slide,shard,first,tiles,split,use\ns0,a.tar,0,3,train,1\ns1,a.tar,3,3,train,1\n"
        )
    else:
        rows = "".join(f"a.tar,t{i},s{i // 3},p{i // 3},he,colon,P,train,1\n" for i in range(6))
        (folder / "manifest.csv").write_text(
            "shard,key,slide,patient,stain_class,organ,licence,split,use\n" + rows
        )
    return folder


def labels(folder: Path) -> list[tuple[str, bytes]]:
    """An image in a folder, and the files of labels that it may have: names and contents.

    Not .mat: SciPy's reader crashes on some damaged ones.
    """
    folder.mkdir(parents=True)
    numbers = small_pictures.labels()
    small_pictures.write(folder / "a.png", small_pictures.image())
    features = [
        small_pictures.feature("Polygon", [small_pictures.square(2, 2, 9)], "Tumor"),
        small_pictures.feature("MultiPolygon", [[small_pictures.square(20, 20, 9)]], "Stroma"),
        small_pictures.feature("Point", [30, 40], "Tumor", "detection"),
    ]
    areas = [[1, 1, 9, 1, 9, 9], {"size": list(numbers.shape), "counts": [5, 9, 2290]}]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 48}],
        "categories": [{"id": 1, "name": "tumour"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [areas[0]]},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": areas[1]},
            {"id": 3, "image_id": 1, "category_id": 1, "bbox": [3, 4, 5, 6]},
        ],
    }
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in small_pictures.square(2, 2, 9))
    xml = f"<Vertices>{vertices}</Vertices>"
    xml = f'<Annotations><Annotation Name="x"><Region>{xml}</Region></Annotation></Annotations>'
    return [
        ("a_mask.png", _bytes(numbers, ".png")),
        ("a_mask.tif", _bytes(numbers, ".tif")),
        ("a_mask.npy", _bytes(numbers, ".npy")),
        ("a.geojson", json.dumps({"type": "FeatureCollection", "features": features}).encode()),
        ("set.json", json.dumps(coco).encode()),
        ("a.xml", xml.encode()),
        ("a.csv", b"x,y,class\n3,4,tumour\n10.5,20,stroma\n"),
        ("set.csv", b"image,x_um,y_um,class,split\na.png,3,4,tumour,train\na.png,10,2,,train\n"),
    ]


def _bytes(numbers: np.ndarray, suffix: str) -> bytes:
    """A label map as the bytes of a file."""
    stream = io.BytesIO()
    if suffix == ".npy":
        np.save(stream, numbers)
    else:
        Image.fromarray(numbers).save(stream, format="PNG" if suffix == ".png" else "TIFF")
    return stream.getvalue()
