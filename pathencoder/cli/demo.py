"""`pathencoder demo`: one real image, embedded, and a picture of what the encoder sees in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import debug_option, device_option, echo_json, json_option, load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathencoder.encoder import Encoder
    from pathencoder.pictures import Panel

_POINT = (402, 92)  # DAB-positive epithelium of a crypt in scikit-image's picture


def _point(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    x, _comma, y = value.partition(",")
    if not (x.strip().isdigit() and y.strip().isdigit()):
        raise click.BadParameter("two whole numbers, X,Y in pixels of the image")
    return int(x), int(y)


@click.command(short_help="See it work on one image.")
@click.option("--image", "path", type=click.Path(path_type=Path), help="Another image; default: scikit-image's immunohistochemistry.")
@click.option("--point", callback=_point, help="X,Y in pixels: the place that others are compared with.")
@click.option("--mpp", type=click.FloatRange(0.01, 100), help="Micrometres per pixel of the image, for a scale bar.")
@click.option("--encoder", "name", default=None, help="Name, folder or owner/repo.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("demo.png"), show_default=True, help="The picture.")
@device_option
@json_option
@debug_option
def command(
    *, path: Path | None, point: tuple[int, int] | None, mpp: float | None, name: str | None, out: Path, device: str, as_json: bool
) -> None:
    """Embed a real image (colon, DAB and haematoxylin) and draw what the encoder sees in it.

    \b
    pathencoder demo
    pathencoder demo --image tile.png --mpp 0.5 --point 120,80 --out seen.png
    """
    from pathencoder.images import open_image
    from pathencoder.pictures import side_by_side
    from pathencoder.slides.files import make_folder, whole_file

    image = example_image() if path is None else open_image(path, str(path))
    encoder = load(name, device=device)
    facts = _embed(encoder, image)
    started = time.perf_counter()
    x, y = point or (_POINT if path is None else (image.shape[1] // 2, image.shape[0] // 2))
    panels = _panels(encoder, image, x, y, mpp, "Colon, DAB (brown) and haematoxylin (blue)" if path is None else path.name)
    facts["picture_seconds"] = round(time.perf_counter() - started, 2)
    make_folder(out.absolute().parent)
    with whole_file(out) as temporary:
        side_by_side(panels, f"What {encoder.spec.name} sees in one image").save(temporary, format="PNG")
    if as_json:
        echo_json({**facts, "picture": str(out)})
        return
    click.echo(f"{facts['tiles']} tiles of {encoder.spec.input_size} px -> embeddings {facts['shape']} {facts['dtype']}", nl=False)
    click.echo(f" in {facts['seconds']} s on {encoder.device}; the first begins {facts['begins']}")
    click.echo(f"Picture: {out} (the image, its features as colours, and what is like the marked point)")


def example_image() -> NDArray[np.uint8]:
    """scikit-image's immunohistochemistry image: colon, FHL2 by DAB with a haematoxylin counterstain, uint8 [512, 512, 3].

    It ships with the package. Raises MissingExtra without scikit-image.
    """
    import numpy as np

    from pathencoder.errors import MissingExtra

    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtra.of("demo", "The example image (scikit-image)") from error
    return np.ascontiguousarray(data.immunohistochemistry()[..., :3])


def _embed(encoder: Encoder, image: NDArray[np.uint8]) -> dict[str, Any]:
    """The four quarters of the image as tiles, embedded as a user would."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    tiles = [image[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    encoder.encode(tiles, progress=False)  # the first call of a process pays for choosing kernels
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


def _panels(encoder: Encoder, image: NDArray[np.uint8], x: int, y: int, mpp: float | None, what: str) -> list[Panel]:
    from pathencoder import pictures
    from pathencoder.pictures import Panel

    features = pictures.dense_map(encoder, image)
    cosine = pictures.likeness(features, *pictures.cell_of(features, image, x, y))
    colours, ends = pictures.likeness_colours(cosine, image)
    shown = image if mpp is None else pictures.with_scale_bar(image, mpp)
    return [
        Panel(pictures.mark(shown, x, y), "The image", what),
        Panel(
            pictures.enlarge(pictures.pca_colours(features), image),
            "Its features as colours",
            "Places of one colour look alike to the encoder",
        ),
        Panel(
            pictures.mark(colours, x, y),
            "Likeness to the marked point",
            "Yellow: the encoder finds the same tissue there (cosine of features)",
            scale=ends,
        ),
    ]
