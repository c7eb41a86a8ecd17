"""Runtimes of encode against torch, in one process: speed, equality of rows, and the loss of int8.

    python -m tests.benchmarks.runtimes --exports out/runtimes --calibrate TILES --only-export
    python -m tests.benchmarks.runtimes --exports out/runtimes --calibrate TILES --probe SET

The first command exports the default encoder and a ViT-S/16 with random weights (minutes), and
calibrates their int8 on TILES, a folder of images; the second one measures. A round runs every row
once on the same tiles of 224 px; the order is reversed from round to round; a figure is the best
of the rounds, in images per second of CPU time, and each ratio is of two figures of this run.

Rows: `loop` is what a user writes, the network as it was loaded called on batches of 16 normalised
images, and `loop, channels last` the same in the order of memory that is fast for CNNs. `encode,
not folded` is the runner of encode on the network as it is, in its own chunks: what encode was
before it folded BatchNorms (pathencoder/folding.py). `encode torch` is what it is now. The encode
rows take uint8 and normalise.

The loss of int8 is measured on tiles that were not calibrated on, and by a linear probe on the
train part of a set (SET, with labels.csv): AUROC over five folds by group, fp32 and int8.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pathencoder
from pathencoder import network, outputs
from pathencoder.encoder import Encoder
from pathencoder.runtime import Runner
from pathencoder.runtimes import exported, parity
from pathencoder.runtimes.calibration import tiles_of
from pathencoder.runtimes.export import export
from pathencoder.spec import EncoderSpec

BARS = {"auto": 2.0, "int8": {"default": 6.0, "vit": 3.0}, "cosine": {"default": 0.97, "vit": 0.99}}
ROWS_EQUAL, PROBE_POINTS = 1e-4, 0.01
LOOP_BATCH = 16
Table = dict[str, float]


def write_vit(folder: Path) -> Path:
    """A folder with ViT-S/16 of random weights."""
    spec = EncoderSpec(
        name="vit-small-random",
        architecture="vit_small_patch16_224",
        dim=384,
        width=384,
        prefix_tokens=1,
        input_size=224,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        mpp=0.5,
    )
    torch.manual_seed(0)
    Encoder(network.create(spec, random=True), spec).save_pretrained(folder)
    return folder


def make(exports: Path, calibrate: Path) -> None:
    """Export both encoders, at fp32 and int8, for both runtimes."""
    vit = exports / "vit-encoder"
    for name, source in (("default", None), ("vit", vit if vit.exists() else write_vit(vit))):
        encoder = pathencoder.load_encoder(source, device="cpu")
        tiles = tiles_of(calibrate, encoder.spec, 240)
        for precision in ("fp32", "int8"):
            for form in ("onnx", "openvino"):
                if exported.description_of(
                    exports / name / exported.name_of(form, precision)
                ).exists():
                    continue
                made = export(
                    encoder,
                    exports / name,
                    form=form,
                    precision=precision,
                    tiles=tiles if precision == "int8" else (),
                    say=lambda text: print(f"  {text}", flush=True),
                )
                print(name, form, precision, made.calibration or made.check, flush=True)


def rows_of(
    encoder: Encoder, folder: Path, tiles: np.ndarray
) -> dict[str, Callable[[], np.ndarray]]:
    """What is measured, by name; each returns its embeddings."""
    images = encoder.transform.normalise(tiles).contiguous()
    batches = images.split(LOOP_BATCH)
    last = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    plain = Runner(
        encoder.network,
        outputs.readout(encoder.network, encoder.spec, "embedding"),
        encoder.transform.normalise,
    )

    def loop(parts: Sequence[torch.Tensor]) -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate([encoder(part).embedding.numpy() for part in parts])

    def encode(runtime: str | Path) -> Callable[[], np.ndarray]:
        return lambda: encoder.encode(tiles, runtime=runtime, progress=False)

    files = {
        f"encode {form} {precision}": folder / exported.name_of(form, precision)
        for precision in ("fp32", "int8")
        for form in ("onnx", "openvino")
    }
    return {
        "loop": lambda: loop(batches),
        "loop, channels last": lambda: loop(last),
        "encode, not folded": lambda: plain(tiles).numpy(),
        "encode torch": encode("torch"),
        "encode auto": encode("auto"),
        **{name: encode(file) for name, file in files.items() if file.exists()},
    }


def measure(rows: dict[str, Callable[[], np.ndarray]], tiles: int, rounds: int) -> Table:
    """Images per second of CPU time of each row, the best of the rounds."""
    best = dict.fromkeys(rows, 0.0)
    for number in range(rounds):
        order = list(rows) if number % 2 == 0 else list(rows)[::-1]
        for name in order:
            started = time.process_time()
            rows[name]()
            best[name] = max(best[name], tiles / (time.process_time() - started))
    return best


def probe(encoder: Encoder, folder: Path, files: Sequence[Path]) -> Table:
    """AUROC of a linear probe over five folds by group of a set's train part, for each file."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with (folder / "labels.csv").open() as stream:
        table = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    labels = np.array([row["label"] for row in table])
    groups = np.array([row["group"] for row in table])
    images = [folder / row["file"] for row in table]
    found = {}
    for file in files:
        x = encoder.encode(images, runtime=file, progress=False)
        scores = []
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, labels, groups)
        for seen, left in folds:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
            model.fit(x[seen], labels[seen])
            given = model.predict_proba(x[left])
            binary = given.shape[1] == 2
            scores.append(
                roc_auc_score(labels[left], given[:, 1] if binary else given, multi_class="ovr")
            )
        found[file.name] = float(np.mean(scores))
    return found


