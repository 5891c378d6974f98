"""What follows from what the probes said: a state for each, and the whole as a table or as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jailng.audit import expected, inside, kernel  # noqa: F401  # inside: it registers the probes
from jailng.audit.catalogue import rows_of
from jailng.audit.enter import Said
from jailng.audit.probe import ABSENT, BROKEN, ESCAPED, EXPOSED, HELD, PROBES, SEEN, Facts, Probe, Verdict
from jailng.params.values import visible

OPENED = "opened"  # exposed or escaped, by a parameter that the jail was given
UNKNOWN = "unknown"  # nothing was found out
# From the worst; each with what the exit status is when there is one.
STATES = {ESCAPED: 2, UNKNOWN: 1, EXPOSED: 1, OPENED: 1, HELD: 0, ABSENT: 0}


@dataclass(frozen=True)
class Result:
    """A probe and what came of it. ``why`` is the reason, where one is known, or the parameter that opens it."""

    probe: Probe
    state: str
    said: str
    why: str = ""

    @property
    def identity(self) -> str:
        """The probe's name as one word."""
        return re.sub(r"[^a-z0-9]+", "-", self.probe.name.lower()).strip("-")

    def as_json(self) -> dict[str, object]:
        """What ``--json`` has of it."""
        kind, _, tries = self.probe.name.partition(": ")
        return {
            "id": self.identity,
            "class": kind,
            "rows": list(rows_of(self.probe.name)),
            "tries": tries,
            "state": self.state,
            "said": self.said,
            "why": self.why,
        }


def judged(said: Said, facts: Facts, given: list[str] | None = None, prefix: str = "") -> list[Result]:
    """The state of every probe whose name begins so.

    ``given`` are the parameters of the jail that open anything (expected.given), None for what is no jail of ours.
    """
    return [_result(probe, said.get(name), facts, given) for name, probe in PROBES.items() if name.startswith(prefix)]


def _result(probe: Probe, heard: Verdict | None, facts: Facts, given: list[str] | None) -> Result:
    if heard is None:
        return Result(probe, UNKNOWN, "nothing was said of it")
    verdict, line = _compared(probe, heard, facts)
    line = visible(line[:200])
    if verdict == BROKEN:
        return Result(probe, UNKNOWN, line)
    if verdict in (EXPOSED, ESCAPED) and given is not None:
        parameter = expected.opened_by(probe.name, given)
        if parameter:
            return Result(probe, OPENED, line, f"opened by {parameter}")
        return Result(probe, verdict, line, expected.KNOWN.get(probe.name, ""))
    if verdict == HELD and kernel.lacks(probe.name):
        return Result(probe, ABSENT, line, "not on this kernel")
    return Result(probe, verdict, line)


def _compared(probe: Probe, heard: Verdict, facts: Facts) -> Verdict:
    """What the host makes of what was seen, which may be anything."""
    if heard[0] != SEEN:
        return heard
    if probe.judge is None:
        return BROKEN, "it has nothing to show"
    try:
        return probe.judge(heard[1], facts)
    except (ValueError, KeyError, IndexError) as error:
        return BROKEN, f"what it has seen makes no sense: {error}"


def counts(results: Iterable[Result]) -> dict[str, int]:
    """How many there are in each state."""
    found = dict.fromkeys(STATES, 0)
    for result in results:
        found[result.state] += 1
    return found


def status(results: Iterable[Result]) -> int:
    """The exit status: 0 if all held, 1 if anything is exposed or not known, 2 if anything escaped."""
    return max((STATES[result.state] for result in results), default=0)


def summary(results: Iterable[Result]) -> str:
    """One line of how many there are in each state."""
    return ", ".join(f"{number} {state}" for state, number in counts(results).items() if number or state == HELD)


def by_class(results: list[Result]) -> dict[str, dict[str, int]]:
    """Counts for each class of probes."""
    kinds = dict.fromkeys(result.probe.kind for result in results)
    return {kind: counts(result for result in results if result.probe.kind == kind) for kind in kinds}


def as_json(results: list[Result], about: Mapping[str, str]) -> dict[str, object]:
    """The whole, with what it is about."""
    return {**about, "counts": counts(results), "probes": [result.as_json() for result in results]}
