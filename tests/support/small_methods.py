"""Every pretraining method at its smallest, with views to give to its loss."""

import numpy as np
import skimage.data
import torch

from pathencoder import compat
from pathencoder.spec import EncoderSpec
from training import augment, methods
from training.data.loader import TileBatch
from training.methods import byol, dino, distill, patch_contrast, simclr

CROPS = {"px": 32}
_DINO = {
    "global_crops": CROPS,
    "local_crops": {"count": 1, "px": 16},
    "hidden": 16,
    "bottleneck": 8,
    "prototypes": 16,
}
DENSE = {
    "stain_maps": {"stages": ["blocks.0"]},
    "nuclei_maps": {"stages": ["blocks.0"]},
    "crop_scale": {"stages": ["blocks.0"]},
    "dense_contrast": {"stages": ["blocks.1"]},
    "context": {"stages": ["blocks.1"]},
}
SMALL = {
    "simclr": simclr.Settings(crop=CROPS, local_crops={"count": 1, "px": 16}, hidden=16, out=8),
    "simclr, dense tasks": simclr.Settings(
        crop=CROPS, local_crops={"count": 1, "px": 16}, hidden=16, out=8, **DENSE
    ),
    "byol": byol.Settings(crop=CROPS, hidden=16, out=8),
    "byol, dense tasks": byol.Settings(crop=CROPS, hidden=16, out=8, **DENSE),
    "dino": dino.Settings(**_DINO),
    "dino, dense tasks": dino.Settings(**_DINO, **DENSE),
    "dino, sinkhorn, koleo": dino.Settings(
        **_DINO, balance="sinkhorn", spread={"name": "koleo"}, head_norm=True
    ),
    "dino, patches, kde": dino.Settings(**_DINO, patches={}, spread={}),
    "dino, shared head": dino.Settings(**_DINO, patches={"own_head": False}, spread={}),
    "distill": distill.Settings(teachers=["pathencoder-tiny"], crop=CROPS),
    "patch_contrast": patch_contrast.Settings(crop=64),
}


def rng(seed):
    return torch.Generator().manual_seed(seed)


def picture_tiles(count, side=64):
    """Tiles of scikit-image's picture of immunohistochemistry."""
    picture = skimage.data.immunohistochemistry()
    corners = np.random.default_rng(0).integers(0, len(picture) - side, (count, 2))
    tiles = np.stack([picture[y : y + side, x : x + side] for y, x in corners])
    return TileBatch(
        torch.from_numpy(tiles).permute(0, 3, 1, 2), torch.ones(count).long(), torch.arange(count)
    )


def small_method(settings, architecture="test_vit", **args):
    """The method, in train mode, around one of timm's smallest networks."""
    vit = {"img_size": 32, "patch_size": 8, "dynamic_img_size": True}
    sizes = vit if "vit" in architecture else {}

    def backbone():
        torch.manual_seed(0)
        make = compat.import_timm().create_model
        return make(architecture, num_classes=0, **sizes, **args)

    def spec():
        prefix = 1 if sizes else 0
        return EncoderSpec(
            name="small",
            architecture=architecture,
            dim=width,
            width=width,
            input_size=32,
            mean=half,
            std=half,
            embedding="cls" if prefix else "pool",
            prefix_tokens=prefix,
        )

    half, width = (0.5, 0.5, 0.5), backbone().num_features
    plan = methods.Plan(backbone, width, 100, 32, 1000, half, half, rng(0), spec)
    return methods.build(settings, plan).train()


def small_views(method):
    """Noise of the sizes that the method takes, and masks where it takes them."""
    s = method.settings
    if s.name == "patch_contrast":
        return [torch.rand(8, 3, 64, 64, generator=rng(0))]
    crops = s.global_crops if s.name == "dino" else s.crop
    sides = [crops.px] * max(crops.count, 2)
    local = getattr(s, "local_crops", None)
    sides += [local.px] * local.count if local else []
    made = [torch.randn(8, 3, px, px, generator=rng(i)) for i, px in enumerate(sides)]
    if tasks := getattr(method, "tasks", None):
        noise = torch.randint(0, 256, (8, 3, 48, 48), dtype=torch.uint8, generator=rng(7))
        source, g = augment.source_of(noise), rng(8)
        drawn = [augment.crop_places(8, crops, g) for _ in range(crops.count)]
        for of in tasks.beside(TileBatch(noise, torch.zeros(8).long(), torch.arange(8))):
            made += [of(augment.cut(source, places, crops.px), places) for places in drawn]
    patches = getattr(method, "patches", None)
    masks = patches.masks(made[: crops.count], method.backbone, rng(1)) if patches else []
    return made + masks


def places_learnt(method, task, views, steps):
    """Train on the same views by a task that compares places; the shares that were found.

    In the first step the gradient must reach the backbone.
    """
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 3e-3)
    shares = []
    for step in range(steps):
        _, maps = method.tasks.forward(method.backbone, method.backbone, views[:2], 2)
        loss, share = task.loss(maps, views[2:])
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            reached = [p.grad for n, p in method.backbone.named_parameters() if "blocks.1." in n]
            assert all(g is not None and g.abs().sum() > 0 for g in reached)
        optimiser.step()
        shares.append(float(share))
    return shares
