"""route(8) as FreeBSD has it: its words alone. For Linux's own there is the host's own.

Outputs, errors and exit statuses are those of sbin/route of FreeBSD 15. Addresses are shown as numbers, with -n or not.
"""

from __future__ import annotations

import errno
import getopt
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from jailng.ctl import destination, vnet
from jailng.ctl.ifconfig import loopback
from jailng.errors import JailError, UsageError
from jailng.linux import routes
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.linux.routes import Route
from jailng.params.values import visible
from jailng.procs import printed
from jailng.procs.jails import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

USAGE = "usage: route [-j jail] [-46nqv] command [[modifiers] args]"
_CHANGES = ("add", "change", "del", "delete")
_QUESTIONS = ("get", "show")
_FAMILIES = {"4": rt.AF_INET, "inet": rt.AF_INET, "6": rt.AF_INET6, "inet6": rt.AF_INET6}
# Linux has no such marks.
_IGNORED = ("static", "nostatic", "sticky", "nostick", "proto1", "proto2")
_KINDS = {"blackhole": routes.BLACKHOLE, "reject": routes.PROHIBIT}
_WORDS = {errno.ESRCH: "not in table", errno.EEXIST: "route already in table", errno.ENOBUFS: "not enough memory"}
_WORDS[errno.EADDRINUSE] = "gateway uses the same route"
# As FreeBSD's kernel has them.
_ERRNOS = {errno.ENOENT: errno.ESRCH, errno.EHOSTUNREACH: errno.ENETUNREACH}
_EX_USAGE, _EX_NOPERM = 64, 77
_OWN = "/proc/self/ns/net"
_HEAD = ("recvpipe", "sendpipe", "ssthresh", "rtt,msec", "mtu   ", "weight", "expire")


@dataclass
class Command:
    """What a command line asks for: ``verb`` is its word, ``to`` and ``through`` are as they were given."""

    verb: str
    family: int
    to: str = ""
    through: str = ""
    gateway: bytes = b""
    interface: str = ""
    mask: int | None = None
    mtu: int = 0
    kind: int = routes.UNICAST
    target: destination.Target | None = None
    forced: set[str] = field(default_factory=set)

    @property
    def is_host(self) -> bool:
        """Whether FreeBSD calls it a host, and no net."""
        return "net" not in self.forced and ("host" in self.forced or (self.target is not None and self.target.host))


def answer(argv: list[str], real: str | None) -> int:
    """Run FreeBSD's route. Raises JailError, and UsageError for what the host's own, ``real``, is to answer."""
    try:
        options, words = getopt.getopt(list(argv), "46nqvj:")
    except getopt.GetoptError:
        raise UsageError(USAGE) from None
    letters = "".join([option[1] for option, _ in options if option != "-j"])
    jails = [value for option, value in options if option == "-j"]
    shared = False
    if jails:
        before = os.stat(_OWN).st_ino
        vnet.enter(jails[-1])
        shared = before == os.stat(_OWN).st_ino or named(jails[-1], str).params.get("ng.stack") == "shared"
    try:
        return _run(letters, words, shared)
    except UsageError:
        if not jails or real is None:
            raise
    if shared and words:
        raise _denied()
    os.execv(real, ["route", *[f"-{letter}" for letter in letters], *words])  # in the jail's network namespace, too


def _run(letters: str, words: list[str], shared: bool) -> int:
    """``shared``: the jail that was asked for has no network of its own to change."""
    if not words or words[0] not in (*_CHANGES, *_QUESTIONS, "flush"):
        raise UsageError(USAGE)
    families = [_FAMILIES[letter] for letter in letters if letter in _FAMILIES]
    if words[0] == "flush":
        families = [*families, *_flushed(words[1:])]
        _check_root(shared)
        return _flush(families[-1:] or [rt.AF_INET, rt.AF_INET6], "q" in letters)
    command = parse(words, families[-1] if families else rt.AF_INET)
    if command.verb in _QUESTIONS:
        return _get(command)
    _check_root(shared)
    return _change(command, "q" in letters)


def _flushed(words: list[str]) -> list[int]:
    if not all(word[:1] == "-" and word[1:] in _FAMILIES for word in words):
        raise UsageError(USAGE)
    return [_FAMILIES[word[1:]] for word in words]


def parse(words: list[str], family: int = rt.AF_INET) -> Command:
    """A command of FreeBSD's. Raises JailError: an address or number is wrong; UsageError: they are not its words."""
    command = Command(words[0], family)
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word[:1] == "-":
            _modify(command, word[1:], rest)
        elif command.target is None:
            _go_to(command, word)
        elif not command.through:
            _go_through(command, word)
        else:
            _set_mask(command, word)
    return command


