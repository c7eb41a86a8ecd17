"""`evaluate readings`: turned views and texture statistics against the embedding as it is."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_tile_sets import write_set

from training import evaluate
from training.evaluation.textures import covariance, cubic_mean

pytestmark = pytest.mark.full


def maps(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_cubic_mean_is_the_generalised_mean_with_its_sign():
    x = maps(2, 3, 5, 5).abs()
    expected = (x.double() ** 3).mean((2, 3)) ** (1 / 3)
    torch.testing.assert_close(cubic_mean(x).double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(cubic_mean(-x), -cubic_mean(x))


def test_covariances_are_those_of_numpy_whatever_the_mean():
    x, projection = maps(1, 6, 9, 9), maps(4, 6)
    found = covariance(x, projection)[0]
    whole = np.cov((projection @ x[0].flatten(1)).numpy(), bias=True)[np.triu_indices(4)]
    expected = np.sign(whole) * np.sqrt(np.abs(whole))
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(covariance(x + 3, projection)[0], found, rtol=1e-3, atol=1e-4)


def test_readings_are_compared_on_train_parts(tmp_path):
    write_set(tmp_path / "tiles" / "bisque_breast")
    done = CliRunner().invoke(
        evaluate.main,
        f"readings default --data {tmp_path} --sets bisque_breast --views 4 --textures --seeds 1"
        f" --json {tmp_path / 'out.json'}".split(),
    )
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out.json").read_text())["default"]["bisque_breast"]
    assert {name: row["dim"] for name, row in found.items()} == {
        "as it is": 768,
        "4 views": 768,
        "with cubic mean": 768 + 256,
        "with covariance of blocks.4": 768 + 528,
        "with covariance of blocks.5": 768 + 528,
    }
    assert found["as it is"]["AUROC"] == 1
    assert found["4 views"]["differences"]["AUROC"] == [0, 0, 0]
    assert found["4 views"]["cosines"]["quarter turn"] > 0.9999
    assert found["as it is"]["cosines"]["quarter turn"] < 0.999
    assert "folds by group; 4 groups" in done.output  # of 8: half are the test part


def test_textures_need_a_readout_of_stages(tmp_path):
    write_set(tmp_path / "tiles" / "bisque_breast")
    done = CliRunner().invoke(
        evaluate.main,
        f"readings random --data {tmp_path} --sets bisque_breast --views 0 --textures".split(),
    )
    assert done.exit_code == 1
    assert "--textures are of CNNs whose readout names stages" in done.output
