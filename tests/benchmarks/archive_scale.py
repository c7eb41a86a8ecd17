"""Pretraining on an archive of 110,000 slides and a billion tiles, simulated in parts.

    python -m tests.benchmarks.archive_scale [--slides 110000] [--tiles 1000000000]
    python -m tests.benchmarks.archive_scale servers [--latency 0 20 100]
    python -m tests.benchmarks.archive_scale checkpoint [--model vit_large]

The first needs neither slides nor tiles: the rows of a manifest and of slides.csv are made up, and
the joint index of all shards is a sparse file of the real size, which takes no space. Reported:
seconds and memory of writing and reading the manifest, opening the corpus, drawing a step, finding
its tiles, listing the shards, the k-NN probe; what a lost node costs: the steps after the last
checkpoint are drawn again by half as many processes, and must be the same tiles. No process holds a
permutation of the tiles.

The second reads shards from a loopback web server whose answers are late, with and without the
local cache. The third saves sharded weights and both moments of Adam by
torch.distributed.checkpoint on 4 processes (gloo), and loads them on 2; the values must stay.

At the end: what a step on 32 GPUs would wait for, by arithmetic from what was measured here.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathencoder import compat
from tests.benchmarks.loader import BATCH, SIDE, write_shards
from tests.support import object_servers
from training.archive.cost import CROPS, MODELS, PRICES, gpu_hours, read_prices
from training.archive.row import Row
from training.archive.store import Manifest, read_manifest, write_manifest
from training.data.by_slide import read as read_slides
from training.data.corpus import open_corpus
from training.data.joint_index import JointIndex, mapped_ranges
from training.data.loader import batches
from training.data.manifest import Wanted
from training.data.sampler import Sampler, make_sampler
from training.data.sources import Folder
from training.data.window import in_window
from training.monitor.knn import knn_accuracy

ORGANS = ("breast", "lung", "colon", "kidney", "skin", "prostate", "brain", "stomach")
STAINS = ("he",) * 8 + ("ihc", "special")
SHARD_TILES = 15_000  # of 17 KB: 256 MB
STEP_BATCH = 3_072  # of 32 GPUs, 96 each
CHECKPOINT_EVERY = 100
LOST_AT = 250  # the step at which a node is lost


def resident() -> float:
    """Resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Steps:
    """Named measurements: seconds, and memory after each."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}

    def take(self, name: str, act: Callable[[], Any], times: int = 1) -> Any:
        """Do something, and print its wall and CPU seconds and the memory after it."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            found = act()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        row = {"wall_s": wall / times, "cpu_s": cpu / times, "mb": resident()}
        self.rows[name] = {key: round(value, 5) for key, value in row.items()}
        print(f"{name:44s}{row['wall_s']:11.4f} s{row['cpu_s']:11.4f} CPU-s{row['mb']:8.0f} MB")
        return found


