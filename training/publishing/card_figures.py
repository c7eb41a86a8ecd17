"""The measured figures of a model card, as `training.evaluate --json` wrote them."""

from __future__ import annotations

from typing import Any

from training.backbones.known_starts import MOBILENET_V2
from training.evaluation.encoders import IMAGENET_READOUTS
from training.evaluation.sets import CELL_SETS
from training.provenance.record import Provenance

_SETS = {
    "amibr": "breast, atypical against normal mitotic figures (H&E)",
    "hpylori_ihc": "stomach, H. pylori (IHC)",
    "crc_polyp5": "colorectum, five classes (H&E)",
    "crchisto": "cell types, colon (H&E)",
    "consep20x_points": "cell types, colon (H&E)",
    "brca_m2c": "cell types, breast (H&E)",
    "bcdata_sample": "Ki67 positive or negative cells (IHC)",
    "lymphoma_iicbu": "lymphoma, three classes (H&E)",
    "bisque_breast": "breast, benign or malignant (H&E)",
}


def measured(figures: dict[str, Any], made_from: Provenance) -> str:
    """The section of the probe.

    Args:
        figures: What metrics.json holds.
        made_from: The record of the run.
    """
    found, mine = figures["measured"], figures["row"]
    sets, about = found["sets"], found.get("about", {})
    rows = list(next(iter(sets.values())))
    title = " | ".join(f"**{r}**" if r == mine else r for r in rows)
    lines = f"| set | part | n (groups) | {title} |\n" + "|---" * (3 + len(rows)) + "|\n"
    for name, by_row in sets.items():
        first, cells = by_row[rows[0]], " | ".join(_cell(by_row[r]) for r in rows)
        count = f"{first['n']} ({first['groups']})"
        lines += f"| {_SETS.get(name, name)} | {first['part']} | {count} | {cells} |\n"
    parts = [
        "## Measured\n\nL2 logistic regression on frozen, standardised embeddings, with C chosen by"
        " grouped cross-validation inside the train part. AUROC with its 95 % interval from a"
        " bootstrap over groups (patients, slides or images) / balanced accuracy;"
        f" {_seeds(about)}.{_imagenet(rows, made_from)}",
        lines.rstrip("\n"),
        _means(found, mine),
        _paired(found, mine),
        f"Command: `{about.get('command', 'not recorded')}` (figures, intervals, k-NN and few-shot"
        f" in metrics.json; weights sha256 `{figures['weights_sha256']}`).",
        f"{_remarks(sets)} {_deviation_of_runs(found)}".strip(),
    ]
    return "\n\n".join(part for part in parts if part)


def _seeds(about: dict[str, Any]) -> str:
    seeds = about.get("seeds")
    return f"means of {seeds} seeds of the folds" if seeds else "the number of seeds: not recorded"


def _imagenet(rows: list[str], made_from: Provenance) -> str:
    """What the ImageNet rows are; "" without any."""
    there = [(t, rule) for t, rule in IMAGENET_READOUTS if f"imagenet, {t}" in rows]
    if not there:
        return ""
    start = made_from.start is not None and made_from.start.sha256 == MOBILENET_V2
    listed = ", ".join(f"{title} `{rule}`" for title, rule in there)
    return (
        " Rows `imagenet`: ImageNet weights of MobileNetV2"
        f"{', which the training starts from' if start else ''}, with the readouts {listed}."
    )


def _means(found: dict[str, Any], mine: str) -> str:
    means = "; ".join(
        f"{title} {value:.3f}{_best_imagenet(found['means'], title)}"
        for title, value in found["means"].get(mine, {}).items()
    )
    return f"Mean AUROC: {means}." if means else ""


def _paired(found: dict[str, Any], mine: str) -> str:
    differences = _differences(found, mine)
    if not differences:
        return ""
    return f"Difference to ImageNet's best readout, paired over groups: {differences}."


