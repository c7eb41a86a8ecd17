"""A spec's timm network, and how its outputs are read.

Class token, means, dense maps, the recommended embedding.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pathencoder import compat, pooling
from pathencoder.errors import ConfigError, ImageError
from pathencoder.pooling import stage_rule
from pathencoder.spec import EncoderSpec
from pathencoder.wrapped import bare, evaluating

Network = Any  # a timm module: its attributes differ by family

OUTPUTS = ("embedding", "cls", "mean", "cls_mean", "multi", "dense")
# Children that come after the feature maps. timm names them alike over its families.
_HEADS = ("global_pool", "classifier", "fc", "head", "head_drop", "fc_norm")
# Containers whose members are stages of their own.
_STAGED = ("blocks", "stages", "layers")


@dataclass(frozen=True)
class Features:
    """What one forward pass tells of N images.

    embedding: [N, D], the readout that the encoder's authors recommend.
    cls: [N, C], the class token; None for a network without one.
    mean: [N, C], mean over the patch tokens (or over the last feature map).
    dense: [N, C, h, w], the patch tokens as a grid, prefix tokens left out; computed on first use.
    """

    embedding: Tensor
    cls: Tensor | None
    mean: Tensor
    _grid: Callable[[], Tensor]

    @functools.cached_property
    def dense(self) -> Tensor:
        """[N, C, h, w]."""
        return self._grid()

    @property
    def cls_mean(self) -> Tensor:
        """[N, 2C]: class token and mean joined.

        Raises ConfigError for a network without a class token.
        """
        if self.cls is None:
            raise ConfigError("this encoder has no class token: use output='embedding' or 'mean'")
        return torch.cat([self.cls, self.mean], dim=1)


def create(spec: EncoderSpec, *, random: bool = False) -> Network:
    """The network of a spec: with timm's random initial weights, or with none yet (on the meta device wherever timm allows it)."""
    timm = compat.import_timm()
    build = functools.partial(
        timm.create_model, spec.architecture, pretrained=False, **_constructor_args(spec)
    )
    try:
        with torch.device("cpu" if random else "meta"):
            network = build()
    # timm's constructors raise most of Python's errors for a name or arguments that they do not
    # know
    except Exception as error:
        raise ConfigError(
            f"encoder {spec.name!r}: timm cannot build architecture {spec.architecture!r} with"
            f" {spec.model_args} ({error}). Correct its config.json, or install the timm version"
            " that it was written for"
        ) from error
    # Buffers outside the state dict (Swin's position indices) are computed in the constructor and
    # would be lost on meta.
    if not random and set(dict(network.named_buffers())) - set(network.state_dict()):
        with torch.random.fork_rng(devices=[]):  # loading leaves the caller's random numbers alone
            network = build()
    if spec.layout == "ctranspath":
        with torch.random.fork_rng(devices=[], enabled=not random):
            network.patch_embed = _ConvStem()
    return network.eval()


