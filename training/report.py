"""A run's curves as a picture: python -m training.report RUN [OUT.png]"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError

# Curves drawn, one panel each where the log has them: (kind of line, name or its beginning, title).
_PANELS = (
    ("train", "loss", "loss"),
    ("train", "pair_cosine", "cosine of the two views"),
    ("train", "teacher_entropy", "teacher entropy, one tile (1 = uniform)"),
    ("train", "mean_entropy", "teacher entropy, mean over tiles (0 = collapse)"),
    ("train", "grad_norm", "gradient norm"),
    ("knn", "rankme", "effective rank (RankMe)"),
    ("knn", "knn_", "k-NN balanced accuracy, train parts"),
)


def curves(run: Path, out: Path) -> Path:
    """Draw what run/log.jsonl holds. Raises ConfigError for a folder without a log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read_log(run)
    panels = [p for p in _PANELS if any(line["kind"] == p[0] and any(k.startswith(p[1]) for k in line) for line in lines)]
    rows = -(-len(panels) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(10, 2.6 * rows), squeeze=False, constrained_layout=True)
    for axis, (kind, name, title) in zip(axes.flat, panels, strict=False):
        chosen = [line for line in lines if line["kind"] == kind]
        for key in sorted({k for line in chosen for k in line if k.startswith(name)}):
            points = [(line["step"], line[key]) for line in chosen if key in line]
            axis.plot(*zip(*points, strict=True), marker="o" if len(points) < 12 else None, label=key.removeprefix("knn_"))
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        if len(axis.lines) > 1:
            axis.legend(fontsize=8)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(run.name, fontsize=11)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
    return out


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of run/log.jsonl; where a resumed run wrote a step twice, the later line."""
    file = run / "log.jsonl"
    if not file.is_file():
        raise ConfigError(f"{run} holds no log.jsonl: give a run's folder")
    by_key = {(line["kind"], line["step"]): line for line in map(json.loads, file.read_text().splitlines())}
    return sorted(by_key.values(), key=lambda line: line["step"])


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    print(curves(folder, Path(sys.argv[2]) if len(sys.argv) == 3 else folder / "curves.png"))
