"""What must not enter a manifest: names, birth dates, hospital numbers.

A source hands on an `Item` and nothing else: each client picks the fields that it needs from an
answer, and the rest is dropped there. A patient's number becomes a keyed hash (HMAC-SHA256): the
same patient has the same code in every source, and without the key file nobody can find the number
by trying all of them. Published codes (TCGA-XX-0001) stay as they are.

A manifest records the fingerprint of its key: with another key the same patient would have two
codes, and could be in train and test at once.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from pathlib import Path

from pathencoder.errors import ConfigError, StoreError
from pathencoder.files import storing

_CODE = re.compile(r"p-[0-9a-f]{16}")
_PUBLISHED = re.compile(
    r"(?:TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}|GTEX-[A-Z0-9]{4,6}|C3[LN]-\d{5}|published:[\w.-]{1,64})"
)
_TCGA = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])")
# Columns of tables and fields of answers that describe a person
_PERSONAL = re.compile(
    r"(?:^|_)(?:(?:patient|family|first|last|given|sur|maiden|full|person)_?name|surname|birth|dob"
    r"|born|mrn|ssn|bsn|nhs|address|phone|email|sex|gender|age|insurance|passport|accession"
    r"|physician|doctor|operator)",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)"
)
_NUMBER = re.compile(r"(?<![0-9A-Za-z])\d{7,10}(?![0-9A-Za-z])")
_PERSON = re.compile(r"[A-Za-z]{2,}\^[A-Za-z]+")  # DICOM's form of a name
_NEEDED = (
    "The patients of this manifest have codes that its own key gave: copy that key here, or name it"
    " with --key. Another key would give the same patients other codes and other splits. If it is"
    " lost, make a new manifest under another name"
)


def is_code(patient: str) -> bool:
    """Whether a patient's name is a keyed hash or a published code."""
    return bool(_CODE.fullmatch(patient) or _PUBLISHED.fullmatch(patient))


def is_keyed(patient: str) -> bool:
    """Whether a patient's name is a keyed hash."""
    return bool(_CODE.fullmatch(patient))


def tcga_patient(name: str) -> str:
    """The TCGA patient in the name of a file; "" without one."""
    found = _TCGA.search(name)
    return found[0] if found else ""


def is_personal(column: str) -> bool:
    """Whether a column or field of this name describes a person."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    return bool(_PERSONAL.search(re.sub(r"[\s-]+", "_", snake)))


def looks_personal(name: str) -> bool:
    """Whether a file name may hold a date, a patient's number or a name in DICOM's form."""
    return any(pattern.search(name) for pattern in (_DATE, _NUMBER, _PERSON))


class Pseudonyms:
    """Codes of patients by a secret key, which lies in a file that stays in the hospital.

    Args:
        file: The key file; made with the first code, for its owner alone (mode 600).
        in_use: Whether there are codes of an earlier run: then no key is made.
        fingerprint: Of the key that gave those codes; "" where none was recorded: any is taken.
    """

    def __init__(self, file: Path, *, in_use: bool = False, fingerprint: str = "") -> None:
        self._file, self._key = file, b""
        self._in_use, self._wanted = in_use, fingerprint
        self._known: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """Of the key, which it does not tell; "" where this run needed no key."""
        return _fingerprint(self._key) if self._key else ""

    def code_of(self, patient: str, *, published: bool = False) -> str:
        """The code of a patient.

        Args:
            patient: A name or number as the source has it; "" gives "".
            published: Whether the source publishes it, so that it is no secret.

        Raises:
            ConfigError: The key of the codes of an earlier run is not there, or is another one.
            StoreError: The key file cannot be read or written.
        """
        text = unicodedata.normalize("NFC", patient).strip()
        if not text or is_code(text):
            return text
        if published:
            return f"published:{re.sub(r'[^A-Za-z0-9_.-]', '-', text)[:64]}"
        if text not in self._known:
            mac = hmac.new(self._secret(), text.casefold().encode(), hashlib.sha256)
            self._known[text] = f"p-{mac.hexdigest()[:16]}"
        return self._known[text]

    def _secret(self) -> bytes:
        if not self._key:
            if self._in_use and not self._file.exists():
                raise ConfigError(f"{self._file}: there is no key here. {_NEEDED}")
            with storing(self._file):
                _make_key(self._file)
                text = self._file.read_text(encoding="ascii", errors="replace").strip()
            if not re.fullmatch(r"[0-9a-f]{64}", text):
                raise StoreError(
                    f"{self._file}: not a key of this tool. Restore it from a copy: a new key gives"
                    " every patient a new code and another split"
                )
            key = bytes.fromhex(text)
            if self._wanted and _fingerprint(key) != self._wanted:
                raise ConfigError(f"{self._file}: this is another key. {_NEEDED}")
            self._key = key
        return self._key


def _make_key(file: Path) -> None:
    """Write a new key, unless there is a file of this name."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _fingerprint(key: bytes) -> str:
    return hmac.new(key, b"pathencoder key", hashlib.sha256).hexdigest()[:16]
