"""The runner of one readout of an encoder, in the runtime that its settings choose."""

from __future__ import annotations

from torch import nn

from pathencoder import outputs
from pathencoder.folding import for_inference
from pathencoder.pretrained.origin import Origin
from pathencoder.runtime import Runner, pick_batch
from pathencoder.runtimes.choose import choose
from pathencoder.spec import EncoderSpec
from pathencoder.stream import Settings
from pathencoder.transforms import Transform


def runner(
    network: nn.Module, spec: EncoderSpec, origin: Origin | None, settings: Settings
) -> Runner:
    """Run one readout on uint8 tiles of the input size.

    Args:
        network: Of the encoder.
        spec: Its description.
        origin: What it was loaded from.
        settings: How it is read and run.

    Raises:
        PathEncoderError: As for `choose`.
    """
    chosen = choose(network, spec, origin, settings)
    batch = pick_batch(settings.batch_size, next(network.parameters()).device)
    normalise = Transform(spec).normalise
    if chosen.graph is not None:
        batch = 1 if chosen.one_by_one else batch
        return Runner(network, chosen.readout, normalise, batch=batch, alone=True)
    inner = for_inference(network, settings.precision, outputs.stages_read(spec))
    read = outputs.readout(inner, spec, settings.output)
    return Runner(inner, read, normalise, precision=settings.precision, batch=batch)
