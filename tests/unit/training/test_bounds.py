"""Every setting has a type and bounds: a wrong value is a ConfigError with the name."""

import copy
import datetime
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from pathencoder.errors import ConfigError
from training import config, methods, pretrain

pytestmark = pytest.mark.full

_OUT_OF_RANGE = (-1e12, 1e12, float("inf"), float("-inf"), float("nan"), 10**40)
_NO_NUMBER = ("many", [], {}, {"a": 1}, True, datetime.date(2026, 1, 1), b"\0")
_NO_TEXT = (3, 1.5, [], {}, True, datetime.date(2026, 1, 1))
_NO_CHOICE = ("nothing", 3, [], {})


# what a section cannot be without, where the rest of it is tried
_TASKS = ("stain_maps", "nuclei_maps", "crop_scale", "dense_contrast", "context")
_NEEDED = {task: {"stages": ["blocks.0"]} for task in _TASKS}


def whole(method):
    """Values of a config in which also the settings that are off by default are there."""
    asked = {"name": method}
    if method == "dino":
        asked |= {"patches": {}, "spread": {}}
    if method == "distill":
        asked["teachers"] = ["pathencoder-tiny"]
    return {
        "method": asked,
        "data": {"root": "tiles", "canvas": 512},
        "optim": {"steps": 10},
        "run": {"out": "runs/x"},
    }


def fields(model, prefix=()):
    """(path, annotation) of every setting that holds a value."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if inner:
            yield from fields(inner[0], (*prefix, name))
        else:
            yield (*prefix, name), field.annotation


def wrong(annotation) -> list[Any]:
    """Values that a setting of this type must refuse."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return wrong(inside[0])
    if origin in (Union, types.UnionType):
        return wrong(next(kind for kind in inside if kind is not type(None)))
    if origin is Literal:
        return list(_NO_CHOICE)
    if origin is tuple:
        each = wrong(inside[0])
        count = 1 if inside[-1] is Ellipsis else len(inside)
        return [3, "words", {}, *([value] * count for value in each)]
    if origin is dict:
        return [3, "words", [1], {3: 1}]
    if annotation is bool:
        return [3, "perhaps", [], {}]
    if annotation in (int, float):
        return [*_OUT_OF_RANGE, *_NO_NUMBER]
    return list(_NO_TEXT)


def given(method):
    settings = methods.module_of(method).Settings
    yield from fields(settings, ("method",))
    if method == "simclr":
        sections = (f for f in fields(config.Config) if f[0][0] != "method")
        yield from sections


CASES = [
    pytest.param(method, path, value, id=f"{method}-{'.'.join(path)}-{value!r:.30}")
    for method in methods.names()
    for path, annotation in given(method)
    for value in wrong(annotation)
]


@pytest.mark.parametrize(("method", "path", "value"), CASES)
def test_a_wrong_value_is_refused_by_name(method, path, value):
    values = whole(method)
    place = values
    for part in path[:-1]:
        place = place.setdefault(part, dict(_NEEDED.get(part, {})))
    place[path[-1]] = copy.deepcopy(value)
    with pytest.raises(ConfigError) as error:
        config.check(values)
    assert len(str(error.value)) < 1000
    named = re.split("[:=]", str(error.value))[0].split(".")
    assert tuple(named[: len(path)]) == path
    assert not named[len(path) :] or named[len(path)].isdecimal()  # no names of types


@pytest.mark.parametrize("method", methods.names())
def test_the_whole_config_is_right_without_them(method):
    config.check(whole(method))


def test_pairs_are_ordered_and_the_message_says_how():
    crop = {"name": "simclr", "crop": {"area": [0.9, 0.2]}}
    with pytest.raises(ConfigError, match=r"method\.crop\.area: .*give \[0\.2, 0\.9\]"):
        config.check({**whole("simclr"), "method": crop})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.schedule=cosin", "nearest: cosine"),
        ("data.stain_weights={ich: 2}", "nearest: ihc"),
        ("export.stains=[ihs]", "nearest: ihc"),
        ("method.similarity=cosin", "nearest: cosine"),
        ("backbone.embedding=stages", "stages:a,b"),
        ("optim.lr=on", "optim.lr: true, false"),
        ("seed=2026-13-45", "not readable"),
        ("run.out=2026-11-28", "run.out"),
    ],
)
def test_what_a_user_mistypes(tmp_path, caplog, setting, message):
    (tmp_path / "r.yaml").write_text(
        "{method: {name: patch_contrast}, data: {root: ., canvas: 512}, optim: {steps: 1},"
        " run: {out: x}}"
    )
    assert pretrain.main([str(tmp_path / "r.yaml"), setting]) == 1
    assert message in caplog.text


@pytest.mark.parametrize("root", ['"~nobody_has_this_name/x"', '"a\\0b"', "[1]", "3"])
def test_a_path_that_cannot_be_one_is_an_error_with_words(tmp_path, caplog, root):
    (tmp_path / "r.yaml").write_text(
        f"{{method: {{name: simclr}}, data: {{root: {root}}}, backbone: {{start: {root}}},"
        f" optim: {{steps: 1}}, run: {{out: {tmp_path}/x, knn_sets: [{root}]}}}}"
    )
    assert pretrain.main([str(tmp_path / "r.yaml")]) == 1
    assert "error: " in caplog.text
