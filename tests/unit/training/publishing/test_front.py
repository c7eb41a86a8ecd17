"""Front matter and files of scores: what the Hub reads."""

import dataclasses
import json

import pytest
import small_reports
import yaml
from paths import ROOT

from pathencoder.pretrained.folder import read_spec
from training.provenance.record import Provenance, Source
from training.publishing import front
from training.publishing.card import RECORD

pytestmark = pytest.mark.full

NAME = "pathencoder-tiny"


@pytest.fixture(scope="module")
def spec():
    return read_spec(ROOT / "pathencoder/weights" / NAME)


def record(name=None):
    made = json.loads((ROOT / "model_cards" / NAME / RECORD).read_text())
    start = Source(name=name, sha256="0", licence="Apache-2.0", commercial=True) if name else None
    return dataclasses.replace(Provenance.from_json(made), start=start)


def front_of(spec, made_from, **changes):
    return front.front(spec, made_from, small_reports.report(**changes), "default")


def read(text):
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---")[1])


def test_the_parent_is_named_where_the_hub_has_it(spec):
    known = read(front_of(spec, record("phikon")))
    assert (known["base_model"], known["base_model_relation"]) == ("owkin/phikon", "finetune")
    for start in (None, "ImageNet weights of MobileNetV2", "my_weights.safetensors"):
        found = read(front_of(spec, record(start)))
        assert not {"base_model", "base_model_relation"} & set(found)
    own = read(front_of(spec, record("me/small")))
    assert own["base_model"] == "me/small"


def test_a_licence_that_the_hub_does_not_know(spec):
    other = dataclasses.replace(spec, licence="My-Own-1.0")
    found = read(front_of(other, record()))
    assert (found["license"], found["license_name"]) == ("other", "My-Own-1.0")


def test_scores_are_those_of_the_encoder_alone(spec):
    found = read(front_of(spec, record()))
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert [m["value"] for m in result["metrics"]] == [0.9]
    assert result["dataset"] == {"type": "polyps", "name": "polyps", "split": "test"}


def test_a_figure_under_a_change_or_without_a_value_is_no_score(spec):
    undefined = small_reports.result(value=None, interval=None, sd=None, values=(), notes=("why",))
    shifted = small_reports.result(condition="jpeg 50")
    for only in (undefined, shifted):
        assert "model-index" not in read(front_of(spec, record(), results=(only,)))


def test_score_files_are_written_for_registered_benchmarks_only(monkeypatch):
    report = small_reports.report()
    assert front.score_files(report, "default", repo="me/small") == {}
    there = front.Benchmark(dataset="owner/polyps", task="classification", metric="auroc")
    monkeypatch.setitem(front.REGISTERED, "polyps", there)
    ((name, text),) = front.score_files(report, "default", repo="me/small").items()
    assert name == "polyps.yaml"
    (entry,) = yaml.safe_load(text)
    assert entry["dataset"] == {"id": "owner/polyps", "task_id": "classification"}
    assert entry["value"] == 0.9
    assert entry["source"]["url"] == "https://huggingface.co/me/small"
