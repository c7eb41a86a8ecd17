"""Plots of an evaluation, for a person to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.evaluation.calibration import Bin
from training.evaluation.changes import CONDITIONS, TITLES
from training.evaluation.metric_names import METRICS
from training.evaluation.report_rows import Report, Result
from training.files import save_figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; grey for baselines
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_BASELINES = {"random": "#BBBBBB", "imagenet": "#888888", "imagenet read alike": "#444444"}
_STAINS = {"he": "H&E", "ihc": "IHC"}
_AUROC = "AUROC of the probe; dashed: chance"
_LEAST_ROWS = 5  # of a bin of the reliability plot: the share of fewer says nothing
Bins = Callable[[str, str], Sequence[Bin] | None]  # of an encoder and a set


def draw(report: Report, folder: Path, bins: Bins) -> list[Path]:
    """Draw the plots.

    Args:
        report: The evaluation.
        folder: Where the PNG files are written.
        bins: The bins of the reliability plot of an encoder on a set; None: not measured.

    Returns:
        The files.

    Raises:
        StoreError: A file cannot be written.
    """
    import matplotlib  # type: ignore[import-not-found]  # an extra, may be missing here

    matplotlib.use("Agg")
    made = []
    for name, figure in (
        ("probe", _by_set(report, report.find(verb="probe", metric="auroc"), _AUROC)),
        ("dense", _by_set(report, report.find(verb="dense"), "linear decoder on frozen maps")),
        ("robustness", _conditions(report)),
        ("reliability", _reliability(report, bins)),
    ):
        if figure is not None:
            file = folder / f"{name}.png"
            save_figure(figure, file, dpi=120)
            matplotlib.pyplot.close(figure)
            made.append(file)
    return made


def _colours(report: Report) -> dict[str, str]:
    found, turn = {}, 0
    for row in report.encoders:
        if row.role == "evaluated":
            found[row.name] = _COLOURS[turn % len(_COLOURS)]
            turn += 1
        else:
            found[row.name] = _BASELINES[row.role]
    return found


def _by_set(report: Report, results: Sequence[Result], title: str) -> Any:
    """A point with its interval for each encoder, a line of the plot for each set."""
    from matplotlib import pyplot  # type: ignore[import-not-found]

    sets = [s for s in report.sets if any(r.set == s.name for r in results)]
    sets.sort(key=lambda s: s.stain)
    if not sets:
        return None
    names = [e.name for e in report.encoders if any(r.encoder == e.name for r in results)]
    colours = _colours(report)
    figure, axis = pyplot.subplots(figsize=(7.5, 1.2 + 0.62 * len(sets)), constrained_layout=True)
    for place, s in enumerate(sets):
        if place % 2:
            axis.axhspan(place - 0.5, place + 0.5, color="#F4F4F4", zorder=0)
        for turn, name in enumerate(names):
            found = [r for r in results if (r.set, r.encoder) == (s.name, name)]
            if not found or found[0].value is None:
                continue
            y = place - 0.3 + 0.6 * turn / max(1, len(names) - 1)
            value, around = found[0].value, found[0].interval
            if around:
                axis.plot([around.low, around.high], [y, y], color=colours[name], linewidth=1.5)
            axis.plot(value, y, "o", color=colours[name], markersize=5)
    axis.set_yticks(range(len(sets)), [_named(s.name, s.stain, results) for s in sets], fontsize=8)
    if all(r.metric == "auroc" for r in results):
        axis.axvline(0.5, color="#888888", linewidth=0.8, linestyle="--")  # chance
    axis.set_ylim(len(sets) - 0.5, -0.5)
    axis.set_xlabel(f"{title}; lines are 95 % intervals over groups", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    for name in names:
        axis.plot([], [], "o", color=colours[name], label=name)
    figure.legend(loc="outside upper center", ncols=min(4, len(names)), fontsize=8, frameon=False)
    return figure


def _named(name: str, stain: str, results: Sequence[Result]) -> str:
    metrics = {r.metric for r in results if r.set == name}
    what = "" if metrics == {"auroc"} else f", {METRICS[metrics.pop()].title}"
    return f"{name}\n({_STAINS.get(stain, stain)}{what})"


def _conditions(report: Report) -> Any:
    """AUROC under each change, a panel a set."""
    from matplotlib import pyplot

    found = [r for r in report.find(verb="robustness", metric="auroc") if r.condition]
    sets = list(dict.fromkeys(r.set for r in found))
    if not sets:
        return None
    colours, conditions = _colours(report), ("unchanged", *CONDITIONS)
    figure, panels = pyplot.subplots(
        1,
        len(sets),
        figsize=(1.5 + 4.4 * len(sets), 4.6),
        sharey=True,
        squeeze=False,
        constrained_layout=True,
    )
    for panel, name in zip(panels[0], sets, strict=True):
        stain = next(s.stain for s in report.sets if s.name == name)
        for encoder in colours:
            by_condition = {r.condition: r for r in found if (r.set, r.encoder) == (name, encoder)}
            points = [
                (r.value, i)
                for i, c in enumerate(conditions)
                if (r := by_condition.get(c)) is not None and r.value is not None
            ]
            if points:
                xs, ys = zip(*points, strict=True)
                panel.plot(xs, ys, "o", color=colours[encoder], markersize=5)
                panel.axvline(xs[0], color=colours[encoder], linewidth=0.6, linestyle=":")
        panel.set_title(f"{name} ({_STAINS.get(stain, stain)})", fontsize=9)
        panel.set_xlabel("AUROC of the probe; dotted: unchanged tiles", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(color="#DDDDDD", linewidth=0.6)
    panels[0][0].set_yticks(
        range(len(conditions)), [TITLES.get(c, c) for c in conditions], fontsize=8
    )
    panels[0][0].invert_yaxis()
    for encoder, colour in colours.items():
        panels[0][0].plot([], [], "o", color=colour, label=encoder)
    figure.legend(loc="outside upper center", ncols=min(4, len(colours)), fontsize=8, frameon=False)
    return figure


def _reliability(report: Report, bins: Bins) -> Any:
    """Accuracy against confidence of the evaluated encoders, a panel a set."""
    from matplotlib import pyplot

    sets = list(dict.fromkeys(r.set for r in report.find(verb="calibration")))
    names = [e.name for e in report.encoders if e.role == "evaluated"]
    if not sets:
        return None
    colours, columns = _colours(report), min(3, len(sets))
    lines = -(-len(sets) // columns)
    figure, panels = pyplot.subplots(
        lines,
        columns,
        figsize=(2.6 * columns, 2.75 * lines + 0.3),
        squeeze=False,
        constrained_layout=True,
    )
    for panel in panels.ravel()[len(sets) :]:
        panel.set_axis_off()
    for panel, name in zip(panels.ravel(), sets, strict=False):
        panel.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1)
        for encoder in names:
            there = [b for b in bins(encoder, name) or () if b.rows >= _LEAST_ROWS]
            total = sum(b.rows for b in there)
            xs, ys = [b.confidence for b in there], [b.accuracy for b in there]
            sizes = [8 + 150 * b.rows / total for b in there]
            panel.plot(xs, ys, color=colours[encoder], linewidth=0.8)
            panel.scatter(xs, ys, sizes, color=colours[encoder], alpha=0.7, linewidths=0)
        panel.set_title(name, fontsize=8)
        panel.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        panel.tick_params(labelsize=7)
    few = f"(bins of fewer than {_LEAST_ROWS} tiles are left out)"
    figure.supxlabel(f"probability of the predicted class\n{few}", fontsize=8)
    figure.supylabel("share that is right", fontsize=8)
    for encoder in names:
        panels[0][0].plot([], [], "o-", color=colours[encoder], label=encoder)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure
