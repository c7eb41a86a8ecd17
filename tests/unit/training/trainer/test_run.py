"""Complete small runs: train, stop, resume bitwise, export what load_encoder reads."""

import json

import numpy as np
import pytest
import torch
from small_runs import METHODS, settings, values, write_tiles

from pathencoder import load_encoder
from pathencoder.errors import ConfigError, IncompatibleWeights
from pathencoder.verify import verify
from training import config
from training.backbones import make
from training.monitor.collapse import spread
from training.monitor.knn import knn_accuracy
from training.pretrain import main, train
from training.provenance import saved_steps
from training.trainer import preflight

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def weights(folder):
    return load_encoder(str(folder / "export")).state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_resumes_bitwise(tiles, tmp_path, method):
    whole = train(settings(tiles, tmp_path / "whole", method))
    for _ in range(6):  # each call stops after one step, with a checkpoint
        train(settings(tiles, tmp_path / "pieces", method, minutes=1e-9))
    assert saved_steps.latest(tmp_path / "pieces").name == "step-00000006"
    a, b = weights(whole), weights(tmp_path / "pieces")
    assert all(torch.equal(a[k], b[k]) for k in a)
    lines = [
        map(json.loads, (f / "log.jsonl").read_text().splitlines())
        for f in (whole, tmp_path / "pieces")
    ]
    losses = [[line["loss"] for line in log if line["kind"] == "train"] for log in lines]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


@pytest.mark.parametrize("method", METHODS)
def test_views_made_ahead_are_the_same_views(tiles, tmp_path, monkeypatch, method):
    made = {}
    for cores in (1, 4):
        monkeypatch.setattr("training.trainer.feed.cores.available", lambda cores=cores: cores)
        made[cores] = weights(train(settings(tiles, tmp_path / str(cores), method)))
    assert all(torch.equal(made[1][k], made[4][k]) for k in made[1])


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_tiles_decoded_by_processes_are_the_same_tiles(tiles, tmp_path):
    by = [weights(train(settings(tiles, tmp_path / str(n), loader_processes=n))) for n in (0, 1)]
    assert all(torch.equal(by[0][k], by[1][k]) for k in by[0])


def test_the_run_folder_is_complete_and_its_export_verifies(tiles, tmp_path):
    run = train(settings(tiles, tmp_path / "run"))
    about = json.loads((run / "data.json").read_text())
    assert (about["corpus"]["tiles"], about["corpus"]["slides"]) == (24, 6)
    assert config.load(run / "config.yaml").optim.steps == 6
    encoder = load_encoder(str(run / "export"))
    assert encoder.spec.licence == "Apache-2.0"
    assert "24 tiles of 6 slides" in encoder.spec.training
    assert verify(encoder).ok
    assert encoder.encode([np.zeros((50, 50, 3), np.uint8)]).shape == (1, encoder.spec.dim)


def test_a_finished_run_stays_finished(tiles, tmp_path):
    run = train(settings(tiles, tmp_path / "run"))
    before = weights(run)
    train(settings(tiles, tmp_path / "run"))
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000006"]
    assert all(torch.equal(before[k], v) for k, v in weights(run).items())


def test_the_export_may_be_averaged_with_the_start(tiles, tmp_path):
    cfg = settings(tiles, tmp_path / "run")
    fast = {
        "optim": cfg.optim.model_copy(update={"lr": 1e-2}),
        "method": cfg.method.model_copy(update={"average": 0.0}),
    }
    cfg = cfg.model_copy(update=fast)
    trained = weights(train(cfg))
    half = weights(
        train(cfg.model_copy(update={"export": cfg.export.model_copy(update={"start_share": 0.5})}))
    )
    torch.manual_seed(cfg.seed)
    start = make.make_backbone(cfg.backbone).state_dict()
    key = next(k for k in trained if k.endswith("conv1.0.weight"))
    assert torch.allclose(
        half[key].float(),
        (trained[key].float() + start[key.removeprefix("network.")]) / 2,
        atol=1e-3,
    )
    assert not torch.allclose(trained[key].float(), start[key.removeprefix("network.")], atol=1e-3)


def test_a_checkpoint_of_other_settings_is_refused_with_the_list(tiles, tmp_path):
    train(settings(tiles, tmp_path / "run"))
    other = settings(tiles, tmp_path / "run").model_copy(update={"seed": 7})
    with pytest.raises(ConfigError, match="seed was 0, is 7"):
        train(other)


def test_a_finished_run_may_be_exported_with_another_readout(tiles, tmp_path):
    before = weights(train(settings(tiles, tmp_path / "run")))
    asked = values(tiles, tmp_path / "run")
    asked["backbone"]["embedding"] = "stages:layer2,layer4/mean,max"
    run = train(config.check(asked))
    assert load_encoder(str(run / "export")).spec.embedding == "stages:layer2,layer4/mean,max"
    after = weights(run)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_two_checkpoints_are_kept(tiles, tmp_path):
    run = train(settings(tiles, tmp_path / "run", checkpoint_every=1))
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "step-00000005",
        "step-00000006",
    ]


def test_the_command_reports_errors_without_a_traceback(tmp_path, caplog):
    (tmp_path / "bad.yaml").write_text(
        "method: {name: simclr}\ndata: {rooot: x}\noptim: {steps: 1}\nrun: {out: y}\n"
    )
    assert main([str(tmp_path / "bad.yaml")]) == 1
    assert "nearest: root" in caplog.text
    assert main([]) == 2


