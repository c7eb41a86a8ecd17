"""The measured figures of a model card, from the file of `training.evaluate all`."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.metric_names import METRICS
from training.evaluation.report_rows import Difference, EncoderRow, Interval, Report, Result, SetRow
from training.evaluation.whole.table import STAINS, calibration, centres, changed_tiles

_VERBS = {
    "probe": "Linear probe, neighbours, few-shot, retrieval",
    "dense": "Feature maps",
    "robustness": "Another stain, another scanner",
    "calibration": "Calibration",
    "eva": "By the eva protocol",
}
_OTHERS = ("knn20", "shot16", "retrieval_map")  # of the probe; metrics.json has all of them
_EXPLAINED = ("effective_rank", "same_field", "other_fields")  # below the tables of robustness
_PROBE = (
    "L2 logistic regression on frozen, standardised embeddings, with C chosen by grouped"
    " cross-validation inside the train part. AUROC with its 95 % interval / balanced accuracy."
)
_COLUMNS = (
    "Set: what it shows, and its short name; the table of the sets has its source. Part: the"
    " held-out part, or folds (cross-validation over groups) of a set without one. n: its images;"
    " groups: patients, slides, cases or images, see the table of the sets. Intervals are from a"
    " bootstrap over groups."
)


def introduction(report: Report, row: str) -> str:
    """What is true of all figures: the command that repeats them, rows and columns.

    Args:
        report: The figures.
        row: The encoder's row in them.
    """
    versions = ", ".join(f"{name} {version}" for name, version in report.packages.items())
    command = f"Command: `{report.command}` ({report.date}; {versions})."
    return "\n\n".join([command, _rows_in_words(report, report.row(row)), _COLUMNS])


def sections(report: Report, row: str) -> list[str]:
    """The sections of the figures, one a protocol.

    Args:
        report: The figures.
        row: The encoder's row in them.
    """
    mine = report.row(row)
    found = []
    for verb, title in _VERBS.items():
        if report.find(encoder=row, verb=verb):
            tables = _probe(report, mine) if verb == "probe" else _plain(report, mine, verb)
            parts = [f"### {title}", *tables, *_differences(report, mine, verb)]
            found.append("\n\n".join(part for part in parts if part))
    return found


def _probe(report: Report, mine: EncoderRow) -> list[str]:
    """AUROC and balanced accuracy by stain, then every other metric of the probe."""
    parts = [_PROBE]
    for stain, sets in _by_stain(report).items():
        shown = [s for s in sets if report.find(set=s.name, verb="probe", metric="auroc")]
        if shown:
            title = STAINS[stain][0].upper() + STAINS[stain][1:]
            parts += [f"#### {title}", _probe_table(report, mine, shown)]
    parts += [_means(report, mine), _over_runs(report)]
    others = [r for r in report.find(verb="probe") if r.metric in _OTHERS]
    if others:
        parts += ["#### Neighbours, few-shot, retrieval", _table(report, mine, others)]
    return parts


def _probe_table(report: Report, mine: EncoderRow, sets: Sequence[SetRow]) -> str:
    rows = _rows(report, mine)
    lines = [_head(["set", "part", "n (groups)"], rows, mine)]
    for one in sets:
        of_set = {r.encoder: r for r in report.find(set=one.name, verb="probe", metric="auroc")}
        accuracy = {r.encoder: r for r in report.find(set=one.name, verb="probe", metric="linear")}
        first = of_set.get(mine.name) or next(iter(of_set.values()))
        cells = [f"{_cell(of_set.get(r.name))} / {_value(accuracy.get(r.name))}" for r in rows]
        groups = f"{first.n:,} ({first.n_groups:,})"
        lines.append(_line([_named(one), first.part, groups, *cells]))
    return "\n".join(lines)


def _plain(report: Report, mine: EncoderRow, verb: str) -> list[str]:
    """The tables of another protocol, below its heading."""
    if verb == "robustness":
        parts = [*changed_tiles(report), *centres(report)]
        there = {r.metric for r in report.find(verb="robustness")}
        meanings = _meanings([metric for metric in _EXPLAINED if metric in there])
        return [*(part.replace("## ", "#### ", 1) for part in parts), meanings]
    if verb == "calibration":
        return [part.partition("\n\n")[2] for part in calibration(report)]
    return [_table(report, mine, report.find(verb=verb))]


def _table(report: Report, mine: EncoderRow, results: Sequence[Result]) -> str:
    """One line for each set, part, metric and condition."""
    rows = [r for r in _rows(report, mine) if any(x.encoder == r.name for x in results)]
    titles = {s.name: _named(s) for s in report.sets}
    keys = dict.fromkeys((r.set, r.part, r.metric, r.condition, r.n, r.n_groups) for r in results)
    found = {(r.set, r.part, r.metric, r.condition, r.encoder): r for r in results}
    lines = [_head(["set", "part", "n (groups)", "metric"], rows, mine)]
    for name, part, metric, condition, n, groups in keys:
        words = f"{METRICS[metric].title}{_arrow(metric)}" + (f", {condition}" if condition else "")
        cells = [_cell(found.get((name, part, metric, condition, r.name))) for r in rows]
        lines.append(_line([titles[name], part, f"{n:,} ({groups:,})", words, *cells]))
    return "\n".join(lines) + "\n\n" + _meanings([metric for _, _, metric, *_ in keys])


def _meanings(metrics: Sequence[str]) -> str:
    """What metrics are, in a line each."""
    return "\n".join(f"- {METRICS[m].title}: {METRICS[m].meaning}" for m in dict.fromkeys(metrics))


def _named(one: SetRow) -> str:
    """A set's title and short name."""
    return f"{one.title}, `{one.name}`" if one.title not in ("", one.name) else one.name


