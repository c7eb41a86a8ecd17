"""The transformer for scikit-learn: its conventions, and every form of a list of images."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_checks
from small_encoders import encoder, in_timm_format, picture, shared

from pathencoder.errors import ConfigError, ImageError, UnknownEncoder
from pathencoder.integrations.sklearn import EncoderTransformer

pytestmark = pytest.mark.full  # scikit-learn


@pytest.fixture
def paths(tmp_path):
    found = []
    for i in range(6):
        found.append(str(tmp_path / f"tile{i}.png"))
        Image.fromarray(picture(i)).save(found[-1])
    return found


def fitted(**options):
    return EncoderTransformer(shared(), **options).fit([picture()])


def test_every_form_of_a_list_gives_the_encoders_rows(paths):
    images = [picture(i) for i in range(6)]
    expected = shared().encode(images)
    column = np.array(paths, dtype=object)[:, None]
    forms = [
        paths,
        tuple(paths),
        np.array(paths),
        np.array(paths, dtype=object),
        column,
        images,
        [Image.fromarray(image) for image in images],
        np.stack(images),
    ]
    for form in forms:
        np.testing.assert_array_equal(fitted().transform(form), expected)


@pytest.mark.parametrize(
    "images",
    [
        picture(),
        picture()[..., 0],
        np.zeros((20, 3)),
        np.array([["a.png", "b.png"]]),
        "tile.png",
        Image.fromarray(picture()),
        None,
    ],
)
def test_what_is_no_list_of_images_is_refused(images):
    with pytest.raises(ImageError, match="give a list with an image each"):
        fitted().transform(images)
    with pytest.raises(ImageError, match="give a list with an image each"):
        EncoderTransformer(shared()).fit(images)


def test_an_element_that_holds_several_images_is_refused(paths, tmp_path):
    with pytest.raises(ImageError, match="1 elements hold 6 images"):
        fitted().transform([tmp_path])


def test_settings_are_those_of_encode(paths):
    kept = fitted(on_error="nan", output="mean", mpp=1.0)
    with pytest.warns(UserWarning, match="1 of 7 images"):
        rows = kept.transform([*paths, "missing.png"])
    assert np.isnan(rows[-1]).all()
    np.testing.assert_array_equal(rows[:-1], shared().encode(paths, output="mean", mpp=1.0))
    with pytest.raises(ConfigError, match="one vector per image"):
        fitted(output="dense")
    with pytest.raises(UnknownEncoder):
        EncoderTransformer("no-such-encoder").fit([picture()])


def test_names_of_features():
    names = fitted(output="multi").get_feature_names_out()
    assert names[0] == "small-cnn_0"
    assert len(names) == fitted(output="multi").transform([picture()]).shape[1]


def test_it_has_to_be_fitted():
    with pytest.raises(NotFittedError):
        EncoderTransformer(shared()).transform([picture()])


def test_clones_share_the_encoder_and_keep_the_settings():
    made = fitted(output="mean").set_output(transform="default")
    same = clone(made)
    assert same.encoder is made.encoder
    assert same.get_params() == made.get_params()
    assert same._sklearn_output_config == made._sklearn_output_config
    assert not hasattr(same, "encoder_")
    with pytest.raises(NotFittedError):
        same.transform([picture()])


def test_a_pickle_embeds_the_same():
    made = EncoderTransformer(encoder("cnn")).fit([picture()])
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.transform([picture()]), made.transform([picture()]))


def test_in_a_pipeline_with_cross_validation_and_a_search(paths, tmp_path):
    paths, labels = np.array(paths * 2), np.array([0, 1] * 6)
    probe = LogisticRegression(max_iter=1000)
    model = make_pipeline(
        EncoderTransformer(shared()), StandardScaler(), probe, memory=str(tmp_path / "cache")
    )
    assert model.fit(paths, labels).score(paths, labels) == 1.0
    assert cross_val_score(model, paths, labels, cv=2).shape == (2,)
    search = GridSearchCV(model, {"encodertransformer__output": ["embedding", "mean"]}, cv=2)
    assert search.fit(paths, labels).best_score_ >= 0


@pytest.mark.parametrize(
    "check",
    [  # the others feed tables of numbers, which are no images
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_the_checks_of_scikit_learn(check):
    getattr(estimator_checks, check)("EncoderTransformer", EncoderTransformer())


def test_rows_that_memory_keeps_are_of_the_same_weights(paths, tmp_path):
    folder = str(tmp_path / "mine")

    def rows():
        pipeline = make_pipeline(
            EncoderTransformer(folder), FunctionTransformer(), memory=str(tmp_path / "cache")
        )
        return pipeline.fit_transform(paths)

    enc = encoder()
    enc.save_pretrained(folder)
    before = rows()
    assert np.array_equal(rows(), before)
    with torch.no_grad():
        for parameter in enc.parameters():
            parameter.mul_(1.2)
    enc.save_pretrained(folder)
    assert not np.allclose(rows(), before)


def test_rows_that_memory_keeps_are_of_the_same_file_and_readout(paths, tmp_path):
    def rows(folder):
        pipeline = make_pipeline(
            EncoderTransformer(folder), FunctionTransformer(), memory=str(tmp_path / "cache")
        )
        return pipeline.fit_transform(paths)

    plain = in_timm_format(tmp_path / "plain", seed=0)
    before = rows(plain)
    in_timm_format(plain, seed=1)
    assert not np.allclose(rows(plain), before)
    ours, enc = tmp_path / "ours", encoder("vit")
    enc.save_pretrained(ours)
    before = rows(ours)
    enc.spec = dataclasses.replace(enc.spec, embedding="mean")
    enc.save_pretrained(ours)
    assert not np.allclose(rows(ours), before)
