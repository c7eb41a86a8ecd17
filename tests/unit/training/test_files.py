"""Files of training are written whole or not at all."""

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from small_runs import settings, write_tiles

from pathencoder.errors import StoreError
from training.data.corpus import open_corpus
from training.files import append_text, save_figure, write_text
from training.provenance.record import of_run
from training.trainer import prepare

pytestmark = pytest.mark.full


@pytest.fixture
def full_disk(monkeypatch):
    """Calling it makes every later write stop half way."""

    def half(self, text, **options):
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    return lambda: monkeypatch.setattr("pathlib.Path.write_text", half)


def test_texts_stay_whole(tmp_path, full_disk):
    write_text(tmp_path / "a.txt", "first\n")
    append_text(tmp_path / "a.txt", "second µ\n")
    append_text(tmp_path / "b.txt", "alone\n")
    full_disk()
    for write in (write_text, append_text):
        with pytest.raises(StoreError, match="disk is full"):
            write(tmp_path / "a.txt", "third\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "first\nsecond µ\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_figure_has_the_format_of_its_suffix(tmp_path):
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        save_figure(Figure(), tmp_path / name, dpi=20)
        with Image.open(tmp_path / name) as image:
            assert image.format == form


def test_the_description_of_a_run_stays_whole(tmp_path, full_disk):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "run").mkdir()
    cfg = settings(write_tiles(tmp_path / "tiles", slides=2, each=1), tmp_path / "run")
    corpus = open_corpus(cfg.data.root)
    made_from = of_run(cfg, corpus, device=torch.device("cpu"), dtype=None)
    prepare._write_identity(cfg, made_from, cfg.run.out)
    before = {p.name: p.read_bytes() for p in cfg.run.out.iterdir()}
    assert sorted(before) == ["config.yaml", "data.json"]
    full_disk()
    with pytest.raises(StoreError):
        prepare._write_identity(cfg, made_from, cfg.run.out)
    assert {p.name: p.read_bytes() for p in cfg.run.out.iterdir()} == before
