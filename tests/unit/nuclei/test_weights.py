"""The folder of a nuclei network: weights that do not fit its config.json are named."""

import json

import pytest

from pathencoder.errors import IncompatibleWeights
from pathencoder.nuclei.weights import load_network, save_network


def test_weights_of_another_shape_are_named(tmp_path):
    network = load_network()
    save_network(tmp_path / "net", network, {"seed": 1})
    path = tmp_path / "net" / "config.json"
    config = json.loads(path.read_text())
    config["layers"]["width"] = network.width + 8
    path.write_text(json.dumps(config))
    with pytest.raises(IncompatibleWeights, match=r"does not fit its config\.json: \d+ keys of"):
        load_network(tmp_path / "net")
