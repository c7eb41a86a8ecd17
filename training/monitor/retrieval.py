"""A picture of tile retrieval: a few tiles and their nearest tiles of other slides."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder import load_encoder, metrics
from pathencoder.errors import ConfigError, ImageError
from training import config
from training.data.loader import fit_canvas
from training.data.sampler import make_sampler
from training.data.tiles import STAIN_CLASSES, Corpus
from training.files import save_figure
from training.from_config import corpus_of

log = logging.getLogger(__name__)

_SHOWN_PX = 96


def retrieval(
    run: Path, out: Path, *, tiles: int = 400, queries: int = 6, nearest: int = 7
) -> Path:
    """Draw query tiles and the nearest tiles of each, a row per query.

    Args:
        run: The folder of a run with an exported encoder.
        out: The picture to write.
        tiles: Tiles of the corpus to search.
        queries: Number of query tiles among them.
        nearest: Number of nearest tiles (by cosine) of other slides.

    Returns:
        `out`.

    Raises:
        ConfigError: The run has no exported encoder, its tiles are all of one slide, or none of
            them can be decoded.
    """
    if not (run / "export" / "model.safetensors").is_file():
        raise ConfigError(f"{run} has no export yet: let the run end, or limit it with minutes=")
    cfg = config.load(run / "config.yaml")
    corpus = corpus_of(cfg)
    indices, pictures = _some(corpus, min(tiles, len(corpus)))
    slides = corpus.slides_of(indices)
    if len(set(slides.tolist())) < 2:
        raise ConfigError(
            f"all tiles of {cfg.data.root} are of one slide: retrieval needs tiles of other slides"
        )
    rows = load_encoder(run / "export").encode(pictures, progress=False)
    stains = corpus.stains_of(indices)
    queried = _evenly(stains, queries)
    found = neighbours(rows, slides, queried, nearest)
    _draw(out, pictures, queried, found, [STAIN_CLASSES[s] for s in stains], run.name)
    return out


def neighbours(
    rows: np.ndarray, slides: np.ndarray, queried: np.ndarray, count: int
) -> list[list[tuple[int, float]]]:
    """The nearest rows of other slides.

    Args:
        rows: Embeddings, float [N, D].
        slides: int [N], the slide of each row.
        queried: Indices of the query rows.
        count: Neighbours of each at most.

    Returns:
        (index, cosine) of the nearest rows, nearest first, a list per query row.
    """
    near, cosine = metrics.nearest_neighbours(
        rows[queried], rows, count, groups=(slides[queried], slides)
    )
    return [
        [(int(j), float(c)) for j, c in zip(*pair, strict=True) if np.isfinite(c)]
        for pair in zip(near, cosine, strict=True)
    ]


def _some(corpus: Corpus, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Indices and pixels of tiles of as many slides as possible, without undecodable ones."""
    drawn = np.unique(make_sampler(corpus, batch=count, seed=0).draw(0))
    kept, pictures = [], []
    for index in drawn.tolist():
        try:
            picture = corpus.read(index)
        except ImageError as error:
            log.warning("skipped: %s", error)
            continue
        kept.append(index)
        pictures.append(fit_canvas(picture, min(picture.shape[:2])))
    if not kept:
        raise ConfigError("no tile of the corpus can be decoded: see the log for the reasons")
    return np.array(kept), pictures


def _evenly(stains: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` tiles: the stain classes in turn, evenly spaced within each class."""
    per_class = [np.flatnonzero(stains == s) for s in np.unique(stains)]
    turns = -(-count // len(per_class))
    picked = [
        where[np.linspace(0, len(where) - 1, turns + 2).astype(int)[1:-1]] for where in per_class
    ]
    in_turn = [int(p[t]) for t in range(turns) for p in picked]
    return np.array(list(dict.fromkeys(in_turn))[:count])


def _draw(
    out: Path,
    pictures: list[np.ndarray],
    queried: np.ndarray,
    found: list[list[tuple[int, float]]],
    stains: list[str],
    title: str,
) -> None:
    import matplotlib  # type: ignore[import-not-found]  # an extra, may be missing here

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 1 + max(map(len, found))
    figure, axes = pyplot.subplots(
        len(queried),
        columns,
        figsize=(1.15 * columns, 1.35 * len(queried)),
        squeeze=False,
        constrained_layout=True,
    )
    for row, query, near in zip(axes, queried.tolist(), found, strict=True):
        for axis in row:
            axis.set_axis_off()
        _show(row[0], pictures[query], f"query: {stains[query]}", framed=True)
        for axis, (index, cosine) in zip(row[1:], near, strict=False):
            _show(axis, pictures[index], f"{stains[index]} {cosine:.2f}", framed=False)
    figure.suptitle(f"{title}: nearest tiles of other slides, with their cosine", fontsize=9)
    save_figure(figure, out, dpi=90)
    pyplot.close(figure)


def _show(axis: Any, picture: np.ndarray, title: str, *, framed: bool) -> None:
    axis.imshow(fit_canvas(picture, _SHOWN_PX))
    axis.set_title(title, fontsize=6.5, pad=2)
    if framed:
        axis.set_axis_on()
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set(color="tab:blue", linewidth=2)
