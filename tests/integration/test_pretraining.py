"""Pretraining as the documentation's first commands do it, on a folder of tiles."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
from paths import ROOT
from PIL import Image

from pathencoder import load_encoder

pytestmark = pytest.mark.full
RECIPES = ROOT / "training/recipes"
TINY = {
    "simclr": ["method.crop.px=32"],
    "byol": ["method.crop.px=32"],
    "distill": ["method.crop.px=64"],
    "dino": ["method.global_crops.px=64", "method.local_crops.px=32", "method.local_crops.count=1"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiles/: 64 px tiles of scikit-image's pictures, a folder a picture."""
    root = tmp_path_factory.mktemp("empty")
    for name in ("immunohistochemistry", "retina"):
        picture = getattr(skimage.data, name)()
        folder = root / "tiles" / name
        folder.mkdir(parents=True)
        for i in range(8):
            y, x = 128 + 64 * (i // 4), 128 + 64 * (i % 4)
            Image.fromarray(picture[y : y + 64, x : x + 64]).save(folder / f"{i}.png")
    return root


def pretrain(place, recipe, *settings):
    """The command, in a folder without the package's sources and without shared data."""
    return subprocess.run(
        [sys.executable, "-m", "training.pretrain", str(recipe), "data.root=tiles", *settings],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


CPU = sorted(RECIPES.glob("*_cpu.yaml"))


@pytest.mark.parametrize("recipe", CPU, ids=lambda p: p.stem)
def test_a_recipe_trains_on_a_folder_of_tiles(place, recipe):
    method, run = recipe.stem.split("_")[0], place / recipe.stem
    small = ["data.batch=4", "data.canvas=64", "run.log_every=1", *TINY[method]]
    done = pretrain(place, recipe, "steps=3", f"out={recipe.stem}", *small)
    assert done.returncode == 0, done.stderr
    assert "done after 3 of 3 steps" in done.stderr
    assert re.search(r"  lr [\d.]+e-0[56]  ", done.stderr)  # in the warm-up
    encoder = load_encoder(run / "export")
    row = encoder.encode(sorted((place / "tiles").rglob("*.png"))[:1], progress=False)
    assert row.shape == (1, encoder.spec.dim)
    assert np.isfinite(row).all()


def test_a_time_limit_fits_the_schedule(place):
    """minutes= gives a whole schedule; with steps= too, the export says where it was cut."""
    small = ["data.batch=4", "data.canvas=64", "run.log_every=1", *TINY["simclr"]]
    done = pretrain(place, RECIPES / "simclr_tiny_cpu.yaml", "minutes=0.3", "out=fit", *small)
    assert done.returncode == 0, done.stderr
    record = json.loads((place / "fit/schedule.json").read_text())
    steps = record["steps"]
    assert record["warmup"] == min(50, steps // 10)
    assert f"done after {steps} of {steps} steps" in done.stderr
    spec = load_encoder(place / "fit/export").spec
    assert f" from pathencoder-tiny, {steps} steps" in spec.training
    assert not (place / "fit/.trial").exists()
    cut = pretrain(
        place, RECIPES / "simclr_tiny_cpu.yaml", "minutes=1e-9", "steps=300", "out=cut", *small
    )
    assert cut.returncode == 0, cut.stderr
    assert "stopped after 1 of 300 steps, at learning rate 6e-06" in cut.stderr
    assert "(stops near step 1, before the schedule ends)" in cut.stderr
    assert "stopped at 1 of 300 steps" in load_encoder(place / "cut/export").spec.training


def test_a_recipe_of_bundled_weights_says_where_its_start_is_had(place):
    start = "backbone.start=gone.safetensors"
    done = pretrain(
        place, RECIPES / "bundled/simclr_tiny_cpu.yaml", "out=none", "data.licences=[]", start
    )
    assert done.returncode == 1
    assert "no file 'gone.safetensors'" in done.stderr
    assert "Traceback" not in done.stderr
