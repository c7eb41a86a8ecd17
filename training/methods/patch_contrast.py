"""Patch contrast: confidence maps whose patches of high and low confidence are contrasted.

Boserup and Selvan, NLDL 2023. The network is pathencoder.nuclei's, the loss and the stopping rule
are in parts/patch_contrast.py; this is their place in the training loop. The tiles are whole
images: a view is one random crop of each, without any other augmentation, as in the paper.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from pathencoder.files import whole_file
from pathencoder.nuclei.network import ConfidenceNetwork, Featuriser
from training.data.loader import TileBatch
from training.files import write_text
from training.methods import Logs, Method, MethodSettings, Plan, Views
from training.methods.parts.patch_contrast import (
    Convergence,
    Sampling,
    Separation,
    contrast_loss,
    sample,
    separation,
    similarity_named,
)


class Settings(MethodSettings):
    """Patch contrast's part of a config. The defaults are the paper's.

    Attributes:
        channels: Confidence maps of the network.
        crop: Side of the random crops, px.
        patch: Side of a patch, px: what the featuriser takes.
        stride: Of the patches' grid, px.
        per_image: Patches drawn for each image and channel.
        anchors: Patches of high confidence drawn as anchors for each channel.
        similarity: Of two patches in the loss.
        stop: Stop when the patches are separated; False: only at the last step.
    """

    own_network: ClassVar[bool] = True
    name: Literal["patch_contrast"] = "patch_contrast"
    channels: int = Field(default=4, ge=1, le=1024)
    crop: int = Field(default=300, ge=64, le=4096)
    patch: int = Field(default=50, ge=50, le=50)
    stride: int = Field(default=20, ge=1, le=4096)
    per_image: int = Field(default=10, ge=1, le=10_000)
    anchors: int = Field(default=10, ge=1, le=10_000)
    similarity: Literal["mse", "cross_entropy", "divergence", "mutual_information", "cosine"] = (
        "mse"
    )
    stop: bool = True

    def crop_sizes(self) -> dict[str, int]:
        """The one kind of crop."""
        return {"crop": self.crop}


def build(settings: Settings, plan: Plan) -> Method:
    """The paper's network and featuriser; a recipe's backbone is not used."""
    return PatchContrast(settings, plan.generator)


class PatchContrast(Method):
    """The confidence network, and the featuriser that only the cosine similarity runs.

    Together they have 10,758 parameters.
    """

    # The patches are drawn from the views' generator.
    draws_in_loss: ClassVar[bool] = True
    backbone: ConfidenceNetwork

    def __init__(self, settings: Settings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings, self.generator = settings, generator
        network = ConfidenceNetwork(settings.channels)
        # torch's annotations leave memory_format out
        self.backbone = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.featuriser = Featuriser()
        # Where it is not run it has no gradients, so no checkpoint could hold its optimiser state.
        self.featuriser.requires_grad_(settings.similarity == "cosine")
        self.similarity = similarity_named(settings.similarity, self.featuriser)
        self.sampling = Sampling(
            settings.patch, settings.stride, settings.per_image, settings.anchors
        )
        self.convergence = Convergence()
        self.last: Separation | None = None

    def views(self, batch: TileBatch) -> Views:
        """One random crop of each image, float [N, 3, crop, crop] in 0..1."""
        size, room = self.settings.crop, batch.tiles.shape[-1] - self.settings.crop
        corners = torch.randint(room + 1, (len(batch.tiles), 2), generator=self.generator).tolist()
        cut = torch.stack(
            [
                t[:, y : y + size, x : x + size]
                for t, (y, x) in zip(batch.tiles, corners, strict=True)
            ]
        )
        return [cut.float().div_(255).contiguous(memory_format=torch.channels_last)]

    def loss(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """The contrast over one batch; 0 with gradients of 0 where the batch is skipped.

        A batch is skipped where a channel lacks patches of high or of low confidence.
        """
        # converted here, for `sample`: in bf16 1 - 1e-6 is 1, and its entropy is not a number
        confidence = self.backbone(views[0]).float()
        patches = sample(views[0], confidence, self.sampling, self.generator)
        found = contrast_loss(
            patches, self.similarity, len(views[0]), self.sampling, self.generator
        )
        self.last = separation(patches, self.similarity)
        logs = {"within": self.last.within, "between": self.last.between} if self.last else {}
        return (confidence.sum() * 0 if found is None else found), {
            **logs,
            "skipped": float(found is None),
        }

    def after_step(self, step: int) -> None:
        """Apply the stopping rule."""
        self.converged = self.convergence.update(self.last) and self.settings.stop

    def export(self, folder: Path, described: dict[str, Any]) -> Path:
        """Write the confidence network's weights, and a config.json that says what they are."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.contiguous() for k, v in self.backbone.state_dict().items()}
        with whole_file(folder / "model.safetensors") as temporary:
            save_file(state, temporary)
        about = {
            "format": "patch-contrast",
            "settings": self.settings.model_dump(),
            **described,
            # also of a featuriser that is not run, whose parameters are not trained
            "parameters": sum(
                p.numel() for part in (self.backbone, self.featuriser) for p in part.parameters()
            ),
        }
        write_text(folder / "config.json", json.dumps(about, indent=2) + "\n")
        return folder
