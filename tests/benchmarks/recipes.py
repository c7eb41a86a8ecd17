"""Every recipe, small, on one and two processes: killed, stopped, damaged, resumed and exported.

    python -m tests.benchmarks.recipes [--only dino] [--processes 1 2] [--results FILE] [--table]

Each recipe of training/recipes gets a small sibling (tests/support/small_recipes.py) that trains
six steps on tiles cut from scikit-image's pictures, through `training.pretrain.main`, in processes
of their own; those with a ViT also with sharded weights. A trial is one command, started again and
again:

1. SIGKILL to every process in step 4, after the checkpoint of step 2;
2. resumed from step 2; SIGTERM in step 5: the step is finished and saved, status 0;
3. the newest checkpoint is damaged: the run resumes from the one before, and exports.

The losses of steps that were done again must be those of the first time. Once for each method and
kind of process the run's folder is a file system that is too small for two checkpoints: the command
must end with status 1, keep the first checkpoint, and finish when there is space (needs the right
to mount).

Results are appended to a file, and trials that are in it are not repeated. Printed: a row of a
Markdown table for each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from pathencoder import load_encoder
from tests.support import groups, small_recipes
from training import config, pretrain

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "training/recipes"
_SECONDS = 900  # for one start
_STEPS = ("optim.steps=6", "run.checkpoint_every=2")


@dataclass(frozen=True)
class Case:
    """A recipe on so many processes."""

    recipe: str
    processes: int
    weights: str  # whole, or sharded
    method: str

    @property
    def settings(self) -> list[str]:
        """How its processes work together."""
        return [f"run.parallel={'fsdp' if self.weights == 'sharded' else 'ddp'}"]


@dataclass
class Row:
    """What was seen of a case; None: not tried."""

    case: Case
    killed: bool | None = None
    stopped: bool | None = None
    damaged: bool | None = None
    repeated: bool | None = None
    exported: bool | None = None
    full_disk: bool | None = None
    seconds: float = 0.0
    words: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all that was tried went well."""
        tried = (self.killed, self.stopped, self.damaged, self.repeated, self.exported)
        return all(tried) and self.full_disk is not False


def process(arguments: list[str], log: Path, variables: dict[str, str], act: str) -> None:
    """The command, with its output in a file; `act` is what happens to it."""
    file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= variables
    before = pretrain.set_rates

    def at_step(optimizer: object, cfg: config.Config, step: int) -> None:
        if act == "hang" and step == 3:
            time.sleep(_SECONDS)  # until it is killed
        if act == "terminate" and step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        before(optimizer, cfg, step)  # type: ignore[arg-type]

    pretrain.set_rates = at_step  # type: ignore[assignment]
    pretrain.end(pretrain.main(arguments))