def rows_of(count: int) -> list[Row]:
    """A made-up manifest."""
    return [
        Row(
            slide=f"case{i:06d}_{STAINS[i % 10].upper()}",
            patient=f"P-{i // 3:06d}",
            stain_class=STAINS[i % 10],
            organ=ORGANS[i // 3 % 8],
            mpp_value=0.25,
            width=90_000,
            height=70_000,
            licence="P",
            split="train",
            src="folder:/archive",
            source_id=f"{i // 1000:03d}/{i:06d}.svs",
            file=f"archive/{i // 1000:03d}/{i:06d}.svs",
            size=1_140_000_000,
            sha256=f"{i:064x}",
        )
        for i in range(count)
    ]


def write_slides_table(file: Path, rows: list[Row], each: int) -> list[str]:
    """slides.csv as `pack` writes it; the names of its shards."""
    per_shard = max(1, SHARD_TILES // each)
    names, lines = [], ["slide,shard,first,tiles,mpp_value,patient,stain_class,organ,licence,split"]
    for i, row in enumerate(rows):
        if i % per_shard == 0:
            names.append(f"{len(names):06d}.tar")
        facts = f"{row.patient},{row.stain_class},{row.organ},{row.licence},{row.split}"
        lines.append(f"{row.slide},{names[-1]},{i % per_shard * each},{each},0.5,{facts}")
    file.write_text("\n".join(lines) + "\n")
    return names


def sparse_index(file: Path, names: list[str], images: np.ndarray) -> JointIndex:
    """A joint index of the real size whose ranges are all zero: a file without blocks."""
    total = int(images.sum())
    with file.open("wb") as stream:
        stream.truncate(16 + 8 * total)
    table = np.stack([images * 17_500, np.ones_like(images), images, np.arange(len(names))], 1)
    return JointIndex(names, table, mapped_ranges(file, total), {}, file)


@contextmanager
def instead(place: Any, name: str, value: object) -> Iterator[None]:
    """Replace an attribute for a while."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def archive(given: argparse.Namespace) -> None:
    """The first part."""
    from training.data import by_slide

    steps, each = Steps(), given.tiles // given.slides
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rows = rows_of(given.slides)
        manifest = root / "m.parquet"
        steps.take(
            "manifest: write", functools.partial(write_manifest, manifest, Manifest(rows, {}))
        )
        steps.take("manifest: read", lambda: read_manifest(manifest))
        names = write_slides_table(root / "slides.csv", rows, each)
        counts = np.bincount(np.arange(given.slides) // max(1, SHARD_TILES // each)) * each
        del rows
        index = sparse_index(root / "index", names, counts)
        with instead(by_slide, "joint_index", lambda *_, **__: index):
            corpus = steps.take(
                f"corpus of {len(names):,} shards: open",
                lambda: read_slides(root / "slides.csv", Folder(root), Wanted()),
            )
        print(f"{'':44s}{len(corpus):,} tiles of {len(corpus.slide_names):,} slides")
        whole = make_sampler(corpus, batch=STEP_BATCH, seed=0)
        steps.take("sampler: a step, over all slides", lambda: whole.draw(1), 5)
        windowed = in_window(whole, corpus, None)
        steps.take("sampler: a step from a window, the first", lambda: windowed.draw(1))
        steps.take("sampler: a step from the same window", lambda: windowed.draw(2), 5)
        drawn = windowed.draw(3)
        steps.take(
            f"places of the {STEP_BATCH:,} tiles of a step",
            lambda: [corpus.tiles.place(int(i)) for i in drawn],
        )
        listing(steps, names)
        knn(steps)
        lost_node(steps, windowed)
    waits(steps)
    print(json.dumps({"benchmark": "archive_scale", "of": steps.rows}))


def listing(steps: Steps, names: list[str]) -> None:
    """The shards of an object store, as its listing gives them."""
    from pathencoder.remote.objects import Object
    from training.data import remote

    objects = [Object(name, 256_000_000, f'"{i:x}"', i) for i, name in enumerate(names)]
    objects += [Object(f"{name}.index.npy", 1, "", 0) for name in names]
    with instead(remote, "listing", lambda _: objects):
        bucket = remote.Bucket("s3://tiles")
        steps.take("shards of a bucket: listed, sorted", bucket.shards)
        steps.take("shards of a bucket: sizes and versions", lambda: bucket.states(names))


def knn(steps: Steps) -> None:
    """The k-NN probe of a run, with the most tiles that it reads of each set."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1024)).astype(np.float32)
    labels, groups = rng.integers(0, 4, 400).astype(str), rng.integers(0, 40, 400).astype(str)
    steps.take("k-NN probe: 400 embeddings of a ViT-L", lambda: knn_accuracy(x, labels, groups), 3)


def lost_node(steps: Steps, sampler: Sampler) -> None:
    """A node is lost between two checkpoints: half as many processes draw its steps again."""

    def seen(world: int, first: int, last: int) -> list[frozenset[int]]:
        return [
            frozenset(int(i) for rank in range(world) for i in sampler.draw(step)[rank::world])
            for step in range(first, last)
        ]

    begin = LOST_AT // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    before = seen(2, begin, begin + 3)
    after = steps.take(
        "lost node: 3 steps drawn by half the ranks", lambda: seen(1, begin, begin + 3)
    )
    again = LOST_AT - begin
    print(f"{'':44s}{again} steps are done again; the same tiles: {before == after}")
    steps.rows["lost node"] = {"steps_again": again, "same_tiles": float(before == after)}


def waits(steps: Steps) -> None:
    """What a step at 32 GPUs would wait for."""
    gpu = read_prices(PRICES)["gpu"]["h100"]
    seconds = gpu_hours(MODELS["vit_large"], CROPS, STEP_BATCH, gpu) * 3600 / 32
    decode = decoding_rate()
    draw = steps.rows["sampler: a step from the same window"]["cpu_s"]
    place = steps.rows[f"places of the {STEP_BATCH:,} tiles of a step"]["cpu_s"]
    rate = STEP_BATCH / seconds
    cores = rate / 32 / decode
    print(
        f"32 H100, ViT-L, batch {STEP_BATCH:,}: a step computes {seconds:.2f} s (training.plan);"
        f" {rate:,.0f} tiles/s, {rate * 17e-3:,.0f} MB/s from the store.\n"
        f"Decoding: {decode:,.0f} tiles/s a core here, so {cores:.2f} cores a GPU. Drawing a step:"
        f" {draw:.3f} s in each process; finding a rank's tiles: {place / 32:.4f} s; both are ahead"
        f" of the step in the loaders: {(draw + place / 32) / seconds:.1%} of it."
    )
    steps.rows["32 GPUs"] = {
        "step_s": round(seconds, 3),
        "tiles_per_s": round(rate),
        "cores_per_gpu": round(cores, 3),
        "draw_share": round((draw + place / 32) / seconds, 4),
    }


def decoding_rate() -> float:
    """Tiles of 256 px that one core decodes in a second."""
    from pathencoder.images import decode_image
    from tests.benchmarks.loader import jpeg

    data = jpeg(np.random.default_rng(0), 256)
    begun = time.process_time()
    for _ in range(300):
        decode_image(data, "tile")
    return 300 / (time.process_time() - begun)


def servers(given: argparse.Namespace) -> None:
    """The second part."""
    plain, rows = object_servers.Handler.answer, {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["PATHENCODER_CACHE"] = str(root / "cache")
        write_shards(root / "tiles", 20)
        files = {
            f.relative_to(root / "tiles").as_posix(): f.read_bytes()
            for f in (root / "tiles").rglob("*")
            if f.is_file()
        }
        with object_servers.web_server(files) as held:
            for late in given.latency:

                def answer(self: Any, *, body: bool, late: float = late) -> None:
                    time.sleep(late / 1000)
                    plain(self, body=body)

                with instead(object_servers.Handler, "answer", answer):
                    for cache in (0, 64):
                        shutil.rmtree(root / "cache", ignore_errors=True)
                        rows[f"{late:g} ms{', cache' * bool(cache)}"] = read_late(held, cache)
    for title, row in rows.items():
        print(f"{title:20s}" + "".join(f"{key} {value:9.2f}   " for key, value in row.items()))
    print(json.dumps({"benchmark": "archive_scale servers", "of": rows}))


def read_late(held: Any, cache: int) -> dict[str, float]:
    """Open and read from the server; twice, where there is a cache."""
    begun = time.perf_counter()
    corpus = open_corpus(held.address, cache_mb=cache)
    opened = time.perf_counter() - begun
    sampler = make_sampler(corpus, batch=BATCH, seed=0)
    out = {"open_s": round(opened, 2)}
    for turn in ("first", "second")[: 1 + bool(cache)]:
        asked, begun = len(held.ranges), time.perf_counter()
        for _ in batches(corpus, sampler, canvas=SIDE, start=0, stop=12, threads=2):
            pass
        seconds = time.perf_counter() - begun
        out[f"{turn}_tiles_s"] = round(12 * BATCH / seconds, 1)
        out[f"{turn}_requests"] = len(held.ranges) - asked
    return out


def checkpoint(given: argparse.Namespace) -> None:
    """The third part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, float] = {}
        for world, act in ((4, "save"), (2, "load")):
            begun = time.perf_counter()
            torch.multiprocessing.spawn(
                _one_process, (world, act, given.model, folder), nprocs=world
            )
            found[f"{act}_with_start_s"] = round(time.perf_counter() - begun, 2)
            for rank in range(world):
                seconds, memory, same = json.loads((folder / f"{act}{rank}").read_text())
                found[f"{act}_s"] = max(found.get(f"{act}_s", 0), seconds)
                found[f"{act}_mb_a_process"] = max(found.get(f"{act}_mb_a_process", 0), memory)
                found["same"] = min(found.get("same", 1), same)
        size = sum(f.stat().st_size for f in (folder / "checkpoint").iterdir())
    found["gb"] = round(size / 1e9, 2)
    print(f"{given.model}: " + ", ".join(f"{key} {value:g}" for key, value in found.items()))
    print(json.dumps({"benchmark": "archive_scale checkpoint", "model": given.model, **found}))


def _one_process(rank: int, world: int, act: str, model: str, folder: Path) -> None:
    """Save or load one process's share of the weights and of both moments."""
    from torch import distributed as dist
    from torch.distributed import checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    store = f"file://{folder / act}.store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    with torch.device("meta"):
        network = compat.import_timm().create_model(f"{model}_patch16_224", num_classes=0)
    shapes = {name: value.shape for name, value in network.state_dict().items()}

    def filled(number: int, shape: torch.Size, value: float | None) -> Any:
        whole = torch.zeros(shape)
        if value is None:
            generator = torch.Generator().manual_seed(number)
            whole = torch.randn(shape, generator=generator)
        return distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)

    names = [f"{kind}.{name}" for kind in ("weight", "first", "second") for name in shapes]
    value = None if act == "save" else 0.0
    state = {n: filled(i, shapes[n.partition(".")[2]], value) for i, n in enumerate(names)}
    dist.barrier()
    begun = time.perf_counter()
    if act == "save":
        dcp.save(state, checkpoint_id=folder / "checkpoint")
    else:
        dcp.load(state, checkpoint_id=folder / "checkpoint")
    seconds = time.perf_counter() - begun
    same = all(
        torch.equal(state[n].to_local(), filled(i, shapes[n.partition(".")[2]], None).to_local())
        for i, n in enumerate(names)
        if i % 40 == 0
    )
    (folder / f"{act}{rank}").write_text(json.dumps([round(seconds, 2), round(resident()), same]))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("servers", "checkpoint"))
    parser.add_argument("--slides", type=int, default=110_000)
    parser.add_argument("--tiles", type=int, default=1_000_000_000)
    parser.add_argument("--latency", type=float, nargs="*", default=[0, 20, 100])
    parser.add_argument("--model", default="vit_large")
    given = parser.parse_args()
    {"servers": servers, "checkpoint": checkpoint, None: archive}[given.part](given)


if __name__ == "__main__":
    main()
