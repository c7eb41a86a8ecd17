"""Augmentation of whole batches on their device: random crops, and stain jitter.

Every random number comes from the generator passed in, so a step's views follow from its seed
alone. With several processes each draws the numbers of the joint batch and takes those of its
tiles (entries rank, rank + world, ...), so that a tile's views do not depend on the number of
processes. Each process must hold the same number of tiles and seed its generator equally.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from training import bounds
from training.bounds import Fraction, Ratios, Section, Shares, Strength
from training.data.tiles import STAIN_CLASSES
from training.distributed import share, world

# Ruifrok and Johnston 2001, Anal Quant Cytol Histol 23: optical densities of hematoxylin, eosin and
# DAB in R, G, B.
_HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_HED_OF = _HED / _HED.norm(dim=1, keepdim=True)  # stain amounts -> optical density
_OF_HED = torch.linalg.inv(_HED_OF)


def _known(stain: str) -> str:
    return bounds.one_of(stain, STAIN_CLASSES)


StainClass = Annotated[str, AfterValidator(_known)]


class CropSettings(Section):
    """Crops of one kind.

    Attributes:
        count: Crops of each tile.
        px: Their side in pixels.
        field: Least and largest share of the tile's area in which all its crops lie. The field is
            drawn once for each tile, so that magnification varies between tiles and not between
            the crops that are compared.
        area: Least and largest share of the field's area. With both equal, crops differ by
            translation alone (extended-context translation of Virchow, arXiv:2309.07778, section
            4.1).
        aspect: Least and largest ratio of the sides.
    """

    count: int = Field(default=2, ge=0, le=64)
    px: int = Field(default=112, ge=16, le=4096)
    field: Shares = (1.0, 1.0)
    area: Shares = (0.25, 1.0)
    aspect: Ratios = (0.8, 1.25)


class ColourSettings(Section):
    """Colour changes.

    Attributes:
        he_scale: Amounts s of hematoxylin, eosin and DAB of H&E tiles become
            s (1 + he_scale n) + he_shift n', with n and n' drawn from a standard normal.
        he_shift: As above.
        od_scale: The same for the optical density of each colour channel in all other stains, IHC
            among them.
        od_shift: As above.
        brightness: Intensities are multiplied by a factor within 1 plus or minus this.
        hed_classes: Stain classes whose tiles are jittered as H&E is.
        grey: Share of H&E views made grey. Other stains keep their colour, which is their signal.
        blur: Share of all views that are blurred.
    """

    he_scale: Strength = 0.15
    he_shift: Strength = 0.05
    od_scale: Strength = 0.08
    od_shift: Strength = 0.02
    brightness: Fraction = 0.1
    hed_classes: tuple[StainClass, ...] = ("he",)
    grey: Fraction = 0.1
    blur: Fraction = 0.2


@dataclass(frozen=True)
class Fields:
    """The part of each tile in which its crops lie.

    Attributes:
        side: Float [N], as a share of the tile's side.
        x: Float [N], its centre in -1..1.
        y: Float [N], the same.
    """

    side: Tensor
    x: Tensor
    y: Tensor


def fields(count: int, settings: CropSettings, generator: torch.Generator) -> Fields | None:
    """A field for each of `count` tiles; None where the field is the whole tile."""
    if settings.field == (1.0, 1.0):
        return None
    device = generator.device
    side = share(
        torch.empty(count * world(), device=device).uniform_(*settings.field, generator=generator)
    ).sqrt()
    x, y = (1 - side) * share(
        torch.empty(2, count * world(), device=device).uniform_(-1, 1, generator=generator), dim=1
    )
    return Fields(side, x, y)


@dataclass(frozen=True)
class Source:
    """Tiles from which crops are taken.

    Attributes:
        full: Float32 [N, 3, T, T] in 0..1; other maps of them may have other channels.
        half: The same at half the size.
    """

    full: Tensor
    half: Tensor


def source_of(tiles: Tensor) -> Source:
    """What `crops` reads, from uint8 [N, 3, T, T]; make it once for all crops of a batch."""
    full = tiles.float().div_(255)
    return Source(full, F.avg_pool2d(full, 2))


def crops(
    tiles: Tensor | Source,
    settings: CropSettings,
    generator: torch.Generator,
    within: Fields | None = None,
) -> Tensor:
    """Random resized crops with flips and rotations by multiples of 90 degrees.

    Args:
        tiles: Uint8 [N, 3, T, T], or what `source_of` makes of it.
        settings: Size and shape of the crops.
        generator: The source of all random numbers.
        within: The fields in which the crops lie; None: the whole tiles.

    Returns:
        Float32 [N, 3, px, px] in 0..1.
    """
    source = tiles if isinstance(tiles, Source) else source_of(tiles)
    return cut(source, crop_places(len(source.full), settings, generator, within), settings.px)


def crop_places(
    count: int,
    settings: CropSettings,
    generator: torch.Generator,
    within: Fields | None = None,
) -> Tensor:
    """Where a random crop of each tile lies, and how it is flipped and turned.

    Args:
        count: Number of tiles.
        settings: Shape of the crops.
        generator: The source of all random numbers; the places are on its device.
        within: The fields in which the crops lie; None: the whole tiles.

    Returns:
        Float [N, 2, 3]: the affine map from a crop's coordinates (x, y in -1..1 from border to
        border) to its tile's. In each row of its left 2 x 2 part one value is not 0: half the
        width or height of the crop, in half sides of the tile.
    """
    joint, device = count * world(), generator.device

    def uniform(low: float, high: float) -> Tensor:
        return share(torch.empty(joint, device=device).uniform_(low, high, generator=generator))

    area = uniform(*settings.area)
    aspect = uniform(math.log(settings.aspect[0]), math.log(settings.aspect[1])).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    dx, dy = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    if within:
        width, height = width * within.side, height * within.side
        dx, dy = within.x + within.side * dx, within.y + within.side * dy
    angle = share(torch.randint(0, 4, (joint,), generator=generator, device=device)) * (math.pi / 2)
    mirror = share(torch.randint(0, 2, (joint,), generator=generator, device=device)) * 2.0 - 1
    cos, sin = angle.cos().round(), angle.sin().round()
    rows = [
        torch.stack([width * cos * mirror, -width * sin, dx], 1),
        torch.stack([height * sin * mirror, height * cos, dy], 1),
    ]
    return torch.stack(rows, 1)


def half_sides(places: Tensor) -> Tensor:
    """Half the width and height [N, 2] of crops along their tiles' axes, as of `crop_places`."""
    return places[:, :, :2].abs().sum(2)


