"""The section of a model card on how the encoder is used, by pathencoder and by timm."""

from __future__ import annotations

from typing import Any

from pathencoder.pooling import stage_rule
from pathencoder.pretrained.catalogue import DEFAULT
from pathencoder.spec import EncoderSpec

_RULES = {
    "cls": "the class token",
    "mean": "the mean of the patch tokens",
    "cls_mean": "the class token and the mean of the patch tokens, joined",
    "pool": "the network's pooled output",
}
_TIMM = """```python
import timm
import torch
from huggingface_hub import hf_hub_download
from PIL import Image
from safetensors.torch import load_file

model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
reference = load_file(hf_hub_download("{name}", "reference.safetensors"{revision}))
tile = Image.fromarray(reference["tile"].numpy())
with torch.inference_mode():
    output = model(transform(tile)[None])[0]
torch.testing.assert_close(output, reference["timm_output"], rtol=0, atol={tolerance:g})
```"""


def use(spec: EncoderSpec, figures: dict[str, Any], repo: str | None) -> str:
    """The section.

    Args:
        spec: The encoder.
        figures: What metrics.json holds; its `timm` is what timm's loader gave.
        repo: "owner/name" or "owner/name@tag"; None: bundled.
    """
    parts = [
        _ours(spec, repo),
        _onnx(figures.get("onnx")),
        _timms(spec, figures.get("timm"), repo),
    ]
    return "\n\n".join(part for part in parts if part)


def _ours(spec: EncoderSpec, repo: str | None) -> str:
    name = "" if spec.name == DEFAULT else f'"{spec.name}"'
    if repo:
        owner, _, tag = repo.partition("@")
        name = f'"{owner}", revision="{tag}"' if tag else f'"{owner}"'
    scale = (
        f"; with `mpp=` they are resampled to {spec.mpp:g} micrometres per pixel instead"
        if spec.mpp
        else ""
    )
    range_ = (
        f" Trained at {spec.mpp_range[0]:g} to {spec.mpp_range[1]:g} micrometres per pixel."
        if spec.mpp_range and spec.mpp_range[0] < spec.mpp_range[1]
        else ""
    )
    rule = _RULES.get(spec.embedding) or stage_rule(spec.embedding)
    return (
        "```python\nimport pathencoder\n\n"
        f"encoder = pathencoder.load_encoder({name})\n"
        f'rows = encoder.encode("tiles/")  # numpy float32 [N, {spec.dim}]\n```\n\n'
        f"{_resized(spec)} ({spec.interpolation}){scale}. Mean"
        f" {spec.mean}, std {spec.std}.{range_} The embedding: {rule}"
        f" (`{spec.embedding}`)."
    )


def _onnx(check: dict[str, Any] | None) -> str:
    """What the ONNX file beside the weights is for."""
    if check is None:
        return ""
    return (
        "model.onnx is the same network for ONNX Runtime, up to the embedding. `encode` runs it on"
        " a CPU after `pip install 'pathencoder[onnx]'`. Compared with torch at several numbers of"
        " images and sizes, its embeddings differ by"
        f" {check['largest_relative_difference']:.0e} of the largest value at most."
    )


def _resized(spec: EncoderSpec) -> str:
    if spec.resize == "squash":
        return f"Tiles are resized whole to {spec.input_size} px"
    size = spec.resize_size or spec.input_size
    return f"The shorter side of a tile is resized to {size} px, the middle {spec.input_size} cut"


def _timms(spec: EncoderSpec, found: dict[str, Any] | None, repo: str | None) -> str:
    """What timm's own loader gives, and whose figures are on the card."""
    if found is None:
        last = "`timm.create_model` loads the weights too, and gives the last layer"
        whose = "; no figure on this card is of that output"
        return f"{last}{whose}." if stage_rule(spec.embedding) else ""
    if found.get("error"):
        return f"timm's own loader cannot build this network: {found['error']}."
    if found["same"]:
        words = (
            f"`timm.create_model` gives the same embedding (largest difference"
            f" {found['difference']:.1g} on the reference tile)."
        )
    else:
        mean = ', the same as `encoder.encode(tiles, output="mean")`' if found["is_mean"] else ""
        words = (
            f"**timm gives another output**: its last layer, pooled, of shape {found['shape']}"
            f"{mean}, not the embedding of {spec.dim} values. The figures of this encoder below"
            f" are of the embedding.{_compared(found)}"
        )
    if repo is None:
        return words
    owner, _, tag = repo.partition("@")
    revision = f', revision="{tag}"' if tag else ""
    check = _TIMM.format(repo=repo, name=owner, revision=revision, tolerance=found["tolerance"])
    return f"{words} To check what timm gives:\n\n{check}"


def _compared(found: dict[str, Any]) -> str:
    """What timm's output gives on sets where it was measured beside the embedding."""
    there = found.get("compared")
    if not there:
        return ""
    words = "; ".join(
        f"{name} {auroc['timm']:.3f} and {auroc['embedding']:.3f}"
        for name, auroc in there["auroc"].items()
    )
    return (
        f" AUROC of timm's output and of the embedding, by folds inside train parts: {words}"
        f" (`{there['command']}`; FOLDER is {there['folder']})."
    )