def _remarks(sets: dict[str, Any]) -> str:
    """What the figures of our own sets do not show."""
    remarks = []
    if set(sets) & set(_SETS):
        remarks.append(
            "The sets are small samples of larger public ones: the figures compare encoders on the"
            " same images and are not the published benchmarks of these names."
        )
    if "crc_polyp5" in sets:
        remarks.append("Groups of crc_polyp5 are inferred, so its interval means little.")
    if set(sets) & {"amibr", *CELL_SETS}:
        remarks.append(
            "In tiles of amibr and of the cell sets the classified object is in the middle, which"
            " favours a readout of the tile's middle: compare encoders with the same readout."
        )
    return " ".join(remarks)


def below_imagenet(figures: dict[str, Any]) -> list[str]:
    """The sets on which the encoder is below ImageNet's best readout."""
    mine = figures["row"]
    paired = figures["measured"]["paired"]
    return [name for name, p in paired.items() if mine in p and p[mine]["difference"] < 0]


def _differences(found: dict[str, Any], row: str) -> str:
    """AUROC of a row minus that of ImageNet's best readout, with its interval, by set."""
    return "; ".join(
        f"{name} {p[row]['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        for name, p in found["paired"].items()
        if row in p
        for low, high in (p[row]["interval"],)
    )


def _cell(row: dict[str, Any]) -> str:
    low, high = row["auroc_interval"]
    return f"{row['auroc']:.3f} [{low:.2f}, {high:.2f}] / {row['linear']:.3f}"


def _best_imagenet(means: dict[str, dict[str, float]], title: str) -> str:
    there = {
        name: row[title]
        for name, row in means.items()
        if name.startswith("imagenet") and title in row
    }
    best = max(there, key=lambda name: there[name], default="")
    return f" ({best} {there[best]:.3f})" if best else ""


def _deviation_of_runs(found: dict[str, Any]) -> str:
    """The standard deviation over training runs, of every row that is a mean of several."""
    sentences = []
    for row, first in next(iter(found["sets"].values())).items():
        runs = first.get("runs", 1)
        if runs > 1:
            figures = "; ".join(
                f"{name} {r[row]['auroc']:.3f} sd {r[row]['auroc_sd']:.3f}"
                for name, r in found["sets"].items()
            )
            sentences.append(f"`{row}` is the mean of {runs} training runs: AUROC {figures}.")
            if differences := _differences(found, row):
                sentences.append(
                    f"Difference of the mean to ImageNet's best readout: {differences}."
                )
    return (
        " ".join(sentences)
        or "One training run: these intervals do not include the variation between training seeds."
    )


def robustness(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The section of stain shifts on crc_polyp5 test: one line a row, the mean over its runs."""
    lines = (
        "| encoder | cosine under HED shift | effective rank | k-NN, unshifted"
        " | k-NN, channel mix / hue / tone |\n|---|---|---|---|---|\n"
    )
    draws = set()
    for name, runs in rows.items():
        cosine, rank = (_mean([r[key] for r in runs]) for key in ("centred_cosine", "rank"))
        clean, *shifted = (
            f"{_mean([_mean(r['knn'][shift]) for r in runs]):.3f}"
            for shift in ("clean", "mix", "hue", "tone")
        )
        draws |= {len(r["knn"]["mix"]) for r in runs}
        lines += f"| {name} | {cosine:.4f} | {rank:.0f} | {clean} | {' / '.join(shifted)} |\n"
    return (
        f"## Another stain, another scanner\n\n{lines}\nColorectal tiles (crc_polyp5 test). Cosine"
        " of the centred embeddings of a tile and of the same tile with its stain shifted; a"
        " collapsed encoder would look stable, hence the rank. k-NN (20 neighbours, balanced"
        " accuracy) of shifted test tiles among unshifted train tiles, mean of"
        f" {' or '.join(map(str, sorted(draws)))} draws of each shift. Command:"
        " `python -m training.evaluate robustness`."
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
