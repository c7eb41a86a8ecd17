"""The digest of a head: whether two heads predict the same."""

from __future__ import annotations

import hashlib
import json

from pathencoder.heads.store import Content


def digest_of(content: Content) -> str:
    """A hash of all that predictions depend on.

    Args:
        content: Of the head, as for the Hub: without paths of this machine.
    """
    found = hashlib.sha256(json.dumps(content.config, sort_keys=True).encode())
    for name, values in sorted(content.arrays.items()):
        found.update(name.encode())
        found.update(values.tobytes())
    return found.hexdigest()
