"""The wheel alone: no extras, no test tools, no network.

Run with the environment's Python, outside the checkout.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
for absent in (
    "sklearn",
    "skimage",
    "openslide",
    "pytest",
    "training",
    "matplotlib",
    "onnxruntime",
):
    spec = importlib.util.find_spec(absent)
    assert spec is None, f"{absent} is here: this environment is not slim"

import h5py  # noqa: E402
import numpy as np  # noqa: E402

import pathencoder  # noqa: E402

assert "torch" not in sys.modules, "importing pathencoder imported torch"
assert (Path(pathencoder.__file__).parent / "py.typed").exists()
assert "site-packages" in pathencoder.__file__, pathencoder.__file__

encoder = pathencoder.load_encoder()
rows = encoder.encode(np.zeros((3, 80, 90, 3), np.uint8), progress=False)
assert rows.shape == (3, encoder.spec.dim), rows.shape
assert np.isfinite(rows).all()
graph = Path(pathencoder.__file__).parent / "weights/pathencoder-tiny/model.onnx"
assert graph.stat().st_size > 5_000_000

command = Path(sys.executable).with_name("pathencoder")
for arguments in (["--help"], ["list"], ["info", "uni"], ["verify"]):
    done = subprocess.run([command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(
        [sys.executable, "-m", "pathencoder", "demo"], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert (Path(folder) / "demo.png").stat().st_size > 100_000
    with h5py.File(Path(folder) / "slide.h5", "w") as file:  # as CLAM writes it
        file["features"] = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
        file["coords"] = np.stack(np.divmod(np.arange(9), 3), axis=1) * 256
    for verb, written in (("explore", "explore.html"), ("picture", "slide-pca.png")):
        done = subprocess.run(
            [command, verb, "slide.h5"], capture_output=True, text=True, cwd=folder
        )
        assert done.returncode == 0, done.stderr
        assert (Path(folder) / written).stat().st_size > 10_000
    # what an extra brings is asked for by name
    asked = [command, "nuclei", "demo.png", "--mpp", "0.5", "--out", "nuclei"]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=folder)
    assert done.returncode != 0, done.stdout
    assert "pathencoder[nuclei]" in done.stderr + done.stdout, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "timm", "pillow"))
print(
    f"1 passed, 0 failed: the wheel alone encodes {rows.shape}, lists, verifies, draws its demo"
    f" and maps of features, and asks for extras by name ({versions})"
)
