"""How much memory a fit of a dense head takes, and a machine that has less."""

import labelled_tissue
import numpy as np
import pytest
import small_encoders

import pathencoder
from pathencoder import memory
from pathencoder.errors import ConfigError
from pathencoder.heads.dense import model
from pathencoder.heads.dense.loading import needed
from pathencoder.heads.dense.model import Labelled
from pathencoder.heads.dense.tasks import task_of
from pathencoder.heads.dense.train import Training

pytestmark = pytest.mark.full
QUICK = {"steps": 2, "batch": 2, "side": 64, "progress": False}


@pytest.mark.parametrize("kind", ["glands", "nuclei", "points", "pixels"])
@pytest.mark.parametrize("stain_maps", [False, True])
def test_what_is_needed_is_what_is_kept(kind, stain_maps, monkeypatch):
    kept = []
    monkeypatch.setattr(model, "train", lambda network, planes, *_: kept.extend(planes))
    task = task_of(kind, ("background", "a", "b"))
    truth = np.array([[3.0, 4.0]]) if kind == "points" else np.eye(40, 60, dtype=np.int32)
    x = Labelled(np.full((40, 60, 3), 200, np.uint8), truth, 0.5)
    y = Labelled(np.full((40, 60, 3), 90, np.uint8), truth, 0.5)
    encoder = small_encoders.shared("cnn")
    model.fit(encoder, task, [x, y], Training(steps=1, batch=2), mpp=0.3, stain_maps=stain_maps)
    planes = kept[0].numpy()
    resized = 0 if kind == "points" else planes[0].nbytes
    found = needed(x, task, 0.3, stain_maps=stain_maps)
    assert found == x.image.nbytes + truth.nbytes + planes.nbytes + resized


def test_more_images_than_memory_are_refused_before_the_fit(tmp_path, monkeypatch):
    data = labelled_tissue.folder(tmp_path / "data", count=4, points=True)
    given = {"mpp": labelled_tissue.MPP, "read_mpp": labelled_tissue.MPP, **QUICK}
    encoder = small_encoders.shared("cnn")
    each = 96 * 96 * (3 + 4 * 4) + 16 * 8
    monkeypatch.setattr(memory, "available", lambda: 3 * each)
    with pytest.raises(ConfigError, match=r"the first 4 of 4 images takes .* larger read_mpp"):
        pathencoder.fit("points", encoder, data, **given)
    for enough in (4 * each, None):
        monkeypatch.setattr(memory, "available", lambda enough=enough: enough)
        pathencoder.fit("points", encoder, data, **given)
