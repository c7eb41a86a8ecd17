"""A wider network that computes the same as a narrower one, as a start for training.

    python -m training.backbones.widen NARROW START.safetensors WIDE OUT.safetensors [KEY=VALUE ...]

NARROW and WIDE are timm's names, such as mobilenetv2_100 and mobilenetv2_140; KEY=VALUE are
arguments of both networks, such as pad_type=same.

Chen et al. 2016, Net2Net, arXiv:1511.05641. Every new channel is a copy of an old one. The weights
that read a channel are split at random among its copies, with sum one, so that the output stays the
same and the copies get different gradients from the first step. For timm's MobileNetV2 and
EfficientNet families (blocks of depthwise separable convolutions and inverted residuals, without
squeeze and excitation).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder.errors import IncompatibleWeights
from pathencoder.files import whole_file
from pathencoder.state_dicts import Differences, shapes_of
from training.backbones.save import half_precision


def widened(narrow: nn.Module, wide: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A state of the wide network with which it computes the same as the narrow one in eval mode.

    The output has repeated channels.

    Args:
        narrow: A timm network.
        wide: A network of the same family and depth.
        generator: Chooses copies and shares.

    Returns:
        The state, by the keys of `wide`.

    Raises:
        IncompatibleWeights: The networks have other blocks or depths, or `wide` is narrower.
    """
    return _Widening(narrow.state_dict(), wide.state_dict(), generator).all(wide)


class _Widening:
    """Goes through the layers of both networks in order of use.

    A mapping, int64 [new channels], holds the old channel of which each new one is a copy.
    """

    def __init__(
        self, old: dict[str, Tensor], new: dict[str, Tensor], generator: torch.Generator
    ) -> None:
        if keys := Differences(dict.fromkeys(old, ()), dict.fromkeys(new, ())):
            raise IncompatibleWeights(
                f"the two networks are not of one family and depth: {keys}. Give two that are"
            )
        self.old, self.new, self.rng = old, new, generator
        self.out: dict[str, Tensor] = {}

    def all(self, network: Any) -> dict[str, Tensor]:
        flow = self.layer("conv_stem", "bn1", torch.arange(3))
        for s, stage in enumerate(network.blocks):
            for b, block in enumerate(stage):
                flow = self.block(f"blocks.{s}.{b}", block, flow)
        self.layer("conv_head", "bn2", flow)
        if left := self.new.keys() - self.out.keys():
            raise IncompatibleWeights(f"no rule for {sorted(left)[:6]}")
        return self.out

    def block(self, path: str, block: Any, flow: Tensor) -> Tensor:
        """Widen a block; with a residual its output has the mapping of its input."""
        kept = flow if block.has_skip else None
        names = [n for n in ("conv_pw", "conv_dw", "conv_pwl") if hasattr(block, n)]
        if "conv_pwl" not in names:
            names = ["conv_dw", "conv_pw"]  # in order of use
        for i, name in enumerate(names):
            flow = self.layer(
                f"{path}.{name}", f"{path}.bn{i + 1}", flow, kept if i + 1 == len(names) else None
            )
        return flow

    def layer(self, conv: str, norm: str, flow: Tensor, mapping: Tensor | None = None) -> Tensor:
        """Widen a convolution and its norm; returns the mapping of the output."""
        old, new = self.old[f"{conv}.weight"], self.new[f"{conv}.weight"]
        if old.shape[1] == 1 and len(flow) == len(new):  # depthwise
            mapping, weight = flow, old[flow]
        else:
            mapping = self.copies(len(old), len(new)) if mapping is None else mapping
            weight = old[mapping][:, flow] * self.shares(flow, len(new))[:, :, None, None]
        self.out[f"{conv}.weight"] = weight.contiguous()
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            self.out[f"{norm}.{leaf}"] = self.old[f"{norm}.{leaf}"][mapping].contiguous()
        self.out[f"{norm}.num_batches_tracked"] = self.old[f"{norm}.num_batches_tracked"]
        return mapping

    def copies(self, old: int, new: int) -> Tensor:
        """A mapping: every old channel once, then random ones."""
        if new < old:
            raise IncompatibleWeights(
                f"{new} channels are fewer than {old}: the second network must be the wider one"
            )
        return torch.cat(
            [torch.arange(old), torch.randint(0, old, (new - old,), generator=self.rng)]
        )

    def shares(self, flow: Tensor, rows: int) -> Tensor:
        """The factor in 0..1 by which each output reads each copy, float [rows, len(flow)].

        The factors of the copies of one channel have sum one.
        """
        raw = torch.rand(rows, len(flow), generator=self.rng) + 0.1
        sums = torch.zeros(rows, int(flow.max()) + 1).index_add_(1, flow, raw)
        return raw / sums[:, flow]


def main(arguments: list[str]) -> int:
    """Run the command; the exit status is 0, or 2 for wrong usage."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if len(arguments) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    narrow_name, start, wide_name, out, *given = arguments
    args = {k: yaml.safe_load(v) for k, _, v in (item.partition("=") for item in given)}
    narrow, wide = (networks.build(name, args) for name in (narrow_name, wide_name))
    own = narrow.state_dict()
    state = {k: v.float() for k, v in load_file(start).items() if k in own}
    expected = {
        k: v
        for k, v in shapes_of(own).items()
        if k in state or not k.endswith("num_batches_tracked")
    }
    if differences := Differences(shapes_of(state), expected):
        raise IncompatibleWeights(
            f"{start} does not fit {narrow_name}: {differences}. Give weights of that architecture"
        )
    narrow.load_state_dict(state, strict=False)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    state = half_precision(widened(narrow, wide, torch.Generator().manual_seed(0)))
    with whole_file(Path(out)) as temporary:
        save_file(state, temporary)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
