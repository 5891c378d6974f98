"""``jailctl logs``: what the consoles of jails have said, and with -f what they go on to say."""

from __future__ import annotations

import sys
import time

from jailng.ctl import consolelog, listing, state
from jailng.ctl.consolelog import Place, Reader, Shown
from jailng.errors import JailError, UsageError
from jailng.params.values import visible
from jailng.procs import jsontext, printed

USAGE = "usage: jailctl logs [-f] [-n lines] [--raw | --json] [--file file] jail ..."
_TURN = 0.2  # seconds between two looks at files that nobody tells of
_LAST = 10  # lines that -f begins with


class _Source:
    """One log, and how its lines are written."""

    def __init__(self, place: Place, style: str, prefix: str) -> None:
        self.reader = Reader(place)
        self.jail = place.jail
        self._style = style
        self._prefix = prefix
        self._shown = Shown()
        self._begun = False  # the line that was written last has no end yet

    def drain(self) -> bool:
        """Write all that there is; whether there was anything."""
        some = False
        while lines := self.reader.read():
            some = True
            _write(b"".join([self._made(line) for line in lines]))
        return some

    def finish(self) -> None:
        """Write the line that has no end."""
        for line in self.reader.rest():
            _write(self._made(line + b"\n"))

    def follow(self) -> bool:
        """Write what has come, also to a file of that name that has taken the place of this one; whether it has."""
        some = self.drain()
        if not some and (successor := self.reader.successor()) >= 0:
            self.drain()  # what was written until a moment ago
            self.finish()
            self.reader.go_on(successor)
            some = self.drain()
        return some

    def _made(self, line: bytes) -> bytes:
        if self._style == "raw":
            text = line
        elif self._style == "json":
            said = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
            return jsontext.dumped({"jail": self.jail, "line": said}).encode() + b"\n"
        else:
            text = self._shown.text(line).encode() + (b"\n" if line.endswith(b"\n") else b"")
        prefix = b"" if self._begun else self._prefix.encode()
        self._begun = not line.endswith(b"\n")
        return prefix + text


def main(argv: list[str]) -> int:
    """Run; 1 if a log cannot be read. Raises UsageError, JailError."""
    given, names = listing.options(argv, USAGE, "fn:", ["raw", "file="])
    if not names or {"--raw", "--json"} <= given.keys():
        raise UsageError(USAGE)
    follow = "-f" in given
    last = _number(given["-n"]) if "-n" in given else _LAST if follow else -1
    known = state.everything(given.get("--file"))
    if "--file" in given and known.wrong:
        raise JailError(visible(known.wrong[0]))
    places = list(dict.fromkeys([consolelog.place(known, name) for name in names]))
    wide = max([len(visible(place.jail)) for place in places])
    style = "raw" if "--raw" in given else "json" if "--json" in given else "shown"
    sources = [_Source(one, style, f"{visible(one.jail):<{wide}} | " if len(places) > 1 else "") for one in places]
    status = 0
    for source in sources:
        status |= _begin(source, last, follow)
    for source in sources:
        if not follow:
            source.finish()
    while follow:
        came = [source.follow() for source in sources]
        if not any(came):
            time.sleep(_TURN)
    return status


def _begin(source: _Source, last: int, follow: bool) -> int:
    try:
        source.reader.start(last, follow)
    except OSError as error:
        absent = follow and isinstance(error, FileNotFoundError)
        what = "waiting for it" if absent else error.strerror
        sys.stderr.write(f"jailctl: {visible(source.jail)}: {visible(str(error.filename))}: {what}\n")
        return int(not absent)
    source.drain()
    return 0


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise JailError(f"logs: -n {visible(text)}: not a number of lines")
    return int(text)


def _write(data: bytes) -> None:
    try:
        printed.write(data)
    except OSError as error:
        raise JailError(f"standard output: {error.strerror}") from None
