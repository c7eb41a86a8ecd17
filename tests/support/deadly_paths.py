"""A path at which a process ends as by a crash of a reader, when it is opened there."""

import os
from pathlib import PosixPath


class DeadlyPath(PosixPath):
    """Ends the process that looks at it."""

    def is_dir(self):
        os._exit(11)
