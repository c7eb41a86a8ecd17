"""A slide with tiatoolbox's DeepFeatureExtractor: SLIDE OUT FOLDER|default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import zarr

from pathencoder import compat

compat.import_timm()  # torchvision may not fit torch
from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor  # noqa: E402
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig  # noqa: E402
from tiatoolbox.models.models_abc import ModelABC  # noqa: E402

from tests.benchmarks.peer_tools import networks  # noqa: E402


class Plain(ModelABC):
    """timm's network as tiatoolbox's TimmBackbone holds one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.feat_extract = networks.resnet18(folder)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, D] of normalised images."""
        return torch.flatten(self.feat_extract(images), 1)

    @staticmethod
    def infer_batch(
        model: torch.nn.Module, batch_data: torch.Tensor, device: str
    ) -> list[np.ndarray]:
        """What the engine calls with each batch."""
        with torch.inference_mode():
            return [model(networks.normalised(batch_data.to(device))).cpu().numpy()]


def main() -> None:
    """Embed the slide."""
    asked = networks.asked()
    if asked.folder is None:
        from pathencoder.integrations.tiatoolbox import EncoderModel

        model = EncoderModel()
    else:
        model = Plain(asked.folder)
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": networks.MPP}],
        patch_input_shape=[networks.SIDE] * 2,
        stride_shape=[networks.SIDE] * 2,
    )
    DeepFeatureExtractor(model=model, batch_size=networks.BATCH).run(
        [asked.slide],
        patch_mode=False,
        ioconfig=config,
        wsireader_kwargs={"mpp": (networks.MPP, networks.MPP)},  # it reads none from plain TIFFs
        save_dir=asked.out,
        output_type="zarr",
    )
    store = zarr.open(next(asked.out.rglob("*.zarr")), mode="r")
    networks.report(store["features"][:])


if __name__ == "__main__":
    main()
