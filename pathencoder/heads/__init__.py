"""Heads: small models on the frozen embeddings of an encoder.

One file a kind of head (`linear`, `mlp`, `knn`, `prototypes`), listed in `kinds`. What they share:

| module | content |
|---|---|
| data/ | labelled images in, checked as a whole before anything is encoded |
| embed, cache | images to rows; rows are kept on disk, so that a second fit encodes nothing |
| encoder_record | the encoder that a head knows, and the refusal of another |
| folds, calibration, report | grouped folds; temperature and abstention; figures with intervals |
| fit, classifier, store | the public calls; the fitted head; its files |
"""
