"""watch(8) as FreeBSD has it, for the terminals of jails: ``jailctl watch``, and the host's shim."""

from __future__ import annotations

import fcntl
import getopt
import os
import re
import select
import signal
import sys
import termios
import time
from dataclasses import dataclass
from types import FrameType

from jailng.core import attach, registry
from jailng.core.registry import Record
from jailng.ctl import listing
from jailng.ctl.screen import Screen
from jailng.errors import JailError, UsageError
from jailng.observe import client, event, ptys
from jailng.observe.client import Watching
from jailng.observe.event import Event
from jailng.observe.ptys import Terminal
from jailng.params.values import visible
from jailng.procs import printed
from jailng.procs.jails import named, user_name

USAGE = "usage: jailctl watch [-ciotnW] [--json | --raw] jail [tty]"
_SHIM_USAGE = "usage: watch [-ciotnW] [tty name]"
_LETTERS = "Wciotnf:"
_TTY = re.compile(r"(?:/dev/)?(?:pts/)?([0-9]{1,9})")
_NAMED_TTY = re.compile(r"(?:/dev/)?pts/([0-9]{1,9})")
# sysexits(3)
_EX_USAGE, _EX_DATAERR, _EX_UNAVAILABLE, _EX_IOERR = 64, 65, 69, 74

_BEGUN = "Snoop started."
_OVERFLOWN = "Snoop stopped due to overflow. Reconnecting."
_CLOSED = "Snoop stopped due to tty close. Reconnecting."
_CHANGED = "Snoop device change by user request."
_NOT_WRITTEN = "Snoop device change due to write failure."
_LINE = "-" * 45
_EXIT, _CLEAR, _SWITCH = 7, 23, 24  # ^G ^W ^X
_SIZE = 4096


@dataclass
class Options:
    """What was said before the operands."""

    reconnect_on_close: bool = False
    reconnect_on_overflow: bool = False
    interactive: bool = False
    timestamps: bool = False
    no_switch: bool = False
    write: bool = False
    json: bool = False
    raw: bool = False


def main(argv: list[str]) -> int:
    """Run ``jailctl watch``; its exit status. Raises UsageError and JailError."""
    options, words = _parsed(argv, USAGE, ["json", "raw"])
    if not 1 <= len(words) <= 2 or (options.json and options.raw):
        raise UsageError(USAGE, _EX_USAGE)
    record = named(words[0], lambda jid: f"jail {jid} not found")
    if options.json:
        return _list([record])
    return _Watch(options, [record]).run(words[1] if len(words) > 1 else None)


def shim(argv: list[str]) -> int:
    """Run FreeBSD's watch; a jail's name may stand before the tty's. Raises UsageError for what is none of its."""
    options, words = _parsed(argv, _SHIM_USAGE, [])
    records = [one for one in registry.records() if one.alive()]
    if words and not _NAMED_TTY.fullmatch(words[0]):
        found = registry.find(words[0])
        if found is None or len(words) > 2 or (len(words) == 2 and not _TTY.fullmatch(words[1])):
            raise UsageError(_SHIM_USAGE, _EX_USAGE)
        records, words = [found], words[1:]
    if len(words) > 1:
        raise UsageError(_SHIM_USAGE, _EX_USAGE)
    if os.geteuid() != 0:  # who sees no terminal of a jail, as if there were none
        raise JailError("fatal: Operation not permitted", _EX_UNAVAILABLE)
    return _Watch(options, records).run(words[0] if words else None)


def _parsed(argv: list[str], usage: str, long: list[str]) -> tuple[Options, list[str]]:
    try:
        given, words = getopt.getopt(argv, _LETTERS, long)
    except getopt.GetoptError:
        raise UsageError(usage, _EX_USAGE) from None
    found = Options(interactive=os.isatty(1))
    for name, _ in given:
        if name == "-f":
            raise JailError("-f: there is no snp(4) here, and none is needed", _EX_USAGE)
        setattr(found, _FIELDS[name], True)
    return found, words


