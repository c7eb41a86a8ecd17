"""iBOT's masked patches: the student predicts the teacher's output for patches hidden from it.

Zhou et al. 2022, arXiv:2111.07832, equation 2. For timm's ViTs, with or without registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pathencoder.errors import ConfigError
from training.bounds import Fraction, Fractions, Section
from training.distributed import share, world
from training.methods.parts.feature_maps import drops_patches
from training.methods.parts.precision import in_fp32

_BLOCKS = 12  # rectangles tried for an image's mask: enough to cover half of it
# Ratio of the sides of a rectangle, as in BEiT (Bao et al. 2022, arXiv:2106.08254, algorithm 1).
_ASPECTS = (0.3, 1 / 0.3)


class PatchSettings(Section):
    """The task of masked patches.

    Attributes:
        weight: Of its loss.
        shape: Unions of rectangles, or single patches.
        probability: Share of the images that are masked.
        share: Least and largest share of the patches of a masked image.
        own_head: Patches have a head of their own, as in DINOv2; False: they share the images'
            head, which iBOT found best at its size.
    """

    weight: float = Field(default=1.0, gt=0, le=1000)
    shape: Literal["block", "random"] = "block"
    probability: Fraction = 0.5
    share: Fractions = (0.1, 0.5)
    own_head: bool = True


class MaskedPatches(nn.Module):
    """The learnt token that replaces a hidden patch, and the heads for patches.

    The heads are None where patches share those of the images.
    """

    def __init__(
        self, settings: PatchSettings, backbone: nn.Module, head: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        for part in ("patch_embed", "norm", "num_prefix_tokens"):
            if not hasattr(backbone, part):
                raise ConfigError(
                    f"method.patches masks patches of a ViT, which {type(backbone).__name__} is"
                    " not: leave it out"
                )
        if drops_patches(backbone):
            raise ConfigError(
                "method.patches predicts every masked patch, and backbone.args drops some"
                " (patch_drop_rate): leave out one of the two"
            )
        self.settings = settings
        self.mask_token = MaskToken(_number(backbone, "embed_dim"))
        self.student_head = head() if settings.own_head else None
        self.teacher_head = head() if settings.own_head else None
        if self.student_head is not None and self.teacher_head is not None:
            self.teacher_head.load_state_dict(self.student_head.state_dict())
            self.teacher_head.requires_grad_(requires_grad=False)

    def masks(
        self, views: list[Tensor], backbone: nn.Module, generator: torch.Generator
    ) -> list[Tensor]:
        """Masks for the patches of views of one size, and the positions that they mask.

        They are drawn on the host: how many patches are masked is then known without waiting for
        the device.

        Returns:
            A mask bool [N, h, w] for each view; last, the positions of the masked patches of all
            views one after the other, int64 [masked].
        """
        patches: Any = backbone.get_submodule("patch_embed")
        height, width = patches.patch_size
        grid = views[0].shape[-2] // height, views[0].shape[-1] // width
        host = _on_host(generator)
        drawn = [draw_masks(len(v), grid, self.settings, host) for v in views]
        device = views[0].device
        made = [*drawn, torch.cat(drawn).flatten().nonzero()[:, 0]]
        return [m.to(device, non_blocking=True) for m in made]


def _on_host(generator: torch.Generator) -> torch.Generator:
    """A generator of the CPU: the same one, or one seeded from the state of a device's."""
    if generator.device.type == "cpu":
        return generator
    state = generator.initial_seed() + generator.get_offset()  # both are kept on the host
    return torch.Generator().manual_seed(state % 2**63)


class MaskToken(nn.Module):
    """Replaces masked patch embeddings by one learnt vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, patches: Tensor, mask: Tensor) -> Tensor:
        """Patches [N, L, C] or [N, h, w, C], those replaced where mask, bool [N, h, w], is set."""
        mask = mask.view(*patches.shape[:-1], 1)
        return torch.where(mask, self.token.to(patches.dtype), patches)


@contextmanager
def hidden(backbone: nn.Module, token: MaskToken, mask: Tensor) -> Iterator[None]:
    """Inside, the backbone gets `token` instead of the patches where mask is True.

    Position embeddings are added as always.
    """
    patches = backbone.get_submodule("patch_embed")
    handle = patches.register_forward_hook(lambda _module, _inputs, out: token(out, mask))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def tokens_of(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, each forward of the backbone appends its patch tokens [N, L, C].

    They are taken after the last norm, without prefix tokens.
    """
    seen: list[Tensor] = []
    prefix = _number(backbone, "num_prefix_tokens")
    last = backbone.get_submodule("norm")
    handle = last.register_forward_hook(lambda _module, _inputs, out: seen.append(out[:, prefix:]))
    try:
        yield seen
    finally:
        handle.remove()


