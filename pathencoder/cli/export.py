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
@click.option("--revision", default=None, help="Revision of the encoder on the Hub.")
@json_option
@debug_option
def command(*, name: str | None, out: Path, form: str, revision: str | None, as_json: bool) -> None:
    """Write the readout of the encoder NAME (default: the bundled one) as one file.

    The file maps normalised images [N, 3, H, W] to embeddings, for any N, and for a CNN any H and
    W. It is compared with torch before it is written. `encode --runtime OUT` runs ONNX and
    OpenVINO.

    \b
    pathencoder export uni --out exported/uni
    pathencoder encode slides/*.svs --encoder uni --runtime exported/uni --out features
    pathencoder export --format torchscript --out exported/qupath
    """
    from pathencoder.runtimes.export import export
    from pathencoder.runtimes.exported import name_of

    encoder = load(name, device="cpu", revision=revision)
    made = export(encoder, out, form=form, say=lambda text: click.echo(f"{text} ...", err=True))
    file = out / name_of(made.format, made.precision)
    if as_json:
        echo_json({"file": str(file), **vars(made)})
    else:
        click.echo(_summary(made, file))


def _summary(made: Exported, file: Path) -> str:
    size = sum((file.parent / name).stat().st_size for name in made.files) / 1e6
    sides = "any size" if made.any_size else f"{made.input_size} x {made.input_size} px"
    worst = made.check["largest_relative_difference"]
    return (
        f"{file}: {made.encoder}, {made.precision}, {size:.1f} MB, any number of images of {sides};"
        f" it differs from torch by {worst:.0e} of the largest value at most. Licence of the"
        f" weights: {made.licence}"
    )