def test_real_statistics_leave_eval_output_and_fit_train_mode():
    torch.manual_seed(0)
    network = make.make_backbone(config.BackboneSettings(architecture="test_resnet"))
    for m in network.modules():
        if isinstance(m, torch.nn.BatchNorm2d):  # as published folded: mean 0, variance 1, a bias
            m.bias.data.uniform_(-1, 1)
    x = torch.randn(16, 3, 64, 64) + 0.5
    network.eval()
    with torch.no_grad():
        before = network(x)
        make.give_real_statistics(network, x)
        after = network(x)
        as_trained = network.train()(x)
    assert torch.allclose(before, after, atol=1e-4 * float(before.abs().max()))
    assert torch.allclose(after, as_trained, atol=1e-3 * float(before.abs().max()))


def test_a_start_of_another_network_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "start.safetensors")
    with pytest.raises(IncompatibleWeights, match="missing"):
        make.make_backbone(
            config.BackboneSettings(
                architecture="test_resnet", start=tmp_path / "start.safetensors"
            )
        )
    state = make.make_backbone(config.BackboneSettings(architecture="test_resnet")).state_dict()
    state["conv1.0.weight"] = torch.zeros(1, 1, 1, 1)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "start.safetensors")
    with pytest.raises(
        IncompatibleWeights, match=r"of another shape \(conv1\.0\.weight \[1, 1, 1, 1\] instead of"
    ):
        make.make_backbone(
            config.BackboneSettings(
                architecture="test_resnet", start=tmp_path / "start.safetensors"
            )
        )
    with pytest.raises(ConfigError, match="not a file"):
        make.make_backbone(
            config.BackboneSettings(architecture="test_resnet", start="nowhere.safetensors")
        )


def test_a_run_that_starts_from_an_encoder_has_its_architecture(tiles, tmp_path):
    first = train(settings(tiles, tmp_path / "first", minutes=1e-9))
    onward = values(tiles, tmp_path / "onward", minutes=1e-9)
    onward["backbone"] = {"start": str(first / "export")}
    onward["optim"] = {"steps": 3, "lr": 1e-30, "lr_end": 0, "warmup": 0, "weight_decay": [0, 0]}
    run = train(config.check(onward))
    assert load_encoder(run / "export").spec.architecture == "test_resnet"
    assert load_encoder(run / "export").spec.input_size == 64
    a, b = weights(first), weights(run)
    assert all(torch.equal(a[k], b[k]) for k in a if k.endswith("conv1.0.weight"))
    assert config.load(run / "config.yaml").backbone.architecture == "test_resnet"
    bundled = make.with_start(config.BackboneSettings(start="pathencoder-tiny", input_size=96))
    assert (bundled.architecture, bundled.input_size) == ("mobilenetv2_100", 96)
    assert bundled.embedding.startswith("stages:")


def test_half_precision_is_a_setting_that_changes_results(tiles, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        asked = values(tiles, tmp_path / precision, minutes=1e-9)
        asked["optim"]["precision"] = precision
        run = train(config.check(asked))
        losses[precision] = json.loads((run / "log.jsonl").read_text().splitlines()[0])["loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]
    asked = values(tiles, tmp_path / "fp32")
    asked["optim"]["precision"] = "bf16"
    with pytest.raises(ConfigError, match=r"optim\.precision was 'fp32', is 'bf16'"):
        train(config.check(asked))


def test_bf16_on_a_cpu_is_refused_where_a_gradient_would_be_wrong(
    tiles, tmp_path, monkeypatch, caplog
):
    asked = values(tiles, tmp_path / "run", minutes=1e-9)
    asked["backbone"] = {"architecture": "resnet18", "input_size": 64}
    asked["optim"]["precision"] = "bf16"
    assert preflight.unsafe_in_bf16(config.check(asked)) is None
    asked["method"] = {**asked["method"], "crop": {"px": 16}}
    with pytest.raises(
        ConfigError, match=r"layer4\.0\.conv1 \(method\.crop, crops of 16 px\) would be wrong"
    ):
        train(config.check(asked))
    monkeypatch.setattr("training.trainer.parallel.gains_from_bf16", lambda network, device: True)
    asked["optim"]["precision"] = "auto"
    with caplog.at_level("INFO", "training"):
        train(config.check(asked))
    assert "cpu, float32" in caplog.text


def test_spread_shows_a_collapse():
    g = torch.Generator().manual_seed(0)
    healthy = spread(torch.randn(200, 16, generator=g))
    collapsed = spread(torch.ones(200, 16) + 1e-4 * torch.randn(200, 16, generator=g))
    one_line = spread(torch.randn(200, 1, generator=g) * torch.ones(1, 16))
    assert healthy["feature_std"] == pytest.approx(1, abs=0.1)
    assert collapsed["feature_std"] < 0.01
    assert healthy["rankme"] > 14
    assert one_line["rankme"] < 1.1


def test_knn_compares_only_tiles_of_other_groups():
    x = np.eye(3).repeat(40, 0) + 0.01 * np.random.default_rng(0).normal(size=(120, 3))
    labels = np.arange(3).repeat(40)
    groups = np.array([str(i % 4) for i in range(120)])
    assert knn_accuracy(x, labels, groups) == 1.0
    each_class_a_group = np.array([str(c) for c in labels])
    assert knn_accuracy(x, labels, each_class_a_group) == 0.0
