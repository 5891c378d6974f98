"""netstat(1) as FreeBSD has it: the connections of the host and of its jails in one table, as one kernel has them, and
routes and interfaces.
"""

from __future__ import annotations

import errno
import getopt
import os
from dataclasses import dataclass
from typing import Any

from jailng.ctl import listing, netinterfaces, netroutes, vnet
from jailng.errors import JailError, UsageError
from jailng.linux import rtnetlink as rt
from jailng.params.values import visible
from jailng.procs import jsontext, printed
from jailng.procs.jails import Jails, named
from jailng.procs.sockets import End, Socket, believed, holders, sockets

USAGE = """usage: netstat [--libxo json] [-j jail] -n [-46aW] [-f address_family] [-p protocol]
       netstat [--libxo json] [-j jail] -i | -I interface [-46bdnW] [-f address_family]
       netstat [--libxo json] [-j jail] -r [-46anW] [-f address_family] [-F fibnum]"""
_UNIX = ("Address", "Type", "Recv-Q", "Send-Q", "Inode", "Conn", "Refs", "Nextref", "Addr")
_FAMILIES = {"inet": "4", "inet6": "6", "unix": "", "local": ""}
_OF_VERSION = {"4": rt.AF_INET, "6": rt.AF_INET6}
_LETTERS = "46anWf:p:j:"
_OF_ROUTES, _OF_INTERFACES = "46anrWf:F:j:", "46bdinWf:I:j:"
_WIDTH, _WIDE = 22, 45
_ADDRESS = 16  # characters of an address that are shown before its port, unless -W
_EX_USAGE = 64


@dataclass
class Options:
    """The command line, taken apart."""

    versions: frozenset[str]
    protocols: frozenset[str]
    servers: bool
    wide: bool


def answer(argv: list[str], real: str | None) -> int:
    """Run FreeBSD's netstat. Raises JailError, and UsageError for what ``real``, the host's own, is to answer: names
    of hosts and services, statistics.
    """
    as_json, words = _without_libxo(argv)
    try:
        asked, given = _asked(words)
        if "r" in asked:
            return _routes(asked, given, as_json)
        if "i" in asked or "I" in asked:
            return _interfaces(asked, given, as_json)
        return _connections(words, given.get("-j"), as_json)
    except UsageError:
        jail, words = vnet.jail_of(words)  # Linux's netstat has no -j
        if as_json:
            raise JailError(f"--libxo: not honoured with these options\n{USAGE}") from None
        if jail is None or real is None:
            raise
        vnet.enter(jail)
        os.execv(real, ["netstat", *words])  # which is in the jail's network namespace, too


def _asked(words: list[str]) -> tuple[str, dict[str, str]]:
    """The letters of a command line, and the values of those that have one. Raises UsageError."""
    for letters in (_OF_ROUTES, _OF_INTERFACES, _LETTERS):
        try:
            options, rest = getopt.getopt(words, letters)
        except getopt.GetoptError:
            continue
        if not rest:
            return "".join([option[1] for option, _ in options]), dict(options)
    raise UsageError(USAGE)


def _without_libxo(argv: list[str]) -> tuple[bool, list[str]]:
    """Whether it is to be JSON, and the words without that: libxo takes it from anywhere. Raises JailError."""
    as_json, rest = False, []
    words = iter(argv)
    for word in words:
        if word != "--libxo" and not word.startswith(("--libxo=", "--libxo:")):
            rest.append(word)
            continue
        style = word[8:] or next(words, "")
        if style.split(",")[0] not in ("json", "J"):
            raise JailError(f"--libxo {visible(style)}: not honoured, only json is")
        as_json = True
    return as_json, rest


def _enter(jail: str | None) -> None:
    if jail is not None:
        vnet.enter(jail)


def _say(tables: dict[str, Any]) -> int:
    return printed.say([jsontext.dumped({"__version": "1", "statistics": tables}, spaces=False)])


def _routes(asked: str, given: dict[str, str], as_json: bool) -> int:
    if given.get("-F", "0") != "0":
        raise JailError(f"{visible(given['-F'])}: invalid fib", status=_EX_USAGE)
    wanted = {version for version in "46" if version in asked}
    if "-f" in given:
        if given["-f"] not in ("inet", "inet6"):
            raise UsageError(USAGE)
        wanted.add(_FAMILIES[given["-f"]])
    families = [_OF_VERSION[version] for version in sorted(wanted or "46")]
    _enter(given.get("-j"))
    return _say(netroutes.structure(families)) if as_json else printed.say(netroutes.text(families))


def _interfaces(asked: str, given: dict[str, str], as_json: bool) -> int:
    family = given.get("-f", "inet" if "4" in asked else "inet6" if "6" in asked else "")
    if family not in ("", "inet", "inet6", "link"):
        raise UsageError(USAGE)
    _enter(given.get("-j"))
    found = netinterfaces.held(given.get("-I", ""), family)
    return _say(netinterfaces.structure(found, asked)) if as_json else printed.say(netinterfaces.text(found, asked))


