"""Build the timm network of a spec, and run it module by module."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pathencoder import compat
from pathencoder.errors import ConfigError
from pathencoder.spec import EncoderSpec
from pathencoder.wrapped import bare

Network = Any  # a timm module: its attributes differ by family


# Children after the feature maps; timm uses the same names in all of its families.
_HEADS = ("global_pool", "classifier", "fc", "head", "head_drop", "fc_norm")
# Containers whose members are stages.
_STAGED = ("blocks", "stages", "layers")
_RANDOM = (torch.Tensor.normal_, torch.Tensor.uniform_)


def create(spec: EncoderSpec, *, random: bool = False) -> Network:
    """Build the network of a spec, in eval mode.

    Args:
        spec: The encoder's description.
        random: True: on the CPU with timm's random initial weights. False: without weights, on the
            meta device where timm supports it.

    Returns:
        The timm network.

    Raises:
        ConfigError: timm cannot build the architecture.
    """
    args = dict(spec.model_args)
    if spec.prefix_tokens and "relpos" not in spec.architecture:
        args["dynamic_img_size"] = True
    make = functools.partial(build, spec.architecture, args, layout=spec.layout)
    try:
        with torch.device("cpu") if random else _on_meta():
            network = make()
    except ConfigError as error:
        raise ConfigError(
            f"encoder {spec.name!r}: {error}. Correct its config.json, or install the timm version"
            " that it was written for"
        ) from error
    # Buffers outside the state dict (Swin's position indices) are computed in the constructor and
    # would be lost on meta.
    if not random and set(dict(network.named_buffers())) - set(network.state_dict()):
        with torch.random.fork_rng(devices=[]):  # loading does not change the caller's random state
            network = make()
    return network.eval()


@contextlib.contextmanager
def _on_meta() -> Iterator[None]:
    """New tensors have no memory, and no initial values are computed for them.

    torch computes those of the meta device in Python, which imports its compiler (half a second of
    import and 100 MB).
    """
    with torch.device("meta"), _WithoutInitialValues():
        yield


class _WithoutInitialValues(TorchFunctionMode):
    """Leaves tensors as they are where random values would be written into them."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _RANDOM or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def build(architecture: str, args: Mapping[str, Any], *, layout: str = "timm") -> Network:
    """Build a timm network without a classifier on torch's default device, in training mode.

    Args:
        architecture: A timm architecture.
        args: Arguments of its constructor, JSON values; layer classes by their names.
        layout: As in EncoderSpec: "ctranspath" selects that encoder's convolutional stem, "keep"
            its projection.

    Returns:
        The network, with timm's random initial weights.

    Raises:
        ConfigError: timm cannot build it.
    """
    timm = compat.import_timm()
    complete = _constructor_args(architecture, args)
    try:
        network = timm.create_model(architecture, pretrained=False, **complete)
    # timm's constructors raise many kinds of errors for an unknown name or unknown arguments
    except Exception as error:
        raise ConfigError(
            f"timm cannot build architecture {architecture!r} with {dict(args)} ({error})"
        ) from error
    if layout == "ctranspath":
        network.patch_embed = _ConvStem()
    if layout == "keep":
        network.head, network.num_classes = _NormalisedProjection(network.num_features, 768), 768
    return network


def has_tokens(network: Network) -> bool:
    """Whether the network's features are tokens [N, L, C] (ViTs; those of Swin are maps)."""
    return hasattr(bare(network), "num_prefix_tokens")


def has_cls(network: Network) -> bool:
    """Whether the network is a transformer with a class token."""
    return has_tokens(network) and getattr(network, "cls_token", None) is not None


def walk(network: Network, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Run a convolutional network module by module up to its pooling.

    Yields:
        The path of each module and its output [N, C, h, w].
    """
    for path, module in trunk(network):
        x = module(x)
        yield path, x


def trunk(network: Network) -> list[tuple[str, nn.Module]]:
    """Paths and modules before the pooling, in order; containers of stages are expanded."""
    steps: list[tuple[str, nn.Module]] = []
    for name, child in network.named_children():
        if name in _HEADS:
            break
        staged = name in _STAGED and isinstance(child, nn.Sequential)
        steps += [(f"{name}.{i}", m) for i, m in enumerate(child)] if staged else [(name, child)]
    return steps


def stages(network: Network, x: Tensor) -> list[Tensor]:
    """Run a CNN and return the outputs of its stages.

    Stages are the members of `blocks`, `stages` or `layers`, or `layer1`..`layer4`.

    Args:
        network: The CNN.
        x: Normalised float [N, 3, H, W].

    Returns:
        One tensor [N, C, h, w] per stage.

    Raises:
        ConfigError: The network has no such stages.
    """
    found = [
        channels_first(network, m)
        for path, m in walk(network, x)
        if "." in path or path.startswith("layer")
    ]
    if not found:
        raise ConfigError(
            f"{type(network).__name__} has no known stages: use output='embedding', 'mean' or"
            " 'dense'"
        )
    return found


def channels_first(network: Network, maps: Tensor) -> Tensor:
    """The output of a stage as [N, C, h, w]; some networks use NHWC inside."""
    return (
        maps.permute(0, 3, 1, 2)
        if getattr(network, "output_fmt", "NCHW") == "NHWC" and maps.ndim == 4
        else maps
    )


def _constructor_args(architecture: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with layer classes in place of their names.

    A JSON file cannot hold a class, and timm's hub loader ignores them silently (a SwiGLU network
    would then run GELU on the same state dict).
    """
    compat.import_timm()
    from timm.layers import SwiGLUPacked

    classes = {
        "SwiGLUPacked": SwiGLUPacked,
        "SiLU": nn.SiLU,
        "GELU": nn.GELU,
        "LayerNorm1e-12": functools.partial(nn.LayerNorm, eps=1e-12),
    }
    args: dict[str, Any] = {"num_classes": 0, **given}
    for key in ("mlp_layer", "act_layer", "norm_layer"):
        if key in args:
            if args[key] not in classes:
                raise ConfigError(f"{key} {args[key]!r} is not one of {sorted(classes)}")
            args[key] = classes[args[key]]
    if "relpos" not in architecture and architecture.startswith("vit_"):
        args["dynamic_img_size"] = True  # changes no weight; lets H and W differ from the default
    return args


class _ConvStem(nn.Module):
    """CTransPath's stem: 3 -> 12 -> 24 -> 96 channels at stride 4; returns NHWC.

    Source: Wang et al. 2022, Medical Image Analysis 81.
    """

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


class _NormalisedProjection(nn.Sequential):
    """KEEP's head: two linear layers and the L2 norm.

    Source: doi:10.1016/j.ccell.2026.01.019; modeling_keep.py of Astaxanthin/KEEP.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return nn.functional.normalize(x, dim=-1)


def order_for_convolutions(network: nn.Module) -> None:
    """Put the weights in the order of memory with which a CPU is 1.2 to 1.8 times as fast.

    Tensors that need no other order are copied too: they lie in the mapped file of the weights,
    and the whole file would stay in memory for them.
    """
    before = {parameter.data_ptr() for parameter in network.parameters()}
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in network.parameters():
        if parameter.data_ptr() in before:
            parameter.data = parameter.data.clone()
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.clone())  # as a view it would keep its base