def _modify(command: Command, word: str, rest: list[str]) -> None:
    """Take one modifier, and what belongs to it off ``rest``."""
    if word in _FAMILIES:
        command.family = _FAMILIES[word]
    elif word in ("net", "host"):
        command.forced.add(word)
    elif word in ("iface", "interface"):
        command.forced.add("interface")
    elif word in _KINDS:
        command.kind = _KINDS[word]
    elif word in _IGNORED:
        pass
    elif word in _VALUED and rest:
        _VALUED[word](command, rest.pop(0))
    else:
        raise UsageError(USAGE)


def _go_to(command: Command, word: str) -> None:
    command.to, command.target = word, destination.parse(word, command.family, command.forced)


def _set_mask(command: Command, word: str) -> None:
    command.mask = destination.bits(word, command.family)
    command.forced.add("net")


def _set_prefix(command: Command, word: str) -> None:
    command.mask = destination.length(word, command.family)
    full = command.mask == (32 if command.family == rt.AF_INET else 128)
    command.forced = command.forced - {"net", "host"} | {"host" if full else "net"}


def _set_fib(_: Command, word: str) -> None:
    if word not in ("0", "all", "default"):
        raise JailError(f"invalid fib number: {visible(word)}", status=_EX_USAGE)


def _set_mtu(command: Command, word: str) -> None:
    command.mtu = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0


def _go_through(command: Command, word: str) -> None:
    """The gateway, or with -interface before it the interface. A name as the gateway is Linux's word."""
    if "interface" in command.forced:
        command.interface = word
    else:
        command.gateway, command.interface = destination.gateway(word, command.family)
    command.through = word


_VALUED: dict[str, Callable[[Command, str], None]] = {
    "dst": _go_to,
    "gateway": _go_through,
    "netmask": _set_mask,
    "prefixlen": _set_prefix,
    "fib": _set_fib,
    "mtu": _set_mtu,
}


def _index(name: str) -> int:
    with Netlink() as netlink:
        try:
            return int(rt.Interface(netlink.ask(rt.get_link(name=loopback(name)))[0][1]).index)
        except OSError:
            raise JailError(f"interface '{visible(name)}' does not exist") from None


def _route(command: Command) -> Route:
    if command.target is None:
        raise OSError(errno.EINVAL, "")
    full = 8 * len(command.target.packed)
    prefix = command.target.bits if command.mask is None else command.mask
    prefix = full if command.is_host else prefix
    index = _index(command.interface) if command.interface else 0
    packed = destination.masked(command.target.packed, prefix)
    return Route(packed, prefix, command.gateway, index, command.kind, command.mtu)


# What there is


def _held(netlink: Netlink, family: int) -> list[Route]:
    found = [Route.read(body) for _, body in netlink.ask(rt.get_routes(family))]
    return [known for known in found if known.table == rt.RT_TABLE_MAIN and not known.cloned]


def _to(netlink: Netlink, wanted: Route) -> list[Route]:
    """The routes to exactly that network: through its gateway or interface, where it has one."""
    family = rt.AF_INET if len(wanted.target) == 4 else rt.AF_INET6
    found = [known for known in _held(netlink, family) if (known.target, known.bits) == (wanted.target, wanted.bits)]
    return [
        known
        for known in found
        if wanted.gateway in (b"", known.gateway) and (not wanted.index or wanted.index == known.index)
    ]


# Changes


def _check_root(shared: bool) -> None:
    if os.geteuid():
        raise JailError("must be root to alter routing table", status=_EX_NOPERM)
    if shared:
        raise _denied()


def _denied() -> JailError:
    return JailError(f"writing to routing socket: {os.strerror(errno.EPERM)}")


def _change(command: Command, quiet: bool) -> int:
    said = f"{command.verb} {'host' if command.is_host else 'net'} {command.to}"
    said += f": gateway {command.through}" if command.through else ""
    failed = 0
    try:
        wanted = _route(command)
        with Netlink() as netlink:
            netlink.batch([_message(netlink, command.verb, wanted)])
    except OSError as error:
        failed = _ERRNOS.get(error.errno or 0, error.errno or errno.EINVAL)
    if failed in (errno.EPERM, errno.EACCES):
        raise _denied()
    if failed:
        told = os.strerror(failed)
        why = "route has not been found" if failed == errno.ESRCH else f"message indicates error: {told}"
        sys.stderr.write(f"route: {why}\n")
        said += f" fib 0: {_WORDS.get(failed, told)}"
    if quiet:
        return 0  # as FreeBSD's, whatever came of it
    return printed.say([visible(said)]) or int(bool(failed))


