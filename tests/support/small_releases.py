"""A small run with a table of its tiles, and the figures of its export on a made-up set."""

import tarfile

import numpy as np
from small_runs import values, write_tiles

from pathencoder import __version__
from training import config
from training.evaluation import probe as protocol
from training.evaluation.encoders import open_subject
from training.evaluation.report_file import write_report
from training.evaluation.report_rows import (
    Difference,
    EncoderRow,
    Interval,
    Mean,
    Report,
    Result,
    SetRow,
    Transform,
    Weights,
)
from training.pretrain import train

COMMAND = "python -m training.evaluate all mine={run}/export random --out figures"


def with_manifest(tiles, licence="P"):
    """A folder's tiles in a shard, with a manifest that names two sources."""
    lines = ["shard,key,slide,src,stain_class,licence,mpp_value"]
    with tarfile.open(tiles / "a.tar", "w") as tar:
        for file in sorted(tiles.glob("s*/*.png")):
            key, slide = f"{file.parent.name}-{file.stem}", file.parent.name
            tar.add(file, f"{key}.png")
            src, stain = ("kidney", "ihc") if slide == "s0" else ("osteo", "he")
            lines.append(f"a.tar,{key},{slide},{src},{stain},{licence},0.5")
    (tiles / "manifest.csv").write_text("\n".join(lines) + "\n")


def made_run(folder, *, steps=6, **changes):
    """A finished run of simclr in a folder, with its tiles and a table of labels beside it."""
    tiles = folder / "tiles"
    tiles.mkdir()
    with_manifest(write_tiles(tiles))
    asked = values(tiles, folder / "run")
    asked["optim"]["steps"] = steps
    for section, new in changes.items():
        asked[section].update(new)
    run = train(config.check(asked))
    files = sorted(tiles.glob("s*/*.png"))
    rows = [f"{f.relative_to(tiles)},{int(f.stem) % 2},{f.parent.name}" for f in files]
    (tiles / "labels.csv").write_text("file,label,group\n" + "\n".join(rows) + "\n")
    return run


def figures_of(run, path, *, names=("mine={run}/export", "random"), **changes):
    """Measure a run's export, and write the file of an evaluation."""
    labels = protocol.read_labels(run.parent / "tiles/labels.csv")
    files = [run.parent / "tiles" / f for f in labels.files]
    subjects = [s for name in names for s in open_subject(name.format(run=run))]
    results = [r for s in subjects for r in _results(s, s.embed(files), labels)]
    means = [
        Mean(encoder=r.encoder, title="H&E sets", verb="probe", metric="auroc", value=r.value,
             sets=("polyps",))
        for r in results if r.metric == "auroc"
    ]  # fmt: skip
    values = {
        "date": "2026-11-28",
        "command": COMMAND.format(run=run),
        "packages": {"pathencoder": __version__},
        "encoders": tuple(_row(s) for s in subjects),
        "sets": (
            SetRow(name="polyps", title="colorectum, made up", stain="he", groups="slide",
                   sha256="c" * 64, licence="CC0-1.0", homepage="https://example.org/polyps"),
        ),
        "results": tuple(results),
        "means": tuple(means),
        "differences": (
            Difference(encoder="mine", against="random", set="polyps", part="folds", verb="probe",
                       metric="auroc", value=-0.02,
                       interval=Interval(low=-0.1, high=0.06, resampled="slide")),
        ),
    }  # fmt: skip
    write_report(path, Report(**{**values, **changes}))
    return path


def _row(subject):
    spec = subject.encoder.spec
    return EncoderRow(
        name=subject.name,
        role="random" if subject.name == "random" else "evaluated",
        encoder=spec.name,
        architecture=spec.architecture,
        readout=spec.embedding,
        transform=Transform(
            input_size=spec.input_size, resize=spec.resize, interpolation=spec.interpolation,
            mean=spec.mean, std=spec.std,
        ),
        dim=spec.dim,
        weights=(Weights(sha256=spec.sha256, fingerprint=subject.fingerprint),),
    )  # fmt: skip


def _results(subject, rows, labels):
    found = protocol.summarise([protocol.probe(rows, labels, test=None, seeds=1)], "folds")
    shared = {
        "encoder": subject.name, "set": "polyps", "part": "folds", "verb": "probe",
        "n": found.n, "n_groups": found.groups,
    }  # fmt: skip
    low, high = found.auroc_interval
    interval = None if np.isnan(low) else Interval(low=low, high=high, resampled="slide")
    return [
        Result(metric="auroc", value=found.auroc, interval=interval, **shared),
        Result(metric="linear", value=found.linear, **shared),
        Result(metric="knn20", value=found.knn20, **shared),
    ]
