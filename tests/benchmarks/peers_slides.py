"""Slides to features by pathencoder and by the tools of others, side by side.

    make .venvs/tiatoolbox/.done .venvs/lazyslide/.done .venvs/slide2vec/.done
    python -m tests.benchmarks.peers_slides --tiles 300 --network resnet18
    python -m tests.benchmarks.peers_slides --tiles 5000 --network default --log out/peers.jsonl
    python -m tests.benchmarks.peers_slides --tiles 5000 --runtime onnx

Each tool is a process of its own, in its environment, from the command to the written file: it
imports, finds tissue, lays its grid of 224 px tiles at .5 um a pixel, and runs the same network at
fp32: `resnet18` is timm's with random weights, loaded from one file by all; `default` is our
default encoder, which the others run through pathencoder.integrations. --runtime is ours alone: the
others run torch. The slide is made here:
real tissue in a border of glass. A round runs every tool once; the order is reversed from round to
round. Printed: medians over the rounds of tiles a second and of the highest memory of the process
and its children (RSS; in brackets PSS, in which shared pages count once), and the median of the
ratios of one round. Rounds begin until --rounds or --minutes is reached. --log collects rounds over
several runs, and the medians are then of all of them.

What differs between the tools: tissue and grid are their own (the numbers of tiles are printed, and
each one's own number is divided by its own time); the file is ours, zarr, zarr, and .pt. Batches
are of 32, everything else is a tool's default. tests/benchmarks/peer_tools has what each one runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.big_slides import write_slide
from tests.support.paths import ROOT
from tests.support.watched import watch

OURS = "pathencoder"
PEERS = ("tiatoolbox", "lazyslide", "slide2vec")
SMALL = 1000  # tiles from which the bars of the large slide apply
BARS = {"small": 2.0, "large": 1.0}
BARS_TIATOOLBOX = {  # by the runtime of ours
    "torch": {"resnet18": 1.2, "default": 1.5},
    "onnx": {"resnet18": 1.6, "default": 2.5},
}
BAR_MEMORY = 0.5
Row = dict[str, Any]


def write_resnet(folder: Path) -> Path:
    """A folder with ResNet-18 of random weights, as `load_encoder` and timm read it."""
    from pathencoder import network
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec

    spec = EncoderSpec(
        name="resnet18-random",
        architecture="resnet18",
        dim=512,
        width=512,
        embedding="pool",
        input_size=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        mpp=0.5,
    )
    torch.manual_seed(0)
    Encoder(network.create(spec, random=True), spec).save_pretrained(folder)
    return folder


def export(encoder: Path) -> None:
    """Write the ONNX file of an encoder beside its weights."""
    command = ["-m", "pathencoder", "export", str(encoder), "--out", str(encoder)]
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)


def command_of(tool: str, slide: Path, out: Path, encoder: Path | None, runtime: str) -> list[str]:
    """The command that embeds a slide with a tool."""
    if tool == OURS:
        chosen = [] if encoder is None else ["--encoder", str(encoder)]
        command = [sys.executable, "-m", "pathencoder", "encode", str(slide), "--out", str(out)]
        return [*command, "--precision", "fp32", "--runtime", runtime, *chosen]
    module = f"tests.benchmarks.peer_tools.with_{tool}"
    return [str(python_of(tool)), "-m", module, str(slide), str(out), str(encoder or "default")]


def python_of(tool: str) -> Path:
    """The interpreter of a tool's environment."""
    return ROOT / ".venvs" / tool / "bin/python"


