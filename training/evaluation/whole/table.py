"""The evaluation as a page of Markdown: a table a protocol, H&E and IHC apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from training.evaluation.changes import CONDITIONS, TITLES
from training.evaluation.metric_names import METRICS
from training.evaluation.report_rows import Report, Result, SetRow

STAINS = {
    "he": "H&E",
    "ihc": "IHC",
    "special": "special stains",
    "cytology": "cytology",
    "mixed": "mixed stains",
}
_PROBE = ("auroc", "linear", "knn20", "shot5", "shot16", "retrieval_map", "retrieval_at5")


def page(report: Report) -> str:
    """The page.

    Args:
        report: The evaluation.

    Returns:
        Markdown.
    """
    parts = [
        f"# Evaluation of {', '.join(_evaluated(report))}",
        f"{report.date}. `{report.command}`",
        _encoders(report),
        *_probe(report),
        *_dense(report),
        *changed_tiles(report),
        *centres(report),
        *calibration(report),
        *_differences(report),
        _sets(report),
        *_absent(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _evaluated(report: Report) -> list[str]:
    return [e.name for e in report.encoders if e.role == "evaluated"]


def _encoders(report: Report) -> str:
    rows = [
        (
            e.name,
            e.role,
            e.architecture,
            f"{(e.parameters or 0) / 1e6:.1f} M" if e.parameters else "-",
            f"`{e.readout}`, {e.dim}",
            f"{e.transform.input_size} px" + (f", {e.mpp:g} um/px" if e.mpp else ""),
            ", ".join(w.sha256[:12] if w.sha256 else "-" for w in e.weights),
        )
        for e in report.encoders
    ]
    head = ("row", "role", "network", "parameters", "readout", "input", "weights sha256")
    return "## Encoders\n\n" + table(head, rows)


def _probe(report: Report) -> Iterable[str]:
    if not report.find(verb="probe"):
        return
    yield (
        "## Probe\n\nL2 logistic regression on frozen, standardised embeddings, C chosen by grouped"
        " cross-validation inside train; means of the seeds, with 95 % intervals over groups."
        " Retrieval searches tiles of other groups."
    )
    names = [e.name for e in report.encoders]
    for stain, title in STAINS.items():
        sets = [s for s in report.sets if s.stain == stain]
        for metric in _PROBE:
            rows = []
            for s in sets:
                found = {r.encoder: r for r in report.find(set=s.name, verb="probe", metric=metric)}
                if found:
                    first = next(iter(found.values()))
                    count = f"{first.n} ({first.n_groups})"
                    cells = [_cell(found.get(name)) for name in names]
                    rows.append((s.name, first.part, count, *cells))
            rows += _mean_row(report, names, f"{title} sets", metric)
            if rows:
                head = ("set", "part", "n (groups)", *names)
                what = METRICS[metric]
                yield f"**{title}, {what.title}.** {what.meaning}\n\n{table(head, rows)}"


def _mean_row(
    report: Report, names: Sequence[str], title: str, metric: str
) -> list[tuple[str, ...]]:
    found = {m.encoder: m for m in report.means if (m.title, m.metric) == (title, metric)}
    if not found or all(len(m.sets) < 2 for m in found.values()):
        return []
    first = next(iter(found.values()))
    cells = [f"{found[n].value:.3f}" if n in found else "-" for n in names]
    return [(f"mean of {', '.join(first.sets)}", "", "", *cells)]


def _dense(report: Report) -> Iterable[str]:
    found = report.find(verb="dense")
    if not found:
        return
    names = list(dict.fromkeys(r.encoder for r in found))
    rows = []
    for s in report.sets:
        here = {r.encoder: r for r in found if r.set == s.name}
        if here:
            first = next(iter(here.values()))
            what = METRICS[first.metric].title
            cells = [_cell(here.get(n)) for n in names]
            rows.append((f"{s.name}, {what}", first.part, f"{first.n} ({first.n_groups})", *cells))
    yield (
        "## Dense\n\nA linear decoder on frozen feature maps: nuclei and glands by Dice, mean over"
        " images; cell centres by F1. Maps do not depend on the readout, so ImageNet has one row."
        f"\n\n{table(('set', 'part', 'images (groups)', *names), rows)}"
    )


def changed_tiles(report: Report) -> Iterable[str]:
    """A table of changed tiles for each set that has one."""
    for s in report.sets:
        found = [
            r
            for r in report.find(set=s.name, verb="robustness")
            if r.condition in ("unchanged", *CONDITIONS) or r.metric == "effective_rank"
        ]
        if not found:
            continue
        names = list(dict.fromkeys(r.encoder for r in found))
        rows = []
        for condition in ("unchanged", *CONDITIONS):
            cells = []
            for name in names:
                one = {r.metric: r for r in found if (r.encoder, r.condition) == (name, condition)}
                values = [_value(one.get(m)) for m in ("auroc", "knn20", "centred_cosine")]
                cells.append(" / ".join(values))
            rows.append((TITLES.get(condition, condition), *cells))
        ranks = {r.encoder: r for r in found if r.metric == "effective_rank"}
        rows.append(("effective rank", *(f"{ranks[n].value or 0:.0f}" for n in names)))
        first = found[0]
        yield (
            f"## Changed tiles: {s.name} ({STAINS[s.stain]})\n\nAUROC of the probe / balanced"
            " accuracy of k-NN 20 / centred cosine to the unchanged tile. Probe and k-NN are fitted"
            f" on unchanged train tiles; {', '.join(first.notes)}; means over draws."
            f"\n\n{table(('condition', *names), rows)}"
        )


def centres(report: Report) -> Iterable[str]:
    """The table of centres and scanners, if there are figures of them."""
    metrics = ("robustness_index", "centre_auroc", "same_field", "other_fields")
    rows, names = [], [e.name for e in report.encoders]
    for s in report.sets:
        for metric in metrics:
            found = {r.encoder: r for r in report.find(set=s.name, metric=metric)}
            if found:
                first = next(iter(found.values()))
                title = f"{METRICS[metric].title} ({METRICS[metric].better} is better)"
                title = title.replace(" (neither is better)", "")
                cells = [_cell(found.get(n)) for n in names]
                rows.append((s.name, title, "; ".join(first.notes), *cells))
    if rows:
        yield (
            "## Centres and scanners\n\nThe robustness index counts neighbours of the same class"
            " and another centre against those of another class and the same centre, as PathoROB"
            " defines it; these sets are others, so do not compare it with published ones. The"
            " centre AUROC is .5 where the centre cannot be predicted from an embedding."
            f"\n\n{table(('set', 'figure', 'about', *names), rows)}"
        )


def calibration(report: Report) -> Iterable[str]:
    """The table of calibration, if there is one."""
    if not report.find(verb="calibration"):
        return
    names, rows = [e.name for e in report.encoders], []
    for s in report.sets:
        for metric in ("ece", "brier", "log_loss"):
            cells = []
            for name in names:
                two = [
                    report.find(set=s.name, encoder=name, metric=metric, condition=c)
                    for c in ("", "temperature scaled")
                ]
                cells.append(" to ".join(_value(t[0] if t else None) for t in two))
            if any(c != "- to -" for c in cells):
                rows.append((s.name, METRICS[metric].title, *cells))
    yield (
        "## Calibration\n\nFrom the probe's own probabilities to those after temperature scaling,"
        " which is fitted on folds of the train part; lower is better. The probe weights classes"
        " equally, which adds to the error where classes are rare."
        f"\n\n{table(('set', 'figure', *names), rows)}"
    )


def _differences(report: Report) -> Iterable[str]:
    if not report.differences:
        return
    rows = []
    for d in report.differences:
        around = f" [{d.interval.low:+.3f}, {d.interval.high:+.3f}]" if d.interval else ""
        what = METRICS[d.metric].title
        rows.append((d.set, what, d.encoder, d.against, f"{d.value:+.3f}{around}"))
    yield (
        "## Differences\n\nOn the same images and resamples of groups, with 95 % intervals."
        f"\n\n{table(('set', 'figure', 'encoder', 'against', 'difference'), rows)}"
    )


def _sets(report: Report) -> str:
    rows = [
        (s.name, s.title, STAINS[s.stain], s.groups, s.licence, _link(s), "; ".join(s.notes))
        for s in report.sets
    ]
    head = ("set", "what", "stain", "groups", "licence", "source", "what figures do not show")
    return "## Sets\n\n" + table(head, rows)


def _link(s: SetRow) -> str:
    return s.homepage or "your own"


def _absent(report: Report) -> Iterable[str]:
    if report.absent:
        rows = [(a.set, a.verb, a.encoder or "all", a.reason) for a in report.absent]
        yield "## Not measured\n\n" + table(("set", "protocol", "encoder", "why"), rows)


def _cell(result: Result | None) -> str:
    if result is None or result.value is None:
        return "-"
    around = result.interval
    return f"{result.value:.3f}" + (f" [{around.low:.2f}, {around.high:.2f}]" if around else "")


def _value(result: Result | None) -> str:
    return "-" if result is None or result.value is None else f"{result.value:.3f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in line)} |"
        for line in lines
    )