_FIELDS = {
    "-W": "write",
    "-c": "reconnect_on_close",
    "-i": "interactive",
    "-n": "no_switch",
    "-o": "reconnect_on_overflow",
    "-t": "timestamps",
    "--json": "json",
    "--raw": "raw",
}
_COLUMNS = [
    listing.Column("jail"),
    listing.Column("tty"),
    listing.Column("user"),
    listing.Column("pid", left=False),
    listing.Column("command"),
    listing.Column("opener", left=False),
    listing.Column("by"),
    listing.Column("remote"),
]


def _rows(records: list[Record]) -> list[listing.Row]:
    rows: list[listing.Row] = []
    for record in records:
        for one in ptys.terminals(record.init_pid, record.cgroup):
            user, opener = one.user, one.opener
            rows.append(
                {
                    "jail": record.name,
                    "jid": record.jid,
                    "tty": one.name,
                    "user": _user(record, user.uid) if user else None,
                    "uid": user.uid if user else None,
                    "pid": user.pid if user else None,
                    "command": user.comm if user else None,
                    "opener": opener.pid if opener else None,
                    "by": opener.comm if opener else None,
                    "remote": (ptys.remote(opener.pid) if opener else "") or None,
                }
            )
    return rows


def _user(record: Record, uid: int) -> str:
    """A uid as it is inside."""
    inside = uid - record.owner
    return str(inside) if record.owner and 0 <= inside < 65536 else user_name(uid)


def _list(records: list[Record]) -> int:
    return listing.show("terminals", _COLUMNS, _rows(records), True)


class _Over(Exception):
    """The watching ends; the exit status."""

    def __init__(self, status: int = 0) -> None:
        super().__init__()
        self.status = status


