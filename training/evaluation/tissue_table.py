"""The `tissue` command of training.evaluate: tissue masks against outlines drawn by hand.

Mean intersection over union of tissue, for our mask and three recipes of other tools on the same
pictures. The outlines are in training/evaluation/tissue_outlines.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from PIL import Image

from pathencoder.errors import PathEncoderError
from pathencoder.files import make_folder, whole_file
from training.evaluation import shared_options
from training.evaluation.tissue import OUTLINES, RECIPES, Drawn, Mask, iou, read_drawn
from training.files import write_text

_COLOURS = {"drawn": (0, 90, 255), "found": (0, 200, 80), "not scored": (255, 200, 0)}


@click.command(name="tissue", help=__doc__)
@shared_options.data_folder("Folder of the pictures.", "../shared/data/slides")
@click.option(
    "--half",
    type=click.Choice(["choice", "kept", "both"]),
    default="kept",
    show_default=True,
    help="Pictures for choices, or those kept for the table.",
)
@click.option(
    "--pictures", type=click.Path(path_type=Path), help="Write an overlay a picture here."
)
@shared_options.json_file()
def tissue(data: Path, half: str, pictures: Path | None, out: Path | None) -> None:
    """Compare tissue masks with outlines drawn by hand."""
    rows: list[dict[str, object]] = []
    try:
        for outlines in sorted(OUTLINES.glob("*.geojson")):
            drawn = read_drawn(outlines, data)
            if half in (drawn.half, "both"):
                masks = {name: recipe(drawn.image) for name, recipe in RECIPES.items()}
                rows.append(_row(drawn, masks))
                if pictures:
                    _overlay(make_folder(pictures) / f"{drawn.name}.png", drawn, masks)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    means = _report(rows)
    if out:
        write_text(out, json.dumps({"pictures": rows, "means": means}, indent=1) + "\n")
    click.echo(json.dumps(means))


def _row(drawn: Drawn, masks: dict[str, Mask]) -> dict[str, object]:
    """The figures of a picture: IoU, and the share of pen on glass that is taken for tissue."""
    pen = {
        name: float(m[drawn.pen].mean()) if drawn.pen.any() else None for name, m in masks.items()
    }
    return {
        "name": drawn.name,
        "half": drawn.half,
        "stain": drawn.stain,
        "iou": {name: round(iou(mask, drawn), 4) for name, mask in masks.items()},
        "pen": {name: None if v is None else round(v, 4) for name, v in pen.items()},
    }


def _report(rows: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Print the table; return the mean IoU by group of pictures and recipe."""
    click.echo(f"{'picture':52s}{'stain':6s}" + "".join(f"{name:>18s}" for name in RECIPES))
    for row in rows:
        click.echo(_line(str(row["name"]), str(row["stain"]), row["iou"]))
    means = {}
    for group in ("he", "ihc", "all"):
        found = [row["iou"] for row in rows if group in (row["stain"], "all")]
        if found:
            means[group] = {n: round(float(np.mean([f[n] for f in found])), 4) for n in RECIPES}  # type: ignore[index]
            click.echo(_line(f"mean of {len(found)}", group, means[group]))
    return means


def _line(name: str, stain: str, values: object) -> str:
    assert isinstance(values, dict)
    return f"{name[:51]:52s}{stain:6s}" + "".join(f"{values[recipe]:18.3f}" for recipe in RECIPES)


def _overlay(path: Path, drawn: Drawn, masks: dict[str, Mask]) -> None:
    """The picture with the drawn edge, our mask's edge and what is not scored."""
    image = drawn.image.copy()
    for mask, name in (
        (~drawn.scored, "not scored"),
        (_edge(masks["pathencoder"]), "found"),
        (_edge(drawn.tissue), "drawn"),
    ):
        image[mask] = (0.4 * image[mask] + 0.6 * np.asarray(_COLOURS[name])).astype(np.uint8)
    with whole_file(path) as partial:
        Image.fromarray(image).save(partial, "PNG")


def _edge(mask: Mask) -> Mask:
    """The pixels of a mask with a neighbour outside it, two pixels wide."""
    inside = np.pad(mask, 2, mode="edge")
    kept = mask.copy()
    for dy, dx in ((0, 2), (4, 2), (2, 0), (2, 4)):
        kept &= inside[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    edge: Mask = mask & ~kept
    return edge
