"""`pathencoder export`: an encoder as one file for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import FilledPath, debug_option, echo_json, json_option, load

if TYPE_CHECKING:
    from pathencoder.runtimes.exported import Exported

_FORMATS = ("onnx", "openvino", "torch-export", "torchscript")


@click.command(short_help="Write an encoder as ONNX, OpenVINO or TorchScript.")
@click.argument("name", required=False)
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the file and its JSON. In the encoder's own folder `encode` finds it.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="onnx",
    show_default=True,
    help="Of the file.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="int8 is faster, and changes the numbers: the loss is measured and printed.",
)
@click.option(
    "--calibrate",
    type=FilledPath(path_type=Path, exists=True, file_okay=False),
    help="Folder of tiles, for int8: of every kind of tissue and stain that it will be used on.",
)
@click.option(
    "--tiles",
    "most",
    type=click.IntRange(24),
    default=300,
    show_default=True,
    help="How many of them; every fourth is kept back to measure the loss.",
)
@click.option("--revision", default=None, help="Revision of the encoder on the Hub.")
@json_option
@debug_option
def command(
    *,
    name: str | None,
    out: Path,
    form: str,
    precision: str,
    calibrate: Path | None,
    most: int,
    revision: str | None,
    as_json: bool,
) -> None:
    """Write the readout of the encoder NAME (default: the bundled one) as one file.

    The file maps normalised images [N, 3, H, W] to embeddings, for any N, and for a CNN any H and
    W. It is compared with torch before it is written. `encode --runtime OUT` runs ONNX and
    OpenVINO. In int8, ONNX is the faster format for a CNN, OpenVINO for a ViT.

    \b
    pathencoder export uni --out exported/uni
    pathencoder encode slides/*.svs --encoder uni --runtime exported/uni --out features
    pathencoder export --format torchscript --out exported/qupath
    pathencoder export --precision int8 --calibrate tiles/ --out exported/tiny
    pathencoder encode tiles/ --precision int8 --runtime exported/tiny --out features
    """
    from pathencoder.runtimes.calibration import tiles_of
    from pathencoder.runtimes.export import export
    from pathencoder.runtimes.exported import name_of

    if precision == "int8" and calibrate is None:
        raise click.UsageError("--precision int8 needs tiles to calibrate on: --calibrate FOLDER")
    if precision != "int8" and calibrate is not None:
        raise click.UsageError("--calibrate is for int8: add --precision int8, or leave it out")

    def say(text: str) -> None:
        click.echo(f"{text} ...", err=True)

    encoder = load(name, device="cpu", revision=revision)
    tiles = [] if calibrate is None else tiles_of(calibrate, encoder.spec, most, say)
    made = export(encoder, out, form=form, precision=precision, tiles=tiles, say=say)
    file = out / name_of(made.format, made.precision)
    if as_json:
        echo_json({"file": str(file), **vars(made)})
    else:
        click.echo(_summary(made, file))


def _summary(made: Exported, file: Path) -> str:
    size = sum((file.parent / name).stat().st_size for name in made.files) / 1e6
    sides = "any size" if made.any_size else f"{made.input_size} x {made.input_size} px"
    lines = [
        f"{file}: {made.encoder}, {made.precision}, {size:.1f} MB, any number of images of {sides}",
        f"licence of the weights: {made.licence}",
    ]
    loss = made.calibration
    if loss is None:
        worst = made.check["largest_relative_difference"]
        lines.append(f"it differs from torch by {worst:.0e} of the largest value at most")
        return "\n".join([*lines, *_next(made, file)])
    mean, smallest = loss["mean_centred_cosine"], loss["smallest_centred_cosine"]
    lines.append(
        f"loss on {loss['held_out_tiles']} tiles that were held out: cosine with fp32, after the"
        f" mean was subtracted, {mean:.3f} on average, {smallest:.3f} at worst"
    )
    if made.shortfall:
        lines.append(
            f"that is too much (the mean is below {loss['acceptable_from']}): use fp32, or the"
            " other --format"
        )
    return "\n".join([*lines, *_next(made, file)])


def _next(made: Exported, file: Path) -> list[str]:
    """The options of `encode` that use the file."""
    if made.format not in ("onnx", "openvino"):
        return []
    precision = "" if made.precision == "fp32" else f"--precision {made.precision} "
    return [f"to use it: pathencoder encode ... {precision}--runtime {file.parent}"]
