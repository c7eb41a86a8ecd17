"""Find the image of a shard that a key of a manifest names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pathencoder.errors import ConfigError


class Ambiguous(ConfigError):
    """A key that could mean two images of a shard."""


class Keys:
    """The images of a shard by key.

    A key is an image's path in the tar without the suffix. Older manifests name only the last part
    of the paths, which is accepted as long as no two images have it in common.

    Args:
        names: Paths in the tar, with suffixes.
        where: Gives the position of a key in the manifest, for messages.
    """

    def __init__(self, names: Sequence[str], where: Callable[[str], str]) -> None:
        self._names, self._where = names, where
        self._paths, self._paths_twice = _index(name.rpartition(".")[0] for name in names)

    def find(self, keys: Iterable[str]) -> dict[str, int]:
        """Find the images of several keys.

        Args:
            keys: All keys of the manifest that name this shard.

        Returns:
            Key -> index into names, without the keys that no image has.

        Raises:
            Ambiguous: A key could mean two images. The message names both.
        """
        found: dict[str, int] = {}
        keys = list(keys)
        for key in keys:
            self._refuse(key, self._paths_twice)
            if (index := self._paths.get(_clean(key))) is not None:
                found[key] = index
        if any("/" not in key for key in keys if key not in found):
            self._add_stems(keys, found)
        return found

    def _add_stems(self, keys: Sequence[str], found: dict[str, int]) -> None:
        """Add the keys that are stems; none may be the stem of two images.

        That holds also for a key that is the path of one of them.
        """
        stems, twice = _index(name.rpartition("/")[2].rpartition(".")[0] for name in self._names)
        if not any(key in stems for key in keys if key not in found):
            return
        for key in keys:
            if "/" not in key:
                self._refuse(key, twice)
                if key in stems:
                    found[key] = stems[key]

    def _refuse(self, key: str, twice: Mapping[str, tuple[int, int]]) -> None:
        if both := twice.get(_clean(key)):
            one, other = (self._names[i] for i in both)
            raise Ambiguous(
                f"{self._where(key)}: the key {key!r} could mean {one} or {other}. Give the path in"
                " the shard without its suffix as the key, and different names to the images of"
                " one folder"
            )


def _index(keys: Iterable[str]) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Key -> its first index; and for every key that occurs again, its first and last index."""
    first: dict[str, int] = {}
    twice: dict[str, tuple[int, int]] = {}
    for i, key in enumerate(keys):
        if (before := first.setdefault(key, i)) != i:
            twice[key] = (before, i)
    return first, twice


def _clean(key: str) -> str:
    return key.removeprefix("./")
