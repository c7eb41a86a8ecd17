"""Distillation: what the student is compared with, what is trained, and that it learns."""

import json
import shutil

import pytest
import torch
from small_runs import settings, values, write_tiles

from pathencoder import load_encoder
from pathencoder.errors import ConfigError
from pathencoder.pretrained.catalogue import BUNDLED
from training import config
from training.data.loader import TileBatch
from training.methods import Plan, distill
from training.pretrain import train
from training.trainer.prepare import opened
from training.trainer.signals import StopRequest

pytestmark = pytest.mark.full
NO_COLOUR = {
    k: 0.0 for k in ("he_scale", "he_shift", "od_scale", "od_shift", "brightness", "grey", "blur")
}


@pytest.fixture(scope="module")
def teacher():
    return load_encoder("pathencoder-tiny", device="cpu")


def its_own_teacher(teacher, **given):
    """A method whose backbone is a copy of its teacher."""
    fresh = load_encoder("pathencoder-tiny", device="cpu").network
    plan = Plan(
        lambda: fresh,
        1280,
        100,
        8,
        1000,
        teacher.spec.mean,
        teacher.spec.std,
        torch.Generator().manual_seed(0),
        lambda: teacher.spec,
    )
    return distill.build(
        distill.Settings(teachers=("pathencoder-tiny",), crop={"px": 64, "count": 1}, **given), plan
    )


def batch(n=6):
    noise = torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    tiles = torch.nn.functional.interpolate(noise, size=(96, 96), mode="bilinear").mul(255).byte()
    return TileBatch(tiles, torch.zeros(n, dtype=torch.long), torch.arange(n))


def test_its_own_teacher_without_colours_gives_a_loss_of_zero(teacher):
    method = its_own_teacher(teacher, colour=NO_COLOUR).train()
    method.backbone.eval()  # statistics of a batch are not the teacher's
    views = method.views(batch())
    assert torch.allclose(views[0], views[1], atol=1e-5)
    loss, logs = method.loss(views, 0)
    assert float(loss.detach()) < 1e-6
    assert float(logs["embedding"]) == pytest.approx(1, abs=1e-6)


def test_the_student_alone_gets_the_colours(teacher):
    method = its_own_teacher(teacher, colour={"he_scale": 0.3, "he_shift": 0.1}).train()
    method.backbone.eval()
    coloured, plain = method.views(batch())
    assert not torch.allclose(coloured, plain, atol=0.05)
    loss, logs = method.loss([coloured, plain], 0)
    with torch.no_grad():
        output, target = teacher(coloured).embedding, teacher(plain).embedding
    variance = target.var(0, correction=0)
    error = float(
        ((output - target).square() / torch.maximum(variance, 0.05 * variance.mean())).mean()
    )
    assert 1 - float(logs["embedding"]) == pytest.approx(error, rel=1e-3)
    assert float(loss.detach()) > 0


def test_the_teacher_is_not_trained_and_not_saved(teacher):
    method = its_own_teacher(teacher).train()
    before = {k: v.clone() for k, v in teacher.network.state_dict().items()}
    method.loss(method.views(batch()), 0)[0].backward()
    assert all(
        p.grad is not None for p in (*method.backbone.parameters(), *method.heads.parameters())
    )
    (own,) = method._teachers
    assert all(p.grad is None for p in own.parameters())
    assert not own.training
    assert all(torch.equal(before[k], v) for k, v in own.network.state_dict().items())
    assert not any("teacher" in k for k in method.state_dict())


def test_variances_begin_with_the_first_batch_and_then_move_slowly(teacher):
    method = its_own_teacher(teacher).train()
    first, second = (
        torch.randn(50, len(method.variances)),
        3 * torch.randn(50, len(method.variances)),
    )
    method._update_variances(first)
    assert torch.allclose(method.variances, first.var(0, correction=0))
    method._update_variances(second)
    assert torch.allclose(
        method.variances, 0.99 * first.var(0, correction=0) + 0.01 * second.var(0, correction=0)
    )
    method.eval()._update_variances(first)
    assert float(method.variances.mean()) > 1.05  # not in eval mode


def test_a_student_of_another_family_learns_from_two_teachers(tmp_path):
    tiles = write_tiles(tmp_path)
    cfg = settings(tiles, tmp_path / "run", "distill")
    two = cfg.method.model_copy(update={"teachers": ("pathencoder-tiny", "pathencoder-tiny")})
    longer = cfg.optim.model_copy(update={"steps": 40, "lr": 3e-3, "head_lr": 3e-3})
    run = train(cfg.model_copy(update={"method": two, "optim": longer}))
    explained = [
        line["embedding"]
        for line in map(json.loads, (run / "log.jsonl").read_text().splitlines())
        if line["kind"] == "train"
    ]
    assert sum(explained[-5:]) / 5 > sum(explained[:5]) / 5 + 0.3
    assert load_encoder(str(run / "export")).spec.architecture == "test_resnet"


@pytest.mark.parametrize(
    ("given", "message"),
    [({"crop": {"count": 0}}, "at least 1"), ({"teachers": []}, "at least 1 item")],
)
def test_settings_that_leave_nothing_to_learn_are_refused(tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        config.check(
            {
                **values("tiles", tmp_path, "distill"),
                "method": {"name": "distill", "teachers": ["pathencoder-tiny"], **given},
            }
        )


def test_a_student_of_a_non_commercial_teacher_is_non_commercial(tmp_path):
    folder = shutil.copytree(BUNDLED / "pathencoder-tiny", tmp_path / "strict")
    described = json.loads((folder / "config.json").read_text())
    described["pathencoder"].update(name="strict", licence="CC-BY-NC-4.0", commercial=False)
    (folder / "config.json").write_text(json.dumps(described))
    cfg = settings(write_tiles(tmp_path), tmp_path / "run", "distill")
    strict = cfg.method.model_copy(update={"teachers": (str(folder),)})
    free = cfg.export.model_copy(update={"commercial": True})
    run = train(cfg.model_copy(update={"method": strict, "export": free}))
    spec = load_encoder(str(run / "export")).spec
    assert (spec.licence, spec.commercial) == ("CC-BY-NC-4.0", False)
    assert spec.training.startswith("distill of strict from random weights, 6 steps of 6 tiles")


def test_the_embedding_is_trained_as_it_is_read(tmp_path):
    cfg = settings(write_tiles(tmp_path), tmp_path / "run", "distill")
    cfg = cfg.model_copy(
        update={
            "backbone": cfg.backbone.model_copy(
                update={"embedding": "stages:layer2,layer4/mean,peak"}
            )
        }
    )
    with opened(cfg, StopRequest()) as run:
        _, _, (views,) = next(iter(run.batches()))
        embedding, output = run.method._outputs(views[0])
    assert embedding.shape[1] == run.method.heads[0].in_features > output.shape[1]
    assert output.shape[1] == run.method.heads[1].in_features