def _message(netlink: Netlink, verb: str, wanted: Route) -> Message:
    if verb == "add":
        if wanted.kind != routes.UNICAST:
            wanted.gateway, wanted.index = b"", 0
        elif not wanted.gateway and not wanted.index:
            raise OSError(errno.EINVAL, "")
        return wanted.added()
    held = _to(netlink, wanted if verb != "change" else Route(wanted.target, wanted.bits))
    if not held:
        raise OSError(errno.ESRCH, "")
    own = [known for known in held if known.protocol != routes.OF_KERNEL]
    if not own:  # it comes and goes with an address
        raise OSError(errno.EADDRINUSE, "")
    if verb != "change":
        return own[0].deleted()
    if not wanted.gateway and not wanted.index and wanted.kind == routes.UNICAST:
        wanted.gateway, wanted.index = own[0].gateway, own[0].index
    wanted.priority = own[0].priority
    return wanted.replacing()


def _flush(families: list[int], quiet: bool) -> int:
    """All routes that lead through a gateway."""
    lines = []
    status = 0
    with Netlink() as netlink:
        for family in families:
            for known in _held(netlink, family):
                if not known.gateway:
                    continue
                done = "done"
                try:
                    netlink.batch([known.deleted()])
                except OSError as error:
                    if error.errno in (errno.EPERM, errno.EACCES):
                        raise _denied() from None
                    done, status = f"failed ({os.strerror(error.errno or 0)})", 1
                to, through = destination.network(known.target, known.bits), destination.shown(known.gateway)
                lines.append(f"{to:<20.20} {through:<20.20} -fib 0   {done}")
    return status if quiet else printed.say(lines) or status


# Questions


def _get(command: Command) -> int:
    try:
        wanted = _route(command)
        with Netlink() as netlink:
            found = _found(netlink, wanted)
            link = rt.Interface(netlink.ask(rt.get_link(found.index))[0][1]) if found.index else None
    except OSError as error:
        lacking = error.errno in (errno.ESRCH, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOENT)
        why = "route has not been found" if lacking else f"message indicates error: {os.strerror(error.errno or 0)}"
        raise JailError(why) from None
    full = 8 * len(found.target)
    lines = [f"   route to: {destination.named(wanted.target)}", f"destination: {destination.named(found.target)}"]
    if found.bits < full:
        mask = destination.masked(b"\xff" * len(found.target), found.bits)
        lines.append(f"       mask: {destination.named(mask)}")
    if found.gateway:
        scope = f"%{link.name}" if link is not None and found.gateway[:2] == b"\xfe\x80" else ""
        lines.append(f"    gateway: {destination.shown(found.gateway)}{scope}")
    lines.append("        fib: 0")
    if link is not None:
        lines.append(f"  interface: {link.name}")
    lines.append(f"      flags: <{','.join(_flags(found))}>")
    lines.append(" ".join([f"{name:>{10 if name == 'weight' else 9}}" for name in _HEAD]))
    mtu = found.mtu or (link.mtu if link is not None else 0)
    lines.append("".join([f"{value:8}  " for value in (0, 0, 0, 0, mtu, 1)]) + f"{0:8} ")
    return printed.say([visible(line) for line in lines])


def _found(netlink: Netlink, wanted: Route) -> Route:
    """The route that a packet to it would take; of a network the route to exactly that. Raises OSError."""
    if wanted.bits < 8 * len(wanted.target):
        held = _to(netlink, Route(wanted.target, wanted.bits))
        # Of several the kernel takes that with the smallest number.
        found = min(held, key=lambda known: known.priority, default=None)
    else:
        try:
            found = Route.read(netlink.ask(rt.get_route(wanted.target, matched=True))[0][1])
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EACCES):
                raise
            found = _barred(netlink, wanted.target)  # of which the kernel tells only what comes of it
    if found is None or found.kind not in (routes.UNICAST, routes.LOCAL, routes.BLACKHOLE, routes.PROHIBIT):
        raise OSError(errno.ESRCH, "")
    return found


def _barred(netlink: Netlink, target: bytes) -> Route | None:
    """The most specific route there, where that leads nowhere."""
    family = rt.AF_INET if len(target) == 4 else rt.AF_INET6
    held = [known for known in _held(netlink, family) if known.target == destination.masked(target, known.bits)]
    return max(held, key=lambda known: known.bits, default=None)


def _flags(found: Route) -> list[str]:
    """FreeBSD's names of what a route is, in the order of its bits."""
    of_kernel = found.protocol == routes.OF_KERNEL
    known = (
        (True, "UP"),
        (bool(found.gateway), "GATEWAY"),
        (found.bits == 8 * len(found.target), "HOST"),
        (found.kind == routes.PROHIBIT, "REJECT"),
        (True, "DONE"),
        (not of_kernel, "STATIC"),
        (found.kind == routes.BLACKHOLE, "BLACKHOLE"),
        (of_kernel, "PINNED"),
    )
    return [name for held, name in known if held]
