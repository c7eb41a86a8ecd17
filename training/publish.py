"""Publish the encoder of a run on the Hugging Face Hub, with a card that others can check.

python -m training.publish RUN[@STEP] --repo OWNER/NAME --tag v1.0

RUN is a run's folder, STEP a step with a checkpoint (default: the newest). The encoder is exported
from the checkpoint and compared with it, the card is written from the figures, the difference to
what the repository holds is shown, and after a yes everything is uploaded in one commit. With
--dry-run, only the folder is written.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from pathencoder.errors import PathEncoderError
from training.export import named
from training.publishing import shared_options
from training.publishing.push import Target, difference, publish
from training.publishing.release import Wanted, write_release


@click.command(help=__doc__)
@click.argument("run", metavar="RUN[@STEP]")
@shared_options.average()
@click.option("--repo", required=True, help="The repository, OWNER/NAME.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path),
    help="The JSON of `training.evaluate all`. Default: RUN/evaluation/evaluation.json.",
)
@shared_options.row()
@shared_options.overlap()
@shared_options.note()
@click.option("--branch", help="Branch to commit to. Default: main.")
@click.option("--tag", help="Tag of the commit, a version: v1.0. A tag never changes its files.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--token", envvar="HF_TOKEN", help="Of the Hub. Default: `hf auth login`.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to write. Default: RUN/release."
)
@click.option("--dry-run", is_flag=True, help="Write the folder only; no network.")
@click.option(
    "--with-onnx",
    is_flag=True,
    help="Add model.onnx, which `encode` runs on a CPU: as large as fp32 weights.",
)
@click.option("--with-state", is_flag=True, help="Add the checkpoint, to train it further.")
@click.option(
    "--others",
    "other_files",
    type=click.Choice(["keep", "delete"]),
    help="Other files of the repository. Default: refuse where there are any.",
)
@click.option("--overwrite-card", is_flag=True, help="Discard edits of the card by hand.")
@click.option("--yes", is_flag=True, help="Push without asking.")
def main(
    run: str,
    repo: str,
    figures: Path | None,
    row: str | None,
    overlap: Path | None,
    note: str,
    branch: str | None,
    tag: str | None,
    token: str | None,
    out: Path | None,
    other_files: str | None,
    others: tuple[Path, ...],
    *,
    private: bool,
    dry_run: bool,
    with_onnx: bool,
    with_state: bool,
    overwrite_card: bool,
    yes: bool,
) -> None:
    """Publish a run."""
    # the client's HTTP library logs every request at INFO
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("training").setLevel(logging.INFO)
    try:
        place, step = named(run)
        wanted = Wanted(
            run=place,
            step=step,
            figures=figures or place / "evaluation" / "evaluation.json",
            row=row,
            repo=repo,
            tag=tag,
            overlap=overlap,
            note=note,
            with_onnx=with_onnx,
            with_state=with_state,
            overwrite_card=overwrite_card,
            others=others,
        )
        folder = write_release(wanted, out or place / "release")
        click.echo(folder)
        if dry_run:
            return
        target = Target(repo, branch, tag, token, private or None)
        found = difference(folder, target, overwrite_card=overwrite_card)
        click.echo("\n".join([f"{repo}: {branch or 'main'}", *found.lines(others=other_files)]))
        if not yes:
            click.confirm(f"Push to {repo}?", abort=True)
        message = f"{repo.rpartition('/')[2]} {tag or ''}".strip()
        click.echo(publish(folder, target, found, others=other_files, message=message))
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
