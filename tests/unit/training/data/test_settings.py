"""Every field of the data settings has an effect on the tiles, the sampler or the batches."""

import csv
import io
import itertools
import tarfile

import numpy as np
import pytest
from PIL import Image
from small_archive import small_manifest
from small_runs import values

from training import config
from training.config import DataSettings
from training.data.loader import batches
from training.from_config import corpus_of, sampler_of

pytestmark = pytest.mark.full

# Slides of different sizes, stains, organs, licences and sources: (tiles, stain class, organ,
# licence, source).
SLIDES = (
    (5, "he", "colon", "P", "a"),
    (1, "he", "colon", "P", "b"),
    (2, "he", "breast", "N", "a"),
    (2, "ihc", "breast", "P", "c"),
    (1, "ihc", "stomach", "P", "b"),
)
# One value for every field, different from its default.
CHANGED = {
    "root": None,  # the second corpus of the test
    "slides": None,  # an archive of one slide
    "share": 0.5,
    "licences": ["P"],
    "stains": ["he"],
    "without": ["b"],
    "canvas": 32,
    "batch": 4,
    "slide_power": 1.0,
    "organ_power": 0.0,
    "stain_power": 0.0,
    "stain_weights": {"ihc": 3.0},
    "window": 1,
    "run": 4,
    "stain": "ihc",
    "mpp": 0.25,
}


def shards(folder, shade, *, stained=True):
    folder.mkdir()
    rows = []
    for slide, (tiles, stain, organ, licence, source) in enumerate(SLIDES):
        with tarfile.open(folder / f"part-{slide}.tar", "w") as tar:
            for i in range(tiles):
                data = io.BytesIO()
                tile = np.full((48, 48, 3), shade + 10 * slide, np.uint8)
                tile[12:36, 12:36] += 5
                Image.fromarray(tile).save(data, "PNG")
                info = tarfile.TarInfo(f"s{slide}-{i}.png")
                info.size = len(data.getvalue())
                tar.addfile(info, io.BytesIO(data.getvalue()))
                row = {
                    "shard": f"part-{slide}.tar",
                    "key": f"s{slide}-{i}",
                    "src": source,
                    "stain_class": stain if stained else "",
                    "organ": organ,
                    "licence": licence,
                    "mpp_value": "0.5",
                }
                rows.append({**row, "slide": f"s{slide}", "use": "1"})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def built(data, out):
    """What the data settings decide: tiles, probabilities of slides, the first batch."""
    cfg = config.check({**values("unused", out), "data": data})
    d = cfg.data
    corpus = corpus_of(cfg)
    sampler = sampler_of(cfg, corpus)
    _, batch = next(batches(corpus, sampler, canvas=d.canvas, mpp=d.mpp, start=0, stop=1))
    stains = corpus.stain_counts()
    return (
        corpus.keys,
        stains,
        sampler.weights.tolist(),
        batch.tiles.shape,
        batch.tiles.numpy().tobytes(),
        batch.indices.tolist(),
    )


def test_the_table_names_every_field():
    assert CHANGED.keys() == DataSettings.model_fields.keys()


@pytest.mark.parametrize("field", CHANGED)
def test_a_field_changes_what_is_built(field, tmp_path):
    root = shards(tmp_path / "tiles", 40, stained=field != "stain")
    data = {"root": str(root), "canvas": 48, "batch": 6}
    value = CHANGED[field]
    if field == "root":
        value = str(shards(tmp_path / "others", 90))
    elif field == "slides":
        small_manifest(tmp_path, 1)
        value = str(tmp_path / "m.parquet")
    assert built({**data, field: value}, tmp_path) != built(data, tmp_path)
    assert built(data, tmp_path) == built(data, tmp_path)


def test_larger_shares_hold_smaller_ones(tmp_path):
    root = shards(tmp_path / "tiles", 40)
    data = {"root": str(root), "canvas": 48, "batch": 6}
    shares = (0.2, 0.4, 0.7, 1.0)
    parts = [set(built({**data, "share": share}, tmp_path)[0]) for share in shares]
    assert all(small <= large for small, large in itertools.pairwise(parts))
    assert 0 < len(parts[0]) < len(parts[-1]) == 11
    table = (root / "manifest.csv").read_text().replace("use", "use,patient", 1)
    (root / "manifest.csv").write_text(table.replace(",1\n", ",1,one\n"))
    assert len(built({**data, "share": 0.99}, tmp_path)[0]) in (0, 11)


def test_powers_of_a_config_are_the_samplers(tmp_path):
    data = {
        "root": str(shards(tmp_path / "tiles", 40)),
        "canvas": 48,
        "batch": 5,
        "slide_power": 0.0,
        "organ_power": 0.0,
        "stain_power": 0.0,
    }
    _, _, weights, *_ = built(data, tmp_path)
    # Every stain has half; in it every organ has half (breast and colon, breast and stomach); in it
    # every slide has the same.
    assert weights == pytest.approx([0.125, 0.125, 0.25, 0.25, 0.25])


def test_a_weight_of_a_stain_without_tiles_is_logged(tmp_path, caplog):
    data = {"root": str(shards(tmp_path / "tiles", 40)), "canvas": 48, "batch": 6}
    built({**data, "stain_weights": {"ihc": 2.0}}, tmp_path)
    assert "stain_weights" not in caplog.text
    built({**data, "stain_weights": {"ihc": 2.0, "cytology": 2.0}}, tmp_path)
    assert "data.stain_weights: no tile is cytology: these weights change nothing" in caplog.text
