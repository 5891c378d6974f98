"""sockstat(1) as FreeBSD has it: ``jailctl sockstat``, with the jail of each, and the host's shim, without."""

from __future__ import annotations

import getopt
import ipaddress
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from jailng.ctl import listing
from jailng.errors import JailError, UsageError
from jailng.params.values import visible
from jailng.procs import printed
from jailng.procs.jails import Jails, user_name
from jailng.procs.printed import Heading
from jailng.procs.sockets import DESCRIPTORS, End, Holder, Socket, believed, holders, sockets

USAGE = """usage: jailctl sockstat [-46cLlnqsuw] [--json] [-j jail] [-p ports] [-P protocols]"""
_HEADINGS = [
    Heading("USER", least=8),
    Heading("COMMAND", least=10),
    Heading("PID", least=5),
    Heading("FD", least=3),
    Heading("PROTO", least=6),
    Heading("LOCAL ADDRESS", least=21),
    Heading("FOREIGN ADDRESS", least=21),
]
_JID = Heading("JID", least=5)
_STATE = Heading("CONN STATE")
_COMM = 10  # characters of a program's name
_PORTS = 65536


@dataclass
class Options:
    """The command line, taken apart: what is shown, and how."""

    versions: frozenset[str]
    protocols: frozenset[str]
    ports: frozenset[int]
    jail: str | None
    listening: bool
    connected: bool
    not_loopback: bool
    numeric: bool
    quiet: bool
    state: bool
    wide: bool


def main(argv: list[str]) -> int:
    """Run ``jailctl sockstat``; its exit status. Raises UsageError and JailError."""
    words = [word for word in argv if word != "--json"]
    if len(words) < len(argv):
        return listing.document({"sockets": [_fact(*one) for one in _found(parse(words))]})
    return _show(parse(argv), with_jid=True)


def shim(argv: list[str]) -> int:
    """Run FreeBSD's sockstat. Raises UsageError and JailError."""
    return _show(parse(argv), with_jid=False)


def parse(argv: list[str]) -> Options:
    """The options of a command line. Raises UsageError, and JailError for ports and protocols that are none."""
    try:
        asked, rest = getopt.getopt(argv, "46cj:Llnp:P:qsuw")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    if rest:
        raise UsageError(USAGE)
    letters = {option[1] for option, _ in asked}
    values = dict(asked)
    versions = {version for version in "46" if version in letters}
    protocols = _protocols(values["-P"]) if "-P" in values else {"tcp", "udp"}
    if not versions and "-P" in values:
        versions = {"4", "6"}
    if not versions and "u" not in letters:
        versions = {"4", "6", ""}
    if "u" in letters:
        versions.add("")
    return Options(
        versions=frozenset(versions),
        protocols=frozenset(protocols),
        ports=frozenset(_ports(values["-p"])) if "-p" in values else frozenset(),
        jail=values.get("-j"),
        listening="l" in letters or "c" not in letters,
        connected="c" in letters or "l" not in letters,
        not_loopback="L" in letters,
        numeric="n" in letters,
        quiet="q" in letters,
        state="s" in letters,
        wide="w" in letters,
    )


def _protocols(text: str) -> set[str]:
    chosen = set(text.split(","))
    for name in sorted(chosen - {"tcp", "udp"}):
        raise JailError(f"{visible(name)}: not honoured, only tcp and udp are")
    return chosen


def _ports(text: str) -> set[int]:
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        first, last = first or "0", last or (str(_PORTS - 1) if dash else first)
        if not (first + last).isascii() or not (first + last).isdigit() or part in ("", "-"):
            raise JailError(f"syntax error in port range: {visible(text)}")
        if not 0 <= int(first[:20]) <= int(last[:20]) < _PORTS:
            raise JailError(f"invalid port number: {visible(text)}")
        chosen |= set(range(int(first), int(last) + 1))
    return chosen


def _found(options: Options) -> Iterator[tuple[int, Socket, Holder | None]]:
    """The sockets that were asked for, once for each that holds it, with the jail's jid. Raises JailError."""
    jails = Jails()
    only = jails.jids([options.jail]) if options.jail is not None else None
    listed = [found for found in sockets(jails, unix="" in options.versions) if wanted(found, options)]
    beyond: set[int] = set()
    held = holders(beyond)
    for jid in sorted(beyond):
        what = f"more than {DESCRIPTORS} descriptors are open: not all of them were looked at"
        print(f"sockstat: jail {visible(jails.name(jid))}: {what}", file=sys.stderr)
    for found, who in believed(listed, held):
        holding: list[Holder | None] = [*who] or [None]
        for holder in holding:
            jid = holder.jid if holder else found.jid
            if only is None or (jid in only and holder):
                yield jid, found, holder


def _fact(jid: int, found: Socket, holder: Holder | None) -> dict[str, object]:
    process = holder.process if holder is not None else None
    fact: dict[str, object] = {
        "jid": jid,
        "user": user_name(process.uid) if process is not None else None,
        "uid": process.uid if process is not None else None,
        "command": process.comm if process is not None else None,
        "pid": process.pid if process is not None else None,
        "fd": holder.descriptor if holder is not None else None,
        "protocol": found.protocol + found.version,
        "state": found.state or None,
    }
    if not found.version:
        return {**fact, "path": found.path or None}
    ends = (("local", found.local), ("foreign", found.foreign))
    return {**fact, **{name: {"address": end.address or None, "port": end.port or None} for name, end in ends}}


def _show(options: Options, with_jid: bool) -> int:
    headings = [*([_JID] if with_jid else []), *_HEADINGS, *([_STATE] if options.state else [])]
    rows = [
        [*([str(jid)] if with_jid else []), *_row(found, holder, options), *([found.state] if options.state else [])]
        for jid, found, holder in _found(options)
    ]
    width = 0 if options.wide else listing.shown_width()
    return printed.say([line.rstrip() for line in printed.lines(headings, rows, width, titles=not options.quiet)])


def wanted(found: Socket, options: Options) -> bool:
    """Whether a socket is among those that were asked for."""
    if not found.is_of(options.versions):
        return False
    if found.version == "":
        return options.connected if found.connected else options.listening
    if found.protocol not in options.protocols:
        return False
    if not (options.connected if found.foreign.port else options.listening):
        return False
    if options.ports and not options.ports & {found.local.port, found.foreign.port}:
        return False
    return not (options.not_loopback and found.local.address and ipaddress.ip_address(found.local.address).is_loopback)


def _row(found: Socket, holder: Holder | None, options: Options) -> list[str]:
    who = ["?", "?", "?", "?"]
    if holder is not None:
        uid = holder.process.uid
        name = str(uid) if options.numeric else user_name(uid)
        # It is a process's own to choose, and the pid stands behind it: a column is to be one word.
        command = holder.process.comm[:_COMM].replace(" ", "\\x20")
        who = [name, command, str(holder.process.pid), str(holder.descriptor)]
    return [*who, found.protocol + found.version, *_ends(found)]


def _ends(found: Socket) -> Iterator[str]:
    if found.version:
        yield _end(found.local)
        yield _end(found.foreign)
    elif found.path:
        yield found.path
        yield ""
    else:
        yield "-> ??" if found.connected else "(not connected)"
        yield ""


def _end(end: End) -> str:
    return f"{end.address or '*'}:{end.port or '*'}"
