"""Which image of a shard a key of a manifest means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pathencoder.errors import ConfigError


class Ambiguous(ConfigError):
    """A key that two images of a shard could be meant by."""


class Keys:
    """The images of a shard by key.

    A key is an image's path in the tar without the suffix. Where a manifest names the last part of
    the paths alone, as older ones do, that is enough as long as no two images have it in common.
    """

    def __init__(self, names: Sequence[str], where: Callable[[str], str]) -> None:
        """names: paths in the tar, with suffixes. where.

        Where the manifest has a key, for messages.
        """
        self._names, self._where = names, where
        self._paths, self._paths_twice = _index(name.rpartition(".")[0] for name in names)

    def find(self, keys: Iterable[str]) -> dict[str, int]:
        """The images that keys mean.

        Args:
            keys: All keys of the manifest that name this shard.

        Returns:
            Key -> index into names, without the keys that no image has.

        Raises:
            Ambiguous: Two images that a key could mean. The message names both.
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
        """Keys of a manifest that names stems.

        None of them may be the stem of two images, be it the path of one.
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
                " the shard without its suffix as the key, and images of one folder names of"
                " their own"
            )


def _index(keys: Iterable[str]) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Key -> the first index that has it, and the keys that two have, with both."""
    first: dict[str, int] = {}
    twice: dict[str, tuple[int, int]] = {}
    for i, key in enumerate(keys):
        if (before := first.setdefault(key, i)) != i:
            twice[key] = (before, i)
    return first, twice


def _clean(key: str) -> str:
    return key.removeprefix("./")
