"""The front matter of a model card, which the Hugging Face Hub reads, and its files of scores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathencoder.pretrained import catalogue
from pathencoder.pretrained.derived import base_model_lines, licence_lines
from pathencoder.spec import EncoderSpec
from training.evaluation.metric_names import METRICS
from training.evaluation.report_rows import Report, Result, SetRow
from training.provenance.record import Provenance, Source

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ("histopathology", "pathology", "self-supervised", "feature-extraction")
_SHOWN = ("auroc", "linear", "knn20", "shot16", "retrieval_map", "dice", "f1")


@dataclass(frozen=True)
class Benchmark:
    """A data set of the Hub that is registered as a benchmark.

    Attributes:
        dataset: owner/name of its repository.
        task: Its task there.
        metric: Our metric that it ranks by.
    """

    dataset: str
    task: str
    metric: str


# Name of a set -> its benchmark on the Hub. The Hub ignores scores of data sets that are not
# registered, and no benchmark of pathology was when this was written.
REGISTERED: dict[str, Benchmark] = {}


def front(spec: EncoderSpec, made_from: Provenance, report: Report, row: str) -> str:
    """The front matter: licence, task, parent and scores.

    Args:
        spec: The encoder.
        made_from: The record of its run.
        report: Its figures, for the scores that the Hub shows.
        row: The encoder's row in them.
    """
    tags = ", ".join([*TAGS, *spec.stains])
    lines = [
        *licence_lines(spec),
        *_parent(made_from),
        "library_name: timm",
        "pipeline_tag: image-feature-extraction",
        f"tags: [{tags}]",
        *_model_index(spec.name, report, row),
    ]
    return "\n".join(["---", *lines, "---"]) + "\n\n"


def parent_of(made_from: Provenance) -> Source | None:
    """The weights that an encoder was trained from, where there are such."""
    return made_from.start or made_from.continued


def _parent(made_from: Provenance) -> list[str]:
    """The parent, where the Hub has it: without the relation, the Hub guesses one."""
    source = parent_of(made_from)
    known = catalogue.catalogue().get(source.name) if source else None
    name = known.repo if known else (source.name if source and "/" in source.name else None)
    lines = base_model_lines(name) if name else []
    return [*lines, "base_model_relation: finetune"] if lines else []


def _model_index(name: str, report: Report, row: str) -> list[str]:
    """Scores in the form that every reader of the Hub knows."""
    from huggingface_hub import ModelCardData

    sets = {s.name: s for s in report.sets}
    scores = [
        _score(result, sets[result.set])
        for metric in _SHOWN
        for result in report.find(encoder=row, metric=metric, condition="")
        if result.value is not None
    ]
    if not scores:
        return []
    text = ModelCardData(model_name=name, eval_results=scores).to_yaml()
    return text.strip().splitlines()


def _score(result: Result, measured_on: SetRow) -> EvalResult:
    from huggingface_hub import EvalResult

    value = round(result.value or 0, 4)
    words = f"{METRICS[result.metric].title}, {result.verb}"
    return EvalResult(
        task_type="image-feature-extraction",
        task_name="features of histopathology tiles",
        dataset_type=re.sub(r"[^\w.-]+", "-", measured_on.name),
        dataset_name=measured_on.title,
        dataset_split=result.part,
        metric_type=result.metric,
        metric_name=words,
        metric_value=value,
    )


def score_files(report: Report, row: str, *, repo: str) -> Mapping[str, str]:
    """The files of .eval_results/, for the sets whose benchmark is registered.

    Args:
        report: The figures.
        row: The encoder's row in them.
        repo: owner/name of the encoder, the source of the scores.

    Returns:
        Name -> YAML, a file for each set; empty where no set is registered.
    """
    found = {
        result.set: (result, there)
        for result in report.find(encoder=row, condition="")
        if (there := REGISTERED.get(result.set)) and there.metric == result.metric
        if result.value is not None
    }
    if not found:
        return {}
    import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = {
        name: EvalResultEntry(
            dataset_id=there.dataset,
            task_id=there.task,
            value=result.value,
            date=report.date,
            source_url=f"https://huggingface.co/{repo}",
            notes=f"{METRICS[result.metric].meaning} Part: {result.part}.",
        )
        for name, (result, there) in found.items()
    }
    return {
        f"{name}.yaml": yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
        for name, entry in entries.items()
    }
