"""A slide with slide2vec's Pipeline: SLIDE OUT FOLDER|default."""

from __future__ import annotations

import torch

from pathencoder import compat
from pathencoder.pretrained import catalogue

compat.import_timm()  # torchvision may not fit torch
from slide2vec import ExecutionOptions, Model, Pipeline, PreprocessingConfig  # noqa: E402
from slide2vec.encoders.base import TileEncoder  # noqa: E402
from slide2vec.encoders.registry import register_encoder  # noqa: E402

from tests.benchmarks.peer_tools import networks  # noqa: E402

NAME = "benchmark-resnet18"


class Plain(TileEncoder):
    """timm's network as a tile encoder."""

    def __init__(self, *, output_variant: str | None = None) -> None:
        folder = networks.asked().folder
        assert folder is not None
        self._model = networks.resnet18(folder)

    encode_dim = 512
    device = torch.device("cpu")

    def to(self, device: torch.device | str) -> Plain:
        """It stays on the CPU."""
        return self

    def get_transform(self):
        """Of one image."""
        return networks.transform()

    get_normalization_transform = get_transform

    def encode_tiles(self, batch: torch.Tensor) -> torch.Tensor:
        """Features [N, D] of normalised images."""
        return self._model(batch)


def main() -> None:
    """Embed the slide."""
    asked = networks.asked()
    name = catalogue.DEFAULT
    if asked.folder is not None:
        name = NAME
        register_encoder(
            NAME,
            encode_dim=512,
            input_size=networks.SIDE,
            supports_variable_input_size=True,
            supported_spacing_um=networks.MPP,
            default_spacing_um=networks.MPP,
            precision="fp32",
            source="timm",
        )(Plain)
    execution = ExecutionOptions(output_dir=asked.out, precision="fp32", batch_size=networks.BATCH)
    model = Model.from_preset(name, device="cpu")
    Pipeline(model, PreprocessingConfig(), execution=execution).run([str(asked.slide)])
    (file,) = asked.out.rglob("*tile*/**/*.pt")
    networks.report(torch.load(file, weights_only=True).numpy())


if __name__ == "__main__":
    main()
