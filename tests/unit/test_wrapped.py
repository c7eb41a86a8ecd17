"""Networks in wrappers are read and saved as the network inside, or refused."""

import warnings

import numpy as np
import pytest
import torch
from small_encoders import SIZE, encoder, picture

import pathencoder
from pathencoder import compat, wrapped
from pathencoder.errors import ConfigError

X = torch.ones(2, 3, SIZE, SIZE)


def compiled(network):
    return torch.compile(network, backend="eager")


WRAPPERS = {
    "compile": (compiled, "compiled"),
    "DataParallel": (torch.nn.DataParallel, "DataParallel"),
    "averaged": (torch.optim.swa_utils.AveragedModel, None),
    "compiled DataParallel": (
        lambda n: compiled(torch.nn.DataParallel(n)),
        "compiled|DataParallel",
    ),
}


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_network(tmp_path, kind, wrapper):
    plain, enc = encoder(kind), encoder(kind)
    wrap, words = WRAPPERS[wrapper]
    enc.network = wrap(enc.network).eval()
    wrapped._warn_unwrapped.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = enc.encode(picture(), progress=False)
    assert any(words in str(w.message) for w in caught) if words and "|" not in words else True
    np.testing.assert_array_equal(rows, plain.encode(picture(), progress=False))
    for mine, theirs in zip(enc.pyramid(X)[0], plain.pyramid(X)[0], strict=True):
        torch.testing.assert_close(mine, theirs)
    assert "small" in repr(enc)
    enc.save_pretrained(tmp_path / "saved")
    again = pathencoder.load_encoder(tmp_path / "saved", device="cpu")
    assert list(again.network.state_dict()) == list(plain.network.state_dict())
    np.testing.assert_array_equal(again.encode(picture(), progress=False), rows)


def test_a_part_that_was_compiled_is_saved_under_timms_names(tmp_path):
    plain, enc = encoder("vit"), encoder("vit")
    enc.network.blocks[0] = compiled(enc.network.blocks[0])
    enc.save_pretrained(tmp_path / "saved")
    assert list(pathencoder.load_encoder(tmp_path / "saved").network.state_dict()) == list(
        plain.network.state_dict()
    )


def test_a_module_that_is_not_a_network_is_named():
    enc = encoder("cnn")
    enc.network = torch.nn.Sequential(enc.network)
    for do in (
        lambda: enc.encode(picture()),
        lambda: enc.pyramid(X),
        lambda: enc(X),
        lambda: enc.save_pretrained("never"),
    ):
        with pytest.raises(
            ConfigError, match=r"encoder\.network is a Sequential, not a timm network"
        ):
            do()


@pytest.mark.full
def test_adapters_are_read_and_saved_once_they_are_merged(tmp_path):
    compat.import_timm()
    import peft

    plain, enc = encoder("vit"), encoder("vit")
    enc.network = peft.get_peft_model(enc.network, peft.LoraConfig(target_modules=["qkv"]))
    np.testing.assert_allclose(
        enc.encode(picture(), progress=False), plain.encode(picture(), progress=False), atol=1e-6
    )
    enc.pyramid(X)
    with pytest.raises(ConfigError, match="merge_and_unload"):
        enc.save_pretrained(tmp_path / "saved")
    enc.network = enc.network.merge_and_unload()
    enc.save_pretrained(tmp_path / "saved")
