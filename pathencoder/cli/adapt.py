"""`pathencoder adapt`: an encoder is adapted to labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import (
    Failed,
    FilledPath,
    debug_option,
    device_option,
    echo_json,
    json_option,
    load,
)
from pathencoder.cli.config_file import config_argument
from pathencoder.cli.labelled import encoder_options, groups_options, weight_option
from pathencoder.errors import StoreError
from pathencoder.heads.adapt.options import HOWS, Options
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.adapt.adapted import Adapted

_CHECKPOINT = "checkpoint"  # in --out


@click.command(short_help="Adapt an encoder to labelled images.")
@config_argument()
@click.option(
    "--how",
    type=click.Choice(HOWS),
    default="lora",
    show_default=True,
    help="Adapters beside the layers (needs the extra `lora`), the last stages, or all weights.",
)
@click.option(
    "--data",
    required=True,
    type=FilledPath(path_type=Path, exists=True),
    help="A folder per class, or a CSV with the columns path, label and, optionally, group, split.",
)
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the encoder.",
)
@encoder_options
@click.option("--label", default=None, help="CSV: the column of the classes. Default: label.")
@groups_options
@click.option(
    "--evaluate", metavar="PART", default=None, help="Held-out part to compare on: test, for one."
)
@click.option(
    "--folds",
    type=int,
    default=0,
    show_default=True,
    help="Compare on folds by group too: an adaptation for each.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0.01, 100),
    help="Micrometres per pixel of the images. Default: each is resized whole.",
)
@weight_option
@click.option("--epochs", type=int, default=Options.epochs, show_default=True, help="At most.")
@click.option(
    "--patience",
    type=int,
    default=Options.patience,
    show_default=True,
    help="Epochs without a lower loss after which it ends.",
)
@click.option(
    "--batch", type=int, default=Options.batch, show_default=True, help="Images in a step."
)
@click.option("--rate", type=float, default=None, help="Highest learning rate of the encoder.")
@click.option("--rank", type=int, default=Options.rank, show_default=True, help="For lora.")
@click.option("--stages", type=int, default=None, help="For last. Default: a third of them.")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read.")
@click.option("--no-cache", is_flag=True, help="Do not keep the frozen embeddings on disk.")
@click.option("--overwrite", is_flag=True, help="Replace an encoder that is in --out.")
@device_option
@json_option
@debug_option
def command(
    *,
    data: Path,
    out: Path,
    name: str | None,
    revision: str | None,
    label: str | None,
    groups: str | None,
    split: str | None,
    class_weight: str,
    skip_bad: bool,
    no_cache: bool,
    overwrite: bool,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Adapt an encoder to labelled images, and compare it with the frozen one.

    OUT holds an encoder that every verb takes, and its head in OUT/head. A fifth of the patients
    ends the training. The same command goes on where a run was stopped. CONFIG is a TOML file of
    these options, as for `fit`.

    \b
    pathencoder adapt --data tiles.csv --how lora --evaluate test --out my_encoder
    pathencoder fit --data others.csv --encoder my_encoder --out head
    pathencoder predict my_encoder/head new_tiles/ --out predictions
    """
    from pathencoder import allocator
    from pathencoder.cli.meter import Meter
    from pathencoder.heads.adapt import save
    from pathencoder.heads.adapt.run import adapt
    from pathencoder.heads.data.check import train_part
    from pathencoder.heads.data.read import read_dataset

    if (out / "config.json").exists() and not overwrite:
        raise click.UsageError(f"{out} holds an encoder already: --overwrite replaces it")
    save.refuse_others(out)
    Options(**{k: v for k, v in settings.items() if k not in ("mpp", "evaluate")})
    columns = {"labels": label, "splits": split}
    given = {key: value for key, value in columns.items() if value is not None}
    read = read_dataset(data, groups=groups, **given)
    train_part(read)  # before the encoder is loaded
    encoder = load(name, device=device, revision=revision)
    save.refuse_parent(out, encoder.folder)
    allocator.keep_freed_memory()
    with Meter("adapt", unit="step") as meter:
        adapted = adapt(
            encoder,
            read,
            class_weight=None if class_weight == "none" else "balanced",
            on_error="skip" if skip_bad else "raise",
            cache=not no_cache,
            checkpoint=out / _CHECKPOINT,
            progress=meter,
            **settings,
        )
    _save(adapted, out)
    _report(adapted, out, as_json=as_json)
    raise Failed(0)


def _save(adapted: Adapted, out: Path) -> None:
    try:
        adapted.save(out)
    except StoreError as error:
        raise StoreError(
            f"{error}. The training is kept in {out / _CHECKPOINT}: the same command then goes on"
            " at its end"
        ) from error


def _report(adapted: Adapted, out: Path, *, as_json: bool) -> None:
    if as_json:
        echo_json({"encoder": str(out), "report": adapted.report.to_json()})
        return
    click.echo(printable(adapted.report.text()))
    click.echo(printable(f"Encoder: {out}"))
    click.echo(printable(f"Use it: pathencoder encode IMAGES --encoder {out} --out features"))
    click.echo(printable(f"Its head: pathencoder predict {out}/head IMAGES --out predictions"))
