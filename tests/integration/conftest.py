"""What tests of `pathencoder encode` share: a small encoder, tiles, and the command."""

import pytest
import small_encoders
from PIL import Image
from small_slides import MemorySlide, section

from pathencoder.cli.main import run
from pathencoder.encoder import Encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small encoder's folder."""
    path = tmp_path_factory.mktemp("encoder") / "small"
    small_encoders.encoder("cnn").save_pretrained(path)
    return path


@pytest.fixture
def tiles(tmp_path):
    """Six tiles in two folders."""
    for n in range(6):
        path = tmp_path / "tiles" / ("a" if n % 2 else "b") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small_encoders.picture(n, 80, 80)).save(path)
    return tmp_path / "tiles"


@pytest.fixture
def encode(folder, tmp_path, capsys):
    """Runs the command; returns (status, standard output, standard error)."""

    def call(*arguments, out="out"):
        status = run(
            [
                "encode",
                *map(str, arguments),
                "--out",
                str(tmp_path / out),
                "--encoder",
                str(folder),
                "--device",
                "cpu",
            ]
        )
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def forwards(monkeypatch):
    """Counts the images that go through a network."""
    seen = []
    real = Encoder.results

    def counting(self, images, **options):
        for result in real(self, images, **options):
            seen.append(result.key)
            yield result

    monkeypatch.setattr(Encoder, "results", counting)
    return seen


@pytest.fixture
def slide(tmp_path, monkeypatch):
    """A slide in memory that takes the place of files; returns a function that makes it."""

    def make(name="s.svs", **options):
        made = MemorySlide(**{"pixels": section(), "path": tmp_path / name, **options})
        made.path.write_bytes(b"x" * 10)
        monkeypatch.setattr("pathencoder.features.slide.open_slide", lambda path: made)
        return made

    return make
