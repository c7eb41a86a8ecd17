"""What a run was made from reaches log, checkpoint and export, and decides the licence."""

import json
import shutil

import pytest
from small_runs import values, write_tiles

from pathencoder import load_encoder
from pathencoder.errors import ConfigError
from pathencoder.pretrained.folder import read_spec
from training import config
from training.export import export_run
from training.methods.parts import sizing
from training.pretrain import train
from training.provenance import saved_steps
from training.provenance.record import Provenance
from training.publishing.average import reexport

pytestmark = pytest.mark.full


@pytest.fixture
def tiles(tmp_path):
    (tmp_path / "tiles").mkdir()
    return write_tiles(tmp_path / "tiles", slides=4, each=2)


def manifest(tiles, licences, mpp="0.5"):
    """A manifest over shards that hold a folder's tiles; slide i has the i-th licence."""
    import tarfile

    lines = ["shard,key,slide,stain_class,licence,mpp_value"]
    with tarfile.open(tiles / "a.tar", "w") as tar:
        for i, licence in enumerate(licences):
            for file in sorted((tiles / f"s{i}").iterdir()):
                tar.add(file, f"{i}-{file.name}")
                lines.append(f"a.tar,{i}-{file.stem},s{i},{'he' if i else 'ihc'},{licence},{mpp}")
    (tiles / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tiles


def asked(tiles, out, licence="unknown", **backbone):
    """A run of one step."""
    said = values(tiles, out, minutes=1e-9)
    said["data"]["batch"], said["optim"]["precision"] = 4, "fp32"
    said["export"] = {"name": "mine", "licence": licence, "mpp": 0.5}
    said["backbone"] |= backbone
    return said


def exported(said):
    run = train(config.check(said))
    return run, read_spec(run / "export")


def test_a_folder_of_images_has_no_known_licence_unless_its_user_states_one(tiles, tmp_path):
    run, spec = exported(asked(tiles, tmp_path / "a"))
    assert (spec.licence, spec.commercial, spec.verified) == ("unknown", False, False)
    assert "8 tiles of 4 slides" in spec.training
    _, spec = exported(asked(tiles, tmp_path / "b", licence="Apache-2.0"))
    assert (spec.licence, spec.commercial, spec.verified) == ("Apache-2.0", True, False)
    assert "as stated by the user: Apache-2.0" in spec.training
    about = json.loads((run / "data.json").read_text())
    assert about["corpus"]["contents"]["licences"] == {"unknown": {"tiles": 8, "slides": 4}}
    assert about["hardware"]
    assert about["precision"] == "float32"
    for file in (saved_steps.latest(run) / "run.json", run / "export/provenance.json"):
        kept = json.loads(file.read_text())
        assert kept.get("provenance", kept) == about
    assert json.loads(json.dumps(Provenance.from_json(about).to_json())) == about


def test_tiles_that_restrict_their_use_restrict_the_export(tiles, tmp_path, caplog):
    manifest(tiles, "PPPN")
    _, spec = exported(asked(tiles, tmp_path / "all", licence="Apache-2.0"))
    assert (spec.licence, spec.commercial) == ("CC-BY-NC-4.0", False)
    assert "export.licence=Apache-2.0" in caplog.text
    assert (spec.stains, spec.mpp, spec.mpp_range) == (("he", "ihc"), 0.5, (0.5, 0.5))
    assert "6 P, 2 N" in spec.training
    said = asked(tiles, tmp_path / "p")
    said["data"]["licences"] = ["P"]
    _, spec = exported(said)
    assert (spec.licence, spec.commercial, spec.base_model) == ("Apache-2.0", True, None)
    said = asked(tiles, tmp_path / "never")
    said["data"]["licences"], said["export"]["commercial"] = ["P"], False
    assert exported(said)[1].commercial is False


def test_a_table_may_name_licences_which_have_a_class(tiles, tmp_path):
    manifest(tiles, ["cc-by-4.0", "P", "CC-BY-NC-ND-4.0", "N"])
    _, spec = exported(asked(tiles, tmp_path / "all"))
    assert (spec.licence, spec.commercial) == ("CC-BY-NC-ND-4.0", False)
    assert "2 CC-BY-4.0, 2 CC-BY-NC-ND-4.0, 2 N, 2 P" in spec.training
    for chosen, licence, count in (
        (["P"], "Apache-2.0", "4 tiles"),
        (["N"], "CC-BY-NC-ND-4.0", "4 tiles"),
        (["p", "cc-by-nc-nd-4.0"], "CC-BY-NC-ND-4.0", "6 tiles"),
    ):
        said = asked(tiles, tmp_path / "-".join(chosen))
        said["data"]["licences"] = chosen
        _, spec = exported(said)
        assert spec.licence == licence
        assert count in spec.training
    manifest(tiles, ["P", "P", "P", "CC-BY-NC"])
    with pytest.raises(ConfigError, match=r"licence is 'CC-BY-NC'.*nearest: cc-by-nc-4\.0.*: N"):
        exported(asked(tiles, tmp_path / "typo"))


def test_a_scale_that_the_tiles_do_not_have_is_not_exported(tiles, tmp_path, caplog):
    manifest(tiles, "PPPP", mpp="0.25")
    _, spec = exported(asked(tiles, tmp_path / "run"))
    assert (spec.mpp, spec.mpp_range) == (0.25, (0.25, 0.25))
    assert "export.mpp=0.5: the run has seen 0.25 to 0.25 um/px" in caplog.text


def test_a_start_restricts_the_export_also_through_another_run(tiles, tmp_path, monkeypatch):
    import dataclasses

    from pathencoder.pretrained import locate

    manifest(tiles, "PPPP")
    first, spec = exported(asked(tiles, tmp_path / "first"))
    assert spec.licence == "Apache-2.0"
    describe = locate.describe
    monkeypatch.setattr(
        "pathencoder.pretrained.locate.describe",
        lambda name: dataclasses.replace(
            describe(name), name="theirs", licence="CC-BY-NC-ND-4.0", commercial=False
        ),
    )
    start = str(first / "export")
    second, spec = exported(asked(tiles, tmp_path / "second", licence="Apache-2.0", start=start))
    assert (spec.licence, spec.commercial, spec.verified) == ("CC-BY-NC-ND-4.0", False, False)
    assert spec.base_model.startswith("theirs, sha256 ")
    assert load_encoder(second / "export").spec.licence == "CC-BY-NC-ND-4.0"
    said = asked(tiles, tmp_path / "third")
    said["start_from"] = str(second)
    _, spec = exported(said)
    assert (spec.licence, spec.base_model) == ("CC-BY-NC-ND-4.0", "the run second, sha256 None")
    averaged = read_spec(reexport([first, second], tmp_path / "average"))
    assert averaged.licence == "CC-BY-NC-ND-4.0"


def test_the_licence_of_a_run_is_read_of_a_checkpoint_that_is_not_damaged(tiles, tmp_path):
    manifest(tiles, "PPPN")
    said = asked(tiles, tmp_path / "first")
    said["run"] |= {"minutes": None, "checkpoint_every": 4}
    first, _ = exported(said)
    (saved_steps.latest(first) / "run.json").write_text('{"step": 6')
    manifest(tiles, "PPPP")
    said = asked(tiles, tmp_path / "second")
    said["start_from"] = str(first)
    _, spec = exported(said)
    assert (spec.licence, spec.commercial) == ("CC-BY-NC-4.0", False)


def test_a_file_of_weights_has_no_known_licence(tiles, tmp_path):
    manifest(tiles, "PPPP")
    first, _ = exported(asked(tiles, tmp_path / "first"))
    weights = first / "export/model.safetensors"
    _, spec = exported(asked(tiles, tmp_path / "second", start=str(weights)))
    assert (spec.licence, spec.commercial) == ("unknown", False)
    assert spec.base_model.startswith("model.safetensors, sha256 ")


def test_a_run_does_not_resume_on_other_tiles_unless_that_is_accepted(tiles, tmp_path):
    said = asked(tiles, tmp_path / "run")
    train(config.check(said))
    (tiles / "s0/0.png").rename(tiles / "s0/first.png")
    (tiles / "s1/1.png").unlink()
    with pytest.raises(ConfigError, match=r"8 tiles of 4 slides at step 1, now 7 of 4\."):
        train(config.check(said))
    said["run"]["accept_changed_tiles"] = True
    for _ in range(2):  # the second resumes on the same tiles
        run, spec = exported(said)
    about = json.loads((run / "data.json").read_text())
    assert [(step, then["tiles"]) for step, then in about["earlier"]] == [(1, 8)]
    assert about["corpus"]["tiles"] == 7
    assert "earlier steps on other tiles" in spec.training


def test_heads_keep_the_size_that_they_began_with_when_tiles_are_added(tmp_path, monkeypatch):
    monkeypatch.setattr(sizing, "prototypes_for", lambda batch, tiles: 8 + tiles)
    (tmp_path / "tiles").mkdir()
    root = write_tiles(tmp_path / "tiles", slides=4, each=2)
    said = values(root, tmp_path / "run", "dino")
    said["method"].pop("prototypes")
    said["run"]["checkpoint_every"] = 1
    first = {**said, "run": {**said["run"], "minutes": 1e-9}}
    train(config.check(first))
    shutil.copytree(root / "s0", root / "s4")
    with pytest.raises(ConfigError, match=r"8 tiles of 4 slides at step 1, now 10 of 5\."):
        train(config.check(said))
    accepted = {**first, "run": {**first["run"], "accept_changed_tiles": True}}
    for _ in range(2):  # the second resumes a run whose record names the new tiles
        train(config.check(accepted))
    run = train(config.check({**said, "run": {**said["run"], "accept_changed_tiles": True}}))
    assert export_run(run, out=tmp_path / "again").is_dir()


def test_a_tile_replaced_by_another_of_its_name_is_noticed(tiles, tmp_path):
    said = asked(tiles, tmp_path / "run")
    train(config.check(said))
    copied = tmp_path / "copied.png"
    shutil.copy(tiles / "s0/0.png", copied)
    copied.replace(tiles / "s0/0.png")  # a copy is no change
    train(config.check(said))
    shutil.copy(tiles / "s1/0.png", tiles / "s0/0.png")
    with pytest.raises(ConfigError, match="8 tiles of the same names, but some are other images"):
        train(config.check(said))


def test_a_checkpoint_that_names_its_tiles_only_is_resumed(tiles, tmp_path, caplog):
    said = asked(tiles, tmp_path / "run")
    train(config.check(said))
    (file,) = (tmp_path / "run/checkpoints").glob("*/run.json")
    about = json.loads(file.read_text())
    del about["provenance"]["corpus"]["content"]
    file.write_text(json.dumps(about))
    shutil.copy(tiles / "s1/0.png", tiles / "s0/0.png")
    with caplog.at_level("INFO"):
        train(config.check(said))
    assert "only names were compared" in caplog.text


def test_tiles_of_earlier_steps_count_for_the_licence(tiles, tmp_path):
    manifest(tiles, "PPPN")
    said = asked(tiles, tmp_path / "run")
    train(config.check(said))
    manifest(tiles, "PPP")
    said["run"]["accept_changed_tiles"] = True
    assert exported(said)[1].licence == "CC-BY-NC-4.0"
