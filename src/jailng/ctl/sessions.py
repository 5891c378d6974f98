"""jailctl sessions: what is recorded of jails' terminals: a list, what was typed or shown in it, and the bytes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from jailng.core import registry
from jailng.ctl import listing, replay
from jailng.ctl.listing import Column
from jailng.errors import JailError, UsageError
from jailng.observe import cast, catalogue, session, store
from jailng.observe.catalogue import Session
from jailng.observe.search import Match, search
from jailng.params.values import visible
from jailng.procs import printed

USAGE = """usage: jailctl sessions [-a] [--json] [--since time] [--user user] [jail ...]
       jailctl sessions [-ai] [--json] [--since time] [--user user] [--typed | --shown]
                        --search text | --regex expression [jail ...]
       jailctl sessions --raw [--typed] id"""
_WORDS = ["raw", "regex=", "search=", "shown", "since=", "typed", "user="]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(\d{1,9})([smhdw])")


def main(argv: list[str]) -> int:
    """Run; the exit status: of a search, 1 if nothing was found. Raises UsageError, JailError and OSError."""
    given, words = listing.options(argv, USAGE, "ai", _WORDS)
    if ("--typed" in given and "--shown" in given) or ("--search" in given and "--regex" in given):
        raise UsageError(USAGE)
    if "--raw" in given:
        if len(words) != 1:
            raise UsageError(USAGE)
        return replay.dump(catalogue.find(words[0]), cast.INPUT if "--typed" in given else cast.OUTPUT)
    pattern = _pattern(given)
    since = _since(given["--since"]) if "--since" in given else None
    names = [_name(word) for word in words] or store.jails()
    found = [one for one in catalogue.sessions(names) if _is_wanted(one, given, since)]
    found.sort(key=lambda one: one.start)
    if pattern is not None:
        codes = cast.INPUT if "--typed" in given else cast.OUTPUT if "--shown" in given else cast.INPUT + cast.OUTPUT
        return _search(found, pattern, codes, "--json" in given)
    return _list(found, {name: catalogue.missing(name) for name in names}, "--json" in given)


def _name(word: str) -> str:
    """The jail of a name or jid, running or not, of which sessions are kept. Raises JailError."""
    record = registry.find(word)
    name = record.name if record is not None else word
    if name in ("", ".", "..") or "/" in name:
        raise JailError(f'jail "{visible(word)}" not found')
    fd = catalogue.directory(name)
    if fd < 0:
        if record is None:
            raise JailError(f"{visible(word)}: no such jail runs, and no session of one is recorded")
        return name
    os.close(fd)
    return name


def _since(text: str) -> float:
    match = _AGO.fullmatch(text)
    if match:
        return time.time() - int(match.group(1)) * _UNITS[match.group(2)]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise JailError(f"sessions: --since: not a time, as 2026-11-25 18:00, or 90m: {visible(text)}") from None


def _pattern(given: dict[str, str]) -> re.Pattern[str] | None:
    flags = re.IGNORECASE if "-i" in given else re.NOFLAG
    if "--search" in given:
        return re.compile(re.escape(given["--search"]), flags)
    if "--regex" not in given:
        return None
    try:
        return re.compile(given["--regex"], flags | re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise JailError(f"sessions: --regex: {visible(given['--regex'])}: {error}") from None


def _is_wanted(one: Session, given: dict[str, str], since: float | None) -> bool:
    if since is not None and one.start + one.duration < since:
        return False
    if "--user" in given and given["--user"] not in (one.user, str(one.uid)):
        return False
    # One in which nothing was shown, typed or missed.
    empty = not (one.counts.shown or one.counts.typed or one.counts.dropped or one.unrecorded)
    return "-a" in given or not empty or one.state in (session.LIVE, session.DAMAGED)


# The list.


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _length(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


_COLUMNS = [
    Column("id"),
    Column("jail"),
    Column("tty"),
    Column("user"),
    Column("from"),
    Column("start", shown=_clock),
    Column("duration", left=False, shown=_length),
    Column("in", left=False),
    Column("out", left=False),
    Column("dropped", left=False),
    Column("unrecorded", left=False),
    Column("state"),
]


def row(one: Session) -> dict[str, Any]:
    """A session as JSON has it. Times in seconds; ``in`` and ``out`` bytes in the record."""
    facts = one.facts
    return {
        "id": one.id,
        "jail": one.jail,
        "jid": one.jid,
        "tty": one.tty,
        "user": one.user,
        "uid": one.uid,
        "from": str(facts.get("remote", "")),
        "pid": facts.get("user_pid", facts.get("pid", 0)),
        "command": str(facts.get("user_comm", facts.get("comm", ""))),
        "start": one.start,
        "duration": one.duration,
        "columns": one.width,
        "rows": one.height,
        "in": one.counts.typed,
        "out": one.counts.shown,
        "dropped": one.counts.dropped,
        "unrecorded": one.unrecorded,
        "reasons": one.counts.unrecorded,
        "gaps": one.counts.gaps,
        "whole": "late" not in facts,
        "state": one.state,
        "size": one.size,
        "file": one.path,
    }


def _list(found: list[Session], missing: dict[str, dict[str, dict[str, int]]], as_json: bool) -> int:
    more = {"missing": {name: what for name, what in missing.items() if what}}
    status = listing.show("sessions", _COLUMNS, [row(one) for one in found], as_json, more)
    return status or (0 if as_json else printed.say([visible(line) for line in _missing(missing)]))


def _missing(missing: dict[str, dict[str, dict[str, int]]]) -> Iterator[str]:
    for name, what in missing.items():
        told = []
        if "unrecorded" in what:
            why = ", ".join([f"{size} ({why})" for why, size in what["unrecorded"].items()])
            told.append(f"bytes not recorded: {why}")
        if "sessions" in what:
            told.append(f"sessions without a file: {sum(what['sessions'].values())}")
        if "events" in what:
            told.append(f"events dropped: {sum(what['events'].values())}")
        if "files" in what:
            told.append(f"oldest sessions removed: {sum(what['files'].values())}")
        if told:
            yield f"{name}: {'; '.join(told)}"


# Searches.


def _search(found: Iterable[Session], pattern: re.Pattern[str], codes: str, as_json: bool) -> int:
    matches = _matches(found, pattern, codes)
    if as_json:
        rows = [_match(one, match) for one, match in matches]
        return listing.document({"matches": rows}) or int(not rows)
    any_found = False
    for one, match in matches:
        any_found = True
        how = "typed" if match.code == cast.INPUT else "shown"
        context = visible(match.before + match.text + match.after)
        status = printed.say([f"{one.id} {visible(one.jail)} {_clock(one.start + match.time)} {how}: {context}"])
        if status:
            return status
    return int(not any_found)


def _matches(found: Iterable[Session], pattern: re.Pattern[str], codes: str) -> Iterator[tuple[Session, Match]]:
    for one in found:
        try:
            file = one.open()
        except (FileNotFoundError, JailError):
            continue  # gone meanwhile
        with file:
            for match in search(file, pattern, codes):
                yield one, match


def _match(one: Session, match: Match) -> dict[str, Any]:
    return {
        "id": one.id,
        "jail": one.jail,
        "tty": one.tty,
        "time": one.start + match.time,
        "at": match.time,
        "stream": "typed" if match.code == cast.INPUT else "shown",
        "before": match.before,
        "text": match.text,
        "after": match.after,
    }