class _Watch:
    """One run of the program. ``records``: the jails in which terminals are looked for."""

    def __init__(self, options: Options, records: list[Record]) -> None:
        self.options = options
        self.records = records
        self.record = records[0] if records else None
        self.post: Watching | None = None
        self.terminal: Terminal | None = None
        self.slave = -1
        self.name = ""
        self.screen = Screen(options.interactive, options.raw)
        self.heard = options.interactive  # whether standard input is read from

    def run(self, name: str | None) -> int:
        """Until it is left."""
        self.name = name or ""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupted)
        self.screen.enter()
        try:
            if name is None:
                if not self.options.interactive or self.options.no_switch:
                    raise JailError("fatal: no device name given", _EX_DATAERR)
                self._ask(_BEGUN)
            self._attach()
            while True:
                self._turn()
        except _Over as over:
            if self.options.timestamps:
                self._stamp("Logging Exited.")
            return over.status
        finally:
            self.screen.leave()
            if self.post is not None:
                self.post.close()

    def _interrupted(self, number: int, _: FrameType | None) -> None:
        raise _Over(0 if number == signal.SIGINT else 128 + number)

    # Which terminal.

    def _ask(self, message: str) -> None:
        """What FreeBSD's asks, with a list of what there is before it."""
        self.screen.clear()
        self.screen.leave()
        print(message)
        for line in listing.lines(_COLUMNS, _rows(self.records)):
            print(line)
        print(f"Enter device name [{visible(self.name)}]:" if self.name else "Enter device name:", end="", flush=True)
        try:
            answer = sys.stdin.readline()
        except UnicodeDecodeError:
            answer = "?"
        if not answer:
            raise _Over
        answer = answer.rstrip("\n")
        if answer and not answer.startswith(" "):
            self.name = answer
        self.screen.enter()

    def _attach(self) -> None:
        """Find the terminal, and have its events. Raises JailError."""
        record, number = self._meant()
        found = next((one for one in ptys.terminals(record.init_pid, record.cgroup) if one.number == number), None)
        if found is None:
            raise JailError("fatal: bad device name", _EX_DATAERR)
        if self.post is None or self.record is not record:
            if self.post is not None:
                self.post.close()
            self.post = client.connect(record)
        self.record, self.terminal = record, found
        self.post.watch(found.dev, number)
        if self.options.write:
            self._open()
        if self.options.timestamps:
            self._stamp("Logging Started.")

    def _meant(self) -> tuple[Record, int]:
        """The jail, and the terminal in it, of ``name``: ``[JAIL ]TTY``."""
        *jail, tty = self.name.split() or [""]
        match = _TTY.fullmatch(tty)
        if match is None or len(jail) > 1:
            raise JailError("fatal: bad device name", _EX_DATAERR)
        number = int(match[1])
        records = [one for one in self.records if not jail or jail[0] in (one.name, str(one.jid))]
        if len(records) > 1:
            records = [one for one in records if number in ptys.present(one.init_pid)[1]]
        if not records:
            raise JailError("fatal: bad device name", _EX_DATAERR)
        if len(records) > 1:
            names = ", ".join(visible(one.name) for one in records)
            raise JailError(
                f"pts/{number}: there is one in {names}: say which jail, as in `{names.split(',')[0]} {tty}'"
            )
        return records[0], number

    def _open(self) -> None:
        assert self.record is not None and self.terminal is not None
        init = attach.open_init(self.record)
        try:
            self.slave = ptys.open_slave(self.record.init_pid, self.terminal.dev, self.terminal.number)
        except OSError as error:
            raise JailError(f"fatal: cannot attach to tty: {error.strerror}", _EX_UNAVAILABLE) from None
        finally:
            os.close(init)

    def _detach(self) -> None:
        """Hear nothing more of the terminal. The post stays: it may be this very jail that is watched next."""
        if self.post is not None:
            try:
                self.post.pause()
            except OSError:
                self.post.close()
                self.post = None
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def _change(self, message: str, again: bool) -> None:
        """Watch the same once more (``again``), or another, or leave."""
        if again:
            return
        if not self.options.interactive or self.options.no_switch:
            raise _Over
        self._detach()
        self._ask(message)
        self._attach()

    # What happens.

    def _turn(self) -> None:
        assert self.post is not None
        waiter = select.poll()
        waiter.register(self.post.fd, select.POLLIN)
        if self.heard:
            waiter.register(0, select.POLLIN)
        ready = [fd for fd, _ in waiter.poll()]
        if 0 in ready:
            typed = os.read(0, _SIZE)
            self.heard = bool(typed)
            self._key(typed)
        elif self.post.fd in ready:
            one = self.post.read()
            if one is None:
                self.post.close()
                self.post = None
                self._change(_CLOSED, False)
            else:
                self._show(one)

    def _key(self, typed: bytes) -> None:
        passed = b""
        for at, key in enumerate(typed):
            if key == _EXIT:
                self._type(passed)
                raise _Over
            if key == _CLEAR:
                self.screen.clear()
            elif key == _SWITCH and not self.options.no_switch:
                self._type(passed)
                self._change(_CHANGED, False)
                self._key(typed[at + 1 :])
                return
            else:
                passed += bytes([key])
        self._type(passed)

    def _type(self, typed: bytes) -> None:
        """Into the terminal, as if its user had."""
        if not typed or not self.options.write or self.terminal is None or self.post is None:
            return
        try:
            self.post.typed(self.terminal.dev, self.terminal.number, typed)
            for at in range(len(typed)):
                fcntl.ioctl(self.slave, termios.TIOCSTI, typed[at : at + 1])
        except OSError:
            if self.options.no_switch:
                raise JailError("fatal: write failed", _EX_IOERR) from None
            self._change(_NOT_WRITTEN, False)

    def _show(self, one: Event) -> None:
        if one.kind == event.OUTPUT:
            self.screen.show(one.data)
        elif one.kind == event.DROPPED:
            self._change(_OVERFLOWN, self.options.reconnect_on_overflow)
        elif one.kind == event.UNRECORDED:
            self._say(f"{one.count} bytes could not be seen: {one.data.decode('ascii', 'replace')}")
        elif one.kind == event.END:
            self._change(_CLOSED, self.options.reconnect_on_close)
        elif one.kind == event.START and self.options.timestamps:
            self._stamp("Logging Started.")

    def _say(self, text: str) -> None:
        os.write(2, f"\r\n[watch: {text}]\r\n".encode())

    def _stamp(self, text: str) -> None:
        self.screen.clear()
        now = time.strftime("Time: %d %b %H:%M")
        end = self.screen.end
        printed.write(end.join(["", _LINE, now, text, _LINE, ""]).encode())
