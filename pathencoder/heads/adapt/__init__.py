"""Adaptation of an encoder to labelled tiles: its weights are trained along with a linear layer.

| module | content |
|---|---|
| run | `pathencoder.adapt`: reads, trains, compares |
| options | what can be set |
| lora, unfreeze, parts | which weights are trained, and at what rates |
| tiles, train, checkpoint | batches, the steps, and going on where a run stopped |
| report, seen | the frozen head beside the adapted one; images that an encoder has seen |
| adapted, save | the result and its files |
"""
