"""The network that a run starts from: timm's architecture with starting weights."""

from __future__ import annotations

import copy
import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder import outputs
from pathencoder.encoder import load_encoder
from pathencoder.errors import ConfigError, IncompatibleWeights
from pathencoder.pretrained import locate
from pathencoder.spec import EncoderSpec
from pathencoder.state_dicts import Differences, shapes_of
from training.config import BackboneSettings, ExportSettings

log = logging.getLogger("training")

_CLASSIFIERS = ("classifier.", "fc.", "head.")
_OPTIONAL = "num_batches_tracked"  # a counter, which some files leave out
# how tiles become the input of an encoder, and its output an embedding
_AS_THE_START = ("embedding", "input_size", "interpolation", "resize", "resize_size")
# The standard deviation of class token and registers at the start, that of position embeddings.
# timm's 1e-6 is far below the epsilon of the first LayerNorm, which then multiplies gradients by
# 1,000 (tests/benchmarks/vit_start.py).
_TOKEN_STD = 0.02
# arguments of timm's networks that change no weight
_NO_WEIGHTS = (
    "drop_rate",
    "drop_path_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
)


def make_backbone(settings: BackboneSettings) -> nn.Module:
    """The network with its starting weights, in channels_last; its output is pooled, [N, width].

    Without `start` they are timm's random ones, but for class token and registers (`_TOKEN_STD`).

    Raises:
        ConfigError: There is no such file, or timm cannot build the architecture.
        IncompatibleWeights: The keys or shapes of the weights are not the network's, apart from a
            classifier.
    """
    network = _build(settings)
    if settings.start:
        _load(network, _weights_of(settings.start), settings.start)
    else:
        _start_tokens(network)
    # torch's annotations leave memory_format out
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _build(settings: BackboneSettings) -> nn.Module:
    """The network as inference builds it, with a pooled output, on torch's default device."""
    args = dict(settings.args)
    if not args.get("global_pool", True):  # some encoders are published without pooling
        del args["global_pool"]
    try:
        network: nn.Module = networks.build(settings.architecture, args, layout=settings.layout)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. Change backbone.architecture or backbone.args: `timm.list_models()` names"
            " all architectures"
        ) from error
    return network


def _start_tokens(network: nn.Module) -> None:
    """Draw class token and registers anew, where the network has them."""
    for name in ("cls_token", "reg_token"):
        if isinstance(token := getattr(network, name, None), nn.Parameter):
            nn.init.trunc_normal_(token, std=_TOKEN_STD)


def output_width(network: nn.Module) -> int:
    """Channels of a timm network's output: a projection's, or those of its pooled features.

    Pooled features may follow a hidden layer of the head.
    """
    timm_network: Any = network
    projected = getattr(network, "num_classes", 0)
    hidden = getattr(network, "head_hidden_size", None)
    return int(projected or hidden or timm_network.num_features)


def with_start(settings: BackboneSettings) -> BackboneSettings:
    """Complete settings that start from an encoder's name or folder.

    The network is the encoder's; of the settings' own arguments those stay that change no weight
    (dropout and stochastic depth). Its normalisation, the size and resizing of its input, and its
    readout are used where the settings have none.
    """
    if not settings.start or _is_file_name(settings.start):
        return settings
    spec = locate.describe(settings.start)
    args = {**spec.model_args, "dynamic_img_size": True} if spec.prefix_tokens else spec.model_args
    network: dict[str, Any] = {
        "architecture": spec.architecture,
        "args": {**args, **{k: v for k, v in settings.args.items() if k in _NO_WEIGHTS}},
        "layout": spec.timm_layout,
    }
    _log_replaced(settings, network, spec.name)
    read: dict[str, Any] = {"mean": spec.mean, "std": spec.std}
    read |= {name: getattr(spec, name) for name in _AS_THE_START}
    return settings.model_copy(
        update={**network, **{k: v for k, v in read.items() if k not in settings.model_fields_set}}
    )


