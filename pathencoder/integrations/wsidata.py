"""Our tiles and features in the data of LazySlide (wsidata)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pathencoder import compat
from pathencoder.errors import ConfigError
from pathencoder.features.store import FeatureFile
from pathencoder.integrations.common import missing
from pathencoder.slides.reader import best_level

compat.import_timm()  # may import torchvision, which may not fit torch
try:
    from wsidata import TileSpec
    from wsidata import io as wsidata_io
except ImportError as error:
    raise missing("wsidata", "wsidata") from error

_NEEDED = ("tile_px", "target_mpp", "slide_mpp", "overlap_px")


def add_features(
    wsi: Any, features: FeatureFile, *, tile_key: str = "tiles", feature_key: str | None = None
) -> str:
    """Put the tiles and rows of a feature file into a WSIData object.

        wsi = wsidata.open_wsi("slide.svs")
        add_features(wsi, pathencoder.read_features("features/slide.h5"))
        zs.tl.feature_aggregation(wsi, "pathencoder-tiny")

    Args:
        wsi: The slide, as `wsidata.open_wsi` opens it.
        features: What `read_features` or `encode_slide` returned for the same slide.
        tile_key: Name of the tiles; replaces tiles of that name.
        feature_key: Name of the features. None: the encoder's name and `tile_key`, as LazySlide
            names them ("pathencoder-tiny_tiles").

    Returns:
        The name of the features.

    Raises:
        ConfigError: The features are not of a slide, or their file does not state the size and
            scale of the tiles.
    """
    facts = features.attributes
    if features.coords is None or features.unit != "px" or any(k not in facts for k in _NEEDED):
        raise ConfigError(
            "only features of a slide in a file of pathencoder can be added: others do not state"
            f" {', '.join(_NEEDED)}"
        )
    if features.rows.ndim != 2:
        raise ConfigError(f"rows {list(features.rows.shape)}: one vector for each tile is needed")
    tissues = np.zeros(len(features.coords), np.int64)
    wsidata_io.add_tiles(wsi, tile_key, features.coords, _tile_spec(wsi, facts), tissues)
    key = feature_key or f"{facts['encoder']}_{tile_key}"
    wsidata_io.add_features(wsi, key, tile_key, features.rows)
    return key


def _tile_spec(wsi: Any, facts: Mapping[str, Any]) -> TileSpec:
    """The tiles in wsidata's terms: it reads them from the coarsest level that is fine enough."""
    side, scale = int(facts["tile_px"]), float(facts["target_mpp"]) / float(facts["slide_mpp"])
    stride = side - int(facts["overlap_px"])
    downsamples = tuple(float(d) for d in wsi.properties.level_downsample)
    level = best_level(downsamples, scale)
    return TileSpec(
        height=side,
        width=side,
        stride_height=stride,
        stride_width=stride,
        mpp=float(facts["target_mpp"]),
        ops_level=level,
        ops_downsample=scale / downsamples[level],
        base_downsample=scale,
    )
