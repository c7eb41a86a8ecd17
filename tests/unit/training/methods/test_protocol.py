"""What every method offers, the names in its checkpoints, and that a new method is one file."""

import sys

import pytest
import torch
from small_runs import values, write_tiles
from torch import nn

from pathencoder import compat, load_encoder
from pathencoder.errors import ConfigError
from training import config, methods
from training.pretrain import train

pytestmark = pytest.mark.full


def backbone():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1))


def vit():
    make = compat.import_timm().create_model
    return make("test_vit", num_classes=0, img_size=32, patch_size=8, dynamic_img_size=True)


def built(name, network=backbone, **settings):
    half = (0.5, 0.5, 0.5)
    plan = methods.Plan(network, 8, 100, 32, 1000, half, half, torch.Generator())
    return methods.build(methods.module_of(name).Settings(**settings), plan)


def under(prefix, *names):
    return {f"{prefix}.{name}" for name in names}


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LINEAR = ("weight", "bias")
BACKBONE = under("0", *LINEAR) | under("1", *NORM)
MLP = under("0", *LINEAR) | under("1", *NORM) | under("3", *LINEAR)
PROJECTOR = {"0.weight"} | under("1", *NORM) | under("3", *LINEAR)
HEAD = under("mlp.0", *LINEAR) | under("mlp.2", *LINEAR) | under("mlp.4", *LINEAR) | {"last.weight"}
STUDENT = under("0", *BACKBONE) | under("1", *HEAD)
STATES = {
    "byol": under("online", *under("0", *BACKBONE), *under("1", *MLP))
    | under("target", *under("0", *BACKBONE), *under("1", *MLP))
    | under("predictor", *MLP),
    "simclr": under("backbone", *BACKBONE)
    | under("projector", *PROJECTOR)
    | under("average.module", *BACKBONE)
    | {"average.n_averaged"},
    "dino": under("student", *STUDENT)
    | under("teacher", *STUDENT)
    | {"balance.center", "patch_balance.center"},
}


@pytest.mark.parametrize("name", STATES)
def test_names_in_checkpoints_stay(name):
    """Runs that were stopped before a release must resume after it."""
    method = built(name)
    assert set(method.state_dict()) == STATES[name]
    assert isinstance(method, methods.Method)
    assert method.converged is False
    inside = {id(p) for p in method.parameters()}
    assert all(id(p) in inside for p in method.backbone.parameters())


def test_names_of_masked_patches_stay():
    own = set(built("dino", vit, patches={}).state_dict())
    shared = set(built("dino", vit, patches={"own_head": False}).state_dict())
    heads = under("patches.student_head", *HEAD) | under("patches.teacher_head", *HEAD)
    assert own - shared == heads
    assert {k for k in shared if k.startswith("patches.")} == {"patches.mask_token.token"}


PLAIN = """
from typing import Literal
from torch import nn
from training.augment import ColourSettings, CropSettings
from training.methods import Method, MethodSettings
from training.methods.parts.multicrop import Pair, forward_by_size, make_views


class Settings(MethodSettings):
    name: Literal["plain"] = "plain"
    views: Pair = CropSettings()
    colour: ColourSettings = ColourSettings()


class Plain(Method):
    def __init__(self, settings, plan):
        super().__init__()
        self.settings, self.plan = settings, plan
        self.backbone = plan.backbone()

    def views(self, batch):
        return make_views(batch, (self.settings.views,), self.settings.colour, self.plan)

    def loss(self, views, step):
        a, b = forward_by_size(self.backbone, views).chunk(2)
        return (a - b).square().mean(), {}


build = Plain
"""


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A method that exists as one file in the methods' folder."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "plain.py").write_text(PLAIN)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    yield
    sys.modules.pop("training.methods.plain", None)


def test_a_new_method_is_one_file(plain, tmp_path):
    (tmp_path / "tiles").mkdir()
    asked = values(write_tiles(tmp_path / "tiles"), tmp_path / "run")
    asked["method"] = {"name": "plain", "views": {"px": 32}}
    cfg = config.check(asked)
    assert cfg.method.crop_sizes() == {"views": 32}
    assert cfg.method.chance_loss(6) is None
    run = train(cfg)
    training = load_encoder(str(run / "export")).spec.training
    assert training.startswith("plain from random weights, 6 steps of 6 tiles")
    with pytest.raises(ConfigError, match=r"method\.views: crops of 64 px do not fit data\.canvas"):
        config.check({**asked, "method": {"name": "plain", "views": {"px": 64}}})


def test_a_method_without_a_backbone_is_named():
    class Empty(methods.Method):
        def views(self, batch):
            return []

        def loss(self, views, step):
            return torch.zeros(()), {}

    with pytest.raises(NotImplementedError, match="Empty has no backbone"):
        Empty().encoder()
