"""Patch contrast: confidence maps whose decided patches attract and repel each other (Boserup and Selvan, NLDL 2023).

The network, the loss and the stopping rule are pathencoder.nuclei's; this is their place in the training loop. The tiles are whole images:
a view is one random crop of each, without any other augmentation, as in the paper.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn

from pathencoder.nuclei.network import ConfidenceNetwork, Featuriser, parameters
from training.data.loader import TileBatch
from training.methods import Logs, Plan, Views
from training.methods.parts.patch_contrast import (
    Convergence,
    Sampling,
    Separation,
    contrast_loss,
    sample,
    separation,
    similarity_named,
)


class Settings(BaseModel):
    """Patch contrast's part of a config. Sizes are pixels. The defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["patch_contrast"] = "patch_contrast"
    channels: int = Field(4, ge=1)
    crop: int = Field(300, ge=64)
    patch: int = Field(50, ge=50, le=50)  # what the featuriser takes
    stride: int = Field(20, ge=1)
    per_image: int = Field(10, ge=1)
    anchors: int = Field(10, ge=1)
    similarity: Literal["mse", "cross_entropy", "divergence", "mutual_information", "cosine"] = (
        "mse"
    )
    stop: bool = True  # by the separation of patches; False: only at the last step


def build(settings: Settings, plan: Plan) -> nn.Module:
    """The paper's network and featuriser; a recipe's backbone is not used."""
    return PatchContrast(settings, plan.generator)


class PatchContrast(nn.Module):
    """The confidence network, and the featuriser that only the cosine similarity runs: 10,758 parameters together."""

    def __init__(self, settings: Settings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings, self.generator = settings, generator
        self.backbone = ConfidenceNetwork(settings.channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.featuriser = Featuriser()
        self.similarity = similarity_named(settings.similarity, self.featuriser)
        self.sampling = Sampling(
            settings.patch, settings.stride, settings.per_image, settings.anchors
        )
        self.convergence = Convergence()
        self.last: Separation | None = None
        self.converged = False
        # from the views' generator, so that the next step's views must wait
        self.draws_in_loss = True

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
        """The contrast over one batch.

        0 with no gradient of consequence where a channel lacks a polarity (a skipped batch).
        """
        confidence = self.backbone(views[0])
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
        """Ask the stopping rule."""
        self.converged = self.convergence.update(self.last) and self.settings.stop

    def encoder(self) -> nn.Module:
        """The confidence network."""
        return self.backbone

    def export(self, folder: Path) -> Path:
        """The confidence network's weights and what they are."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.contiguous() for k, v in self.backbone.state_dict().items()},
            folder / "model.safetensors",
        )
        about = {
            "format": "patch-contrast",
            "settings": self.settings.model_dump(),
            "parameters": parameters(self.backbone, self.featuriser),
        }
        (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")
        return folder
