"""``jailctl log``: what is logged of a jail outside it, whether that is whole, and the key to check it with."""

from __future__ import annotations

import calendar
import os
import re
import select
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jailng.ctl import listing
from jailng.errors import JailError, UsageError, explain
from jailng.observe import entry, store, verification
from jailng.observe.chain import Chain
from jailng.observe.logger import FOLDER, SEALS, chain_of
from jailng.observe.logreader import Reader
from jailng.observe.report import Report
from jailng.observe.seal import Head, Key, Seal
from jailng.params.values import visible
from jailng.procs import jsontext

USAGE = """usage: jailctl log [-f] [-n lines] [--kind kind[,...]] [--since time] [--json] jail
       jailctl log verify [--key key|file] [--head number:hash] [--json] jail
       jailctl log key [--setup | --take] jail"""
_GROUPS = {
    "connections": "connect connected failed accepted closed listening flow",
    "logins": "login logout session session-end user",
}
_KINDS = frozenset(
    f"{' '.join(_GROUPS.values())} exec syslog dropped socket file started resumed ended refused".split()
)
# What stands before the rest, which is said as key=value, or is the chain's own.
_LEADING = ("pid", "uid")
_UNSAID = (
    "seq time kind jail jid prev mac pid uid gid host_pid host_uid host_gid message facility severity claimed_time "
    "base64 argv path chain inode dev sid ppid host_ppid"
).split()
_PARTING = frozenset(" ='\"")  # what a value of the guest's could end by
_SECOND = 1.0
_SHORT = re.compile(r"(?<=\.\d{3})\d{6}Z$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def main(argv: list[str]) -> int:
    """Run; the exit status. Raises UsageError, JailError and OSError."""
    if len(argv) > 1 and argv[0] == "key":
        return _key(argv[1:])
    if len(argv) < 2 or argv[0] != "verify":
        return _show(argv)
    try:
        status = _verify(argv[1:])
        sys.stdout.flush()  # here, since 1 says that the log was tampered with, and not that nobody can be told
        return status
    except UsageError as error:
        raise UsageError(str(error), 2) from None
    except BrokenPipeError:
        raise
    except (JailError, OSError) as error:
        raise JailError(explain(error), 2) from None


def _one(words: list[str]) -> str:
    if len(words) != 1:
        raise UsageError(USAGE)
    return words[0]


def _places(word: str) -> tuple[str, Path, Seal]:
    """The name of a jail that runs or of which something is kept, where its log is, and what authenticates it."""
    name = store.named(word)
    seal = Seal(Path(store.BASE, SEALS, name), name)
    folder = Path(store.BASE, name, FOLDER)
    if not name or not (folder.is_dir() or seal.directory.is_dir()):
        raise JailError(f"{visible(word)}: nothing of it is logged")
    return name, folder, seal


# Entries


def _show(argv: list[str]) -> int:
    given, words = listing.options(argv, USAGE, "fn:", ["kind=", "since="])
    _, folder, _ = _places(_one(words))
    if not folder.is_dir():
        raise JailError(f"{folder}: the log is missing")
    kinds = _kinds(given.get("--kind"))
    since = _since(given["--since"]) if "--since" in given else ""
    shown = _as_it_is if "--json" in given else _in_words
    most = _number(given["-n"]) if "-n" in given else None
    reader = Reader(folder)
    changes = reader.changes() if "-f" in given else -1  # before it is read to the end
    found = _chosen(reader.lines(), kinds, since)
    for line in found if most is None else deque(found, most):
        print(shown(entry.fields(line)))
    while "-f" in given:
        sys.stdout.flush()
        select.select([changes], [], [], _SECOND if reader.removed else None)
        for line in _chosen(reader.lines(), kinds, since):
            print(shown(entry.fields(line)))
    return 0


def _kinds(text: str | None) -> set[str] | None:
    """Raises JailError: there are no entries of such a kind."""
    if text is None:
        return None
    for word in text.split(","):
        if word not in _KINDS and word not in _GROUPS:
            raise JailError(f'log: --kind: no entry is of a kind "{visible(word)}"')
    return {kind for word in text.split(",") for kind in _GROUPS.get(word, word).split()}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(USAGE)
    return int(text)


def _since(text: str) -> str:
    """A time as entries have it: of ``2026-11-25 22:15``, ``22:15``, ``90m`` or RFC 3339. Raises UsageError."""
    try:
        if text[-1:] in _UNITS and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 8:
            when = datetime.now().astimezone() - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        else:
            today = time.strftime("%Y-%m-%d")
            when = datetime.fromisoformat(text if "-" in text else f"{today} {text}").astimezone()
        seconds = calendar.timegm(when.utctimetuple())
    except (ValueError, OverflowError):
        raise UsageError(USAGE) from None
    return entry.shown_time(seconds * 10**9 + when.microsecond * 1000)


def _chosen(lines: Iterable[bytes], kinds: set[str] | None, since: str) -> Iterator[bytes]:
    """Those that are wanted; none is taken apart for that: there may be millions."""
    for line in lines:
        when, kind = entry.told(line)
        if (kinds is None or kind in kinds) and when >= since:
            yield line


def _as_it_is(said: dict[str, Any]) -> str:
    return jsontext.dumped(said, spaces=False)


def _in_words(said: dict[str, Any]) -> str:
    """An entry in a line that no terminal minds, and in which no word of the guest's passes for one of the entry's."""
    parts = [_SHORT.sub("Z", str(said.get("time"))), str(said.get("kind"))]
    parts += [f"{name}={said[name]}" for name in _LEADING if said.get(name) is not None]
    if "path" in said:
        parts.append(_word(str(said["path"])))
    if isinstance(said.get("argv"), list):
        parts += [_word(str(word)) for word in said["argv"]]
    parts += [f"{name}={_value(value)}" for name, value in said.items() if name not in _UNSAID]
    if "message" in said:
        where = ".".join([str(said[name]) for name in ("facility", "severity") if name in said])
        parts += [where or "-", str(said["message"])]  # no word of its own stands where a field could
    return visible(" ".join(parts))


def _word(text: str) -> str:
    """As a shell has it, and in quotes as well where it looks like a field."""
    quoted = shlex.quote(text)
    return f"'{text}'" if quoted == text and "=" in text else quoted


def _value(value: object) -> str:
    text = listing.plain(value)
    return _word(text) if set(text) & _PARTING or not text.isprintable() else text


# Whether it is whole


def _verify(argv: list[str]) -> int:
    given, words = listing.options(argv, USAGE, "", ["key=", "head="])
    name, folder, seal = _places(_one(words))
    if "--key" in given:
        key: Key | None = _given_key(given["--key"])
    else:
        key = seal.key()
    anchors = [_head(given["--head"])] if "--head" in given else []
    report = verification.verify(folder, seal, key, anchors)
    if "--json" in given:
        print(jsontext.dumped(_as_json(name, report), indent=2))
    else:
        _tell(name, report)
    return report.status


def _given_key(text: str) -> Key:
    """A key, or a file that has it; ``-`` is standard input. Raises JailError, OSError."""
    if text == "-":
        text = sys.stdin.read(4096)
    elif "/" in text or os.path.exists(text):
        with open(text, encoding="utf-8", errors="replace") as file:
            text = file.read(4096)
    return Key.parse(text)


def _head(text: str) -> Head:
    entries, colon, prev = text.partition(":")
    if not colon or len(prev) != 64:
        raise UsageError(USAGE)
    return Head("", _number(entries), prev)


def _as_json(name: str, report: Report) -> dict[str, object]:
    return {
        "jail": name,
        "chain": report.chain,
        "status": "incomplete" if report.incomplete else ("whole", "altered", "unverified")[report.status],
        "first": report.first,
        "entries": report.entries,
        "head": f"{report.entries}:{report.prev}",
        "files": report.files,
        "problems": [vars(problem) for problem in report.problems],
        "notes": report.notes,
    }


def _tell(name: str, report: Report) -> None:
    name = visible(name)
    for problem in report.problems:
        print(f"{name}: {visible(problem.text)}")
    for note in report.notes:
        print(f"{name}: note: {visible(note)}")
    range_ = f"entries {report.first} to {report.entries - 1}" if report.entries else "no entry"
    judged = (
        "whole",
        "altered",
        "no difference found, but whoever changes it can make its hashes anew: check it with --key",
    )
    verdict = "incomplete" if report.incomplete else judged[report.status]
    print(f"{name}: {range_} in {len(report.files)} file{'s' * (len(report.files) != 1)}: {verdict}")
    if report.prev and not report.problems:
        print(f"{name}: head {report.entries}:{report.prev}")


# The key


def _key(argv: list[str]) -> int:
    given, words = listing.options(argv, USAGE, "", ["setup", "take"])
    word = _one(words)
    if "--setup" in given:
        return _set_up(word)
    name, _, seal = _places(word)
    key = seal.key()
    if key is None:
        raise JailError(f"{visible(name)}: the verification key is not on this host")
    state = seal.state()
    print(Key(key.chain, key.secret, state.seq if state is not None else 0).text)
    if "--take" in given:
        sys.stdout.flush()  # who does not get it does not take it away
        seal.take_key()
    return 0


def _set_up(name: str) -> int:
    """Begin a log for a jail, before it is first started, of which this host never has the verification key."""
    from jailng.params.model import check_name

    check_name(name, int(name) if name.isascii() and name.isdigit() else 0)
    folder, seal = chain_of(name)
    if seal.state() is not None:
        raise JailError(f"{visible(name)}: there is a log of that name, with a key of its own")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with closing(Chain(folder, seal, {"jail": name, "jid": 0}, keep_key=False)) as chain:
        if chain.key is None:
            raise JailError(f"{visible(name)}: there is a log of that name, with a key of its own")
        key = chain.key.text
    try:
        print(key)
        sys.stdout.flush()
    except OSError:  # a log whose key nobody has is no use
        (folder / entry.file_name(0)).unlink()
        seal.discard()
        raise
    return 0