def _number(backbone: Any, name: str) -> int:
    return int(getattr(backbone, name))


@in_fp32
def patch_loss(
    student_logits: Tensor, targets: Tensor, mask: Tensor, where: Tensor, *, temperature: float
) -> Tensor:
    """Cross entropy of masked patches (iBOT, equation 2).

    The mean over the patches of each image, then over all images; an image without masked patches
    counts as 0.

    Args:
        student_logits: Float [masked patches, K], in the order of mask.nonzero().
        targets: The teacher's distributions, [masked patches, K].
        mask: Bool [N, h, w].
        where: The positions in it of the masked patches, int64 [masked patches].
        temperature: Of the student.

    Returns:
        A scalar.
    """
    each = -(targets * F.log_softmax(student_logits / temperature, dim=1)).sum(1)
    per_image = mask.flatten(1).sum(1, keepdim=True).clamp(min=1)
    weights = (1 / per_image).expand(-1, mask[0].numel()).flatten()[where]
    return (each * weights).sum() / len(mask)


def draw_masks(
    count: int, grid: tuple[int, int], settings: PatchSettings, generator: torch.Generator
) -> Tensor:
    """Masks for this process's images.

    A share `probability` of the joint batch's images is masked. The masked share of each of those
    is drawn from settings.share: exactly so many single patches ("random"), or a union of
    rectangles with nearly so many ("block").

    Args:
        count: Images of this process.
        grid: Rows and columns of patches.
        settings: Shape and shares.
        generator: With the same state in every process.

    Returns:
        Bool [count, h, w].
    """
    joint, device = count * world(), generator.device
    rank_of = torch.rand(joint, generator=generator, device=device).argsort().argsort()
    masked = share(rank_of < round(settings.probability * joint))
    low, high = settings.share
    cells = grid[0] * grid[1]
    wanted = (
        (low + (high - low) * share(torch.rand(joint, generator=generator, device=device)))
        .mul(cells)
        .round()
        .clamp(1, cells)
    )
    if settings.shape == "random":
        order = (
            share(torch.rand(joint, cells, generator=generator, device=device))
            .argsort(1)
            .argsort(1)
        )
        found = (order < wanted[:, None]).view(count, *grid)
    else:
        found = _rectangles(
            share(torch.rand(4, joint, _BLOCKS, generator=generator, device=device), dim=1),
            wanted,
            grid,
        )
    return found & masked.view(-1, 1, 1)


def _rectangles(u: Tensor, wanted: Tensor, grid: tuple[int, int]) -> Tensor:
    """Unions of rectangles, bool [N, h, w], from uniform numbers u [4, N, B] (area, aspect, place).

    Of the unions of the first 1, 2, ... B rectangles the one whose number of patches is nearest to
    `wanted` [N].
    """
    height, width = grid
    area = wanted[:, None] * (0.1 + 0.4 * u[0])
    aspect = torch.exp(math.log(_ASPECTS[0]) + math.log(_ASPECTS[1] / _ASPECTS[0]) * u[1])
    h = (area * aspect).sqrt().round().clamp(1, height)
    w = (area / aspect).sqrt().round().clamp(1, width)
    top, left = (u[2] * (height - h + 1)).floor(), (u[3] * (width - w + 1)).floor()
    rows, columns = torch.arange(height, device=u.device), torch.arange(width, device=u.device)
    in_rows = (rows >= top[..., None]) & (rows < (top + h)[..., None])
    in_columns = (columns >= left[..., None]) & (columns < (left + w)[..., None])
    # [N, B, h, w]: after each rectangle
    covered = (in_rows[..., :, None] & in_columns[..., None, :]).long().cumsum(1) > 0
    last = (covered.flatten(2).sum(2) - wanted[:, None]).abs().argmin(1)
    return covered[torch.arange(len(u[0]), device=u.device), last]