def _log_replaced(settings: BackboneSettings, network: dict[str, Any], name: str) -> None:
    for key in sorted(settings.model_fields_set & network.keys()):
        if getattr(settings, key) != network[key]:
            log.info(
                "backbone.%s=%s is replaced by %s, that of %s, which the run starts from",
                key,
                getattr(settings, key),
                network[key],
                name,
            )


def _is_file_name(start: str) -> bool:
    return Path(start).suffix == ".safetensors"


def _weights_of(start: str) -> dict[str, Tensor]:
    if not _is_file_name(start):
        return dict(load_encoder(start, device="cpu").network.state_dict())
    if not Path(start).is_file():
        raise ConfigError(f"backbone.start {start!r} is not a file")
    weights: dict[str, Tensor] = load_file(start)
    return weights


def _load(network: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    state = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    own = network.state_dict()
    differences = Differences(
        {k: v for k, v in shapes_of(state).items() if k in own or not k.startswith(_CLASSIFIERS)},
        {k: v for k, v in shapes_of(own).items() if k in state or not k.endswith(_OPTIONAL)},
    )
    if differences:
        raise IncompatibleWeights(
            f"{source} does not fit backbone.architecture: {differences}. Give weights of this"
            " architecture, or change backbone.architecture and backbone.args"
        )
    network.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


@torch.no_grad()
def give_real_statistics(network: nn.Module, x: Tensor) -> None:
    """Set each BatchNorm's running statistics to those of one batch, in place.

    Weight and bias are changed accordingly, so that the output in eval mode stays the same. Weights
    that were published with BatchNorm folded into constants (mean 0, variance 1) would otherwise
    give other outputs from the first training step on.

    Args:
        network: The network.
        x: Normalised float [N, 3, H, W].
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        seen[module] = (mean, var)

    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [m.register_forward_pre_hook(measure) for m in layers]
    was_training = network.training
    network.eval()(x)
    network.train(was_training)
    for handle in handles:
        handle.remove()
    for layer, (mean, var) in seen.items():
        assert isinstance(layer, nn.BatchNorm2d)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        gain = layer.weight / (layer.running_var + layer.eps).sqrt()
        layer.bias.add_((mean - layer.running_mean) * gain)
        layer.weight.copy_(gain * (var + layer.eps).sqrt())
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)


@torch.no_grad()
def averaged(trained: nn.Module, start: nn.Module, share: float) -> nn.Module:
    """A network with weights and running statistics (1 - share) trained + share start.

    Both must have the same architecture.
    """
    out, begun = copy.deepcopy(trained), start.state_dict()
    for key, value in out.state_dict().items():
        if value.is_floating_point():
            value.lerp_(begun[key].to(value), share)
    return out


def spec_of(settings: BackboneSettings, export: ExportSettings) -> EncoderSpec:
    """The spec of a network; dim and prefix tokens are measured on the network itself.

    Its licence, and what it was trained on, are those of a run (training/trainer/export.py).
    """
    with torch.device("meta"):
        net: Any = _build(settings).eval()
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    embedding = "cls" if prefix and settings.embedding == "pool" else settings.embedding
    spec = EncoderSpec(
        name=export.name,
        architecture=settings.architecture,
        model_args=settings.args,
        dim=1,
        width=net.num_features,
        input_size=settings.input_size,
        interpolation=settings.interpolation,
        resize=settings.resize,
        resize_size=settings.resize_size,
        mean=settings.mean,
        std=settings.std,
        embedding=embedding,
        prefix_tokens=prefix,
        layout=settings.layout,
        mpp=export.mpp,
        stains=export.stains,
        summary=export.summary,
        parameters=sum(p.numel() for p in net.parameters()),
    )
    px = settings.input_size
    dim = outputs.read(net, spec, torch.empty(1, 3, px, px, device="meta")).embedding.shape[1]
    return dataclasses.replace(spec, dim=dim)
