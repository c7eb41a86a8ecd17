"""Python runs this at the start of each process, also of a tool's workers.

It makes torchvision importable where it does not fit torch, before a tool imports it.
"""

from pathencoder import compat

compat.import_timm()
