"""A wider network that computes the same as the narrow one."""

import pytest
import torch
from safetensors.torch import save_file

from pathencoder import compat
from pathencoder.errors import IncompatibleWeights
from training.backbones.widen import main, widened

pytestmark = pytest.mark.full


def network(name, **args):
    made = compat.import_timm().create_model(name, pretrained=False, num_classes=0, **args).eval()
    for module in made.modules():  # statistics and weights that are not the trivial ones
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made


@torch.no_grad()
@pytest.mark.parametrize(
    ("narrow", "wide"),
    [("mobilenetv2_050", "mobilenetv2_100"), ("mobilenetv2_100", "mobilenetv2_140")],
)
def test_every_old_channel_computes_the_same(narrow, wide):
    torch.manual_seed(0)
    a, b = network(narrow, pad_type="same"), network(wide, pad_type="same")
    b.load_state_dict(widened(a, b, torch.Generator().manual_seed(3)))
    x = torch.randn(2, 3, 64, 64)
    for old, new in zip(a.forward_intermediates(x)[1], b.forward_intermediates(x)[1], strict=True):
        assert new.shape[1] > old.shape[1]
        assert torch.allclose(new[:, : old.shape[1]], old, atol=1e-3 * float(old.abs().max()))


def test_copies_get_different_gradients():
    torch.manual_seed(0)
    a, b = network("mobilenetv2_050"), network("mobilenetv2_100")
    b.load_state_dict(widened(a, b, torch.Generator().manual_seed(3)))
    b.train()(torch.randn(4, 3, 64, 64)).square().mean().backward()
    kernel, gradient = (t.flatten(1) for t in (b.conv_stem.weight, b.conv_stem.weight.grad))
    same = [
        (i, j) for i in range(len(kernel)) for j in range(i) if torch.equal(kernel[i], kernel[j])
    ]
    assert len(same) >= 16
    assert not any(torch.allclose(gradient[i], gradient[j], rtol=1e-3) for i, j in same)


def test_networks_that_do_not_fit_are_refused(tmp_path):
    a = network("mobilenetv2_050")
    with pytest.raises(IncompatibleWeights, match="wider"):
        widened(network("mobilenetv2_100"), a, torch.Generator())
    with pytest.raises(IncompatibleWeights, match="family"):
        widened(a, network("test_resnet"), torch.Generator())
    assert main(["mobilenetv2_050"]) == 2


def test_weights_of_another_shape_are_named(tmp_path):
    state = {k: v.contiguous() for k, v in network("mobilenetv2_100").state_dict().items()}
    save_file(state, tmp_path / "start.safetensors")
    arguments = ["mobilenetv2_050", str(tmp_path / "start.safetensors"), "mobilenetv2_100"]
    with pytest.raises(IncompatibleWeights, match=r"of another shape \(conv_stem\.weight"):
        main([*arguments, str(tmp_path / "out.safetensors")])
