"""`pathencoder demo`: embed one real image and draw its features."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import debug_option, device_option, echo_json, json_option, load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathencoder.encoder import Encoder
    from pathencoder.pictures import Panel

EXAMPLE = Path(__file__).parents[1] / "example.jpg"
_POINT = (402, 92)  # DAB-positive epithelium of a crypt in the example
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_SHORTEST, _LONGEST = 360, 1024  # pixels of the longer side of what is shown


def _point(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    x, _comma, y = value.partition(",")
    if not (x.strip().isdigit() and y.strip().isdigit()):
        raise click.BadParameter("two whole numbers, X,Y in pixels of the image")
    return int(x), int(y)


def _picture(_: click.Context, __: click.Parameter, value: Path) -> Path:
    if value.suffix.lower() not in _FORMATS:
        raise click.BadParameter(
            f"{value} ends in none of {', '.join(_FORMATS)}: the suffix decides the format"
        )
    return value


@dataclass(frozen=True)
class Shown:
    """The image at the size at which it is drawn and embedded.

    Attributes:
        pixels: uint8 [H, W, 3].
        point: The point that others are compared with: x, y in `pixels`.
        mpp: Micrometres per pixel of `pixels`, if known.
        what: One line about the image.
        factor: How many times it was enlarged.
    """

    pixels: NDArray[np.uint8]
    point: tuple[int, int]
    mpp: float | None
    what: str
    factor: float


@click.command(short_help="See it work on one image.")
@click.option(
    "--image",
    "path",
    type=click.Path(path_type=Path),
    help="Your own image. Default: an image that is part of the package.",
)
@click.option(
    "--point", callback=_point, help="X,Y in pixels: the point that others are compared with."
)
@click.option(
    "--mpp",
    type=click.FloatRange(0.01, 100),
    help="Micrometres per pixel of the image, for a scale bar.",
)
@click.option("--encoder", "name", default=None, help="Name, folder or owner/repo.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_picture,
    default=Path("demo.png"),
    show_default=True,
    help="The picture; its suffix decides the format.",
)
@device_option
@json_option
@debug_option
def command(
    *,
    path: Path | None,
    point: tuple[int, int] | None,
    mpp: float | None,
    name: str | None,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Embed a real image (colon, DAB and haematoxylin) and draw its features.

    \b
    pathencoder demo
    pathencoder demo --image tile.png --mpp 0.5 --point 120,80 --out seen.png
    """
    from pathencoder.files import make_folder, whole_file
    from pathencoder.images import open_image
    from pathencoder.pictures import side_by_side

    image = example_image() if path is None else open_image(path, str(path))
    shown = _shown(image, point or (_POINT if path is None else None), mpp, path)
    encoder = load(name, device=device)
    facts = _embed(encoder, image)
    started = time.perf_counter()
    panels = _panels(encoder, shown)
    facts["picture_seconds"] = round(time.perf_counter() - started, 2)
    make_folder(out.absolute().parent)
    with whole_file(out) as temporary:
        page = side_by_side(panels, f"One image in the features of {encoder.spec.name}")
        page.save(temporary, format=_FORMATS[out.suffix.lower()])
    if as_json:
        echo_json({**facts, "picture": str(out), "enlarged": round(shown.factor, 4)})
        return
    click.echo(
        f"{facts['tiles']} tiles of {encoder.spec.input_size} px -> embeddings {facts['shape']}"
        f" {facts['dtype']}",
        nl=False,
    )
    click.echo(f" in {facts['seconds']} s on {encoder.device}; the first begins {facts['begins']}")
    if shown.factor < 1:
        height, width = shown.pixels.shape[:2]
        click.echo(
            f"For the picture the image was reduced to {width} x {height} px: crop it to see its"
            " cells"
        )
    click.echo(
        f"Picture: {out} (the image, its features as colours, and the similarity to the marked"
        " point)"
    )


def example_image() -> NDArray[np.uint8]:
    """Colon, FHL2 by DAB with a haematoxylin counterstain: uint8 [512, 512, 3].

    It is scikit-image's `data.immunohistochemistry`, from the Center for Microscopy And Molecular
    Imaging (CMMI), with no known copyright restrictions; here as JPEG.
    """
    from pathencoder.images import open_image

    return open_image(EXAMPLE, str(EXAMPLE))


def _shown(
    image: NDArray[np.uint8], point: tuple[int, int] | None, mpp: float | None, path: Path | None
) -> Shown:
    """Enlarge a small image by a whole number, or reduce a large one.

    Raises:
        ConfigError: The point lies outside the image.
    """
    import numpy as np
    from PIL import Image

    from pathencoder.pictures import check_point

    height, width = image.shape[:2]
    x, y = point or (width // 2, height // 2)
    check_point(image, x, y)
    longer = max(height, width)
    factor = float(-(-_SHORTEST // longer)) if longer < _SHORTEST else min(1.0, _LONGEST / longer)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    pixels = (
        image
        if factor == 1
        else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    )
    there = tuple(min(int((v + 0.5) * factor), n - 1) for v, n in zip((x, y), size, strict=True))
    what = "Colon, DAB (brown) and haematoxylin (blue)" if path is None else path.name
    size_said = (
        "" if factor == 1 else f" ({'enlarged' if factor > 1 else 'reduced'}, {100 * factor:.3g} %)"
    )
    return Shown(
        pixels,
        (there[0], there[1]),
        None if mpp is None else mpp / factor,
        what + size_said,
        factor,
    )


def _embed(encoder: Encoder, image: NDArray[np.uint8]) -> dict[str, Any]:
    """The four quarters of the image as tiles, embedded as a user would."""
    height, width = max(1, image.shape[0] // 2), max(1, image.shape[1] // 2)
    tiles = [
        image[y : y + height, x : x + width]
        for y in (0, image.shape[0] - height)
        for x in (0, image.shape[1] - width)
    ]
    encoder.encode(tiles, progress=False)  # the first call of a process also chooses kernels
    started = time.perf_counter()
    rows = encoder.encode(tiles, progress=False)
    return {
        "encoder": encoder.spec.name,
        "tiles": len(tiles),
        "shape": list(rows.shape),
        "dtype": str(rows.dtype),
        "seconds": round(time.perf_counter() - started, 2),
        "begins": " ".join(f"{v:.3f}" for v in rows[0, :4]),
    }


def _panels(encoder: Encoder, shown: Shown) -> list[Panel]:
    from pathencoder import pictures
    from pathencoder.pictures import Panel

    image, (x, y) = shown.pixels, shown.point
    features = pictures.dense_map(encoder, image)
    cosine = pictures.likeness(features, *pictures.cell_of(features, image, x, y))
    colours, ends = pictures.likeness_colours(cosine, image)
    scaled = image if shown.mpp is None else pictures.with_scale_bar(image, shown.mpp)
    return [
        Panel(pictures.mark(scaled, x, y), "The image", shown.what),
        Panel(
            pictures.enlarge(pictures.pca_colours(features), image),
            "Its features as colours",
            "Places of one colour have similar features",
        ),
        Panel(
            pictures.mark(colours, x, y),
            "Similarity to the marked point",
            "Yellow: similar features (cosine similarity)",
            scale=ends,
        ),
    ]
