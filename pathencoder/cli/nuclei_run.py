"""`pathencoder nuclei` and dense heads on one input: its parts one by one, and notes on them."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder._version import __version__
from pathencoder.cli.finders import Finder
from pathencoder.cli.jobs import reason_of
from pathencoder.cli.meter import Meter
from pathencoder.cli.nuclei_names import Identity, Results, alone, choose_name, source_of
from pathencoder.cli.nuclei_pictures import Opened, Part, opened
from pathencoder.cli.nuclei_remote import local, read_earlier, write_earlier
from pathencoder.cli.nuclei_sources import Source
from pathencoder.errors import ImageError, StoreError
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure
from pathencoder.files import Mismatch, make_folder
from pathencoder.nuclei.outputs import labels_file, read_facts, read_finished
from pathencoder.remote.staging import Scratch, Staging

if TYPE_CHECKING:
    from pathencoder.nuclei.regions import Box


@dataclass(frozen=True)
class Asked:
    """The settings of one command.

    Attributes:
        out: The output folder.
        stain: As given.
        regions: As given.
        scratch: Where copies of remote slides lie.
    """

    out: Path
    stain: str | None
    regions: tuple[Box, ...]
    scratch: Scratch = field(default_factory=Scratch)

    def stain_of(self, source: Source) -> str | None:
        """The stain of an input: as a table gives it, else as the command does."""
        return source.stain or self.stain


@dataclass(frozen=True)
class Found:
    """The results of one part.

    Attributes:
        name: Of its files.
        file: The label map; of results without one the GeoJSON.
        facts: As its files hold them.
        before: Whether they are of an earlier run.
    """

    name: str
    file: Path
    facts: Mapping[str, Any]
    before: bool


@dataclass
class Run:
    """One command.

    Attributes:
        asked: The settings.
        finder: What finds objects.
        debug: Print tracebacks.
        staging: The copies of remote slides, while they are made.
        found: The results of each input, by its path.
        results: All results in the output folder.
    """

    asked: Asked
    finder: Finder
    debug: bool = False
    staging: Staging | None = None
    found: dict[Path, list[Found]] = field(default_factory=dict)
    results: Results = field(init=False)

    def __post_init__(self) -> None:
        self.results = Results(self.asked.out)

    def do(self, source: Source, meter: Meter) -> Outcome:
        """Segment one input. Raises the errors of its file and of the output folder."""
        if source.remote is None:
            return self._do(source, meter)
        if (before := self._before(source)) is not None:
            if self.staging is not None:
                self.staging.release(source.remote)
            return before
        with local(source, self.staging) as (here, notes):
            outcome = self._do(here, meter)
            if outcome.status in ("done", "before", "empty") and not outcome.failures:
                names = [part.name for part in self.found[source.path]]
                whole, out = self._whole_settings(source), self.asked.out
                write_earlier(out, here, whole, names, outcome.notes)
        copy, url = str(here.here), str(source.path)
        outcome.failures = [
            replace(failure, reason=failure.reason.replace(copy, url))
            for failure in outcome.failures
        ]
        outcome.notes += notes
        return outcome

    def needs(self, source: Source) -> bool:
        """Whether a remote slide must be copied here."""
        return read_earlier(self.asked.out, source, self._whole_settings(source)) is None

    def _before(self, source: Source) -> Outcome | None:
        """The outcome of an earlier run for this version of a remote slide."""
        earlier = read_earlier(self.asked.out, source, self._whole_settings(source))
        if earlier is None:
            return None
        self.found[source.path] = found = [
            Found(name, _file(self.asked.out, name), facts, before=True)
            for name, facts in earlier.facts.items()
        ]
        outcome = self._outcome(source, found, [], [], 0.0)
        outcome.notes = list(earlier.notes)
        return outcome

    def _do(self, source: Source, meter: Meter) -> Outcome:
        began = time.monotonic()
        found = self.found[source.path] = []
        failures: list[Failure] = []
        stain = self.asked.stain_of(source)
        with (
            alone(self.asked.out, source),
            opened(source, stain, self.finder.overlap_um) as image,
        ):
            parts = image.parts(self.asked.regions)
            name = choose_name(self.results, source, [part.suffix for part in parts.all])
            known = Identity(source)
            for number, part in enumerate(parts.all):
                meter(number, len(parts.all))
                try:
                    found.append(self._part(known, image, part, name.text + part.suffix, stain))
                except StoreError:
                    raise
                except Exception as error:
                    if len(parts.all) == 1:
                        raise
                    if self.debug:
                        traceback.print_exc()
                    where, kind = part.suffix.removeprefix("_"), type(error).__name__
                    failures.append(Failure(where, reason_of(error), kind))
        notes = [*([name.note] if name.note else []), *parts.notes, *image.notes]
        return self._outcome(source, found, failures, notes, time.monotonic() - began)

    def _part(
        self, source: Identity, image: Opened, part: Part, name: str, given: str | None
    ) -> Found:
        if part.region and part.region.problem:
            raise ImageError(part.region.problem)
        out = self.asked.out
        kept = read_finished(out, name)
        self._check_owner(source, name)
        settings = self._settings(image, part, given)
        if kept and kept.get("settings") == settings and source.is_of(kept.get("source")):
            return Found(name, _file(out, name), kept, before=True)
        made_from = source.facts
        result = self.finder.find(image, part, given)
        facts = {
            "source": made_from,
            "settings": settings,
            **result.columns,
            self.finder.noun: result.count,
            **result.more,
            "notes": list(result.notes),
        }
        make_folder((out / name).parent)
        written = result.write(out, name, facts)
        return Found(name, written[0], facts, before=False)

    def _check_owner(self, source: Identity, name: str) -> None:
        """Raises Mismatch for results of another kind or of another input.

        Another process may have written them since the name was chosen.
        """
        facts = read_facts(self.asked.out, name)
        if not facts:
            return
        if self.finder.noun not in facts:
            what = "results of another kind"
        elif (other := source_of(facts)) and not source.owns(other):
            what = f"results of {other.get('path')}"
        else:
            return
        raise Mismatch(
            f"{self.asked.out / name}: {what} are there, and are not changed: choose another --out"
        )

    def _whole_settings(self, source: Source) -> dict[str, Any]:
        """What all results of a slide depend on besides its content, as JSON values."""
        return {
            "mpp": source.mpp,
            "mpp_source": source.mpp_source,
            "stain": self.asked.stain_of(source),
            "regions": [list(region) for region in self.asked.regions],
            "network": self.finder.digest,
            "version": __version__,
        }

    def _settings(self, image: Opened, part: Part, stain: str | None) -> dict[str, Any]:
        """What results depend on besides the content of the input, as JSON values."""
        region = part.region
        return {
            "mpp": image.mpp,
            "mpp_source": image.mpp_source,
            "stain": stain,
            "region": list(region.box) if region else None,
            "core": list(region.core) if region and region.core else None,
            "network": self.finder.digest,
            "version": __version__,
        }

    def _outcome(
        self,
        source: Source,
        found: Sequence[Found],
        failures: list[Failure],
        notes: list[str],
        seconds: float,
    ) -> Outcome:
        status, noun = "done", self.finder.noun
        if not found:
            status = "failed" if failures else "empty"
        elif all(part.before for part in found):
            status = "before"
        return Outcome(
            source.path,
            status,
            file=found[0].file if found else None,
            rows=sum(part.facts[noun] for part in found),
            new=sum(part.facts[noun] for part in found if not part.before),
            seconds=seconds,
            failures=failures,
            notes=[*_positive(found), *_notes_of_parts(found), *notes],
        )


def _file(out: Path, name: str) -> Path:
    """The label map of a result, else its GeoJSON."""
    return labels_file(out, name) or out / f"{name}.geojson"


def _positive(found: Iterable[Found]) -> list[str]:
    """The share of positive nuclei of all parts that are IHC."""
    facts = [part.facts for part in found if part.facts.get("positive") is not None]
    positive, nuclei = (sum(fact[key] for fact in facts) for key in ("positive", "nuclei"))
    return [f"{positive / nuclei:.1%} positive"] if nuclei else []


def _notes_of_parts(found: Sequence[Found]) -> list[str]:
    """The notes of all parts, each once, with the number of parts if it is not all."""
    counts = Counter(note for part in found for note in part.facts["notes"])
    whole = len(found)
    return [
        note if n == whole else f"{note} ({n} of {whole} regions)" for note, n in counts.items()
    ]
