"""netstat(1) as FreeBSD has it: the connections of the host and of its jails in one table, as one kernel has them."""

from __future__ import annotations

import errno
import getopt
import os
from dataclasses import dataclass

from jailng.ctl import listing, vnet
from jailng.errors import UsageError
from jailng.params.values import visible
from jailng.procs import printed
from jailng.procs.jails import Jails, named
from jailng.procs.sockets import End, Socket, believed, holders, sockets

USAGE = "usage: netstat [-j jail] -n [-46aW] [-f address_family] [-p protocol]"
_UNIX = ("Address", "Type", "Recv-Q", "Send-Q", "Inode", "Conn", "Refs", "Nextref", "Addr")
_FAMILIES = {"inet": "4", "inet6": "6", "unix": "", "local": ""}
_WIDTH, _WIDE = 22, 45
_ADDRESS = 16  # characters of an address that are shown before its port, unless -W


@dataclass
class Options:
    """The command line, taken apart."""

    versions: frozenset[str]
    protocols: frozenset[str]
    servers: bool
    wide: bool


def answer(argv: list[str], real: str | None) -> int:
    """Run FreeBSD's netstat. Raises JailError, and UsageError for what ``real``, the host's own, is to answer: names,
    routes, statistics.
    """
    jail, words = vnet.jail_of(argv)  # Linux's netstat has no -j
    try:
        options = parse(words)
    except UsageError:
        if jail is None or real is None:
            raise
        vnet.enter(jail)
        os.execv(real, ["netstat", *words])  # which is in the jail's network namespace, too
    only = named(jail, lambda _: _unknown(jail)).jid if jail is not None else None
    listed = sockets(Jails(), unix="" in options.versions)
    found = [
        known
        for known, who in believed(listed, holders() if only is not None else {})
        if only in (None, known.jid) or any(holder.jid == only for holder in who)
    ]
    width = 0 if options.wide else listing.shown_width()
    return printed.say([printed.cut(line, width) if width else line for line in table(found, options)])


def _unknown(jail: str) -> str:
    return f"jail_attach({visible(jail)}): {os.strerror(errno.EINVAL)}"


def parse(argv: list[str]) -> Options:
    """The options of a command line. Raises UsageError."""
    try:
        asked, rest = getopt.getopt(argv, "46anWf:p:")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    letters = {option[1] for option, _ in asked}
    values = dict(asked)
    # Without -n they want names of hosts and services, which the other netstat(8) knows how to find.
    if rest or "n" not in letters:
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


def table(found: list[Socket], options: Options) -> list[str]:
    """The lines of the table, by the formats of usr.bin/netstat's inet.c and unix.c."""
    internet = [
        known
        for protocol in ("tcp", "udp")
        for known in found
        if known.protocol == protocol
        and known.protocol in options.protocols
        and known.is_of(options.versions)
        and (options.servers or known.foreign.port)
    ]
    lines = []
    if internet:
        lines += [f"Active Internet connections{' (including servers)' if options.servers else ''}", _head(options)]
        lines += [_internet(known, options) for known in internet]
    local = [known for known in found if not known.version and (options.servers or known.connected)]
    if "" in options.versions and local:
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