def run(tool: str, slide: Path, encoder: Path | None, runtime: str) -> Row:
    """One process from the command to the file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = command_of(tool, slide, out, encoder, runtime)
        seen = watch(command, cwd=ROOT, env={"HF_HUB_OFFLINE": "1"})
        made = _ours(out) if tool == OURS else json.loads(seen.out.splitlines()[-1])
    return {
        "tool": tool,
        "tiles": made["tiles"],
        "mean": made["mean"],
        "seconds": seen.seconds,
        "cpu": seen.cpu,
        "peak_mb": seen.peak_mb,
        "peak_shared_mb": seen.peak_shared_mb,
    }


def _ours(out: Path) -> Row:
    import h5py

    with h5py.File(next(out.glob("*.h5"))) as file:
        rows = file["features"][:]
    return {"tiles": len(rows), "mean": rows.mean(axis=0).tolist()}


def rounds(
    tools: Sequence[str], slide: Path, encoder: Path | None, asked: argparse.Namespace, begun: int
) -> list[list[Row]]:
    """Rounds of all tools; `begun` of them were run before."""
    found: list[list[Row]] = []
    started, longest = time.monotonic(), 0.0
    while len(found) < asked.rounds:
        if found and time.monotonic() - started + longest > 60 * asked.minutes:
            break
        begin = time.monotonic()
        order = tools if (begun + len(found)) % 2 == 0 else tools[::-1]
        found.append([])
        for tool in order:
            row = run(tool, slide, encoder, asked.runtime)
            found[-1].append(row)
            print(f"  {tool:12}{row['tiles']:7,} tiles {row['seconds']:7.1f} s", flush=True)
        longest = max(longest, time.monotonic() - begin)
    return found


def table(found: list[list[Row]], tools: Sequence[str]) -> dict[str, Row]:
    """Medians by tool, printed; with the ratios to ours, each within its round."""
    by_round = [{row["tool"]: row for row in one} for one in found]
    print(
        f"{'':12}{'tiles':>7}{'seconds':>9}{'CPU s':>8}{'tiles/s':>9}{'ours, times':>12}"
        f"{'peak MB (PSS)':>16}{'ours, share':>12}{'mean row':>10}"
    )
    medians: dict[str, Row] = {}
    ours = np.array(by_round[0][OURS]["mean"])
    for tool in tools:
        rows = [one[tool] for one in by_round]
        middle = {
            key: statistics.median(row[key] for row in rows)
            for key in ("tiles", "seconds", "cpu", "peak_mb", "peak_shared_mb")
        }
        middle["rate"] = statistics.median(rate(row) for row in rows)
        middle["times"] = statistics.median(rate(o[OURS]) / rate(o[tool]) for o in by_round)
        for key in ("peak_mb", "peak_shared_mb"):
            shares = [one[OURS][key] / one[tool][key] for one in by_round]
            middle[f"share_{key}"] = statistics.median(shares)
        mean = np.array(rows[0]["mean"])
        middle["cosine"] = float(mean @ ours / np.linalg.norm(mean) / np.linalg.norm(ours))
        memory = f"{middle['peak_mb']:.0f} ({middle['peak_shared_mb']:.0f})"
        print(
            f"{tool:12}{middle['tiles']:7.0f}{middle['seconds']:9.1f}{middle['cpu']:8.1f}"
            f"{middle['rate']:9.1f}{middle['times']:12.2f}{memory:>16}"
            f"{middle['share_peak_mb']:12.2f}{middle['cosine']:10.4f}"
        )
        medians[tool] = {key: round(value, 4) for key, value in middle.items()}
    return medians


def rate(row: Row) -> float:
    """Tiles a second of a whole process."""
    return float(row["tiles"]) / float(row["seconds"])


def bar_of(peer: str, network: str, tiles: int, runtime: str) -> float:
    """How many times a peer's rate ours has to be."""
    if tiles < SMALL:
        return BARS["small"]
    return BARS_TIATOOLBOX[runtime][network] if peer == "tiatoolbox" else BARS["large"]


def judge(medians: dict[str, Row], network: str, tiles: int, runtime: str) -> bool:
    """Print a line per bar; whether all are reached."""
    lines = []
    for peer in (tool for tool in medians if tool != OURS):
        bar, times = bar_of(peer, network, tiles, runtime), medians[peer]["times"]
        lines.append((f"{times:.2f} times {peer} (>= {bar})", times >= bar))
        share = medians[peer]["share_peak_mb"]
        lines.append((f"{share:.2f} of {peer}'s memory (<= {BAR_MEMORY})", share <= BAR_MEMORY))
    for text, reached in lines:
        print(f"  {text}: {'reached' if reached else 'not reached'}")
    return all(reached for _, reached in lines)


def read_log(
    file: Path | None, network: str, tiles: int, runtime: str, tools: Sequence[str]
) -> list[list[Row]]:
    """The rounds of earlier runs of the same slide, network, runtime and tools."""
    if file is None or not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    key = (network, tiles, runtime)
    same = [x for x in lines if (x["network"], x["asked"], x.get("runtime", "torch")) == key]
    return [x["rows"] for x in same if {row["tool"] for row in x["rows"]} == set(tools)]


def write_log(
    file: Path | None, network: str, tiles: int, runtime: str, found: list[list[Row]]
) -> None:
    """Append rounds to the log."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:
            for rows in found:
                line = {"network": network, "asked": tiles, "runtime": runtime, "rows": rows}
                stream.write(json.dumps(line) + "\n")


def main() -> None:
    """Measure; print the rounds, the medians, a line per bar, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=300)
    parser.add_argument("--network", choices=("resnet18", "default"), default="resnet18")
    parser.add_argument("--runtime", choices=tuple(BARS_TIATOOLBOX), default="torch")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--log", type=Path)
    asked = parser.parse_args()
    for peer in asked.peers:
        if not python_of(peer).exists():
            raise SystemExit(f"no environment of {peer}: make .venvs/{peer}/.done")
    tools = [OURS, *asked.peers]
    before = read_log(asked.log, asked.network, asked.tiles, asked.runtime, tools)
    with tempfile.TemporaryDirectory() as folder:
        slide = write_slide(Path(folder) / "slide.tiff", asked.tiles)
        small = write_slide(Path(folder) / "small.tiff", 8)
        encoder = write_resnet(Path(folder) / "r18") if asked.network == "resnet18" else None
        if encoder is not None and asked.runtime != "torch":
            export(encoder)
        for tool in tools:  # the disk's cache, and the compiled files of a new environment
            run(tool, small, encoder, asked.runtime)
        found = rounds(tools, slide, encoder, asked, len(before))
    write_log(asked.log, asked.network, asked.tiles, asked.runtime, found)
    every = [*before, *found]
    print(
        f"{asked.network}, ours in {asked.runtime}, a slide of about {asked.tiles:,} tiles,"
        f" {torch.get_num_threads()} threads, median of {len(every)} rounds"
    )
    medians = table(every, tools)
    judge(medians, asked.network, asked.tiles, asked.runtime)
    summary = {"benchmark": "peers_slides", "network": asked.network, "tiles": asked.tiles}
    summary["runtime"] = asked.runtime
    print(json.dumps({**summary, "rounds": len(every), "tools": medians}))


if __name__ == "__main__":
    main()
