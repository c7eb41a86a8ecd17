"""Alarms: signs in the log that a run is going wrong, each with its usual causes."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Values = dict[str, float]


@dataclass(frozen=True)
class Rule:
    """A sign to look for.

    Attributes:
        name: Name of the alarm.
        holds: Whether the figures of a log line show the sign.
        text: The message; a format string of the figures.
        lines: Consecutive log lines that must show the sign.
        after: The first step at which the sign counts.
    """

    name: str
    holds: Callable[[Values], bool]
    text: str
    lines: int = 3
    after: int = 0


_KNN_MARGIN = 0.05
_RATE = "optim.lr too high for the batch"
_CAUSES = f"{_RATE}, augmentation too weak, a teacher that is updated too fast"
_RULES = (
    Rule(
        "rank collapsed",
        lambda v: v.get("rankme", math.inf) < 2.5,
        f"embeddings vary along only {{rankme:.1f}} directions (RankMe). Usual causes: {_CAUSES}; "
        "for DINO with a CNN, method.head_norm=false",
    ),
    Rule(
        "features collapsed",
        lambda v: v.get("feature_std", 1.0) < 0.02,
        "the embeddings of different tiles are nearly equal (feature_std {feature_std:.3f}; 1 is"
        f" uniform on the sphere). Usual causes: {_CAUSES}; for BYOL, a predictor or a target"
        " average that does not learn",
    ),
    Rule(
        "few prototypes",
        lambda v: v.get("mean_entropy", 1.0) < 0.3,
        "all tiles are assigned to one or a few prototypes (mean_entropy {mean_entropy:.3f}). Usual"
        " causes: method.center_momentum too high for a run of this length, a teacher temperature"
        f" too low, a last layer that is trained too early (method.freeze_last), {_RATE}",
        after=30,
    ),
    Rule(
        "teacher certain",
        lambda v: v.get("teacher_entropy", 0.5) < 0.05,
        "the teacher's entropy is near 0 ({teacher_entropy:.3f}): every tile is assigned to a"
        f" single prototype. Usual causes: method.teacher_temperature too low, {_RATE}",
    ),
    Rule(
        "teacher uniform",
        lambda v: v.get("teacher_entropy", 0.5) > 0.995,
        "the teacher's entropy stays at log K: its targets are uniform and carry no information."
        " Usual causes: too many prototypes for the batch (method.prototypes), a teacher"
        " temperature too high, features that all have the same direction (method.head_norm=true"
        f" for CNNs), {_RATE}",
        after=50,
    ),
    Rule(
        "NT-Xent at chance",
        lambda v: v.get("loss", 0.0) > 0.98 * v.get("chance", math.inf),
        "the loss stays at log(2N - 1) = {chance:.2f}: the two views of a tile are not matched."
        f" Usual causes: {_RATE}, views without overlap (method.crop.area too"
        " small), a temperature too high",
        after=50,
    ),
    Rule(
        "data too slow",
        lambda v: v.get("data_wait", 0.0) > 0.2,
        "{data_wait:.0%} of the time is spent waiting for tiles. Usual causes: too few decoding"
        " threads (run.loaders), slow storage, tiles much larger than data.canvas, a missing shard"
        " index (python -m training.data.shards)",
    ),
)


class Alarms:
    """Checks every log line.

    Args:
        chance: The loss of an encoder that gives all tiles the same embedding; None: no such value.
        log: Lines of the log so far, for a resumed run: that of k-NN at step 0 is its start.
    """

    def __init__(self, *, chance: float | None = None, log: Iterable[dict[str, Any]] = ()) -> None:
        self._chance = chance
        self._start: Values = {}
        for line in log:
            if line["kind"] == "knn" and line["step"] == 0:
                self._start = _knn_of(line)
        self._seen: dict[str, int] = {}
        self._norms: deque[float] = deque(maxlen=50)

    def check(self, step: int, values: Values) -> Iterable[tuple[str, str]]:
        """(name, message) of each alarm that starts at this line.

        An alarm is repeated only after a line without its sign.
        """
        values = {**values, **({"chance": self._chance} if self._chance else {})}
        for rule in _RULES:
            shown = step >= rule.after and rule.holds(values)
            self._seen[rule.name] = self._seen.get(rule.name, 0) + 1 if shown else 0
            if self._seen[rule.name] == rule.lines:
                yield rule.name, rule.text.format(**values)
        yield from self._gradient(values.get("grad_norm", math.nan))

    def check_knn(self, step: int, values: Values) -> Iterable[tuple[str, str]]:
        """The same for k-NN accuracies, knn_NAME: their mean is compared with that at step 0.

        The margin is .05: in the runs of the bundled encoders, which learnt, the mean over two
        sets of 400 tiles fell by up to .035, that of one set by up to .061.
        """
        found = _knn_of(values)
        if step == 0:
            self._start = found
        both = [name for name in found if name in self._start]
        falls = [self._start[name] - found[name] for name in both]
        if both and statistics.mean(falls) > _KNN_MARGIN:
            figures = ", ".join(f"{n} {self._start[n]:.3f} to {found[n]:.3f}" for n in both)
            yield (
                "k-NN below its start",
                (
                    f"the encoder is worse than at step 0 ({figures}). Usual causes: {_CAUSES},"
                    " optim.warmup too short, tiles that differ from those of run.knn_sets"
                ),
            )

    def _gradient(self, norm: float) -> Iterable[tuple[str, str]]:
        usual = statistics.median(self._norms) if len(self._norms) >= 5 else math.inf
        if math.isfinite(norm):
            self._norms.append(norm)
        if norm > 20 * usual:
            yield (
                "gradient explodes",
                (
                    f"the gradient's norm is {norm:.3g}; the median is {usual:.3g}. Usual causes:"
                    f" {_RATE}, optim.warmup too short, a bad tile"
                ),
            )


def _knn_of(values: dict[str, Any]) -> Values:
    """The k-NN accuracies of a log line."""
    return {name: v for name, v in values.items() if name.startswith("knn_") and v is not None}