def _arrow(metric: str) -> str:
    return {"higher": "", "lower": " (lower is better)", "neither": ""}[METRICS[metric].better]


def _by_stain(report: Report) -> dict[str, list[SetRow]]:
    return {s: [x for x in report.sets if x.stain == s] for s in STAINS}


def _rows(report: Report, mine: EncoderRow) -> list[EncoderRow]:
    """The encoder first, then its other readouts, other encoders and the baselines."""
    own = [r for r in report.encoders if r != mine and _is_same_weights(r, mine)]
    return [mine, *own, *(r for r in report.encoders if r != mine and r not in own)]


def _is_same_weights(one: EncoderRow, other: EncoderRow) -> bool:
    """Whether two rows are readouts of the same weights."""
    shas = [[w.sha256 for w in row.weights] for row in (one, other)]
    return shas[0] == shas[1] and None not in shas[0]


def _rows_in_words(report: Report, mine: EncoderRow) -> str:
    """What the rows are: weights, readout, runs."""
    lines = []
    for row in _rows(report, mine):
        runs = f", mean of {len(row.weights)} training runs" if len(row.weights) > 1 else ""
        what = {
            "random": f"{row.architecture} with random weights",
            "imagenet": f"{row.architecture} with ImageNet weights",
            "imagenet read alike": f"{row.architecture} with ImageNet weights and this encoder's"
            " readout and input",
        }.get(row.role, row.encoder)
        lines.append(f"- `{row.name}`: {what}; readout `{row.readout}`, {row.dim} values{runs}")
    if len(mine.weights) == 1:
        lines.append(
            f"\n`{mine.name}` is one set of weights: intervals do not include the variation between"
            " training seeds."
        )
    return "The encoders of the tables:\n\n" + "\n".join(lines)


def _means(report: Report, mine: EncoderRow) -> str:
    rows = _rows(report, mine)
    found = {(m.title, m.metric, m.encoder): m for m in report.means if m.verb == "probe"}
    lines = []
    for title, metric in (key[:2] for key in found if key[2] == mine.name):
        of_kind = [found.get((title, metric, row.name)) for row in rows]
        sets = ", ".join(found[title, metric, mine.name].sets)
        cells = [f"{m.value:.3f}" if m else "-" for m in of_kind]
        lines.append(_line([f"{title} ({sets})", METRICS[metric].title, *cells]))
    if not lines:
        return ""
    return "\n".join(["#### Means over sets\n", _head(["sets", "metric"], rows, mine), *lines])


def _differences(report: Report, mine: EncoderRow, verb: str) -> list[str]:
    """A table of this encoder minus each baseline, a line a set and metric."""
    found = [d for d in report.differences if (d.encoder, d.verb) == (mine.name, verb)]
    if not found:
        return []
    cells = {(d.set, d.metric, d.against): d for d in found}
    against = dict.fromkeys(d.against for d in found)
    lines = [_head_of(["set", "metric", *(f"minus {name}" for name in against)])]
    for name, metric in dict.fromkeys((d.set, d.metric) for d in found):
        values = [_difference(cells.get((name, metric, other))) for other in against]
        lines.append(_line([name, METRICS[metric].title, *values]))
    return [
        f"#### Difference: `{mine.name}` minus a baseline",
        "On the same images, with 95 % intervals of the difference.",
        "\n".join(lines),
    ]


def _difference(one: Difference | None) -> str:
    return f"{one.value:+.3f}{_bounds(one.interval, signed=True)}" if one else "-"


def _over_runs(report: Report) -> str:
    """How far training runs differ, of every row that is the mean of several."""
    words = []
    for row in (r for r in report.encoders if len(r.weights) > 1):
        found = report.find(encoder=row.name, verb="probe", metric="auroc")
        values = "; ".join(f"{r.set} {r.sd:.3f}" for r in found if r.sd is not None)
        if values:
            words.append(
                f"Standard deviation of AUROC over the {len(row.weights)} training runs of"
                f" `{row.name}`: {values}."
            )
    return " ".join(words)


def below(report: Report, row: str) -> list[str]:
    """The sets on which the encoder is below a baseline."""
    names = [d.set for d in report.differences if d.encoder == row and d.value < 0]
    return list(dict.fromkeys(names))


def _head(first: Sequence[str], rows: Sequence[EncoderRow], mine: EncoderRow) -> str:
    names = [f"**{r.name}**" if r == mine else r.name for r in rows]
    return _head_of([*first, *names])


def _head_of(columns: Sequence[str]) -> str:
    return _line(columns) + "\n" + "|---" * len(columns) + "|"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _cell(result: Result | None) -> str:
    return _value(result) + (_bounds(result.interval) if result and result.interval else "")


def _value(result: Result | None) -> str:
    if result is None or result.value is None:
        return "-"
    return f"{result.value:.3f}"


def _bounds(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    low, high = ((f"{v:+.3f}" if signed else f"{v:.2f}") for v in (interval.low, interval.high))
    return f" [{low}, {high}]"
