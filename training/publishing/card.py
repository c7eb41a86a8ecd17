"""The model card of a bundled encoder; every figure is taken from its metrics."""

from __future__ import annotations

from typing import Any

from pathencoder.pooling import stage_rule
from pathencoder.spec import EncoderSpec

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
_FRONT = """---
license: {license}
library_name: timm
tags: [histopathology, pathology, self-supervised, feature-extraction{tags}]
---

"""


def card(
    spec: EncoderSpec,
    config: dict[str, Any],
    figures: dict[str, Any],
    sources: list[tuple[str, str, str, int, int]],
) -> str:
    """Write the model card.

    Args:
        spec: The encoder.
        config: Configuration of its training run.
        figures: What metrics.json holds: how it was trained, and every measured figure.
        sources: (source, stain class, licence class, tiles, slides) of the training images.

    Returns:
        Markdown with the front matter that the Hugging Face Hub reads.
    """
    tiles = sum(s[3] for s in sources)
    front = _FRONT.format(license=spec.licence.lower(), tags="".join(f", {s}" for s in spec.stains))
    parts = [
        f"# {spec.name}\n\n{_opening(spec, tiles)}",
        _use(spec),
        _figures(figures),
        *([_robustness(figures["robustness"])] if figures.get("robustness") else []),
        _training(spec, config, figures),
        _sources(sources),
        _limits(spec),
    ]
    return front + "\n\n".join(parts) + "\n"


def _opening(spec: EncoderSpec, tiles: int) -> str:
    who = (
        "Anyone may use the weights, for anything"
        if spec.commercial
        else "The weights may be used for non-commercial purposes only"
    )
    return (
        f"A small encoder of histopathology tiles: {spec.architecture},"
        f" {(spec.parameters or 0) / 1e6:.1f} M parameters, {spec.dim}-dimensional embedding,"
        f" trained by self-supervision on {tiles:,} tiles ({', '.join(spec.stains)})."
        f" {who} ({spec.licence}). It comes with `pip install pathencoder` and works offline."
    )


def _use(spec: EncoderSpec) -> str:
    name = "" if not spec.name.endswith("-research") else f'"{spec.name}"'
    return (
        "```python\nimport pathencoder\n\n"
        f"encoder = pathencoder.load_encoder({name})\n"
        f'rows = encoder.encode("tiles/")  # numpy float32 [N, {spec.dim}]\n```\n\n'
        f"Tiles are resized whole to {spec.input_size} px ({spec.interpolation}); with `mpp=` they"
        f" are resampled to {spec.mpp} micrometres per pixel instead. Mean {spec.mean}, std"
        f" {spec.std}. The embedding: {stage_rule(spec.embedding) or spec.embedding}"
        f" (`{spec.embedding}`). `timm.create_model` loads the weights too, and gives the last"
        " layer, which has lower figures."
    )


def _figures(figures: dict[str, Any]) -> str:
    measured, mine = figures["measured"], figures["row"]
    sets = measured["sets"]
    rows = list(next(iter(sets.values())))
    title = " | ".join(f"**{r}**" if r == mine else r for r in rows)
    lines = f"| set | part | n (groups) | {title} |\n" + "|---" * (3 + len(rows)) + "|\n"
    for name, by_row in sets.items():
        first, cells = by_row[rows[0]], " | ".join(_cell(by_row[r]) for r in rows)
        count = f"{first['n']} ({first['groups']})"
        lines += f"| {_SETS.get(name, name)} | {first['part']} | {count} | {cells} |\n"
    means = measured["means"].get(mine, {})
    floors = "; ".join(
        f"{title} {value:.3f} ({_best_imagenet(measured['means'], title)})"
        for title, value in means.items()
    )
    return (
        "## Measured\n\nL2 logistic regression on frozen, standardised embeddings, with C chosen by"
        " grouped cross-validation inside the train part. AUROC with its 95 % interval from a"
        " bootstrap over groups (patients, slides or images) / balanced accuracy; means of three"
        " seeds of the folds. The ImageNet rows are the weights that the training starts from:"
        " their own output, the means of four stages, and the readout of this encoder.\n\n"
        f"{lines}\nMean AUROC: {floors}.\n\n"
        "Difference to ImageNet's best readout, paired over groups:"
        f" {_differences(measured, mine)}.\n\n"
        f"Command: `{figures['command']}` (figures, intervals, k-NN and few-shot in metrics.json;"
        f" weights sha256 `{figures['weights_sha256']}`).\n\n"
        "The sets are small samples of larger public ones: the figures compare encoders on the same"
        " images and are not the published benchmarks of these names. Groups of crc_polyp5 are"
        " inferred, so its interval means little. In tiles of amibr and of the cell sets the"
        " classified object is in the middle, which favours a readout of the tile's middle: compare"
        f" with the ImageNet row of the same readout. {_deviation_of_runs(measured)}"
    )


