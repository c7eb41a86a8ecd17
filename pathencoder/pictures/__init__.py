"""Pictures: of an encoder's dense features of one image, and of the features of a slide's tiles."""

from pathencoder.pictures.colours import colour_scale, enlarge, likeness_colours, pca_colours
from pathencoder.pictures.dense import cell_of, check_point, dense_map, likeness
from pathencoder.pictures.panels import Panel, mark, side_by_side, with_scale_bar

__all__ = [
    "Panel",
    "cell_of",
    "check_point",
    "colour_scale",
    "dense_map",
    "enlarge",
    "likeness",
    "likeness_colours",
    "mark",
    "pca_colours",
    "side_by_side",
    "with_scale_bar",
]