class Trial:
    """One case in a folder of its own."""

    def __init__(self, case: Case, tiles: Path, folder: Path) -> None:
        self.case, self.out, self.log = case, folder / "run", folder / "output.txt"
        recipe = RECIPES / f"{case.recipe}.yaml"
        small = small_recipes.sibling(recipe, tiles, self.out)
        self.arguments = [str(recipe), *small, *_STEPS, *case.settings]

    def start(self, act: str = "") -> list[BaseProcess]:
        """The command once a process, in the environment that torchrun gives."""
        world, port = self.case.processes, groups.free_port()
        alone = world == 1 and self.case.weights == "whole"
        return [
            groups.spawned(
                process,
                self.arguments,
                self.log,
                {} if alone else groups.environment(rank, world, port),
                act,
            )
            for rank in range(world)
        ]

    def run(self, act: str = "") -> list[int | None]:
        """Start the command and wait; returns the exit statuses."""
        return joined(self.start(act))

    def kill(self) -> bool:
        """SIGKILL in step 4; returns whether the run was going on and had a checkpoint."""
        running, ends = self.start("hang"), time.monotonic() + _SECONDS
        while time.monotonic() < ends and all(p.is_alive() for p in running):
            if self.checkpoints() == [2] and 3 in self.losses():
                break
            time.sleep(0.05)
        for p in running:
            p.kill()
        return joined(running) == [-signal.SIGKILL] * len(running) and self.checkpoints() == [2]

    def damage(self) -> int:
        """Cut a file of the newest checkpoint, remove the export; returns the step before."""
        before, newest = self.checkpoints()[-2:]
        file = max(
            (self.out / f"checkpoints/step-{newest:08d}").glob("*.distcp"),
            key=lambda f: f.stat().st_size,
        )
        os.truncate(file, file.stat().st_size // 2)
        return before

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints that are whole."""
        return sorted(int(p.parent.name[5:]) for p in self.out.glob("checkpoints/step-*/run.json"))

    def losses(self) -> dict[int, set[float]]:
        """Every loss that was logged of a step, with all its digits."""
        found, file = defaultdict[int, set[float]](set), self.out / "log.jsonl"
        for text in file.read_text().splitlines() if file.is_file() else []:
            line = json.loads(text) if text.endswith("}") else {}
            if line.get("kind") == "train":
                found[line["step"]].add(line["loss"])
        return found

    def says(self, words: str) -> bool:
        """Whether the command has printed this."""
        return self.log.is_file() and words in self.log.read_text(errors="replace")

    def exported(self) -> bool:
        """Whether the export is an encoder that loads, or a nuclei network."""
        if not (self.out / "export/config.json").is_file():
            return False
        about = json.loads((self.out / "export/config.json").read_text())
        own = "architecture" not in about
        return own or load_encoder(str(self.out / "export")).spec.dim > 0


def joined(running: list[BaseProcess]) -> list[int | None]:
    """Wait for processes; returns their exit statuses, None for one that did not end."""
    ends = time.monotonic() + _SECONDS
    for p in running:
        p.join(max(0.0, ends - time.monotonic()))
    statuses = [p.exitcode for p in running]
    for p in running:
        p.kill()
    return statuses


def tried(case: Case, tiles: Path, folder: Path, *, fill: bool) -> Row:
    """All events of a case."""
    row, trial, began = Row(case), Trial(case, tiles, folder), time.monotonic()
    fine = [0] * case.processes
    row.killed = trial.kill()
    row.stopped = trial.run("terminate") == fine and trial.says("stopped by SIGTERM after step 5")
    row.killed = row.killed and trial.says("steps 2 to 6")
    if trial.checkpoints()[-1:] == [5]:
        before = trial.damage()
        row.damaged = trial.run() == fine and trial.says(f"the run resumes from step {before}")
    losses = trial.losses()
    row.repeated = sorted(losses) == [1, 2, 3, 4, 5, 6] and all(
        len(v) == 1 for v in losses.values()
    )
    row.exported = trial.exported()
    if fill and row.good:
        row.full_disk = on_a_small_disk(case, tiles, folder, trial)
    row.seconds = round(time.monotonic() - began, 1)
    if not row.good and trial.log.is_file():
        row.words = trial.log.read_text(errors="replace").splitlines()[-25:]
    return row


def on_a_small_disk(case: Case, tiles: Path, folder: Path, done: Trial) -> bool | None:
    """The run in a file system that holds one checkpoint; None where none can be mounted."""
    newest = done.out / f"checkpoints/step-{done.checkpoints()[-1]:08d}"
    kilobytes = sum(f.stat().st_size for f in newest.rglob("*")) // 1024
    disk = folder / "disk"
    disk.mkdir()
    if not mounted(disk, f"size={int(1.5 * kilobytes) + 64}k"):
        return None
    try:
        trial = Trial(case, tiles, disk)
        trial.log = folder / "full.txt"
        failed = trial.run() == [1] * case.processes
        kept = trial.checkpoints() == [2] and trial.says("no space left")
        mounted(disk, "remount,size=64m")
        done_now = trial.run() == [0] * case.processes and trial.says("steps 2 to 6")
        good = failed and kept and done_now and trial.exported()
        if not good:
            print(trial.log.read_text(errors="replace")[-3000:], flush=True)
        return good
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def mounted(folder: Path, options: str) -> bool:
    """Mount a file system in memory, or change it; returns whether this is permitted."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def cases(only: str, processes: list[int], tiles: Path) -> Iterator[Case]:
    """The cases of the recipes whose path has this part."""
    for recipe in sorted(RECIPES.rglob("*.yaml")):
        name = str(recipe.relative_to(RECIPES).with_suffix(""))
        if only not in name:
            continue
        cfg = config.load(recipe, [f"data.root={tiles}"])
        for n in processes:
            for weights in ("whole", "sharded"):
                if weights == "whole" or small_recipes.is_vit(cfg):
                    yield Case(name, n, weights, cfg.method.name)


def in_order(found: list[Case]) -> list[Case]:
    """Those first whose method has not yet run in this way, several processes before one."""
    seen, first, rest = set[tuple[str, int, str]](), list[Case](), list[Case]()
    for case in sorted(found, key=lambda c: (-c.processes, c.weights == "whole")):
        kind = (case.method, case.processes, case.weights)
        (rest if kind in seen else first).append(case)
        seen.add(kind)
    return first + rest


def as_markdown(rows: list[Row]) -> str:
    """A table of the rows."""
    names = ("killed", "stopped", "damaged", "repeated", "exported", "full_disk")
    titles = ("kill -9", "SIGTERM", "damaged", "same losses", "export", "full disk", "s")
    head = f"| recipe | processes | weights | {' | '.join(titles)} |"
    lines = [head, "|---" * 10 + "|"]
    words = {True: "yes", False: "**no**", None: ""}
    for row in sorted(rows, key=lambda r: (r.case.recipe, r.case.processes, r.case.weights)):
        cells = [words[getattr(row, name)] for name in names]
        case = (row.case.recipe, str(row.case.processes), row.case.weights)
        lines.append(f"| {' | '.join((*case, *cells, f'{row.seconds:.0f}'))} |")
    return "\n".join(lines)


def known(file: Path) -> list[Row]:
    """The rows of a file of results."""
    if not file.is_file():
        return []
    values = [json.loads(line) for line in file.read_text().splitlines()]
    return [Row(**{**v, "case": Case(**v["case"])}) for v in values]


def main() -> None:
    """Try the cases that have no result; the exit status is 0 if all are good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="Part of a recipe's path.")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--results", type=Path, default=Path("runs/recipes.jsonl"))
    parser.add_argument("--table", action="store_true", help="Print the results so far.")
    asked = parser.parse_args()
    rows = known(asked.results)
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        tiles = small_recipes.write_pictures(Path(name) / "tiles")
        left = in_order(list(cases(asked.only, asked.processes, tiles)))
        filled = {(r.case.method, r.case.processes, r.case.weights) for r in rows}
        for case in [] if asked.table else left:
            if any(row.case == case for row in rows):
                continue
            kind = (case.method, case.processes, case.weights)
            folder = Path(name) / f"trial-{len(rows)}"
            folder.mkdir()
            row = tried(case, tiles, folder, fill=kind not in filled)
            filled.add(kind)
            rows.append(row)
            with asked.results.open("a") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")
            print(as_markdown([row]).splitlines()[-1], *row.words, sep="\n", flush=True)
    print(as_markdown(rows))
    sys.exit(0 if rows and all(r.good for r in rows) else 1)


if __name__ == "__main__":
    main()