def _differences(measured: dict[str, Any], row: str) -> str:
    """AUROC of a row minus that of ImageNet's best readout, with its interval, by set."""
    return "; ".join(
        f"{name} {p[row]['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        for name, p in measured["paired"].items()
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
    return f"{best} {there[best]:.3f}" if best else "no ImageNet row"


def _deviation_of_runs(measured: dict[str, Any]) -> str:
    """The standard deviation over training runs, of every row that is a mean of several."""
    sentences = []
    for row, first in next(iter(measured["sets"].values())).items():
        runs = first.get("runs", 1)
        if runs > 1:
            figures = "; ".join(
                f"{name} {r[row]['auroc']:.3f} sd {r[row]['auroc_sd']:.3f}"
                for name, r in measured["sets"].items()
            )
            sentences.append(
                f"`{row}` is the mean of {runs} training runs that differ only in their seed: AUROC"
                f" {figures}. Difference of the mean to ImageNet's best readout:"
                f" {_differences(measured, row)}."
            )
    return (
        " ".join(sentences)
        or "One training run: these intervals do not include the variation between training seeds."
    )


def _robustness(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Stain shifts on crc_polyp5 test: one line a row, the mean over its training runs."""
    lines = (
        "| encoder | cosine under HED shift | effective rank | k-NN, unshifted"
        " | k-NN, channel mix / hue / tone |\n|---|---|---|---|---|\n"
    )
    for name, runs in rows.items():
        cosine, rank = (_mean([r[key] for r in runs]) for key in ("centred_cosine", "rank"))
        clean, *shifted = (
            f"{_mean([_mean(r['knn'][shift]) for r in runs]):.3f}"
            for shift in ("clean", "mix", "hue", "tone")
        )
        lines += f"| {name} | {cosine:.4f} | {rank:.0f} | {clean} | {' / '.join(shifted)} |\n"
    return (
        f"## Another stain, another scanner\n\n{lines}\nColorectal tiles (crc_polyp5 test). Cosine"
        " of the centred embeddings of a tile and of the same tile with its stain shifted; a"
        " collapsed encoder would look stable, hence the rank. k-NN (20 neighbours, balanced"
        " accuracy) of shifted test tiles among unshifted train tiles, mean of five draws of each"
        " shift, none of which training uses. Command:"
        " `python -m training.evaluate robustness default research imagenet random`."
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _training(spec: EncoderSpec, config: dict[str, Any], figures: dict[str, Any]) -> str:
    about, data = figures["training"], config["data"]
    runs = about.get("runs", 1)
    average = (
        ""
        if runs == 1
        else f" The weights are the plain average of {runs} such runs (arXiv:2203.05482)."
    )
    return (
        f"## Training\n\n{spec.training}. Start: ImageNet weights of MobileNetV2 (Apache-2.0)."
        f" Batch {data['batch']}, slides drawn with probability ~ tiles^{data['slide_power']}, no"
        f" slide twice in a batch; {_crops(about)}stain jitter along hematoxylin, eosin and DAB for"
        " H&E, weaker and per colour channel for every other stain; the exported weights are a"
        f" moving average.{average} It took {about['cpu_seconds'] / 60:.0f} core-minutes of one CPU"
        f" core. Configs, logs and curves are in model_cards/{spec.name}."
        + (f"\n\n{figures['note']}" if figures.get("note") else "")
    )


def _crops(about: dict[str, Any]) -> str:
    fields = sorted(
        {(low, high) for low, high in about.get("fields", []) if (low, high) != (1.0, 1.0)}
    )
    if not fields:
        return ""
    shares = ", in other runs of ".join(f"{low:.0%} to {high:.0%}" for low, high in fields)
    return (
        f"both crops of a tile are cut from one field of {shares} of its area, so that"
        " magnification differs only between tiles; "
    )


def _sources(sources: list[tuple[str, str, str, int, int]]) -> str:
    lines = "| source | stain | licence class | tiles | slides or fields |\n|---|---|---|---|---|\n"
    lines += "".join(
        f"| {src} | {stain} | {licence} | {n} | {slides} |\n"
        for src, stain, licence, n, slides in sources
    )
    return (
        f"## Training images\n\n{lines}\nP: weights trained on it may be given to anyone; N: not,"
        " or its source states no licence. No tile of a validation or test part of the sets above"
        " was trained on. `amibr_left` are tiles of the same public collection as amibr, from other"
        " images than the labelled ones. Sources named `*_train` are train parts: where one is"
        " listed, its set (amibr, hpylori_ihc, crc_polyp5, crchisto and others) shares a cohort"
        " with the training images."
    )


def _limits(spec: EncoderSpec) -> str:
    ihc = (
        " IHC is a small part of the permissive images: on hpylori_ihc ImageNet weights may be"
        " better (see the table)."
        if spec.commercial
        else ""
    )
    return (
        "## Not for\n\nDiagnosis, or any use on patients: nothing here was validated clinically."
        f"{ihc} Magnifications and scanners other than those of its few sources are untested; most"
        " sources do not state their micrometres per pixel. There were no fluorescence images in"
        " training."
    )
