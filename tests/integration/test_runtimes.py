"""Feature files and the runtime that computes: it is recorded, kept in a file, and never mixed."""

import numpy as np
import pytest
from fake_runtimes import ROWS, use_engine, write_graph
from PIL import Image
from small_encoders import encoder, picture
from small_slides import MemorySlide, section

import pathencoder
from pathencoder.cli.main import run
from pathencoder.features.provenance import Settings
from pathencoder.features.slide import slide_to_file
from pathencoder.features.tiles import tiles_to_file
from pathencoder.files import Mismatch


@pytest.fixture
def saved(tmp_path):
    """The folder of an encoder with an exported file."""
    folder = tmp_path / "encoder"
    encoder("cnn").save_pretrained(folder)
    write_graph(folder, pathencoder.load_encoder(folder, device="cpu").spec)
    return folder


@pytest.fixture
def loaded(saved):
    return pathencoder.load_encoder(saved, device="cpu")


@pytest.fixture
def slide(tmp_path, monkeypatch):
    made = MemorySlide(pixels=section(), path=tmp_path / "s.svs")
    made.path.write_bytes(b"x" * 10)
    monkeypatch.setattr("pathencoder.features.slide.open_slide", lambda path: made)
    return made


@pytest.fixture
def tiles(tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    return folder


def encode(slide, enc, file, **settings):
    return slide_to_file(enc, slide.path, file, Settings(**settings))


def encode_tiles(folder, enc, file, **settings):
    images = [(p.name, p) for p in sorted(folder.iterdir())]
    return tiles_to_file(enc, folder, images, file, Settings(**settings))


def said(file):
    found = pathencoder.read_features(file).attributes
    return found["runtime"], found["precision"]


def stop_after(monkeypatch, batches):
    """Interrupt the second call of the graph or of the network."""
    from pathencoder.runtime import Runner

    calls, real = [], Runner._forward

    def forward(self, pixels):
        calls.append(1)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(Runner, "_forward", forward)


def test_the_runtime_is_recorded_and_a_file_that_is_done_stays(
    loaded, slide, tmp_path, monkeypatch
):
    use_engine(monkeypatch, installed=False)
    file = tmp_path / "s.h5"
    encode(slide, loaded, file)
    before = file.read_bytes()
    assert said(file) == ("torch", "fp32")
    use_engine(monkeypatch)  # installed since
    assert encode(slide, loaded, file).status == "before"
    assert file.read_bytes() == before
    with pytest.raises(Mismatch, match="runtime: torch there, onnx now"):
        encode(slide, loaded, file, runtime="onnx")
    encode(slide, loaded, file, overwrite=True)
    assert said(file) == ("onnx", "fp32")
    assert np.array_equal(pathencoder.read_features(file).rows[0], ROWS)
    use_engine(monkeypatch, installed=False)
    assert encode(slide, loaded, file).status == "before"


@pytest.mark.parametrize("first", ["torch", "onnx"])
def test_a_slide_that_was_begun_is_finished_by_the_same_runtime(
    loaded, slide, tmp_path, monkeypatch, first
):
    file = tmp_path / "s.h5"
    use_engine(monkeypatch, installed=first == "onnx")
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            encode(slide, loaded, file, batch_size=4)
    assert (tmp_path / ".s.h5.partial").exists()
    use_engine(monkeypatch, installed=first == "torch")
    if first == "onnx":
        with pytest.raises(Mismatch, match=r"begun with the runtime onnx, which cannot run here"):
            encode(slide, loaded, file)
        use_engine(monkeypatch)
    assert encode(slide, loaded, file).status == "done"
    rows = pathencoder.read_features(file).rows
    assert said(file) == (first, "fp32")
    assert {np.array_equal(row, ROWS) for row in rows} == {first == "onnx"}


def test_new_tiles_are_embedded_by_the_runtime_of_the_others(loaded, tiles, tmp_path, monkeypatch):
    use_engine(monkeypatch, installed=False)
    file = tmp_path / "tiles.h5"
    encode_tiles(tiles, loaded, file)
    Image.fromarray(picture(9)).save(tiles / "9.png")
    use_engine(monkeypatch)
    assert encode_tiles(tiles, loaded, file).new == 1
    rows = pathencoder.read_features(file).rows
    assert said(file) == ("torch", "fp32")
    assert len(rows) == 4
    assert not any(np.array_equal(row, ROWS) for row in rows)


def test_files_of_two_calibrations_differ(loaded, saved, tiles, tmp_path, monkeypatch):
    use_engine(monkeypatch)
    write_graph(saved, loaded.spec, precision="int8", content=b"first")
    file = tmp_path / "tiles.h5"
    encode_tiles(tiles, loaded, file, precision="int8")
    assert said(file) == ("onnx", "int8")
    assert encode_tiles(tiles, loaded, file, precision="int8").status == "before"
    write_graph(saved, loaded.spec, precision="int8", content=b"second")
    with pytest.raises(Mismatch, match="graph"):
        encode_tiles(tiles, loaded, file, precision="int8")


def test_the_command_line_takes_a_runtime(saved, loaded, tiles, tmp_path, monkeypatch, capsys):
    use_engine(monkeypatch)
    (tmp_path / "elsewhere").mkdir()
    for name in ("model.onnx", "model.onnx.json"):
        (saved / name).rename(tmp_path / "elsewhere" / name)
    command = ["encode", tiles, "--encoder", saved, "--device", "cpu", "--out"]

    def status(out, *options):
        return run([str(x) for x in [*command, tmp_path / out, *options]])

    assert status("auto") == 0
    assert said(tmp_path / "auto/tiles.h5") == ("torch", "fp32")
    monkeypatch.chdir(tmp_path)
    assert status("named", "--runtime", "elsewhere") == 0
    assert said(tmp_path / "named/tiles.h5") == ("onnx", "fp32")
    assert status("x", "--runtime", "onnx") == 2
    assert "no exported file (model.onnx) beside its weights" in capsys.readouterr().err
    assert status("x", "--runtime", "onxx") == 2
    assert "runtime='onxx': one of auto, torch, onnx, openvino" in capsys.readouterr().err
    assert status("x", "--precision", "int8") == 2


def test_several_encoders_each_have_their_runtime(saved, slide, tmp_path, monkeypatch):
    use_engine(monkeypatch)
    encoder("vit").save_pretrained(tmp_path / "plain")
    both = [pathencoder.load_encoder(f, device="cpu") for f in (saved, tmp_path / "plain")]
    found = pathencoder.encode_slide_jointly(slide.path, both, tmp_path / "out", progress=False)
    assert [one.attributes["runtime"] for one in found.values()] == ["onnx", "torch"]
    assert np.array_equal(found["small-cnn"].rows[0], ROWS)
