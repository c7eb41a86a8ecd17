"""The `heads` command of training.evaluate: dense heads fitted on an encoder, and their scores.

Every fit is kept as a line of a file, so that a run that stops goes on with the next fit; the state
of the one that was interrupted is kept beside that file.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from pathencoder import allocator
from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder, whole_file
from pathencoder.heads.dense import model as dense
from pathencoder.heads.dense import tune
from pathencoder.heads.dense.cells import CellClasses, CellOptions
from pathencoder.heads.dense.options import PRECISIONS
from pathencoder.heads.dense.smp import DECODERS, OURS
from pathencoder.heads.dense.tasks import TASKS
from pathencoder.heads.dense.train import EVERY, Training
from training.evaluation import head_sets, shared_options
from training.evaluation.annotations import Picture
from training.evaluation.encoders import Subject, networks
from training.evaluation.head_sets import SETS, CellLabels, HeadSet, Pair
from training.evaluation.over_seeds import over_seeds

log = logging.getLogger("training")

_TRAINING = Training()


@click.command(name="heads", help=__doc__)
@click.argument("names", nargs=-1, required=True)
@shared_options.data_folder("Folder with nuclei/.")
@shared_options.results_file("runs/heads.jsonl")
@shared_options.chosen_sets(",".join(SETS))
@shared_options.cross_validated()
@click.option(
    "--folds", default=head_sets.FOLDS, show_default=True, help="Stop after so many folds of a set."
)
@shared_options.seeds("Fits of each encoder and set.")
@click.option("--steps", default=_TRAINING.steps, show_default=True, help="Of a fit.")
@click.option("--frozen", is_flag=True, help="Train the decoder alone.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Of a fit.",
)
@click.option(
    "--views",
    type=click.Choice(["1", "4", "8"]),
    multiple=True,
    default=["1"],
    show_default=True,
    help="Views that are averaged when an image is read; several read the same fit.",
)
@click.option(
    "--decoder",
    type=click.Choice(DECODERS),
    default=OURS,
    show_default=True,
    help="Of the head; the others are those of segmentation-models-pytorch.",
)
@click.option("--stain-maps", is_flag=True, help="Add the stain maps of the label-free nuclei.")
@click.option(
    "--apart",
    is_flag=True,
    help="Leave out train images of patients that are in the test part too (GlaS, BRCA-M2C).",
)
def heads(
    names: tuple[str, ...],
    data: Path,
    results: Path,
    chosen: str,
    cv: bool,  # noqa: FBT001
    folds: int,
    seeds: int,
    steps: int,
    frozen: bool,  # noqa: FBT001
    precision: str,
    views: tuple[str, ...],
    decoder: str,
    stain_maps: bool,  # noqa: FBT001
    apart: bool,  # noqa: FBT001
) -> None:
    """Fit and score dense heads."""
    rate = 0.0 if frozen else _TRAINING.encoder_lr
    how = dataclasses.replace(_TRAINING, steps=steps, encoder_lr=rate, precision=precision)
    if cv and apart:
        raise click.UsageError("--apart is about test parts, which --cv leaves unread")
    allocator.keep_freed_memory()
    try:
        sets = _chosen(chosen.split(","))
        subjects = [x for runs in networks(names).values() for x in runs]
        make_folder(results.parent)
        for s in sets:
            rows = head_sets.rows_of(s, data, choose=cv)
            for subject in subjects:
                for seed in range(seeds):
                    setting = dataclasses.replace(how, seed=seed)
                    plan = _Plan(
                        cv, folds, stain_maps, tuple(sorted({*map(int, views)})), apart, decoder
                    )
                    _fits(subject, s, rows, setting, results, plan)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(read(results)))


@dataclass(frozen=True)
class _Plan:
    """What is fitted of a set.

    Attributes:
        choose: Folds inside its train part.
        folds: How many at most.
        stain_maps: They are beside the images.
        views: Views of an image that are averaged; a line for each.
        apart: Without train images of patients that are in the test part.
        decoder: Of the head.
    """

    choose: bool
    folds: int
    stain_maps: bool
    views: tuple[int, ...]
    apart: bool
    decoder: str


def _chosen(names: Sequence[str]) -> list[HeadSet]:
    if unknown := [name for name in names if name not in SETS]:
        raise ConfigError(f"no set {', '.join(unknown)}: the sets are {', '.join(SETS)}")
    return [SETS[name] for name in names]


def _fits(
    subject: Subject,
    s: HeadSet,
    rows: Sequence[Picture],
    how: Training,
    results: Path,
    plan: _Plan,
) -> None:
    """Fit and score every fold that is not in the results yet."""
    done = [line["key"] for line in read(results)]
    if how.precision == "auto":  # a fit of another machine's precision is not repeated
        done = [_any_precision(key) for key in done]
    device = how.on(subject.encoder.device)
    parts = head_sets.folds_of(s, rows, choose=plan.choose, apart=plan.apart)
    for fold, (fit_on, score_on) in enumerate(itertools.islice(parts, plan.folds)):
        missing = [v for v in plan.views if _key(subject, s, how, plan, fold, v) not in done]
        if not missing:
            continue
        log.info("%s on %s, seed %d, fold %d", subject.name, s.name, how.seed, fold)
        key = _key(subject, s, device, plan, fold, 1)
        unfinished = _Unfinished(results.with_suffix(".fit.pt"), key)
        images = [head_sets.labelled(s, rows[i]) for i in fit_on]
        fitted = dense.fit(
            subject.encoder,
            TASKS[s.task],
            images,
            device,
            stain_maps=plan.stain_maps,
            decoder=plan.decoder,
            progress=unfinished.progress,
            checkpoint=unfinished.checkpoint,
        )
        cells = _cells(subject, s, images, how.seed)
        seconds = unfinished.seconds()
        for views in missing:
            pairs = [_pair(fitted, cells, s, rows[i], views) for i in score_on]
            line = {
                "key": _key(subject, s, device, plan, fold, views),
                "scores": head_sets.scores(s, pairs),
                "sizes": fitted.sizes,
                "images": len(pairs),
                "cpu_seconds": round(seconds),
            }
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        unfinished.remove()


class _Unfinished:
    """A fit that may be interrupted: its checkpoint, and the time of the steps that it holds.

    Args:
        checkpoint: The file of the checkpoint.
        key: What the fit is known by.
    """

    def __init__(self, checkpoint: Path, key: dict[str, Any]) -> None:
        self.checkpoint, self._key = checkpoint, key
        self._file = checkpoint.with_suffix(".json")
        self._began = time.process_time()
        self._before = self._read()

    def progress(self, step: int, loss: float) -> None:
        """After each step; the checkpoint of every 50th is written before."""
        if step == 0:  # nothing was taken from the checkpoint
            self._before = 0.0
        if step % 100 == 99:
            log.info("step %d: loss %.3f", step + 1, loss)
        if step % EVERY == EVERY - 1:
            with whole_file(self._file) as temporary:
                content = {"key": self._key, "seconds": self.seconds()}
                temporary.write_text(json.dumps(content), encoding="utf-8")

    def seconds(self) -> float:
        """CPU time so far, with that of the processes before."""
        return self._before + time.process_time() - self._began

    def remove(self) -> None:
        """Delete the files: the fit is in the results."""
        for file in (self.checkpoint, self._file):
            file.unlink(missing_ok=True)

    def _read(self) -> float:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return float(content["seconds"]) if content["key"] == self._key else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0


def _key(
    subject: Subject, s: HeadSet, how: Training, plan: _Plan, fold: int, views: int
) -> dict[str, Any]:
    """What a line of the results is known by."""
    key = {
        "set": s.name,
        "encoder": subject.name,
        "fingerprint": subject.fingerprint[:16],
        "part": "folds" if plan.choose or not s.test else s.test,
        "fold": fold,
        "stain_maps": plan.stain_maps,
        "training": json.loads(json.dumps(dataclasses.asdict(how))),
    }
    if views > 1:  # lines of one view are older than the option
        key["views"] = views
    if plan.apart and s.test:
        key["apart"] = True
    if plan.decoder != OURS:
        key["decoder"] = plan.decoder
    if TASKS[s.task].tune:
        key["peak_step"] = tune.STEP
        key["smoothing_um"] = list(tune.SMOOTHING_UM)
    return key


def _any_precision(key: dict[str, Any]) -> dict[str, Any]:
    return key | {"training": key["training"] | {"precision": "auto"}}


def _cells(
    subject: Subject, s: HeadSet, images: Sequence[dense.Labelled], seed: int
) -> CellClasses | None:
    """The classes of points, by crops and the encoder as it was; None where none are known."""
    if not s.classes:
        return None
    known = {number for x in images if x.classes is not None for number in x.classes.tolist()}
    if len(known - {-1}) < 2:
        log.warning("%s: fewer than two classes of points are known: none are fitted", s.name)
        return None
    return CellClasses.fit(subject.encoder, images, CellOptions(seed=seed))


def _pair(
    fitted: dense.DenseModel, cells: CellClasses | None, s: HeadSet, row: Picture, views: int
) -> Pair:
    x = head_sets.labelled(s, row)
    found = fitted.predict(x.image, x.mpp, stain=s.stain, views=views)
    if cells is None or x.classes is None:
        return Pair(x.truth, found, x.mpp)
    true = ["" if number < 0 else x.names[number] for number in x.classes]
    points = (np.asarray(p, np.float64) for p in (x.truth, found))
    given, at_found = (cells.predict(x.image, p, x.mpp)[0] for p in points)
    return Pair(x.truth, found, x.mpp, CellLabels(true, given, at_found))


def read(results: Path) -> list[dict[str, Any]]:
    """The lines of a file of results; none where it does not exist.

    A last line without its end is of a run that was killed while it wrote: it is taken out of the
    file, and its fit is repeated.

    Raises:
        ConfigError: A line is not JSON.
    """
    if not results.exists():
        return []
    whole, end, half = results.read_text(encoding="utf-8").rpartition("\n")
    if half:
        log.warning("%s ends with half a line: it is dropped, and its fit repeated", results)
        with whole_file(results) as temporary:
            temporary.write_text(whole + end, encoding="utf-8")
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise ConfigError(f"{results}, line {number} is not JSON: remove it") from error
    return found


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Mean and spread over seeds (and training runs), each the mean over folds, in Markdown."""
    groups: dict[tuple[str, ...], dict[tuple[int, str], list[dict[str, Any]]]] = {}
    for line in lines:
        key = line["key"]
        how = "adapted" if key["training"]["encoder_lr"] else "frozen"
        how += ", stain maps" if key["stain_maps"] else ""
        how += f", {key['views']} views" if "views" in key else ""
        how += f", {key['decoder']}" if "decoder" in key else ""
        if TASKS[SETS[key["set"]].task].tune and "smoothing_um" not in key:
            how += f", maps smoothed by {tune.SMOOTHING_UM[0]} um"  # as in earlier versions
            how += "" if "peak_step" in key else ", lowest peak in steps of .05"
        part = key["part"] + (", patients apart" if key.get("apart") else "")
        row = (key["set"], part, key["encoder"], f"{how}, {key['training']['steps']} steps")
        one = (key["training"]["seed"], key["fingerprint"])
        groups.setdefault(row, {}).setdefault(one, []).append(line)
    head = [
        "set",
        "part",
        "encoder",
        "fit",
        "scores, mean (sd)",
        "seeds",
        "precision",
        "core-minutes",
    ]
    shown = [_row(head), _row(["---"] * len(head))]
    for named, seeds in sorted(groups.items()):
        folds = [fold for each in seeds.values() for fold in each]
        scores = {k: [_mean(each, k) for each in seeds.values()] for k in folds[0]["scores"]}
        words = ", ".join(f"{k} {over_seeds(v)}" for k, v in scores.items())
        precisions = sorted({fold["key"]["training"]["precision"] for fold in folds})
        minutes = np.mean([fold["cpu_seconds"] / 60 for fold in folds])
        shown.append(
            _row([*named, words, str(len(seeds)), ", ".join(precisions), f"{minutes:.1f}"])
        )
    return "\n".join(shown)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(folds: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([fold["scores"][name] for fold in folds]))
