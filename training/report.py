"""Draw a run: its training curves, and the nearest neighbours of a few tiles.

python -m training.report RUN [FOLDER] [--control RUN]     FOLDER exists; default: RUN

curves.png is drawn from log.jsonl; retrieval.png from the exported encoder and the run's tiles, if
both are there. With --control, the k-NN of another run, such as the same one at learning rate zero,
is drawn dashed beside that of RUN.
"""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError, PathEncoderError
from training.files import save_figure
from training.monitor.log import read_log

log = logging.getLogger("training")


@dataclass(frozen=True)
class _Panel:
    """One panel of the curves.

    Attributes:
        kind: Kind of log lines.
        name: Beginning of the names of the figures.
        title: Of the panel.
        scale: Of the y axis.
        sick: A value at which no healthy run stays, drawn as a line.
    """

    kind: str
    name: str
    title: str
    scale: str = "linear"
    sick: float | None = None


_PANELS = (
    _Panel("train", "loss", "loss"),
    _Panel("train", "lr", "learning rate of the backbone"),
    _Panel("train", "pair_cosine", "cosine of a tile's two views"),
    _Panel("train", "teacher_entropy", "teacher entropy, one tile (1 uniform, 0 certain)"),
    _Panel("train", "mean_entropy", "teacher entropy, mean over tiles", sick=0.0),
    _Panel("train", "rankme", "effective rank (RankMe) of a batch", sick=1.0),
    _Panel("train", "feature_std", "spread of a batch's features", sick=0.0),
    _Panel("knn", "rankme", "effective rank (RankMe), labelled set"),
    _Panel("knn", "knn_", "k-NN balanced accuracy, train parts"),
    _Panel("train", "grad_norm", "gradient norm", scale="log"),
    _Panel("train", "tiles_per_s", "tiles a second"),
    _Panel("train", "data_wait", "share of the time waiting for data"),
    _Panel("train", "memory_mb", "memory, MB"),
)
# Figures of a log line that are not drawn: clocks, and the step itself.
_NOT_DRAWN = ("kind", "step", "wall_s", "cpu_s", "processes")
_COLUMNS = 3


def curves(run: Path, out: Path, control: Path | None = None) -> Path:
    """Draw the figures of run/log.jsonl; alarms are dotted lines.

    Args:
        run: The run's folder.
        out: The picture to write.
        control: The folder of the same run at learning rate zero: its k-NN is drawn dashed.

    Returns:
        `out`.

    Raises:
        ConfigError: The folder has no log, or the log has no figures yet.
        StoreError: The picture cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines, beside = read_log(run), read_log(control) if control else []
    every = (*_PANELS, *_others(lines))
    panels = [p for p in every if any(_points(lines, p.kind, key) for key in _keys(lines, p))]
    if not panels:
        raise ConfigError(
            f"{run / 'log.jsonl'} holds no figures yet: wait for the run's first log line"
        )
    rows = -(-len(panels) // _COLUMNS)
    figure, axes = pyplot.subplots(
        rows, _COLUMNS, figsize=(4.2 * _COLUMNS, 2.4 * rows), squeeze=False, constrained_layout=True
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw(axis, panel, lines, beside)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    alarms = list(dict.fromkeys(line["alarm"] for line in lines if line["kind"] == "alarm"))
    figure.suptitle(
        run.name + (f"   alarms (dotted): {', '.join(alarms)}" if alarms else ""), fontsize=10
    )
    save_figure(figure, out, dpi=90)
    pyplot.close(figure)
    return out


def _others(lines: list[dict[str, Any]]) -> list[_Panel]:
    """A panel for each other number of the training lines: the terms of the method's loss."""
    named = tuple(p.name for p in _PANELS if p.kind == "train")
    found = {
        key: _Panel("train", key, key.replace("_", " "))
        for line in lines
        if line["kind"] == "train"
        for key, value in line.items()
        if isinstance(value, int | float) and key not in _NOT_DRAWN and not key.startswith(named)
    }
    return list(found.values())


def _draw(
    axis: Any, panel: _Panel, lines: list[dict[str, Any]], control: list[dict[str, Any]]
) -> None:
    for key in _keys(lines, panel):
        points = _points(lines, panel.kind, key)
        (line,) = axis.plot(
            *zip(*points, strict=True),
            marker="o" if len(points) < 12 else None,
            markersize=3,
            linewidth=1.2,
            label=key.removeprefix("knn_"),
        )
        beside = _points(control, panel.kind, key) if panel.kind == "knn" else []
        if beside:
            label = f"{line.get_label()}, control at rate 0"
            axis.plot(
                *zip(*beside, strict=True), "--", color=line.get_color(), linewidth=1, label=label
            )
    if panel.sick is not None:
        axis.axhline(panel.sick, color="tab:red", linewidth=0.6)
    for entry in lines:
        if entry["kind"] == "alarm":
            axis.axvline(entry["step"], color="tab:red", linewidth=0.8, linestyle=":")
    axis.set_yscale(panel.scale)
    axis.set_title(panel.title, fontsize=9)
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    if len(_keys(lines, panel)) > 1 or (control and panel.kind == "knn"):
        axis.legend(fontsize=7)


def _keys(lines: list[dict[str, Any]], panel: _Panel) -> list[str]:
    return sorted(
        {
            k
            for line in lines
            if line["kind"] == panel.kind
            for k in line
            if k.startswith(panel.name)
        }
    )


def _points(lines: list[dict[str, Any]], kind: str, key: str) -> list[tuple[int, float]]:
    """Steps and values; a value that was not finite is a gap."""
    chosen = [line for line in lines if line["kind"] == kind and key in line]
    return [(line["step"], math.nan if line[key] is None else line[key]) for line in chosen]


def main(arguments: list[str]) -> int:
    """Draw a run. Exit status: 0 drawn, 1 failed, 2 wrong usage."""
    from training.monitor.retrieval import retrieval

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    control = None
    if "--control" in arguments[:-1]:
        at = arguments.index("--control")
        control = Path(arguments[at + 1])
        arguments = arguments[:at] + arguments[at + 2 :]
    if not 1 <= len(arguments) <= 2 or any(a.startswith("-") for a in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    run = Path(arguments[0])
    folder = Path(arguments[1]) if len(arguments) == 2 else run
    try:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder: create it, or name the folder of a run")
        log.info("%s", curves(run, folder / "curves.png", control))
        log.info("%s", retrieval(run, folder / "retrieval.png"))
    except PathEncoderError as error:
        log.error("error: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
