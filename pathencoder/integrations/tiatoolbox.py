"""Any encoder as a model of tiatoolbox's DeepFeatureExtractor and PatchPredictor.

    from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor
    from pathencoder.integrations.tiatoolbox import EncoderModel

    model = EncoderModel("pathencoder-tiny")
    extractor = DeepFeatureExtractor(model=model, batch_size=32)
    extractor.run(["slide.svs"], patch_mode=False, ioconfig=model.io_config(), save_dir="out",
                  output_type="zarr")

Needs tiatoolbox 2. Its zarr holds `features` float32 [N, D] and `coordinates` [N, 4] at the
reading scale, not at level 0.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathencoder import compat
from pathencoder.features.encode import as_encoder
from pathencoder.integrations.common import Resize, missing, reading_mpp

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

compat.import_timm()  # tiatoolbox imports torchvision, which may not fit torch
try:
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.models_abc import ModelABC
except ImportError as error:
    raise missing("tiatoolbox", "tiatoolbox") from error


class EncoderModel(ModelABC):  # type: ignore[misc]
    """A model of tiatoolbox that returns the encoder's embedding, or classes of it.

    Patches are resized as the encoder's authors do where they do not have its input size, and
    normalised on the device.

    Args:
        encoder: An `Encoder`, or a name for `load_encoder`. None: the default encoder.
        output: As for `Encoder.encode`, but for "dense".
        head: For PatchPredictor: a module that maps embeddings [N, D] to the scores of classes
            [N, C]; their softmax is returned, and the class is the most probable one.
        class_dict: The names of the classes by number, for PatchPredictor's output.

    Raises:
        PathEncoderError: The encoder cannot be loaded, or does not have the output.
    """

    def __init__(
        self,
        encoder: Encoder | str | os.PathLike[str] | None = None,
        *,
        output: str = "embedding",
        head: nn.Module | None = None,
        class_dict: dict[int, str] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = as_encoder(encoder).as_module(output=output, input_format="uint8_nhwc")
        self.head = head
        self.class_dict = class_dict
        self.preproc_func = Resize(self.encoder.transform)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings, or the probabilities of the classes.

        Args:
            images: uint8 [N, H, W, 3].

        Returns:
            float [N, D], or [N, C] with a head.
        """
        embedding: Tensor = self.encoder(images)
        return embedding if self.head is None else self.head(embedding.float()).softmax(-1)

    @staticmethod
    def infer_batch(
        model: nn.Module, batch_data: Tensor | NDArray[Any], *, device: str
    ) -> NDArray[np.float32]:
        """What tiatoolbox's engines call with each batch.

        Args:
            model: This model, or DataParallel around it.
            batch_data: uint8 [N, H, W, 3].
            device: Where to run.

        Returns:
            float32 [N, D], or [N, C] with a head.
        """
        with torch.inference_mode():
            found: Tensor = model(torch.as_tensor(batch_data).to(device))
        rows: NDArray[np.float32] = found.float().cpu().numpy().view(_Rows)
        return rows

    @staticmethod
    def postproc(image: NDArray[np.float32]) -> NDArray[np.intp]:
        """The most probable class of each row, for PatchPredictor.

        Args:
            image: float32 [N, C], also as a dask array.
        """
        classes: NDArray[np.intp] = np.argmax(image, axis=-1)
        return classes

    def io_config(
        self, *, target_mpp: float | None = None, overlap_px: int = 0
    ) -> IOPatchPredictorConfig:
        """The `ioconfig` for slides: the encoder's input size at its scale.

        Args:
            target_mpp: Micrometres per pixel of the patches. None: the encoder's own.
            overlap_px: Overlap of neighbouring patches, in their pixels.

        Raises:
            ConfigError: The encoder has no scale and none is given.
        """
        spec = self.encoder.spec
        mpp, side = reading_mpp(spec, target_mpp), spec.input_size
        return IOPatchPredictorConfig(
            input_resolutions=[{"units": "mpp", "resolution": mpp}],
            patch_input_shape=[side, side],
            stride_shape=[side - overlap_px, side - overlap_px],
        )


class _Rows(np.ndarray[Any, np.dtype[np.float32]]):
    """Rows of a batch whose item 0 is all of them.

    Of what `infer_batch` returns, DeepFeatureExtractor takes item 0 for slides and the whole for
    patches, as PatchPredictor does for both.
    """

    def __getitem__(self, item: Any) -> Any:
        plain = self.view(np.ndarray)
        return plain if type(item) is int and item == 0 and self.ndim > 1 else plain[item]