def read(network: Network, spec: EncoderSpec, x: Tensor) -> Features:
    """One forward pass of normalised float [N, 3, H, W], read as the spec says.

    Raises ImageError for an x that the network cannot take.
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
    """The ImageError for an x of another dtype, device or size than the network takes.

    The error itself where x is not the reason.
    """
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
    """The function from normalised [N, 3, H, W] to one output.

    Raises ConfigError for one that there is not, or not of this network.
    """
    if output not in OUTPUTS:
        raise ConfigError(f"output={output!r}: one of {', '.join(OUTPUTS)}")
    network = bare(network)
    if output in ("cls", "cls_mean") and not _has_cls(network):
        raise ConfigError(
            f"{spec.name} has no class token: output='embedding', 'mean', 'multi' or 'dense'"
        )
    if output == "multi":
        return functools.partial(read_multi, network, spec)
    return lambda x: getattr(read(network, spec, x), output)


def read_multi(network: Network, spec: EncoderSpec, x: Tensor) -> Tensor:
    """The last four blocks joined, last block last: class token and mean of each, [N, 8C].

    Without a class token the means, [N, 4C].

    A CNN gives the spatial means of its last four stages. Raises ConfigError for a network without
    stages.
    """
    check_batch(x)
    if not has_tokens(network):
        return torch.cat([pooling.mean(m) for m in stages(network, x)[-4:]], dim=1)
    check_sides(network, spec, x)
    parts: list[Tensor] = []
    for patches, prefix in _blocks(network, x, 4):
        parts += [prefix[:, 0]] if _has_cls(network) else []
        parts.append(patches.mean(1))
    return torch.cat(parts, dim=1)


def _blocks(network: Network, x: Tensor, indices: int | list[int]) -> list[tuple[Tensor, Tensor]]:
    """(patch tokens [N, L, C], prefix tokens [N, P, C]) after blocks, each through the last norm."""
    asked = {"indices": indices, "norm": True, "output_fmt": "NLC", "intermediates_only": True}
    if not network.num_prefix_tokens:  # timm then gives no pairs
        return [(patches, patches[:, :0]) for patches in network.forward_intermediates(x, **asked)]
    pairs: list[tuple[Tensor, Tensor]] = network.forward_intermediates(
        x, return_prefix_tokens=True, **asked
    )
    return pairs


def pyramid(
    network: Network, spec: EncoderSpec, x: Tensor, indices: Sequence[int] | None = None
) -> tuple[list[Tensor], list[int]]:
    """Feature maps [N, C, h, w] and their strides in pixels, in the order of `indices`.

    The network is read in eval mode whatever mode it is in: reading maps changes no running
    statistics. Differentiable.

    Args:
        network: of the spec, wrapped or not.
        x: normalised float [N, 3, H, W].
        indices: maps of a CNN (one a resolution) or blocks of a transformer; negative ones count
            from the end. None: all maps of a CNN, the last four blocks of a transformer.

    Raises:
        ConfigError: for a network without stages, or an index that there is not.
        ImageError: for another shape or dtype.
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
    """Maps [N, C, h, w] after blocks, in the order asked for.

    Timm gives each once, in the order of the network.
    """
    once = sorted(set(blocks))
    maps = network.forward_intermediates(
        x, indices=once, norm=True, output_fmt="NCHW", intermediates_only=True
    )
    return [maps[once.index(i)] for i in blocks]


def _chosen(indices: Sequence[int], count: int, spec: EncoderSpec) -> list[int]:
    """Indices from 0 on. Raises ConfigError for one that there is not."""
    try:
        wanted = [operator.index(i) for i in indices]
    except TypeError:
        wanted = []
    if not wanted or any(not -count <= i < count for i in wanted):
        raise ConfigError(
            f"indices={indices!r}: {spec.name} has maps 0 to {count - 1}; give a list of such"
            " numbers, or none for the default"
        )
    return [i % count for i in wanted]


def has_tokens(network: Network) -> bool:
    """Whether it is a transformer whose features are tokens [N, L, C] (ViT and its kin.

    Swin's are maps).
    """
    return hasattr(bare(network), "num_prefix_tokens")


def _has_cls(network: Network) -> bool:
    return has_tokens(network) and getattr(network, "cls_token", None) is not None


def check_batch(x: object) -> None:
    """Raises ImageError unless x is a float tensor [N, 3, H, W]."""
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


