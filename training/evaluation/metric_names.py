"""The metrics of an evaluation, with the words of tables and plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        title: Its name in tables and plots.
        better: Whether higher or lower values are better; "neither": it is context for others.
        meaning: What it is, in a sentence.
    """

    title: str
    better: Literal["higher", "lower", "neither"]
    meaning: str


METRICS = {
    "linear": Metric(
        "balanced accuracy",
        "higher",
        "Balanced accuracy of the logistic regression on frozen embeddings.",
    ),
    "auroc": Metric(
        "AUROC",
        "higher",
        "Area under the ROC curve of the logistic regression on frozen embeddings; several"
        " classes: mean of each against the rest.",
    ),
    "knn20": Metric("k-NN 20", "higher", "Balanced accuracy of the 20 nearest neighbours."),
    "shot5": Metric("5-shot", "higher", "Balanced accuracy of class means of 5 tiles a class."),
    "shot16": Metric("16-shot", "higher", "Balanced accuracy of class means of 16 tiles a class."),
    "retrieval_map": Metric(
        "retrieval mAP",
        "higher",
        "Mean average precision of tiles of the same class among tiles of other groups.",
    ),
    "retrieval_at5": Metric(
        "retrieval, first 5",
        "higher",
        "Share of queries with the class of most of the 5 nearest tiles of other groups, mean over"
        " classes.",
    ),
    "dice": Metric("Dice", "higher", "Dice of a linear decoder on frozen maps, mean over images."),
    "f1": Metric("F1", "higher", "F1 of cell centres of a linear decoder, pooled over images."),
    "centred_cosine": Metric(
        "centred cosine",
        "higher",
        "Cosine of the centred embeddings of a tile and the same tile changed.",
    ),
    "effective_rank": Metric(
        "effective rank",
        "neither",
        "RankMe of the embeddings: a collapsed encoder would look stable.",
    ),
    "same_field": Metric(
        "same field", "higher", "Centred cosine of one field scanned by two scanners."
    ),
    "other_fields": Metric(
        "other fields", "neither", "Centred cosine of different fields of two scanners."
    ),
    "robustness_index": Metric(
        "robustness index",
        "higher",
        "PathoROB: SO / (SO + OS) among the first k neighbours of other slides (same biology and"
        " other centre, other biology and same centre).",
    ),
    "centre_auroc": Metric(
        "centre AUROC",
        "lower",
        "How well a linear model tells the centre of a tile from its embedding, by folds over"
        " groups.",
    ),
    "ece": Metric(
        "calibration error",
        "lower",
        "Expected calibration error of the probe's probabilities in 15 bins.",
    ),
    "brier": Metric("Brier score", "lower", "Mean squared error of the probe's probabilities."),
    "log_loss": Metric("log loss", "lower", "Cross entropy of the probe's probabilities."),
    "temperature": Metric(
        "temperature", "neither", "By which the probe's logits are divided, from train folds."
    ),
    "eva_balanced_accuracy": Metric(
        "balanced accuracy (eva)", "higher", "Balanced accuracy by the eva protocol."
    ),
    "eva_dice": Metric("Dice (eva)", "higher", "Dice without background by the eva protocol."),
}
