"""How long heads take on cached features: `python -m tests.benchmarks.heads`.

Made-up features of 1,000 images of 50 patients, two classes that overlap, at the widths of common
encoders. A fit reads them from the cache on disk, chooses the settings, evaluates on five folds
(choosing again in each), calibrates, and computes the intervals. The last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time

import click
import numpy as np

from pathencoder.encoder import load_encoder
from pathencoder.heads import classify, kinds
from pathencoder.heads.cache import VARIABLE, FeatureCache
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.embed import contents_of
from pathencoder.heads.encoder_record import EncoderRecord

IMAGES, PATIENTS = 1000, 50


@click.command()
@click.option("--dim", "dims", type=int, multiple=True, default=(256, 768, 1536))
@click.option("--head", "names", multiple=True, default=tuple(kinds.names("classifier")))
def main(dims, names):
    """Print a table of seconds."""
    encoder = load_encoder(device="cpu")
    own = EncoderRecord.of(encoder, "embedding", None)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(IMAGES)]
    data = Dataset(
        tuple(images),
        tuple("ab"[n % 2] for n in range(IMAGES)),
        tuple(f"P{n // 2 % PATIENTS}" for n in range(IMAGES)),
    )
    import sklearn.calibration
    import sklearn.linear_model  # noqa: F401

    seconds = {}
    print(f"{IMAGES:,} cached features of {PATIENTS} patients: seconds of one fit")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = folder
        for dim in dims:
            record = dataclasses.replace(own, dim=dim, digest=f"made up {dim}")
            rows = rng.normal(size=(IMAGES, dim)).astype(np.float32)
            rows[::2, : dim // 16] += 0.35
            FeatureCache.default().write(record, contents_of(images), list(rows))
            for name in names:
                started = time.perf_counter()
                head = classify.fit(encoder, record, data, None, how(name))
                seconds[f"{name} {dim}"] = round(time.perf_counter() - started, 2)
                figure = head.report.balanced_accuracy
                print(f"{name:11s} {dim:5d}  {seconds[f'{name} {dim}']:6.2f} s  {figure}")
    print(json.dumps({"seconds": seconds}))


def how(name):
    """The defaults of `pathencoder.fit`."""
    return classify.Fitting(
        kind=name,
        options=kinds.options_of(name, {}),
        class_weights=None,
        calibrate=True,
        max_error=0.1,
        skip_bad=False,
        seed=0,
        cache=True,
        progress=False,
    )


if __name__ == "__main__":
    main()
