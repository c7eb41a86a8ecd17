"""A small evaluation: two encoders on one set."""

import dataclasses

from training.evaluation.report_rows import (
    EncoderRow,
    Interval,
    Report,
    Result,
    SetRow,
    Transform,
    Weights,
)

_PIXELS = Transform(
    input_size=224,
    resize="squash",
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def encoder(name="default", role="evaluated", sha256="a" * 64):
    return EncoderRow(
        name=name,
        role=role,
        encoder="pathencoder-tiny",
        architecture="mobilenetv2_100",
        readout="pool",
        transform=_PIXELS,
        dim=1280,
        weights=(Weights(sha256=sha256, fingerprint="b" * 64),),
    )


def of_spec(spec, name="default", **changes):
    """A row that is an encoder: its weights, readout and preprocessing."""
    pixels = {f.name: getattr(spec, f.name) for f in dataclasses.fields(Transform)}
    row = encoder(name, sha256=spec.sha256)
    read_alike = {"readout": spec.embedding, "transform": Transform(**pixels), "dim": spec.dim}
    return dataclasses.replace(row, **{**read_alike, **changes})


def result(**changes):
    values = {
        "encoder": "default",
        "set": "polyps",
        "part": "test",
        "verb": "probe",
        "metric": "auroc",
        "value": 0.9,
        "interval": Interval(low=0.85, high=0.95, resampled="patient"),
        "sd": 0.01,
        "values": (0.89, 0.91),
        "seeds": 2,
        "n": 100,
        "n_groups": 10,
    }
    return Result(**{**values, **changes})


def report(**changes):
    values = {
        "date": "2026-11-28",
        "command": "python -m training.evaluate all default --out runs/all",
        "packages": {"python": "3.11.9", "torch": "2.13.0"},
        "encoders": (encoder(), encoder("random", "random", None)),
        "sets": (
            SetRow(name="polyps", title="polyps", stain="he", groups="patient", sha256="c" * 64),
        ),
        "results": (result(), result(encoder="random", value=0.5, interval=None)),
    }
    return Report(**{**values, **changes})