def report(name: str, encoder: Encoder, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure one encoder and print its table; what was found."""
    folder = asked.exports / name
    tiles = np.stack(tiles_of(asked.calibrate, encoder.spec, max(asked.tiles, 24))[: asked.tiles])
    rows = rows_of(encoder, folder, tiles)
    expected = rows["loop"]()
    apart = {row: parity.difference(run(), expected) for row, run in rows.items()}  # warms up, too
    speed = measure(rows, len(tiles), asked.rounds)
    print(
        f"\n{encoder.spec.name}, {torch.get_num_threads()} threads, best of {asked.rounds} rounds"
    )
    print(f"{'':28}{'images/CPU s':>13}{'of loop':>9}{'of encode torch':>17}{'apart':>10}")
    for row, value in speed.items():
        of_loop, of_torch = value / speed["loop"], value / speed["encode torch"]
        print(f"{row:28}{value:13.1f}{of_loop:9.2f}{of_torch:17.2f}{apart[row]:10.1e}")
    found: dict[str, Any] = {"images_per_cpu_second": speed, "apart": apart, "int8": {}}
    for form in ("onnx", "openvino"):
        file = folder / exported.name_of(form, "int8")
        if not file.exists():
            print(f"  int8 {form}: not exported")
            continue
        found["int8"][form] = loss = exported.read(file).calibration
        print(f"  int8 {form}: {loss}")
    for place in asked.probe if name == "default" else ():
        files = [folder / exported.name_of(f, p) for f, p in _PROBED]
        found[f"probe {place.name}"] = probed = probe(encoder, place, files)
        print(f"  AUROC on the train folds of {place.name}: {probed}")
    judge(name, found)
    return found


_PROBED = (("onnx", "fp32"), ("onnx", "int8"), ("openvino", "int8"))


def judge(name: str, found: dict[str, Any]) -> None:
    """Print a line per bar."""
    speed, apart = found["images_per_cpu_second"], found["apart"]
    lines = []
    if name == "default":
        for row in ("encode, not folded", "encode torch"):
            times = speed["encode auto"] / speed[row]
            bar = BARS["auto"]
            lines.append((f"auto is {times:.2f} times {row!r} (>= {bar})", times >= bar))
    worst = max(apart["encode auto"], apart["encode onnx fp32"], apart["encode openvino fp32"])
    lines.append((f"fp32 is apart by {worst:.1e} (<= {ROWS_EQUAL})", worst <= ROWS_EQUAL))
    for form, loss in found["int8"].items():
        times, bar = speed[f"encode {form} int8"] / speed["loop"], BARS["int8"][name]
        lines.append((f"int8 {form} is {times:.2f} times 'loop' (>= {bar})", times >= bar))
        mean, bar = loss["mean_centred_cosine"], BARS["cosine"][name]
        smallest = loss["smallest_centred_cosine"]
        text = f"int8 {form}: mean centred cosine {mean} (>= {bar}), smallest {smallest}"
        lines.append((text, mean >= bar))
    for key, probed in found.items():
        if key.startswith("probe"):
            for form in ("onnx", "openvino"):
                lost = probed["model.onnx"] - probed[exported.name_of(form, "int8")]
                text = f"int8 {form}: {key} loses {100 * lost:.2f} points (<= 1)"
                lines.append((text, lost <= PROBE_POINTS))
    for text, reached in lines:
        print(f"  {text}: {'reached' if reached else 'not reached'}")


def main() -> None:
    """Measure; print the tables, a line per bar, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exports", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, required=True, help="a folder of tiles")
    parser.add_argument("--only-export", action="store_true")
    parser.add_argument("--networks", nargs="*", choices=("default", "vit"))
    parser.add_argument("--tiles", type=int, default=32, help="in a round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--probe", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    if asked.only_export:
        make(asked.exports, asked.calibrate)
        return
    found = {}
    for name, source in (("default", None), ("vit", asked.exports / "vit-encoder")):
        if asked.networks and name not in asked.networks:
            continue
        encoder = pathencoder.load_encoder(source, device="cpu")
        found[name] = report(name, encoder, asked)
    print(json.dumps({"benchmark": "runtimes", **found}))


if __name__ == "__main__":
    main()
