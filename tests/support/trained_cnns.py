"""CNNs with random weights and the statistics of trained ones."""

import torch
from torch import nn

from pathencoder import network


def trained(architecture):
    """A random network whose BatchNorms have statistics, factors and shifts of their own."""
    torch.manual_seed(0)
    made = network.build(architecture, {}).eval()
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    return made
