"""Bundling from a run to a folder that load_encoder reads, by the commands, with its card."""

import json
import shutil
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from small_releases import figures_of, made_run
from small_shards import tile, write_table, write_tar

from pathencoder import __version__, load_encoder
from pathencoder.errors import ConfigError
from pathencoder.pretrained.catalogue import BUNDLED
from pathencoder.pretrained.folder import read_spec
from pathencoder.verify import verify
from training.data.corpus import open_corpus
from training.publishing import bundle, card, made_with

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, the figures of its export, and the folder of its tiles."""
    folder = tmp_path_factory.mktemp("made")
    run = made_run(folder)
    return run, figures_of(run, folder / "evaluation.json"), folder / "tiles"


def bundled(made, root, monkeypatch, *options, export=None):
    run, figures, _ = made
    monkeypatch.setattr(bundle.bundle, "__kwdefaults__", {**KEPT, "root": root})
    (root / "pathencoder/weights").mkdir(parents=True, exist_ok=True)
    (root / "model_cards").mkdir(exist_ok=True)
    arguments = [export or run / "export", figures, "--name", "small", "--run", run, *options]
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
        "trained by simclr on 24 tiles of 6 slides (H&E, IHC)",
        "Start: random weights.",
        "no slide twice in a batch",
        "| osteo | H&E | P | 20 | 5 |",
        "| kidney | IHC | P | 4 | 1 |",
        "stated for 24 of 24 tiles, 0.5 to 0.5",
        "| set | part | n (groups) | **mine** | random |",
        "`timm.create_model` gives the same embedding",
        "Command: `python -m training.evaluate all mine=small random --out figures`",
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


def refused(made, tmp_path, monkeypatch, *options, **changes):
    done = bundled(made, tmp_path, monkeypatch, *options, **changes)
    assert done.exit_code == 1, done.output
    assert list((tmp_path / "pathencoder/weights").iterdir()) == []
    return done.output


def changed(made, tmp_path, change):
    """The figures after a change of their values."""
    values = json.loads(made[1].read_text())
    change(values)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(values))
    return made[0], file, made[2]


def test_figures_of_other_weights_or_another_form_are_refused(made, tmp_path, monkeypatch):
    def of_other_weights(values):
        values["encoders"][0]["weights"][0]["sha256"] = "d" * 64

    def of_another_input(values):
        values["encoders"][0]["transform"]["mean"] = [0.1, 0.2, 0.3]

    def of_the_probe(values):
        values.clear()
        values |= {"sets": {}, "means": {}, "about": {"encoders": {"mine": ["0"]}}}

    for change, message in (
        (of_other_weights, "is stale: the encoder has sha256"),
        (of_another_input, "0 rows are this encoder with its readout"),
        (of_the_probe, "is no evaluation"),
    ):
        said = refused(changed(made, tmp_path, change), tmp_path, monkeypatch)
        assert message in said
        assert "python -m training.evaluate all" in said
    said = refused(made, tmp_path, monkeypatch, "--row", "random")
    assert "0 rows are this encoder" in said
    assert "there are mine (pool)" in said


def test_a_folder_that_is_no_run_is_refused(made, tmp_path, monkeypatch):
    said = refused(made, tmp_path, monkeypatch, "--run", made[2])
    assert f"{made[2]} is no folder of a run" in said


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


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["P"], [("open", "he", "P", 3, 1)]),
        ([], [("open", "he", "P", 3, 1), ("closed", "he", "N", 2, 1)]),
    ],
)
def test_sources_are_of_used_tiles_where_shards_have_names_in_common(tmp_path, licences, expected):
    for shard, count in (("a", 3), ("b", 2)):
        write_tar(tmp_path / f"{shard}.tar", [(f"{i}.png", tile(i)) for i in range(count)])
    rows = [*(f"./a.tar {i} a P open he" for i in range(3))]
    rows += [f"b.tar {i} b N closed he" for i in range(2)]
    table = "\n".join(["shard key slide licence src stain_class", *rows])
    write_table(tmp_path / "manifest.csv", table)
    corpus = open_corpus(tmp_path, licences=licences)
    record = SimpleNamespace(corpus=SimpleNamespace(digest=corpus.digest, tiles=len(corpus)))
    data = {"root": str(tmp_path), "licences": licences, "stains": [], "without": []}
    assert made_with.sources({"data": data}, record) == expected


def test_a_card_never_names_the_sources_of_other_tiles(made, tmp_path, monkeypatch):
    manifest = made[2] / "manifest.csv"
    whole = manifest.read_text()
    manifest.write_text("\n".join(whole.splitlines()[:-1]) + "\n")
    try:
        message = refused(made, tmp_path, monkeypatch)
    finally:
        manifest.write_text(whole)
    assert "are 23, not the 24 of the run's record" in message
