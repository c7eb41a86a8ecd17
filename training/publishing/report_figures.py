"""The measured figures of a model card, from the file of `training.evaluate all`."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.metric_names import METRICS
from training.evaluation.report_rows import Difference, EncoderRow, Interval, Report, Result, SetRow
from training.evaluation.whole.table import calibration, centres, changed_tiles

_STAINS = {
    "he": "H&E",
    "ihc": "IHC",
    "special": "Special stains",
    "cytology": "Cytology",
    "mixed": "Several stains",
}
_VERBS = {
    "probe": "Linear probe, neighbours, few-shot, retrieval",
    "dense": "Feature maps",
    "robustness": "Another stain, another scanner",
    "calibration": "Calibration",
    "eva": "By the eva protocol",
}
_OTHERS = ("knn20", "shot16", "retrieval_map")  # of the probe; metrics.json has all of them
_PROBE = (
    "L2 logistic regression on frozen, standardised embeddings, with C chosen by grouped"
    " cross-validation inside the train part. AUROC with its 95 % interval / balanced accuracy."
)


def sections(report: Report, row: str) -> list[str]:
    """The sections of the figures: one a protocol, each with the command that repeats it.

    Args:
        report: The figures.
        row: The encoder's row in them.
    """
    mine = report.row(row)
    verbs = [verb for verb in _VERBS if report.find(encoder=row, verb=verb)]
    return [
        "\n\n".join(
            [
                f"## {_VERBS[verb]}",
                *(_probe(report, mine) if verb == "probe" else _plain(report, mine, verb)),
                _repeat(report),
            ]
        )
        for verb in verbs
    ]


def _probe(report: Report, mine: EncoderRow) -> list[str]:
    """AUROC and balanced accuracy by stain, then every other metric of the probe."""
    parts = [f"{_PROBE} {_rows_in_words(report, mine)}"]
    for stain, sets in _by_stain(report).items():
        shown = [s for s in sets if report.find(set=s.name, verb="probe", metric="auroc")]
        if shown:
            parts += [f"### {_STAINS[stain]}", _probe_table(report, mine, shown)]
    parts += [_means(report, mine), _differences(report, mine), _over_runs(report)]
    others = [r for r in report.find(verb="probe") if r.metric in _OTHERS]
    if others:
        parts += ["### Neighbours, few-shot, retrieval", _table(report, mine, others)]
    return [part for part in parts if part]


def _probe_table(report: Report, mine: EncoderRow, sets: Sequence[SetRow]) -> str:
    rows = _rows(report, mine)
    lines = [_head(["set", "part", "n (groups)"], rows, mine)]
    for one in sets:
        of_set = {r.encoder: r for r in report.find(set=one.name, verb="probe", metric="auroc")}
        accuracy = {r.encoder: r for r in report.find(set=one.name, verb="probe", metric="linear")}
        first = of_set.get(mine.name) or next(iter(of_set.values()))
        cells = [f"{_cell(of_set.get(r.name))} / {_value(accuracy.get(r.name))}" for r in rows]
        groups = f"{first.n:,} ({first.n_groups:,})"
        lines.append(_line([one.title or one.name, first.part, groups, *cells]))
    return "\n".join(lines)


def _plain(report: Report, mine: EncoderRow, verb: str) -> list[str]:
    """The tables of another protocol, below its heading."""
    if verb == "robustness":
        parts = [*changed_tiles(report), *centres(report)]
        return [part.replace("## ", "### ", 1) for part in parts]
    if verb == "calibration":
        return [part.partition("\n\n")[2] for part in calibration(report)]
    return [_table(report, mine, report.find(verb=verb))]


def _table(report: Report, mine: EncoderRow, results: Sequence[Result]) -> str:
    """One line for each set, part, metric and condition."""
    rows = [r for r in _rows(report, mine) if any(x.encoder == r.name for x in results)]
    titles = {s.name: s.title or s.name for s in report.sets}
    keys = dict.fromkeys((r.set, r.part, r.metric, r.condition, r.n, r.n_groups) for r in results)
    found = {(r.set, r.part, r.metric, r.condition, r.encoder): r for r in results}
    lines = [_head(["set", "part", "n (groups)", "metric"], rows, mine)]
    for name, part, metric, condition, n, groups in keys:
        words = f"{METRICS[metric].title}{_arrow(metric)}" + (f", {condition}" if condition else "")
        cells = [_cell(found.get((name, part, metric, condition, r.name))) for r in rows]
        lines.append(_line([titles[name], part, f"{n:,} ({groups:,})", words, *cells]))
    meanings = [
        f"{METRICS[m].title}: {METRICS[m].meaning}" for m in dict.fromkeys(k[2] for k in keys)
    ]
    return "\n".join(lines) + "\n\n" + " ".join(meanings)


def _arrow(metric: str) -> str:
    return {"higher": "", "lower": " (lower is better)", "neither": ""}[METRICS[metric].better]


def _by_stain(report: Report) -> dict[str, list[SetRow]]:
    return {s: [x for x in report.sets if x.stain == s] for s in _STAINS}


def _rows(report: Report, mine: EncoderRow) -> list[EncoderRow]:
    """The encoder first, then its other readouts, other encoders and the baselines."""
    own = [r for r in report.encoders if r != mine and is_same_weights(r, mine)]
    return [mine, *own, *(r for r in report.encoders if r != mine and r not in own)]


def is_same_weights(one: EncoderRow, other: EncoderRow) -> bool:
    """Whether two rows are readouts of the same weights."""
    shas = [[w.sha256 for w in row.weights] for row in (one, other)]
    return shas[0] == shas[1] and None not in shas[0]


def _rows_in_words(report: Report, mine: EncoderRow) -> str:
    """What the rows are: weights, readout, runs."""
    words = []
    for row in _rows(report, mine):
        runs = f", mean of {len(row.weights)} training runs" if len(row.weights) > 1 else ""
        what = {
            "random": "random weights",
            "imagenet": "ImageNet weights",
            "imagenet read alike": "ImageNet weights with this encoder's readout and input",
        }.get(row.role, row.encoder)
        words.append(f"`{row.name}`: {what}, readout `{row.readout}`, {row.dim} values{runs}")
    single = len(mine.weights) == 1
    seeds = (
        " One training run: intervals do not include the variation between training seeds."
        if single
        else ""
    )
    return f"Rows: {'; '.join(words)}.{seeds}"


def _means(report: Report, mine: EncoderRow) -> str:
    lines = []
    for mean in (m for m in report.means if m.encoder == mine.name):
        others = [
            f"{m.encoder} {m.value:.3f}"
            for m in report.means
            if (m.title, m.verb, m.metric) == (mean.title, mean.verb, mean.metric)
            and m.encoder != mine.name
        ]
        against = f" ({', '.join(others)})" if others else ""
        of = f"{mean.title} ({', '.join(mean.sets)})"
        lines.append(f"{of}, {METRICS[mean.metric].title}: {mean.value:.3f}{against}")
    return f"Means over sets: {'; '.join(lines)}." if lines else ""


def _differences(report: Report, mine: EncoderRow) -> str:
    by_kind: dict[tuple[str, str], list[Difference]] = {}
    for one in report.differences:
        if one.encoder == mine.name:
            by_kind.setdefault((one.against, one.metric), []).append(one)
    words = [
        f"{METRICS[metric].title} less that of `{against}`, paired over groups: "
        + "; ".join(f"{d.set} {d.value:+.3f}{_bounds(d.interval, signed=True)}" for d in found)
        for (against, metric), found in by_kind.items()
    ]
    return ". ".join(words) + "." if words else ""


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


def _repeat(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.packages.items())
    return f"Command: `{report.command}` ({report.date}; {versions})."


def _head(first: Sequence[str], rows: Sequence[EncoderRow], mine: EncoderRow) -> str:
    names = [f"**{r.name}**" if r == mine else r.name for r in rows]
    return _line([*first, *names]) + "\n" + "|---" * (len(first) + len(rows)) + "|"


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