def _connections(words: list[str], jail: str | None, as_json: bool) -> int:
    options = parse(words, as_json)
    only = named(jail, lambda _: _unknown(jail)).jid if jail is not None else None
    listed = sockets(Jails(), unix="" in options.versions)
    found = [
        known
        for known, who in believed(listed, holders() if only is not None else {})
        if only in (None, known.jid) or any(holder.jid == only for holder in who)
    ]
    if as_json:
        return _say({"socket": [_fields(known) for known in _chosen(found, options)]})
    width = 0 if options.wide else listing.shown_width()
    return printed.say([printed.cut(line, width) if width else line for line in table(found, options)])


def _unknown(jail: str | None) -> str:
    return f"jail_attach({visible(jail or '')}): {os.strerror(errno.EINVAL)}"


def parse(argv: list[str], as_json: bool = False) -> Options:
    """The options of a command line that asks for connections. Raises UsageError."""
    try:
        asked, rest = getopt.getopt(argv, _LETTERS)
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    letters = {option[1] for option, _ in asked}
    values = dict(asked)
    # Without -n they want names of hosts and services, which the other netstat(8) knows how to find.
    if rest or ("n" not in letters and not as_json):
        raise UsageError(USAGE)
    versions = {version for version in "46" if version in letters}
    if "-f" in values:
        if values["-f"] not in _FAMILIES:
            raise UsageError(USAGE)
        versions.add(_FAMILIES[values["-f"]])
    protocols = {values["-p"]} if "-p" in values else {"tcp", "udp"}
    if not protocols <= {"tcp", "udp"}:
        raise UsageError(USAGE)
    if not versions:
        versions = {"4", "6"} if "-p" in values else {"4", "6", ""}
    return Options(frozenset(versions), frozenset(protocols), "a" in letters, "W" in letters)


def _chosen(found: list[Socket], options: Options) -> list[Socket]:
    """Those that are shown, in their order."""
    internet = [
        known
        for protocol in ("tcp", "udp")
        for known in found
        if known.protocol == protocol
        and known.protocol in options.protocols
        and known.is_of(options.versions)
        and (options.servers or known.foreign.port)
    ]
    local = [known for known in found if not known.version and (options.servers or known.connected)]
    return internet + (local if "" in options.versions else [])


def _fields(known: Socket) -> dict[str, Any]:
    """A socket as libxo has it."""
    queues = {"receive-bytes-waiting": known.received, "send-bytes-waiting": known.sent}
    if known.version:
        ends = {
            name: {"address": end.address or "*", "port": str(end.port or "*")}
            for name, end in (("local", known.local), ("remote", known.foreign))
        }
        state = {"tcp-state": known.state} if known.protocol == "tcp" else {}
        return {"protocol": known.protocol + known.version, **queues, **ends, **state}
    none = dict.fromkeys(("vnode", "connection", "first-reference", "next-reference"), "0")
    path = {"path": visible(known.path)} if known.path else {}
    return {"address": f"{known.inode:x}", "type": known.protocol, **queues, **none, **path}


def table(found: list[Socket], options: Options) -> list[str]:
    """The lines of the table, by the formats of usr.bin/netstat's inet.c and unix.c."""
    chosen = _chosen(found, options)
    internet = [known for known in chosen if known.version]
    local = [known for known in chosen if not known.version]
    lines = []
    if internet:
        lines += [f"Active Internet connections{' (including servers)' if options.servers else ''}", _head(options)]
        lines += [_internet(known, options) for known in internet]
    if local:
        lines += ["Active UNIX domain sockets", _unix(_UNIX)]
        # What else FreeBSD shows are addresses in the kernel, which Linux gives to nobody.
        lines += [_unix((f"{known.inode:x}", known.protocol, *"000000", visible(known.path))) for known in local]
    return [line.rstrip() for line in lines]


def _head(options: Options) -> str:
    width = _WIDE if options.wide else _WIDTH
    ends = f"{'Local Address':<{width}} {'Foreign Address':<{width}}"
    return f"{'Proto':<5} {'Recv-Q':<6} {'Send-Q':<6}  {ends} (state)"


def _internet(known: Socket, options: Options) -> str:
    ends = f"{_end(known.local, options)} {_end(known.foreign, options)}"
    return f"{known.protocol + known.version:<5} {known.received:6} {known.sent:6}  {ends} {known.state}"


def _end(end: End, options: Options) -> str:
    width = _WIDE if options.wide else _WIDTH
    address = end.address if options.wide else end.address[:_ADDRESS]
    return f"{address or '*'}.{end.port or '*'}"[:width].ljust(width)


def _unix(words: tuple[str, ...]) -> str:
    address, kind, received, sent, inode, connected, references, following, path = words
    front = f"{address:>8} {kind:<6} {received:>6} {sent:>6}"
    return f"{front} {inode:>8} {connected:>8} {references:>8} {following:>8} {path}"
