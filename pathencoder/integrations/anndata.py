"""Features as an AnnData object, for scanpy, squidpy and the like."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.features import annotated
from pathencoder.features.store import FeatureFile, read_features
from pathencoder.integrations.common import missing


def to_anndata(features: FeatureFile | str | os.PathLike[str]) -> Any:
    """Features as an AnnData object.

        adata = pathencoder.to_anndata("features/slide.h5")
        scanpy.pp.neighbors(adata, use_rep="X")

    Args:
        features: What `read_features` or `encode_slide` returned, or the path of a feature file.

    Returns:
        anndata.AnnData: `X` float32 [N, D]; `obs_names` "x_y" of a tile, or the key of an image;
        `obs` with x and y (top left, level-0 pixels) and the columns of `encode --qc`;
        `obsm["spatial"]` float64 [N, 2], the corners in the form that squidpy and wsidata read;
        `var_names` ENCODER_0, ENCODER_1, ...; `uns["pathencoder"]` with the attributes of the
        file, and `failed` (part, reason and kind of error of each tile or image that could not be
        read). `--layout anndata` and `pathencoder convert` write the same as a file, without
        anndata.

    Raises:
        ConfigError: The rows are maps (output "dense").
        StoreError: The file cannot be read.
        MissingExtra: anndata is not installed.
    """
    try:
        import anndata
        import pandas
    except ImportError as error:
        raise missing("anndata", "anndata") from error
    found = features if isinstance(features, FeatureFile) else read_features(features)
    if found.rows.ndim != 2:
        raise ConfigError(
            f"rows {list(found.rows.shape)}: AnnData holds one vector for each tile; encode with"
            " another output than 'dense'"
        )
    index = annotated.obs_names(found.coords, found.keys or (), len(found.rows))
    if found.coords is None:
        obs = pandas.DataFrame(index=index)
        places: dict[str, Any] = {}
    else:
        x, y = found.coords.T
        obs = pandas.DataFrame({"x": x, "y": y, **found.qc}, index=index)
        places = {"spatial": found.coords.astype(np.float64)}
    var = pandas.DataFrame(index=annotated.var_names(found.attributes, found.rows.shape[1]))
    facts: dict[str, Any] = {"unit": found.unit, **found.attributes}
    if found.failures:
        facts["failed"] = np.array([[f.part, f.reason, f.kind] for f in found.failures], object)
    return anndata.AnnData(X=found.rows, obs=obs, var=var, obsm=places, uns={"pathencoder": facts})
