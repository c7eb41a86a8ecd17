"""The loop of `pathencoder nuclei` and dense heads over inputs, its summary, and `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pathencoder.cli.common import echo_json, plural
from pathencoder.cli.jobs import Ended, Loop, conclude, reason_of
from pathencoder.cli.nuclei_names import Results, choose_name
from pathencoder.cli.nuclei_pictures import opened
from pathencoder.cli.nuclei_run import Asked, Found, Run
from pathencoder.cli.nuclei_sources import Source, Sources
from pathencoder.cli.remote_slides import staging_of
from pathencoder.cli.report import WORDS, failure_lines, left_out_lines
from pathencoder.errors import ImageError
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure
from pathencoder.text import duration
from pathencoder.walk import printable

_SHOWN = 5  # failed regions of one slide


def run_all(run: Run, sources: Sources, *, as_json: bool) -> int:
    """Segment all inputs and report.

    Args:
        run: The settings, and what finds objects.
        sources: The inputs.
        as_json: Print JSON instead of text.

    Returns:
        The exit status.
    """
    loop = Loop(run.do, lambda s: s.path, lambda s: s.key, unit="region", debug=run.debug)
    with staging_of(sources.all, run.asked.scratch, run.needs) as run.staging:
        ended = loop.run(sources.all)
    return conclude(
        ended,
        run.asked.out,
        as_text=lambda failures: _text(ended, run, sources, failures),
        as_json=(lambda failures: _json(ended, run, sources, failures)) if as_json else None,
        debug=run.debug,
    )


def list_only(sources: Sources, asked: Asked, *, as_json: bool) -> int:
    """Print the inputs, their scales and the names of their results; write nothing.

    Args:
        sources: The inputs.
        asked: The settings.
        as_json: Print JSON instead of text.

    Returns:
        The exit status: 3 if an input would fail, judged by its header.
    """
    there = Results(asked.out)
    plans = [_plan(source, asked, there) for source in sources.all]
    status = 3 if any("problem" in plan for plan in plans) else 0
    if as_json:
        echo_json({"out": asked.out, "status": status, **_beside(sources), "inputs": plans})
        return status
    for line in [
        *map(_plan_line, plans),
        *_beside_lines(sources),
        "Nothing was written (--dry-run).",
    ]:
        click.echo(printable(line))
    return status


def _plan_line(plan: Mapping[str, Any]) -> str:
    if "problem" in plan:
        return f"{plan['input']}: would fail: {plan['problem']}"
    scale = "its scale unknown"
    if "download" in plan:
        size = f"{plan['download'] / 1e6:,.0f} MB to download"
        return f"{plan['input']}: {plan['kind']}, {size}; its scale and its regions are read then"
    if plan["mpp"] is not None:
        scale = f"{plan['mpp']:.4g} um/px ({plan['mpp_source']})"
    return f"{plan['input']}: {plan['kind']}, {scale} -> {plan['results']}"


def _plan(source: Source, asked: Asked, there: Results) -> dict[str, Any]:
    plan: dict[str, Any] = {"input": str(source.path), "kind": source.kind}
    if source.remote is not None:
        return {**plan, "mpp": source.mpp, "download": source.remote.size}
    try:
        with opened(source, asked.stain_of(source)) as image:
            parts = image.parts(asked.regions).all
            problems = [p.region.problem for p in parts if p.region and p.region.problem]
            if problems:
                raise ImageError(problems[0])
            names = choose_name(there, source, [part.suffix for part in parts])
            several = f"{len(parts):,} regions, {names.text}_x*_y*"
            results = several if len(parts) > 1 else names.text + "".join(p.suffix for p in parts)
            scale = {"mpp": image.mpp, "mpp_source": image.mpp_source or "assumed"}
            return {**plan, **scale, "results": results}
    except Exception as error:
        return {**plan, "problem": reason_of(error).removeprefix(f"{source.path}: ")}


def _text(ended: Ended, run: Run, sources: Sources, failures: Path | None) -> str:
    lines = [line for o in ended.outcomes for line in _lines(o, run)]
    good = sum(o.status in ("done", "before", "empty") for o in ended.outcomes)
    objects, noun = sum(o.rows for o in ended.outcomes), run.finder.noun
    lines += _beside_lines(sources)
    done = f"{plural(good, 'input')} of {len(ended.outcomes):,} done"
    lines.append(f"{done}, {objects:,} {noun}, in {run.asked.out}")
    return "\n".join([*lines, *failure_lines(ended.outcomes, failures)])


def _lines(outcome: Outcome, run: Run) -> list[str]:
    found, noun = run.found.get(outcome.source, []), run.finder.noun
    if outcome.status not in ("done", "before"):
        text = [WORDS[outcome.status], *outcome.notes]
    else:
        took = WORDS["before"] if outcome.status == "before" else duration(outcome.seconds)
        regions = [f"{len(found)} regions"] if len(found) > 1 else []
        text = [f"{outcome.rows:,} {noun}", *regions, took, *outcome.notes]
    file = f" -> {outcome.file}" if outcome.file else ""
    lines = [f"{outcome.source}: {', '.join(text)}{file}"]
    reasons = [(f.part, f.reason.removeprefix(f"{outcome.source}: ")) for f in outcome.failures]
    bad = [f"{part}: {reason}" if part else reason for part, reason in reasons]
    more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    return lines + [f"    {line}" for line in [*bad[:_SHOWN], *more]]


def _json(ended: Ended, run: Run, sources: Sources, failures: Path | None) -> dict[str, Any]:
    noun = run.finder.noun
    inputs = [_one_json(o, run.found.get(o.source, []), noun) for o in ended.outcomes]
    about = {"out": run.asked.out, "status": ended.status, "failures": failures}
    return {**about, **_beside(sources), "inputs": inputs}


def _one_json(outcome: Outcome, found: Sequence[Found], noun: str) -> dict[str, Any]:
    return {
        "input": printable(outcome.source),
        "status": outcome.status,
        "labels": outcome.file,
        noun: outcome.rows,
        "seconds": round(outcome.seconds, 2),
        "notes": outcome.notes,
        "results": [_result_json(part) for part in found],
        "failures": [_failure_json(failure) for failure in outcome.failures],
    }


def _result_json(part: Found) -> dict[str, Any]:
    facts = {key: part.facts[key] for key in part.facts if key not in ("source", "settings")}
    return {"name": part.name, "labels": part.file, **facts}


def _failure_json(failure: Failure) -> dict[str, str]:
    return {"part": failure.part, "error": failure.kind, "reason": failure.reason}


def _beside(sources: Sources) -> dict[str, Any]:
    left_out = [{"path": printable(left.path), "reason": left.reason} for left in sources.left_out]
    return {"notes": sources.notes, "left_out": left_out}


def _beside_lines(sources: Sources) -> list[str]:
    return [*left_out_lines(sources.left_out), *(f"Note: {note}" for note in sources.notes)]
