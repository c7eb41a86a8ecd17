"""The folder that is published: what it holds, and what is refused."""

import dataclasses
import json
import shutil

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from small_releases import figures_of, made_run

from pathencoder import load_encoder
from pathencoder.pretrained.folder import sha256_of
from pathencoder.verify import verify
from training import export, publish
from training.evaluation.report_file import read_report
from training.evaluation.report_rows import Absent
from training.provenance import saved_steps
from training.publishing.public_report import public

pytestmark = pytest.mark.full

FILES = {
    "config.json",
    "model.safetensors",
    "reference.safetensors",
    "README.md",
    "LICENSE",
    "metrics.json",
    *(f"training/{n}" for n in ("provenance.json", "config.yaml", "log.jsonl", "curves.png")),
}


def command(run, figures, *options):
    arguments = [run, "--repo", "me/small", "--figures", figures, "--dry-run", *options]
    return CliRunner().invoke(publish.main, [str(a) for a in arguments])


def files(folder):
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run and the figures of its export."""
    folder = tmp_path_factory.mktemp("made")
    run = made_run(folder)
    return run, figures_of(run, folder / "figures.json")


@pytest.fixture(scope="module")
def released(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "small"
    done = command(*made, "--out", folder, "--tag", "v1.0", "--note", "Chosen by folds.")
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(folder)
    return folder


def test_a_release_is_an_encoder_with_its_record(made, released):
    assert files(released) == FILES
    encoder = load_encoder(released)
    assert (encoder.spec.name, encoder.spec.verified) == ("small", True)
    assert verify(encoder).ok
    own = load_encoder(made[0] / "export").state_dict()
    assert all(torch.equal(value, own[key]) for key, value in encoder.state_dict().items())


def test_no_path_of_this_machine_is_published(made, released):
    text = (released / "training" / "config.yaml").read_text()
    settings = yaml.safe_load(text)
    assert (settings["data"]["root"], settings["run"]["out"]) == ("tiles", "run")
    everything = "".join(
        (released / name).read_text() for name in FILES if not name.endswith((".png", "tensors"))
    )
    assert str(made[0].parent) not in everything


def test_metrics_hold_the_figures_and_what_was_checked(made, released):
    metrics = json.loads((released / "metrics.json").read_text())
    assert metrics["weights_sha256"] == sha256_of(released / "model.safetensors")
    assert metrics["card_sha256"] == sha256_of(released / "README.md")
    written = json.loads(made[1].read_text())
    assert metrics["report"]["results"] == written["results"]
    assert metrics["parity"]["tiles"] == 4
    assert metrics["parity"]["cosine"] > 0.9999
    assert metrics["timm"]["same"] is True


def test_the_card_has_what_a_reader_needs(made, released):
    text = (released / "README.md").read_text()
    metrics = json.loads((released / "metrics.json").read_text())
    auroc = next(r for r in metrics["report"]["results"] if r["metric"] == "auroc")
    for statement in (
        'load_encoder("me/small", revision="v1.0")',
        "trained by simclr on 24 tiles of 6 slides (H&E, IHC)",
        f"sha256\n`{metrics['weights_sha256']}`".replace("\n", " "),
        f"| {auroc['value']:.3f}",
        "| set | part | n (groups) | **mine** | random |",
        "Command: `python -m training.evaluate all mine=me/small@v1.0 random --out figures`",
        "[colorectum, made up](https://example.org/polyps), `polyps`",
        "CC0-1.0",
        "| osteo | H&E | P | 20 | 5 |",
        "core-minutes",
        "Chosen by folds.",
        "Below a baseline on polyps",
        "Overlap with the training images was not checked.",
        "gives the same embedding",
        "## Limits and out-of-scope uses",
        "## Citation",
        "`random`: mobilenetv2_100 with random weights; readout",
    ):
        assert statement in text, statement
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-feature-extraction"
    (model,) = front["model-index"]
    assert model["name"] == "small"
    score = model["results"][0]
    assert score["dataset"] == {"type": "polyps", "name": "colorectum, made up", "split": "folds"}
    assert {m["type"]: m["value"] for r in model["results"] for m in r["metrics"]}[
        "auroc"
    ] == pytest.approx(auroc["value"], abs=1e-4)


def test_a_release_is_written_again_alike(made, released, tmp_path):
    again = tmp_path / "small"
    assert command(*made, "--out", again, "--tag", "v1.0").exit_code == 0
    for name in ("model.safetensors", "reference.safetensors", "config.json"):
        assert (again / name).read_bytes() == (released / name).read_bytes()


def test_the_training_state_can_go_beside_it(made, tmp_path):
    folder = tmp_path / "small"
    assert command(*made, "--out", folder, "--with-state").exit_code == 0
    state = {name for name in files(folder) if name.startswith("state/")}
    assert files(folder) - state == FILES
    assert "state/step-00000006/run.json" in state
    assert any(name.endswith(".distcp") for name in state)


def test_an_average_of_runs_is_published(made, tmp_path):
    """Its export is measured, and is what is published."""
    other, average = tmp_path / "other", tmp_path / "average"
    shutil.copytree(made[0], other)
    weights = load_file(other / "export/model.safetensors")
    moved = {k: v * 1.5 if v.is_floating_point() else v for k, v in weights.items()}
    save_file(moved, other / "export/model.safetensors")
    words = [made[0], "--average", other, "--out", average]
    done = CliRunner().invoke(export.main, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    figures = figures_of(made[0], tmp_path / "f.json", names=(f"mine={average}", "random"))
    folder = tmp_path / "small"
    stale = command(*made, "--average", other, "--out", folder)
    assert (stale.exit_code, "is stale" in stale.output) == (1, True)
    assert f"training.export {made[0]} --average {other} --out" in stale.output
    done = command(made[0], figures, "--average", other, "--out", folder)
    assert done.exit_code == 0, done.output
    name = "model.safetensors"
    assert (folder / name).read_bytes() == (average / name).read_bytes()
    first, mean = weights["conv1.0.weight"].float(), load_file(folder / name)["conv1.0.weight"]
    torch.testing.assert_close(mean.float(), 1.25 * first, rtol=2e-3, atol=1e-4)
    text = (folder / "README.md").read_text()
    assert "The weights are the plain average of 2 such runs" in text
    shown = {f.name for f in (folder / "training").iterdir()}
    assert {"config-1.yaml", "config-2.yaml", "log-2.jsonl", "curves-2.png"} < shown
    refusal = command(made[0], figures, "--average", other, "--out", folder, "--with-state")
    assert (refusal.exit_code, "an average of runs has no checkpoint" in refusal.output) == (
        1,
        True,
    )


def test_an_average_is_asked_for_alike_by_export_and_publish():
    asked = [
        option.to_info_dict()
        for command in (export.main, publish.main)
        for option in command.params
        if option.name == "others"
    ]
    assert asked[0] == asked[1]


def test_another_readout_of_timm_is_said(made, tmp_path):
    """A readout of several stages is not what timm gives: both outputs are in the reference."""
    from training.export import export_run

    run = tmp_path / "run"
    shutil.copytree(made[0], run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["backbone"]["embedding"] = "stages:layer2,layer4/mean,max"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    (run.parent / "tiles").symlink_to(made[0].parent / "tiles")
    export_run(run)
    done = command(run, figures_of(run, tmp_path / "f.json"), "--out", tmp_path / "small")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "small/README.md").read_text()
    assert "**timm gives another output**" in text
    assert "gives the same embedding" not in text
    reference = load_file(tmp_path / "small/reference.safetensors")
    assert reference["timm_output"].shape != reference["embedding"].shape


def test_overlap_is_on_the_card_if_it_is_of_these_tiles(made, tmp_path):
    digest = json.loads((made[0] / "export/provenance.json").read_text())["corpus"]["digest"]
    found = {"images": 24, "equal": 3, "near": 1, "groups": 6, "examples": []}
    counted = tmp_path / "overlap.json"
    counted.write_text(json.dumps({"tiles": digest, "sets": {"polyps": found}}))
    folder = tmp_path / "small"
    assert command(*made, "--out", folder, "--overlap", counted).exit_code == 0
    assert "| 3 equal, 1 nearly, of 24; 6 groups |" in (folder / "README.md").read_text()
    counted.write_text(json.dumps({"tiles": "0" * 64, "sets": {}}))
    assert "is of other training tiles" in refused(made, tmp_path, "--overlap", counted)
    for broken in ("file,label\n", "[]", '{"tiles": "0"}', '{"tiles": "0", "sets": {"a": {}}}'):
        counted.write_text(broken)
        assert "is no file of training.publishing.overlap" in refused(
            made, tmp_path, "--overlap", counted
        )


def test_folders_of_this_machine_are_no_part_of_published_figures(made):
    report = read_report(made[1])
    names = {row.name: f"/home/me/runs/{row.name}/export" for row in report.encoders}
    given = dataclasses.replace(
        report,
        command=f"python -m training.evaluate all {names['mine']} random --out /home/me/out",
        encoders=tuple(
            dataclasses.replace(row, name=names.get(row.name, row.name)) for row in report.encoders
        ),
        results=tuple(dataclasses.replace(r, encoder=names[r.encoder]) for r in report.results),
        means=(),
        differences=(),
        absent=(Absent(set="all", verb="probe", reason="/home/me/x.bin, see https://a.b/c"),),
    )
    found, row = public(given, names["mine"], name="small", place="me/small@v1.0")
    assert row == "small"
    assert [r.name for r in found.encoders] == ["small", "random"]
    assert {r.encoder for r in found.results} == {"small", "random"}
    assert found.command.startswith("python -m training.evaluate all small=me/small@v1.0 random")
    assert found.absent[0].reason == "x.bin, see https://a.b/c"
    assert "/home" not in json.dumps(dataclasses.asdict(found))


# Refusals


def refused(made, tmp_path, *options, run=None, figures=None):
    folder = tmp_path / "refused"
    done = command(run or made[0], figures or made[1], "--out", folder, *options)
    assert done.exit_code == 1, done.output
    assert not folder.exists()
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".refused")]
    return done.output


def copied(made, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made[0], run)
    return run


def test_missing_or_stale_figures_are_refused(made, tmp_path):
    missing = refused(made, tmp_path, figures=tmp_path / "none.json")
    assert "no figures at" in missing
    assert "training.evaluate all" in missing
    values = json.loads(made[1].read_text())
    for row in values["encoders"]:
        row["weights"][0]["sha256"] = "d" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(values))
    stale = refused(made, tmp_path, figures=other)
    assert "is stale: the encoder has sha256" in stale
    assert "mine dddddddddddd" in stale


def test_figures_without_the_probe_or_a_baseline_are_refused(made, tmp_path):
    values = json.loads(made[1].read_text())
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({**values, "results": []}))
    assert "has no figure of the probe for mine" in refused(made, tmp_path, figures=bare)
    alone = {
        **values,
        "encoders": values["encoders"][:1],
        "results": [r for r in values["results"] if r["encoder"] == "mine"],
        "differences": [],
        "means": [],
    }
    bare.write_text(json.dumps(alone))
    assert "no row of random weights" in refused(made, tmp_path, figures=bare)


def test_a_row_of_another_readout_is_not_taken(made, tmp_path):
    values = json.loads(made[1].read_text())
    values["encoders"][0]["readout"] = "mean"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(values))
    assert "0 rows are this encoder with its readout" in refused(made, tmp_path, figures=other)


def test_names_that_the_hub_refuses_are_refused_before_anything_is_written(made, tmp_path):
    assert "a version without spaces or slashes" in refused(made, tmp_path, "--tag", "v 1/2")
    assert "write OWNER/NAME" in refused(made, tmp_path, "--repo", "small")


def test_a_log_without_a_cost_is_refused(made, tmp_path):
    run = copied(made, tmp_path)
    (run / "log.jsonl").write_text("{broken\n")
    assert "no line with what the run cost" in refused(made, tmp_path, run=run)


def test_a_run_without_a_checkpoint_is_refused(made, tmp_path):
    run = copied(made, tmp_path)
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint" in refused(made, tmp_path, run=run)
    assert "has no config.yaml" in refused(made, tmp_path, run=tmp_path)
    # before its figures are asked for
    nothing = tmp_path / "none.json"
    assert "has no checkpoint" in refused(made, tmp_path, run=run, figures=nothing)
    assert "no folder of a run" in refused(made, tmp_path, run=tmp_path / "x", figures=nothing)


def test_a_damaged_checkpoint_or_export_is_refused(made, tmp_path):
    run = copied(made, tmp_path)
    (run / "export/model.safetensors").write_bytes(b"half")
    assert "its export failed" in refused(made, tmp_path, run=run)
    shutil.rmtree(run / "export")
    (file,) = saved_steps.latest(run).glob("*.distcp")
    file.write_bytes(file.read_bytes()[:100])
    assert "is damaged" in refused(made, tmp_path, run=run)


def test_a_run_that_diverged_is_refused(made, tmp_path, monkeypatch):
    from training.publishing import parity

    real = parity.embeddings
    monkeypatch.setattr(parity, "embeddings", lambda *given: real(*given) * float("nan"))
    assert "gives NaN or infinity" in refused(made, tmp_path)
    monkeypatch.setattr(parity, "embeddings", lambda *given: -real(*given))
    assert "does not give what the checkpoint gives: cosine -1.0" in refused(made, tmp_path)


def test_an_unknown_licence_is_refused(tmp_path):
    run = made_run(tmp_path, export={"licence": "unknown"}, data={"licences": []})
    record = json.loads((run / "export/provenance.json").read_text())
    if record["licence"] != "unknown":  # the manifest states it
        step = saved_steps.latest(run) / "run.json"
        about = json.loads(step.read_text())
        about["provenance"]["licence"] = "unknown"
        step.write_text(json.dumps(about))
    shutil.rmtree(run / "export")
    from training.export import export_run

    export_run(run)
    figures = figures_of(run, tmp_path / "figures.json")
    done = command(run, figures, "--out", tmp_path / "refused")
    assert done.exit_code == 1
    assert "is not known" in done.output
    assert "export.licence=" in done.output


def test_a_card_edited_by_hand_is_not_overwritten(made, tmp_path):
    folder = tmp_path / "small"
    assert command(*made, "--out", folder).exit_code == 0
    card = folder / "README.md"
    card.write_text(card.read_text() + "Ours is the best.\n")
    done = command(*made, "--out", folder)
    assert (done.exit_code, "was edited by hand" in done.output) == (1, True)
    assert "the best" in card.read_text()
    assert command(*made, "--out", folder, "--overwrite-card").exit_code == 0
    assert "the best" not in card.read_text()


def test_another_folder_is_not_replaced(made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.md").write_text("years")
    done = command(*made, "--out", tmp_path / "mine")
    assert (done.exit_code, "holds something else" in done.output) == (1, True)
    assert (tmp_path / "mine/thesis.md").read_text() == "years"


def test_a_wrong_repository_name_is_refused_at_once(made, tmp_path):
    done = CliRunner().invoke(
        publish.main, [str(made[0]), "--repo", "small", "--figures", str(made[1]), "--dry-run"]
    )
    assert (done.exit_code, "write OWNER/NAME" in done.output) == (1, True)
