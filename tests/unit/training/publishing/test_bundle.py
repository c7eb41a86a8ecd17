"""Bundling from a run to a folder that load_encoder reads, by the commands, with its card."""

import json
import shutil

import pytest
import yaml
from click.testing import CliRunner
from small_releases import figures_of, with_manifest
from small_runs import values, write_tiles

from pathencoder import __version__, load_encoder
from pathencoder.errors import ConfigError
from pathencoder.pretrained.catalogue import BUNDLED
from pathencoder.pretrained.folder import read_spec
from pathencoder.verify import verify
from training import config, evaluate
from training.pretrain import train
from training.publishing import bundle, card

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, the figures of its export and of another encoder, and the folder of its tiles."""
    folder = tmp_path_factory.mktemp("made")
    tiles = folder / "tiles"
    tiles.mkdir()
    with_manifest(write_tiles(tiles))
    run = train(config.check(values(tiles, folder / "run")))
    rows = [
        f"{f.relative_to(tiles)},{int(f.stem) % 2},{f.parent.name}" for f in tiles.glob("s*/*.png")
    ]
    (tiles / "my.csv").write_text("file,label,group\n" + "\n".join(sorted(rows)) + "\n")
    names = [f"mine={run}/export", "default"]
    options = ["--labels", tiles / "my.csv", "--cache", folder / "cache", "--seeds", "1"]
    out = folder / "metrics.json"
    done = CliRunner().invoke(
        evaluate.main, ["probe", *names, *map(str, options), "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    return run, out, tiles


def bundled(made, root, monkeypatch, *, row="mine", export=None):
    run, metrics, _ = made
    monkeypatch.setattr(bundle.bundle, "__kwdefaults__", {**KEPT, "root": root})
    (root / "pathencoder/weights").mkdir(parents=True, exist_ok=True)
    (root / "model_cards").mkdir(exist_ok=True)
    arguments = [export or run / "export", metrics, "--row", row, "--name", "small", "--run", run]
    return CliRunner().invoke(bundle.main, [*map(str, arguments), "--note", "Chosen by folds."])


KEPT = dict(bundle.bundle.__kwdefaults__)


def test_a_run_becomes_a_bundled_encoder_with_its_card(made, tmp_path, monkeypatch):
    done = bundled(made, tmp_path, monkeypatch)
    assert done.exit_code == 0, done.output
    target, shown = tmp_path / "pathencoder/weights/small", tmp_path / "model_cards/small"
    encoder = load_encoder(str(target))
    assert (encoder.spec.name, encoder.spec.verified) == ("small", True)
    assert encoder.spec.version == "1.0"
    assert f"| small | 1.0 | {__version__} | `{encoder.spec.sha256}` |" in done.output
    assert verify(encoder).ok
    assert {f.name for f in target.iterdir()} == {
        "config.json",
        "model.safetensors",
        "reference.safetensors",
        "README.md",
        "LICENSE",
        "metrics.json",
    }
    assert {f.name for f in shown.iterdir()} == {
        "README.md",
        "provenance.json",
        "log.jsonl",
        "config.yaml",
        "curves.png",
    }
    text = (target / "README.md").read_text()
    for statement in (
        "trained by simclr on 24 tiles of 6 slides (he, ihc)",
        "Start: random weights.",
        "no slide twice in a batch",
        "| osteo | he | P | 20 | 5 |",
        "| kidney | ihc | P | 4 | 1 |",
        "stated for 24 of 24 tiles, 0.5 to 0.5",
        "means of 1 seeds of the folds",
        "| **mine** | default |",
        "one process",
        "Chosen by folds.",
    ):
        assert statement in text, statement
    assert "ImageNet" not in text
    assert "not recorded" not in text
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"
    assert card.card_of("small", tmp_path) == text  # from the files that were written


def test_the_version_of_bundled_weights_follows_their_bytes(tmp_path):
    sha256 = read_spec(BUNDLED / "pathencoder-tiny").sha256
    assert bundle.next_version(tmp_path / "new", sha256) == "1.0"
    assert bundle.next_version(tmp_path / "new", sha256, "0.3") == "0.3"
    there = tmp_path / "there"
    there.mkdir()
    shutil.copy(BUNDLED / "pathencoder-tiny/config.json", there)
    assert bundle.next_version(there, sha256) == "1.1"
    assert bundle.next_version(there, "0" * 64) == "2.0"
    assert bundle.next_version(there, "0" * 64, "3.1") == "3.1"
    with pytest.raises(ConfigError, match="need the major version 2"):
        bundle.next_version(there, "0" * 64, "1.7")
    with pytest.raises(ConfigError, match=r"MAJOR\.MINOR"):
        bundle.next_version(there, sha256, "v2")


def refused(made, tmp_path, monkeypatch, **changes):
    done = bundled(made, tmp_path, monkeypatch, **changes)
    assert done.exit_code == 1
    assert list((tmp_path / "pathencoder/weights").iterdir()) == []
    return done.output


def test_figures_of_other_weights_are_refused(made, tmp_path, monkeypatch):
    assert "other weights" in refused(made, tmp_path, monkeypatch, row="default")
    assert "do not say which weights" in refused(made, tmp_path, monkeypatch, row="nothing")


def test_an_export_without_a_record_or_with_an_unknown_licence_is_refused(
    made, tmp_path, monkeypatch
):
    export = tmp_path / "export"
    shutil.copytree(made[0] / "export", export)
    (export / "provenance.json").unlink()
    assert "has no provenance.json" in refused(made, tmp_path, monkeypatch, export=export)
    shutil.copy(made[0] / "export/provenance.json", export)
    about = json.loads((export / "config.json").read_text())
    about["pathencoder"]["licence"] = "unknown"
    (export / "config.json").write_text(json.dumps(about))
    assert "its licence is unknown" in refused(made, tmp_path, monkeypatch, export=export)


def test_a_card_never_names_the_sources_of_other_tiles(made, tmp_path, monkeypatch):
    manifest = made[2] / "manifest.csv"
    whole = manifest.read_text()
    manifest.write_text("\n".join(whole.splitlines()[:-1]) + "\n")
    try:
        message = refused(made, tmp_path, monkeypatch)
    finally:
        manifest.write_text(whole)
    assert "are 23, not the 24 of the run's record" in message


def test_the_evaluation_as_a_whole_makes_the_card_too(made, tmp_path, monkeypatch):
    run = made[0]
    shutil.copy(made[2] / "my.csv", made[2] / "labels.csv")
    figures = figures_of(run, tmp_path / "evaluation.json")
    (made[2] / "labels.csv").unlink()
    done = bundled((run, figures, made[2]), tmp_path, monkeypatch)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "pathencoder/weights/small/README.md").read_text()
    assert "| set | part | n (groups) | **mine** | random |" in text
    assert "`timm.create_model` gives the same embedding" in text
    assert card.card_of("small", tmp_path) == text
    shutil.rmtree(tmp_path / "pathencoder/weights/small")
    assert "other weights" in refused((run, figures, made[2]), tmp_path, monkeypatch, row="random")