def cut(source: Source, places: Tensor, px: int) -> Tensor:
    """The crops at these places.

    All of it is one bilinear resampling. Crops that are reduced by more than 1.5 are taken from the
    tile at half its size, against aliasing.

    Args:
        source: N tiles.
        places: Float [N, 2, 3], as `crop_places` draws them.
        px: Side of the crops.

    Returns:
        Float32 [N, C, px, px], with the channels of the source.
    """
    count, channels, side = source.full.shape[:3]
    grid = F.affine_grid(places, [count, channels, px, px], align_corners=False)
    shrinks = half_sides(places).amax(1) * side / px > 1.5
    out = source.full.new_empty(count, channels, px, px)
    for level, chosen in ((source.full, ~shrinks), (source.half, shrinks)):
        if chosen.any():
            out[chosen] = F.grid_sample(
                level[chosen],
                grid[chosen],
                mode="bilinear",
                padding_mode="reflection",
                align_corners=False,
            )
    return out


def colours(
    views: Tensor, stains: Tensor, settings: ColourSettings, generator: torch.Generator
) -> Tensor:
    """Stain jitter, brightness, grey and blur.

    Args:
        views: Float [N, 3, H, W] in 0..1; it may be overwritten.
        stains: Int64 [N], index into STAIN_CLASSES.
        settings: How strong, and how often.
        generator: The source of all random numbers.

    Returns:
        Float [N, 3, H, W] in 0..1.
    """
    joint, device = len(views) * world(), views.device

    def chance(p: float) -> Tensor:
        return share(torch.rand(joint, generator=generator, device=device)) < p

    is_he = _of_classes(stains, ("he",))
    views = jitter_stain(views, _of_classes(stains, settings.hed_classes), settings, generator)
    light = 1 + settings.brightness * (
        2 * share(torch.rand(joint, 1, 1, 1, generator=generator, device=device)) - 1
    )
    views = (views * light).clamp_(0, 1)
    grey = chance(settings.grey) & is_he
    if grey.any():
        weights = torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1)
        views[grey] = (views[grey] * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    blur = chance(settings.blur)
    if blur.any():
        views[blur] = _blur3(views[blur])
    return views


def _of_classes(stains: Tensor, classes: tuple[str, ...]) -> Tensor:
    return torch.isin(
        stains,
        torch.tensor(
            [STAIN_CLASSES.index(c) for c in classes], dtype=stains.dtype, device=stains.device
        ),
    )


def jitter_stain(
    views: Tensor, is_he: Tensor, settings: ColourSettings, generator: torch.Generator
) -> Tensor:
    """Scale and shift the amounts of stain (HED perturbation, Tellez et al. 2018, IEEE TMI 37).

    It is one affine map of optical density, od' = A od + b, with A [N, 3, 3] and b [N, 3] drawn for
    each image.

    Args:
        views: Float [N, 3, H, W] in 0..1.
        is_he: Bool [N]: along hematoxylin, eosin and DAB; elsewhere along R, G, B optical density.
        settings: Scale and shift.
        generator: The source of all random numbers.

    Returns:
        Float [N, 3, H, W] in 0..1.
    """
    count, device = len(views), views.device
    noise = share(torch.randn(2, count * world(), 3, generator=generator, device=device), dim=1)
    pick = is_he.view(-1, 1)
    scale = 1 + noise[0] * torch.where(pick, settings.he_scale, settings.od_scale)
    shift = noise[1] * torch.where(pick, settings.he_shift, settings.od_shift)
    to_rgb, to_stain = _HED_OF.to(device).T, _OF_HED.to(device).T  # acting on column vectors
    eye = torch.eye(3, device=device)
    outward, inward = (
        torch.where(pick[..., None], to_rgb, eye),
        torch.where(pick[..., None], to_stain, eye),
    )
    matrix = outward @ torch.diag_embed(scale) @ inward
    offset = (outward @ shift[..., None]).view(count, 3, 1)
    density = views.flatten(2).clamp(min=1 / 255).log_().neg_()
    mapped = (
        mapped_by_sums(offset, matrix, density)
        if views.is_cuda
        else torch.baddbmm(offset, matrix, density)
    )
    return mapped.neg_().exp_().clamp_(0, 1).view_as(views)


def mapped_by_sums(offset: Tensor, matrix: Tensor, density: Tensor) -> Tensor:
    """The affine map offset [N, 3, 1] + matrix [N, 3, 3] @ density [N, 3, P], as three sums.

    On a GPU this is faster than a matrix product, which pads three rows to 32.
    """
    out = torch.addcmul(offset, matrix[:, :, 0:1], density[:, 0:1])
    for k in (1, 2):
        out.addcmul_(matrix[:, :, k : k + 1], density[:, k : k + 1])
    return out


def _blur3(views: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 2.0, 1.0], device=views.device)
    kernel = (kernel[:, None] * kernel).div(16).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


def normalise(views: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(views - mean) / std for each channel, in channels_last: the network's input."""
    shape = (1, 3, 1, 1)
    out = (views - torch.tensor(mean, device=views.device).view(shape)) / torch.tensor(
        std, device=views.device
    ).view(shape)
    return out.contiguous(memory_format=torch.channels_last)
