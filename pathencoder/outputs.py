"""Read the outputs of a network: class token, means, dense maps, the recommended embedding."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pathencoder import pooling
from pathencoder.errors import ConfigError, ImageError
from pathencoder.network import Network, channels_first, has_cls, has_tokens, stages, trunk, walk
from pathencoder.pooling import stage_rule
from pathencoder.spec import EncoderSpec
from pathencoder.wrapped import bare, evaluating

OUTPUTS = ("embedding", "cls", "mean", "cls_mean", "multi", "dense")


@dataclass(frozen=True)
class Features:
    """The outputs of one forward pass over N images.

    Attributes:
        embedding: [N, D], the readout that the encoder's authors recommend.
        cls: [N, C], the class token; None for a network without one.
        mean: [N, C], mean over the patch tokens, or over the last feature map.
    """

    embedding: Tensor
    cls: Tensor | None
    mean: Tensor
    _grid: Callable[[], Tensor]

    @functools.cached_property
    def dense(self) -> Tensor:
        """[N, C, h, w]: patch tokens as a grid, or a feature map. Computed on first use."""
        return self._grid()

    @property
    def cls_mean(self) -> Tensor:
        """[N, 2C]: class token and mean, concatenated.

        Raises:
            ConfigError: The network has no class token.
        """
        if self.cls is None:
            raise ConfigError("this encoder has no class token: use output='embedding' or 'mean'")
        return torch.cat([self.cls, self.mean], dim=1)


def read(network: Network, spec: EncoderSpec, x: Tensor) -> Features:
    """Run the network once and read its outputs as the spec says.

    Args:
        network: The network of the spec, wrapped or not.
        spec: The encoder's description.
        x: Normalised float [N, 3, H, W].

    Returns:
        The features of the N images.

    Raises:
        ImageError: `x` has a shape, size, dtype or device that the network cannot take.
    """
    check_batch(x)
    network = bare(network)
    try:
        return (
            _read_tokens(network, spec, x) if has_tokens(network) else _read_maps(network, spec, x)
        )
    except (RuntimeError, AssertionError) as error:
        raise _explained(error, network, spec, x) from error


def _explained(error: Exception, network: Network, spec: EncoderSpec, x: Tensor) -> Exception:
    """The ImageError for a wrong dtype, device or size; the error itself for other reasons."""
    weights = next(network.parameters())
    size = (spec.input_size, spec.input_size)
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return error
    if x.device != weights.device:
        return ImageError(
            f"x is on {x.device}, the encoder on {weights.device}: x.to(encoder.device)"
        )
    if x.dtype != weights.dtype and not torch.is_autocast_enabled(x.device.type):
        return ImageError(
            f"x is {x.dtype}, the encoder's weights are {weights.dtype}: x.to(encoder.dtype)"
        )
    if tuple(x.shape[-2:]) != size:
        return ImageError(
            f"{spec.name} cannot take images of {x.shape[-2]} x {x.shape[-1]} px ({error}): it was"
            f" made for {size[0]} x {size[1]}"
        )
    return error


def readout(network: Network, spec: EncoderSpec, output: str) -> Callable[[Tensor], Tensor]:
    """The function that maps normalised [N, 3, H, W] to one output.

    Args:
        network: The network of the spec, wrapped or not.
        spec: The encoder's description.
        output: One of `OUTPUTS`.

    Returns:
        A function of the batch.

    Raises:
        ConfigError: The output is unknown, or this network does not have it.
    """
    if output not in OUTPUTS:
        raise ConfigError(f"output={output!r}: one of {', '.join(OUTPUTS)}")
    network = bare(network)
    if output in ("cls", "cls_mean") and not has_cls(network):
        raise ConfigError(
            f"{spec.name} has no class token: output='embedding', 'mean', 'multi' or 'dense'"
        )
    if output == "multi":
        return functools.partial(read_multi, network, spec)
    if output == "embedding":
        return functools.partial(read_embedding, network, spec)
    return lambda x: getattr(read(network, spec, x), output)


def read_embedding(network: Network, spec: EncoderSpec, x: Tensor) -> Tensor:
    """The recommended embedding alone: a CNN runs no further than the stages that it reads.

    Args:
        network: The network of the spec, wrapped or not.
        spec: The encoder's description.
        x: Normalised float [N, 3, H, W].

    Returns:
        [N, D], the `embedding` of `read`.

    Raises:
        ImageError: As for `read`.
    """
    rule = stage_rule(spec.embedding)
    if rule is None or has_tokens(network):
        return read(network, spec, x).embedding
    check_batch(x)
    network, kept = bare(network), dict[str, Tensor]()
    try:
        for path, maps in walk(network, x):
            if path in rule.stages:
                kept[path] = channels_first(network, maps)
            if kept.keys() == set(rule.stages):
                return rule.embedding(kept)
    except (RuntimeError, AssertionError) as error:
        raise _explained(error, network, spec, x) from error
    return read(network, spec, x).embedding  # which names the stages that are not there


def stages_read(spec: EncoderSpec) -> frozenset[str]:
    """The paths of the modules whose outputs the readouts of an encoder name."""
    rule = stage_rule(spec.embedding)
    return frozenset([*(rule.stages if rule else ()), *filter(None, [spec.dense_stage])])


def read_multi(network: Network, spec: EncoderSpec, x: Tensor) -> Tensor:
    """Class token and mean of each of the last four blocks, concatenated in their order.

    Args:
        network: The network of the spec.
        spec: The encoder's description.
        x: Normalised float [N, 3, H, W].

    Returns:
        [N, 8C]; without a class token the means [N, 4C]; for a CNN the spatial means of its last
        four stages.

    Raises:
        ConfigError: The network is a CNN without stages.
        ImageError: `x` has another shape or dtype.
    """
    check_batch(x)
    if not has_tokens(network):
        return torch.cat([pooling.mean(m) for m in stages(network, x)[-4:]], dim=1)
    check_sides(network, spec, x)
    parts: list[Tensor] = []
    for patches, prefix in _blocks(network, x, 4):
        parts += [prefix[:, 0]] if has_cls(network) else []
        parts.append(patches.mean(1))
    return torch.cat(parts, dim=1)


def _blocks(network: Network, x: Tensor, indices: int | list[int]) -> list[tuple[Tensor, Tensor]]:
    """Patch tokens [N, L, C] and prefix tokens [N, P, C] of blocks, after the final norm."""
    asked = {"indices": indices, "norm": True, "output_fmt": "NLC", "intermediates_only": True}
    if not network.num_prefix_tokens:  # timm then returns no pairs
        return [(patches, patches[:, :0]) for patches in network.forward_intermediates(x, **asked)]
    pairs: list[tuple[Tensor, Tensor]] = network.forward_intermediates(
        x, return_prefix_tokens=True, **asked
    )
    return pairs


def pyramid(
    network: Network, spec: EncoderSpec, x: Tensor, indices: Sequence[int] | None = None
) -> tuple[list[Tensor], list[int]]:
    """Feature maps [N, C, h, w] and their strides in pixels, in the order of `indices`.

    The network runs in eval mode whatever its mode, so that running statistics do not change.
    Differentiable.

    Args:
        network: The network of the spec, wrapped or not.
        spec: The encoder's description.
        x: Normalised float [N, 3, H, W].
        indices: Maps of a CNN (one per resolution) or blocks of a transformer; negative ones count
            from the end. None: all maps of a CNN, the last four blocks of a transformer.

    Returns:
        The maps, and the stride of each in pixels.

    Raises:
        ConfigError: The network has no stages, or an index is out of range.
        ImageError: `x` has another shape or dtype.
    """
    check_batch(x)
    network = bare(network)
    with evaluating(network):
        if has_tokens(network):
            check_sides(network, spec, x)
            count = len(network.blocks)
            chosen = _chosen(range(-min(4, count), 0) if indices is None else indices, count, spec)
            maps = _maps_after(network, x, chosen)
        else:
            found = _one_per_resolution(stages(network, x))
            maps = (
                found if indices is None else [found[i] for i in _chosen(indices, len(found), spec)]
            )
    return maps, [round(x.shape[-1] / m.shape[-1]) for m in maps]


def _maps_after(network: Network, x: Tensor, blocks: list[int]) -> list[Tensor]:
    """Maps [N, C, h, w] after blocks, in the given order; timm returns them in network order."""
    once = sorted(set(blocks))
    maps = network.forward_intermediates(
        x, indices=once, norm=True, output_fmt="NCHW", intermediates_only=True
    )
    return [maps[once.index(i)] for i in blocks]


def _chosen(indices: Sequence[int], count: int, spec: EncoderSpec) -> list[int]:
    """Non-negative indices. Raises ConfigError for one out of range."""
    try:
        wanted = [operator.index(i) for i in indices]
    except TypeError:
        wanted = []
    if not wanted or any(not -count <= i < count for i in wanted):
        raise ConfigError(
            f"indices={indices!r}: {spec.name} has maps 0 to {count - 1}; give a list of these"
            " numbers, or None for the default"
        )
    return [i % count for i in wanted]


def check_batch(x: object) -> None:
    """Check the form of a batch.

    Raises:
        ImageError: `x` is not a float tensor [N, 3, H, W].
    """
    if not isinstance(x, Tensor):
        found = type(x).__name__
    elif x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
        found = f"{x.dtype} {list(x.shape)}"
    else:
        return
    raise ImageError(
        f"forward takes normalised float [N, 3, H, W], found {found}; for images in any form use"
        " encoder.encode(...)"
    )


def check_sides(network: Network, spec: EncoderSpec, x: Tensor) -> None:
    """Check the sides of a batch [N, 3, H, W] for a transformer.

    Raises:
        ImageError: The patch size does not divide them.
    """
    patch = network.patch_embed.patch_size
    if x.shape[-2] % patch[0] or x.shape[-1] % patch[1]:
        raise ImageError(
            f"{spec.name} takes images whose sides are multiples of {patch[0]} px, found"
            f" {x.shape[-2]} x {x.shape[-1]}"
        )


def _read_tokens(network: Network, spec: EncoderSpec, x: Tensor) -> Features:
    check_sides(network, spec, x)
    patch = network.patch_embed.patch_size
    tokens: Tensor = network.forward_features(x)
    grid = x.shape[-2] // patch[0], x.shape[-1] // patch[1]
    cls = tokens[:, 0] if has_cls(network) else None
    patches = tokens[:, spec.prefix_tokens :]
    mean = patches.mean(1)
    return Features(
        _readout(network, spec, tokens, cls, mean),
        cls,
        mean,
        lambda: patches.transpose(1, 2).unflatten(2, grid),
    )


def _readout(
    network: Network, spec: EncoderSpec, tokens: Tensor, cls: Tensor | None, mean: Tensor
) -> Tensor:
    if spec.embedding == "mean":
        return mean
    if spec.embedding in ("pool", "head"):
        pooled: Tensor = network.forward_head(tokens, pre_logits=spec.embedding == "pool")
        return pooled
    if cls is None:
        raise ConfigError(
            f"{spec.name}: its network has no class token for the embedding rule {spec.embedding!r}"
        )
    return cls if spec.embedding == "cls" else torch.cat([cls, mean], dim=1)


def _read_maps(network: Network, spec: EncoderSpec, x: Tensor) -> Features:
    rule, wanted = stage_rule(spec.embedding), stages_read(spec)
    kept: dict[str, Tensor] = {}
    if wanted:
        for path, last in walk(network, x):
            if path in wanted:
                kept[path] = channels_first(network, last)
    else:
        last = network.forward_features(x)
    if missing := wanted - kept.keys():
        there = ", ".join(path for path, _ in trunk(network))
        raise ConfigError(
            f"encoder {spec.name!r} reads stage {min(missing)!r}, which its network lacks; it has"
            f" {there}"
        )
    maps = channels_first(network, last)
    mean = pooling.mean(maps)
    embedding = rule.embedding(kept) if rule else _pooled(network, spec, last, mean)
    dense = kept[spec.dense_stage] if spec.dense_stage else maps
    return Features(embedding, None, mean, lambda: dense)


def _pooled(network: Network, spec: EncoderSpec, last: Tensor, mean: Tensor) -> Tensor:
    """The last feature map through the network's head ("pool": not its last layer), or its mean."""
    if spec.embedding not in ("pool", "head"):
        return mean
    pooled: Tensor = network.forward_head(last, pre_logits=spec.embedding == "pool")
    return pooled


def _one_per_resolution(maps: list[Tensor]) -> list[Tensor]:
    return [
        m
        for m, after in zip(maps, [*maps[1:], None], strict=True)
        if after is None or after.shape[-1] != m.shape[-1]
    ]
