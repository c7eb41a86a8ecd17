"""Maps of the nuclei network as a dense task: they lie where nuclei are, and maps learn them."""

import numpy as np
import pytest
import skimage.data
import torch
from small_methods import rng, small_method
from synthetic_nuclei import tissue

from pathencoder.errors import ConfigError
from pathencoder.nuclei.maps import calibrate
from pathencoder.nuclei.scores import nucleus_scores
from pathencoder.nuclei.weights import digest, load_network
from training import augment
from training.augment import CropSettings
from training.data.loader import TileBatch
from training.data.tiles import STAIN_CLASSES
from training.methods import simclr
from training.methods.parts.nuclei_maps import NucleiMapSettings, source, tile_maps

pytestmark = pytest.mark.full
CNN = "test_efficientnet"


def settings(stages=("blocks.1",), **changes):
    task = {"nuclei_maps": {"stages": stages}} if stages else {}
    return simclr.Settings(crop={"px": 48, "area": (0.5, 1)}, hidden=16, out=8, **task, **changes)


def drawn(count=12, stain="he", side=96):
    """Tiles of nuclei of 6 um at 0.5 um per pixel, and where they lie."""
    made = [tissue((side, side), nuclei=9, stain=stain, positive=0.5, seed=i) for i in range(count)]
    tiles = torch.from_numpy(np.stack([image for image, *_ in made])).permute(0, 3, 1, 2)
    stains = torch.full((count,), STAIN_CLASSES.index(stain))
    inside = torch.from_numpy(np.stack([labels > 0 for _, labels, _ in made]))
    return TileBatch(tiles, stains, torch.arange(count)), inside


@pytest.mark.parametrize("stain", ["he", "ihc"])
def test_probability_and_depth_are_high_in_nuclei(stain):
    batch, inside = drawn(4, stain)
    probability, depth = tile_maps(batch, 0.5).unbind(1)
    assert probability.shape == inside.shape
    assert float(probability[inside].mean()) > float(probability[~inside].mean()) + 0.5
    assert float(depth[inside].mean()) > float(depth[~inside].mean()) + 0.2


def test_nuclei_are_those_of_segmentation():
    image = np.ascontiguousarray(skimage.data.immunohistochemistry()[:160, :160])
    tile = torch.from_numpy(image).permute(2, 0, 1)[None]
    batch = TileBatch(tile, torch.tensor([STAIN_CLASSES.index("ihc")]), torch.arange(1))
    found = tile_maps(batch, 0.5)[0, 0].numpy() > 0.5
    scores = nucleus_scores(load_network(), calibrate(image, "ihc").maps(image))
    assert np.mean(found == (scores > 0)) > 0.95


def test_tiles_of_another_scale_are_read_at_that_of_the_network():
    batch, inside = drawn(2)
    finer = TileBatch(
        batch.tiles.repeat_interleave(2, 2).repeat_interleave(2, 3), *batch_rest(batch)
    )
    found = tile_maps(finer, 0.25)[:, 0]
    assert found.shape == inside.shape
    assert torch.allclose(found, tile_maps(batch, 0.5)[:, 0], atol=0.05)


def batch_rest(batch):
    return batch.stains, batch.indices


def test_maps_are_cut_where_the_crops_are():
    batch, inside = drawn(6)
    places = augment.crop_places(6, CropSettings(px=48, area=(0.4, 0.6)), rng(0))
    crops = augment.cut(augment.source_of(batch.tiles), places, 48)
    found = source(NucleiMapSettings(stages=("x",))).of(batch)(crops, places)
    there = augment.Source(inside[:, None].float(), inside[:, None, ::2, ::2].float())
    truth = augment.cut(there, places, 48)[:, 0] > 0.5
    assert found.shape == (6, 2, 48, 48)
    assert float(found[:, 0][truth].mean()) > float(found[:, 0][~truth].mean()) + 0.5


def test_blank_and_unknown_tiles_give_finite_targets():
    white = torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)
    white[1] = 128
    for stain in STAIN_CLASSES:
        stains = torch.full((2,), STAIN_CLASSES.index(stain))
        assert tile_maps(TileBatch(white, stains, torch.arange(2)), 0.5).isfinite().all()


def test_maps_learn_where_the_nuclei_lie():
    method = small_method(settings(), CNN)
    before = digest(load_network())
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-2)
    tiles, shares = drawn()[0], []
    for step in range(20):
        loss, logs = method.loss(method.views(tiles), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        shares.append(float(logs["nuclei_maps"]))
    assert shares[0] < 0.2
    assert np.mean(shares[-3:]) > 0.4
    assert digest(load_network()) == before


def test_the_nuclei_network_is_no_part_of_the_method_and_the_crops_stay():
    plain, dense = (small_method(settings(s), CNN) for s in ((), ("blocks.1",)))
    own = dense.state_dict().keys() - plain.state_dict().keys()
    assert own == {"nuclei.heads.0.weight", "nuclei.heads.0.bias"}
    tiles = drawn(3)[0]
    for one, other in zip(plain.views(tiles), dense.views(tiles), strict=False):
        assert torch.equal(one, other)


def test_a_stage_that_is_not_there():
    with pytest.raises(ConfigError, match=r"method\.nuclei_maps\.stages: .*has no blocks\.77"):
        small_method(settings(["blocks.77"]), CNN)
