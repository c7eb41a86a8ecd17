"""`pathencoder adapt`: from tiles to an encoder that the other verbs take."""

import json

import pytest
import small_encoders
import small_tiles

import pathencoder
from pathencoder.cli.main import run
from pathencoder.heads.adapt import checkpoint, train

pytestmark = pytest.mark.full


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "parent")
    small_tiles.folder(tmp_path / "tiles")
    return [
        *("adapt", "--data", str(tmp_path / "tiles"), "--groups", small_tiles.GROUPS),
        *("--encoder", str(tmp_path / "parent"), "--device", "cpu"),
        *("--epochs", "2", "--batch", "8", "--rank", "2", "--out", str(tmp_path / "out")),
    ]


def test_adapt_then_fit_encode_and_predict(arguments, tmp_path, capsys):
    tiles, out = tmp_path / "tiles", tmp_path / "out"
    assert run(arguments) == 0
    printed = capsys.readouterr().out
    assert "frozen, linear head" in printed
    assert f"Encoder: {out}" in printed
    assert not (out / "checkpoint").exists()
    assert run(arguments) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert run([*arguments, "--overwrite", "--how", "last", "--stages", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert report["settings"]["how"] == "last"
    assert not (out / "adapter").exists()
    head = ["fit", "--data", str(tiles), "--encoder", str(out), "--out", str(tmp_path / "head")]
    assert run([*head, "--groups", small_tiles.GROUPS, "--device", "cpu"]) == 0
    assert "has seen their labels" in capsys.readouterr().out
    predicted = str(tmp_path / "predicted")
    assert run(["predict", str(out / "head"), str(tiles), "--out", predicted]) == 0


def test_the_same_command_goes_on_where_it_was_stopped(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    real = train._judge

    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_judge", stop)
    assert run(arguments) == 130
    assert (tmp_path / "out/checkpoint/fit-0.pt").exists()
    monkeypatch.setattr(train, "_judge", real)
    capsys.readouterr()
    assert run(arguments) == 0
    assert "resuming after" in capsys.readouterr().err
    assert not (tmp_path / "out/checkpoint").exists()
    assert pathencoder.load_encoder(tmp_path / "out").spec.name == "small-cnn-lora"


def test_settings_are_checked_before_the_encoder_is_loaded(arguments, capsys):
    assert run([*arguments, "--epochs", "0"]) == 2
    err = capsys.readouterr().err
    assert "epochs=0" in err
    assert "loading" not in err


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("README.md", "does not hold an encoder"),
        ("adapter", "does not hold an encoder"),
        ("head/config.json", "not of a head"),
    ],
)
def test_a_folder_of_something_else_is_refused_before_the_encoder_is_loaded(
    arguments, tmp_path, capsys, there, message
):
    (tmp_path / "out" / there).parent.mkdir(parents=True)
    (tmp_path / "out" / there).write_text("{}")
    assert run(arguments) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "loading" not in err


def test_the_parent_is_refused_before_the_training(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pathencoder.heads.adapt.run.adapt", None)
    assert run([*arguments, "--out", str(tmp_path / "parent"), "--overwrite"]) == 1
    assert "holds the encoder that is adapted" in capsys.readouterr().err
