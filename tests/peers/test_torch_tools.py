"""`as_module` in tools that take any torch module: ONNX, Grad-CAM, captum, torchmetrics, eva."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import pathencoder
from pathencoder.errors import PathEncoderError


@pytest.fixture(scope="module")
def images():
    found = np.random.default_rng(0).integers(0, 256, (3, 7, 7, 3), dtype=np.uint8)
    return found.repeat(32, axis=1).repeat(32, axis=2)


@pytest.fixture
def x(encoder, images):
    return encoder.transform.normalise(images)


@pytest.mark.parametrize("input_format", ["normalised", "uint8_nhwc"])
def test_onnx(encoder, images, x, tmp_path, input_format):
    module = encoder.as_module(input_format=input_format)
    taken = torch.from_numpy(images) if input_format == "uint8_nhwc" else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (taken[:2],),
            tmp_path / "encoder.onnx",
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},),
            external_data=False,
        )
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    name = session.get_inputs()[0].name
    for count in (1, 3):
        rows = session.run(None, {name: taken[:count].numpy()})[0]
        np.testing.assert_allclose(rows, encoder.encode(images[:count]), atol=1e-3)


def test_grad_cam(encoder, x):
    from pytorch_grad_cam import GradCAM

    module = encoder.as_module()
    found = []
    for sign in (1, -1):  # Grad-CAM keeps what is positive: one of the two has some
        with GradCAM(module, [module.network.blocks[5]]) as cam:
            targets = [lambda row, sign=sign: sign * row.sum()] * 3
            found.append(cam(input_tensor=x, targets=targets))
    assert found[0].shape == (3, 224, 224)
    assert np.maximum(*found).max() > 0


def test_captum(encoder, x):
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(encoder.as_module()).attribute(x[:1], target=7, n_steps=4)
    assert found.shape == x[:1].shape
    assert found.abs().sum() > 0


def test_torchmetrics_frechet_distance(encoder, images):
    from torchmetrics.image.fid import FrechetInceptionDistance

    module = encoder.as_module(input_format="uint8_nchw")
    metric = FrechetInceptionDistance(feature=module)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    metric.update(batch, real=True)
    metric.update(batch.flip(0), real=False)
    assert float(metric.compute()) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("how", ["python", "configuration"])
def test_eva(x, how):
    import jsonargparse
    from eva.core.models.wrappers import ModelFromFunction

    arguments = {"name": "pathencoder-tiny", "device": "cpu"}
    if how == "python":
        wrapped = ModelFromFunction(path=pathencoder.load_module, arguments=arguments)
    else:
        parser = jsonargparse.ArgumentParser()
        parser.add_argument("--model", type=nn.Module)
        made_of = {"path": "pathencoder.load_module", "arguments": arguments}
        model = {"class_path": "eva.core.models.wrappers.ModelFromFunction", "init_args": made_of}
        wrapped = parser.instantiate(parser.parse_object({"model": model})).model
    assert nn.Linear(768, 2)(wrapped(x)).shape == (3, 2)


def test_load_module_refuses_what_as_module_refuses():
    with pytest.raises(PathEncoderError, match="output='logits'"):
        pathencoder.load_module("pathencoder-tiny", output="logits")


def test_to_anndata(slide, encoder, tmp_path):
    import anndata

    features = pathencoder.encode_slide(slide, tmp_path / "slide.h5", encoder=encoder)
    made = pathencoder.to_anndata(tmp_path / "slide.h5")
    np.testing.assert_array_equal(made.X, features.rows)
    made.write_h5ad(tmp_path / "slide.h5ad")
    again = anndata.read_h5ad(tmp_path / "slide.h5ad")
    np.testing.assert_array_equal(again.obsm["spatial"], features.coords)
    assert list(again.obs["x"]) == features.coords[:, 0].tolist()
    assert again.uns["pathencoder"]["slide_mpp"] == features.mpp
    assert again.var_names[5] == "pathencoder-tiny_5"


def test_pandas_out_of_the_transformer(images):
    from pathencoder.integrations.sklearn import EncoderTransformer

    made = EncoderTransformer("pathencoder-tiny").set_output(transform="pandas").fit(images)
    table = made.transform(images)
    assert table.shape == (3, 768)
    assert table.columns[0] == "pathencoder-tiny_0"