def walk(network: Network, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Run a convolutional network module by module up to its pooling: (module path, [N, C, h, w]) after each."""
    for path, module in trunk(network):
        x = module(x)
        yield path, x


def trunk(network: Network) -> list[tuple[str, nn.Module]]:
    """The modules before the pooling in their order.

    The members of `blocks`, `stages` and `layers` count one by one.
    """
    steps: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        if name in _HEADS:
            break
        staged = name in _STAGED and isinstance(child, nn.Sequential)
        steps += [(f"{name}.{i}", m) for i, m in enumerate(child)] if staged else [(name, child)]
    return steps


def stages(network: Network, x: Tensor) -> list[Tensor]:
    """Outputs [N, C, h, w] of a CNN's stages (members of `blocks`/`stages`, or `layer1`..`layer4`).

    Raises ConfigError if it has none.
    """
    found = [
        channels_first(network, m)
        for path, m in walk(network, x)
        if "." in path or path.startswith("layer")
    ]
    if not found:
        raise ConfigError(
            f"{type(network).__name__} has no stages that are known here: use output='embedding',"
            " 'mean' or 'dense'"
        )
    return found


def check_sides(network: Network, spec: EncoderSpec, x: Tensor) -> None:
    """Raises ImageError for an image that a transformer's patches do not tile."""
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
    cls = tokens[:, 0] if _has_cls(network) else None
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
    if spec.embedding == "pool":
        pooled: Tensor = network.forward_head(tokens, pre_logits=True)
        return pooled
    if cls is None:
        raise ConfigError(
            f"{spec.name}: its network has no class token for the embedding rule {spec.embedding!r}"
        )
    return cls if spec.embedding == "cls" else torch.cat([cls, mean], dim=1)


def _read_maps(network: Network, spec: EncoderSpec, x: Tensor) -> Features:
    rule = stage_rule(spec.embedding)
    wanted = set(rule.stages if rule else ()) | ({spec.dense_stage} if spec.dense_stage else set())
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
            f"encoder {spec.name!r} reads stage {min(missing)!r}, which its network lacks; there"
            f" are {there}"
        )
    maps = channels_first(network, last)
    mean = pooling.mean(maps)
    embedding = rule.embedding(kept) if rule else _pooled(network, spec, last, mean)
    dense = kept[spec.dense_stage] if spec.dense_stage else maps
    return Features(embedding, None, mean, lambda: dense)


def _pooled(network: Network, spec: EncoderSpec, last: Tensor, mean: Tensor) -> Tensor:
    """What the network's own head makes of its last feature map before the classifier ("pool"), or the plain mean."""
    return network.forward_head(last, pre_logits=True) if spec.embedding == "pool" else mean


def channels_first(network: Network, maps: Tensor) -> Tensor:
    """Maps [N, C, h, w] of what a stage gives: some networks' are NHWC inside."""
    return (
        maps.permute(0, 3, 1, 2)
        if getattr(network, "output_fmt", "NCHW") == "NHWC" and maps.ndim == 4
        else maps
    )


def _one_per_resolution(maps: list[Tensor]) -> list[Tensor]:
    return [
        m
        for m, after in zip(maps, [*maps[1:], None], strict=True)
        if after is None or after.shape[-1] != m.shape[-1]
    ]


def _constructor_args(spec: EncoderSpec) -> dict[str, Any]:
    """model_args with layer classes in place of their names.

    A JSON file cannot hold a class, and timm's hub loader leaves them out silently (SwiGLU gates
    would then run GELU on an identical state dict).
    """
    compat.import_timm()
    from timm.layers import SwiGLUPacked

    classes = {
        "SwiGLUPacked": SwiGLUPacked,
        "SiLU": nn.SiLU,
        "GELU": nn.GELU,
        "LayerNorm1e-12": functools.partial(nn.LayerNorm, eps=1e-12),
    }
    args: dict[str, Any] = {"num_classes": 0, **spec.model_args}
    for key in ("mlp_layer", "act_layer", "norm_layer"):
        if key in args:
            if args[key] not in classes:
                raise ConfigError(
                    f"encoder {spec.name!r}: {key} {args[key]!r} is not one of {sorted(classes)}"
                )
            args[key] = classes[args[key]]
    if "relpos" not in spec.architecture and (
        spec.prefix_tokens or spec.architecture.startswith("vit_")
    ):
        args["dynamic_img_size"] = True  # changes no weight; lets H and W differ from the default
    return args


class _ConvStem(nn.Module):
    """CTransPath's stem (Wang et al. 2022, Medical Image Analysis 81): 3 -> 12 -> 24 -> 96 channels at stride 4, NHWC out."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 12), (12, 24)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.proj = nn.Sequential(*layers, nn.Conv2d(24, 96, 1))
        self.norm = nn.LayerNorm(96)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out
