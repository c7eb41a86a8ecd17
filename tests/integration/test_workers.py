"""Transforms in a DataLoader's spawned workers, and Ctrl-C while tiles are encoded."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform

SPEC = EncoderSpec(
    name="small",
    architecture="test_efficientnet",
    dim=256,
    width=256,
    input_size=64,
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
    embedding="pool",
    mpp=0.5,
)


class Tiles(Dataset):
    """Paths and a transform, as a user writes it."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(self.paths[index], mpp=0.25)


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (150, 160, 3), dtype=np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    return sorted(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_transforms_travel_to_spawned_workers(paths):
    transform = Transform(SPEC)
    loader = DataLoader(
        Tiles(paths, transform), batch_size=2, num_workers=1, multiprocessing_context="spawn"
    )
    found = torch.cat(list(loader))
    torch.testing.assert_close(
        found, torch.stack([transform(p, mpp=0.25) for p in paths]), rtol=0, atol=0
    )


ENDLESS = """
    import itertools, signal, threading
    import numpy as np
    from pathencoder import network
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec

    if __name__ == "__main__":
        spec = EncoderSpec(name="small", architecture="test_efficientnet", dim=256, width=256,
                           input_size=64, mean=(.5, .5, .5),
                           std=(.2, .2, .2), embedding="pool")
        encoder = Encoder(network.create(spec, random=True), spec)
        tile = np.zeros((300, 300, 3), np.uint8)
        # the children of a background shell ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            for key, row in encoder.stream(tile for _ in itertools.count()):
                if key == 64:
                    print("running", flush=True)
        except KeyboardInterrupt:
            left = [t.name for t in threading.enumerate()
                    if t is not threading.main_thread() and not t.daemon]
            print("interrupted", left, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32", reason="a console event cannot be sent to one process there"
)
def test_ctrl_c_ends_encode_promptly_and_leaves_no_thread(tmp_path):
    script = Path(tmp_path / "endless.py")
    script.write_text(textwrap.dedent(ENDLESS))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "running\n"
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert out == "interrupted []\n"
    assert process.returncode == 0
    assert time.monotonic() - start < 30
