"""Imports what a run needs, once for all processes that a fork server starts."""

import torch._dynamo
import torch.distributed.fsdp  # noqa: F401

import training.pretrain  # noqa: F401
from pathencoder import compat

compat.import_timm()
