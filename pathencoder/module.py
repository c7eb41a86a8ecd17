"""An encoder as a module that maps a tensor to a tensor, for the code of others.

`Encoder.forward` returns a `Features` object. Most other tools (DataParallel, Grad-CAM, ONNX,
TRIDENT, LazySlide, eva) need a module that returns one tensor: `Encoder.as_module`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pathencoder import outputs
from pathencoder.errors import ConfigError, ImageError
from pathencoder.network import has_cls, has_tokens
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform
from pathencoder.wrapped import bare, evaluating

OUTPUTS = (*outputs.OUTPUTS, "tokens")
InputFormat = Literal["normalised", "uint8_nhwc", "uint8_nchw"]
INPUT_FORMATS = get_args(InputFormat)
_DENSE = {"tokens": "dense"}  # the output that tokens are made of


class EncoderModule(nn.Module):
    """An encoder that returns one tensor. `Encoder.as_module` makes it.

    The weights are those of the encoder, not a copy, under the same names in the state dict.

    Attributes:
        network: The encoder's timm network.
        spec: The description of the encoder.
        output: What `forward` returns.
        input_format: What `forward` takes.
        num_features: Length of the embedding; channels of "dense" and "tokens".
    """

    _like: Tensor

    def __init__(
        self,
        network: nn.Module,
        spec: EncoderSpec,
        *,
        output: str = "embedding",
        input_format: InputFormat = "normalised",
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ConfigError(f"output={output!r}: one of {', '.join(OUTPUTS)}")
        if input_format not in INPUT_FORMATS:
            raise ConfigError(f"input_format={input_format!r}: one of {', '.join(INPUT_FORMATS)}")
        self.network = network
        self.spec = spec
        self.output = output
        self.input_format = input_format
        # its dtype and device are those of the weights, also in the replicas of DataParallel,
        # which have no parameters
        like = next(network.parameters())
        self.register_buffer("_like", like.new_empty(0), persistent=False)
        self.training = network.training
        outputs.readout(network, spec, _DENSE.get(output, output))  # the network has it
        self.num_features = _num_features(self, like)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network once; differentiable.

        Args:
            x: As `input_format` says. "normalised": float [N, 3, H, W], as `transform` returns it.
                "uint8_nhwc" and "uint8_nchw": uint8 [N, H, W, 3] and [N, 3, H, W], which are
                normalised here. Images are not resized.

        Returns:
            [N, D]; for "dense" [N, C, h, w], for "tokens" [N, h x w, C].

        Raises:
            ImageError: Another shape or dtype, or sides that the patch size does not divide.
        """
        return self._read(x if self.input_format == "normalised" else self._normalised(x))

    @property
    def embed_dim(self) -> int:
        """`num_features`, under another of timm's names."""
        return self.num_features

    @property
    def transform(self) -> Transform:
        """The preprocessing of one image, to normalised float32 [3, S, S]. Picklable.

        For modules that take uint8, `transform.resize(image)` returns uint8 [S, S, 3].
        """
        return Transform(self.spec)

    def extra_repr(self) -> str:
        """What is taken and returned, for `repr`."""
        return f"{self.spec.name}, input_format={self.input_format!r}, output={self.output!r}"

    def _read(self, x: Tensor) -> Tensor:
        read = outputs.readout(self.network, self.spec, _DENSE.get(self.output, self.output))
        return read(x).flatten(2).transpose(1, 2) if self.output == "tokens" else read(x)

    def _normalised(self, x: Tensor) -> Tensor:
        """As `Transform.normalise`, in operations that can be traced and exported."""
        channels = 3 if self.input_format == "uint8_nhwc" else 1
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[channels] != 3:
            shape = "[N, H, W, 3]" if self.input_format == "uint8_nhwc" else "[N, 3, H, W]"
            raise ImageError(
                f"this module takes uint8 {shape} (input_format={self.input_format!r}), found"
                f" {x.dtype} {list(x.shape)}"
            )
        scaled = x.to(torch.float32) / 255
        parts = zip(scaled.unbind(channels), self.spec.mean, self.spec.std, strict=True)
        return torch.stack([(part - mean) / std for part, mean, std in parts], 1).to(
            self._like.dtype
        )


def _num_features(module: EncoderModule, like: Tensor) -> int:
    """The length of a row, or the channels of maps and tokens."""
    spec, output = module.spec, module.output
    known = {"embedding": spec.dim, "cls": spec.width, "mean": spec.width}
    network = bare(module.network)
    if has_tokens(network):
        parts = 2 if has_cls(network) else 1
        known |= {"cls_mean": 2 * spec.width, "multi": 4 * parts * spec.width}
        known |= {"dense": spec.width, "tokens": spec.width}
    if output in known:
        return known[output]
    # a CNN's stages differ in their channels
    image = like.new_zeros((1, 3, spec.input_size, spec.input_size))
    with torch.no_grad(), evaluating(module.network):
        return int(module._read(image).shape[-1 if output == "tokens" else 1])
