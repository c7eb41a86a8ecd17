"""The values in a table of tiles or labels: names, splits, whether a row is used.

Unknown values are refused: a guess could let held-out rows into the training data.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from pathencoder.errors import ConfigError
from pathencoder.tables import Table
from training.data.columns import Columns

T = TypeVar("T")

# Ways to write that there is no value, in lower case: pandas, R, SQL, spreadsheets, people.
NO_VALUE = frozenset(
    {"", "nan", "na", "n/a", "n.a.", "#n/a", "<na>", "none", "null", "nil", "-", "?", "unknown"}
)
_TRUE = frozenset({"1", "1.0", "true", "yes", "y", "t"})
_FALSE = frozenset({"0", "0.0", "false", "no", "n", "f"})
_END = r"(?:[a-d]|\d{1,2})?(?:set|part|split)?(?:[a-d]|\d{1,2})?"  # testA, val2, test set
_TRAINED = re.compile(r"(?:pre)?train(?:ing)?(?:set|part|split)?")
_FOLD = re.compile(r"folds?(\d*)")
_HELD_OUT = re.compile(
    r"(?:(?P<val>val|valid|validation|dev|development|tune|tuning)"
    r"|(?P<test>test|testing)"
    r"|(?P<other>eval|evaluation|benchmark|holdout|heldout))" + _END
)
KNOWN_SPLITS = (
    "(trained on) train, training, pretrain, fold 1 (any number), folds, or nothing; (held out)"
    " val, valid, validation, dev, tune, test, testing, eval, benchmark, held-out (also testA, test"
    " 1, test set)"
)


class Split(NamedTuple):
    """A split of the data: "train", "folds", "fold 3", "val", "test" ...; "" for no value."""

    name: str
    held_out: bool


def name_of(text: str) -> str:
    """A name as it is written; "" for a value that stands for none."""
    return "" if text.casefold() in NO_VALUE else text


def split_of(text: str) -> Split:
    """The split that a value of a `split` column names.

    Args:
        text: The value. Case, spaces, hyphens and underscores do not matter.

    Returns:
        Its name, the same for all spellings, and whether it must never be trained on.

    Raises:
        ValueError: The value is unknown. That includes a bare number: some tables number folds, in
            others 0, 1 and 2 are train, val and test.
    """
    short = re.sub(r"[\s_-]+", "", text.casefold())
    if short in NO_VALUE - {"unknown", "?"}:
        return Split("", held_out=False)
    if _TRAINED.fullmatch(short):
        return Split("train", held_out=False)
    if found := _FOLD.fullmatch(short):
        return Split(f"fold {int(found[1])}" if found[1] else "folds", held_out=False)
    if found := _HELD_OUT.fullmatch(short):
        return Split(found["other"] or str(found.lastgroup), held_out=True)
    raise ValueError(f"known are {KNOWN_SPLITS}")


def is_used(text: str) -> bool:
    """Whether a value of a `use` column means yes.

    Raises:
        ValueError: It means neither yes nor no.
    """
    folded = text.casefold()
    if folded in _TRUE:
        return True
    if folded in _FALSE:
        return False
    raise ValueError("known are 1, true, yes and 0, false, no")


def one_of(known: Iterable[str]) -> Callable[[str], str]:
    """A reader of values that must be among `known` or missing.

    Returns:
        A function that returns the value in lower case, "" where there is none, and raises
        ValueError for any other value.
    """
    names = {name.casefold(): name for name in known}

    def read(text: str) -> str:
        folded = name_of(text).casefold()
        if folded and folded not in names:
            listed = ", ".join(names.values())
            raise ValueError(f"known are {listed}, or nothing{nearest(folded, names)}")
        return folded

    return read


def nearest(name: str, names: Iterable[str]) -> str:
    """The nearest of several names for a message, as "; nearest: NAME"; "" if none is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.4)
    return f"; nearest: {near[0]}" if near else ""


def column(
    table: Table | Columns, name: str, read: Callable[[str], T], missing: str = ""
) -> list[T]:
    """Read a column of a table.

    Args:
        table: The table.
        name: The column.
        read: Reads the text of a value; raises ValueError for an unknown one.
        missing: The text that a table without the column is read as having in every row.

    Returns:
        One value per row.

    Raises:
        ConfigError: A value is unknown. The message has the file, line, value and known values.
    """
    if name not in table.columns:
        return [read(missing)] * len(table.lines)
    texts = table.texts(name) if isinstance(table, Columns) else (row[name] for row in table.rows)
    known: dict[str, T] = {}
    out = []
    for i, text in enumerate(texts):
        if text not in known:
            try:
                known[text] = read(text)
            except ValueError as error:
                raise ConfigError(f"{table.where(i)}: {name} is {text!r}; {error}") from None
        out.append(known[text])
    return out
