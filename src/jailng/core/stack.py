"""ng.stack=shared: a jail whose sockets are of the host's network stack, held to the jail's addresses.

Host                                              Jail
  ep0  192.0.2.1/24, 192.0.2.10/24                  ep0  192.0.2.10/24: to be looked at, nothing is behind it
  cgroup jailng/7/sockets, with programs            socket(AF_INET, ...)  --  a filter asks the broker
  the broker of 7, in that cgroup                   connect, send, receive  --  the kernel, without anybody's help

The jail has a network namespace of its own, in which nothing leads anywhere: so /proc/net, netlink and abstract sockets
are its own, and whoever finds a way round the broker has found a way into nothing. The broker is jailinit; it is handed
a listener (seccomp_unotify(2)) by each process that enters the jail. The programs are those of core/stackfilter.py. The
reasons are in docs/decisions/0013-shared-stack.md.
"""

from __future__ import annotations

import posix
from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    if_nametoindex,
    socket,
    socketpair,
)

from jailng.core import jailinit, privileges, process, program
from jailng.core.link import Link, is_loopback, survey
from jailng.core.operation import Operation
from jailng.core.stackfilter import hold
from jailng.core.stackrules import Rules
from jailng.core.wire import beside
from jailng.errors import JailError
from jailng.linux import caps, cgroup, ns, processid
from jailng.linux import rtnetlink as rt
from jailng.linux.libc import exists, syscall, words
from jailng.linux.netlink import Netlink
from jailng.linux.visit import InNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.registry import Record
    from jailng.params.address import Address
    from jailng.params.model import Parameters

_RLIMIT_NOFILE = 7
_LISTENERS = 1 << 16  # one for each process that enters and lives, with all that it has forked
# Whose the sockets are, raw ones; and to see processes and write what they asked for into their memory.
_CAPABILITIES = "CHOWN NET_RAW SYS_PTRACE DAC_OVERRIDE"
_FAMILIES = {4: AF_INET, 6: AF_INET6}
_SENDING = 2  # the broker's descriptor for whoever enters


def operations(record: Record, params: Parameters, base: int, parent: Record | None) -> list[Operation]:
    """What puts a jail with these parameters on the host's stack. ``base`` is the host's uid of its root.

    Raises JailError.
    """
    if parent is not None or params.number("children.max"):
        raise JailError("ng.stack=shared: neither in a jail nor with jails in it (children.max)")
    addresses = [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]
    free = tuple([version for version in (4, 6) if params.text(f"ip{version}") == "inherit"])
    shown = [*addresses, *[address for version in free for address in _of_host(version)]]
    link = survey(record.jid, shown, params.text("interface") or None, lent=False)
    prefixes = {place.packed: place.prefix for place in link.addresses}
    near = [network for end in link.ends for network in end.networks]
    rules = Rules(
        [(address.packed, prefixes.get(address.packed, 8 * len(address.packed))) for address in addresses],
        base if privileges.may_bind_reserved(params) else -1,
        {version: params.flag(f"ip{version}.saddrsel") for version in (4, 6)},
        free,
        near,
        {version: place.packed for version, (_, place) in link.ways.items()},
    )
    return [HoldSockets(record, rules), ShowAddresses(link)]


def _of_host(version: int) -> list[Address]:
    """The addresses that the host has now, but for loopback and those of one link."""
    from jailng.params.address import Address

    with Netlink() as netlink:
        found = [rt.Address.read(body) for _, body in netlink.ask(rt.get_addresses(_FAMILIES[version]))]
    return [
        Address(_FAMILIES[version], one.packed, one.prefix)
        for one in found
        if one.scope == rt.RT_SCOPE_UNIVERSE and not is_loopback(one.packed)
    ]


class HoldSockets(Operation):
    """The cgroup in which the jail's sockets are made, the programs on it, and the broker."""

    __slots__ = ("record", "rules")

    def __init__(self, record: Record, rules: Rules) -> None:
        self.record = record
        self.rules = rules

    def apply(self, slots: Slots) -> None:
        """Raises JailError, OSError."""
        path = _cgroup(self.record)
        cgroup.make(path)
        directory = cgroup.open_directory(path)
        try:
            hold(directory, self.rules)
        except OSError as error:
            raise JailError(f"ng.stack=shared: BPF programs on a cgroup: {error.strerror}") from None
        finally:
            posix.close(directory)
        _start(self.record, slots["init"])

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        free = [f"all of IPv{version}" for version in self.rules.free]
        return f"hold sockets of the host's stack to {', '.join([*self.rules.texts(), *free])}"


class ShowAddresses(Operation):
    """An interface inside that has the name and the addresses, for programs that ask which there are.

    It is a bridge without ports: the one kind of which there is one end, and which leaves nothing on the host.
    """

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    def apply(self, slots: Slots) -> None:
        """Raises JailError, OSError."""
        with InNamespace(slots["init"], ns.CLONE_NEWNET):
            self._configure()

    def _configure(self) -> None:
        ends = self.link.ends
        silent = exists("/proc/net/if_inet6")
        flags = rt.IFA_F_NOPREFIXROUTE | rt.IFA_F_NODAD
        with Netlink() as netlink:
            try:
                bridges = [rt.new_bridge(end.inside_name, end.mac, end.mtu) for end in ends]
                netlink.batch([rt.set_link(1, up=True), *bridges])
                messages = []
                for end in ends:
                    index = if_nametoindex(end.inside_name)
                    messages.append(rt.set_link(index, ipv6_silent=silent and end.has_room_for_ipv6))
                    for place in end.addresses:
                        messages.append(rt.new_address(index, place.packed, place.prefix, place.broadcast, flags))
                    messages.append(rt.set_link(index, up=True))
                if messages:
                    netlink.batch(messages)
            except OSError as error:
                raise JailError(f"ng.stack=shared: a bridge inside: {error.strerror}") from None

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        shown = [f"{', '.join([place.text for place in end.addresses])} on {end.inside_name}" for end in self.link.ends]
        return f"show inside {'; '.join(shown) or 'nothing'}"


def _cgroup(record: Record) -> str:
    return f"{record.cgroup}/sockets"


def _addresses(record: Record) -> list[Address]:
    from jailng.params.model import Parameters

    params = Parameters.from_texts(record.params)
    return [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]


def channel(record: Record) -> int:
    """A descriptor by which a listener is sent to the jail's broker; where that has died, there is another.

    Raises JailError, OSError.
    """
    found = _channel(record)
    if found < 0:
        found = _revived(record)
    if found < 0:
        raise JailError("ng.stack=shared: the broker of the jail's sockets has died")
    return found


def _channel(record: Record) -> int:
    """-1: the broker has died. Raises JailError, OSError."""
    broker = processid.open_process(record.sockets)
    if broker < 0:
        return -1
    try:
        return syscall("pidfd_getfd", broker, _SENDING, 0)
    except OSError as error:
        if processid.is_alive(record.sockets):
            raise JailError(f"ng.stack=shared: the broker of the jail's sockets: {error.strerror}") from None
        return -1
    finally:
        posix.close(broker)


def _revived(record: Record) -> int:
    """Start the broker anew. What ran under the old one can make no more sockets, what enters now can."""
    held = record.locked
    if not held and not record.lock_again():
        raise JailError(f'jail "{record.name}" not found')
    try:
        found = _channel(record)  # somebody else may have been faster
        if found < 0:
            from jailng.core import attach, elsewhere

            init = attach.open_init(record)
            try:
                with elsewhere.Network(record) as there:
                    if there:
                        _start(record, init)
            finally:
                posix.close(init)
            found = _channel(record)
        return found
    finally:
        if not held:
            record.unlock()


def _start(record: Record, init: int) -> None:
    """Start the broker in the network namespace of this process. Needs the jail's lock. Raises JailError, OSError."""
    from jailng.core import attach

    receiving, sending = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    home = cgroup.open_directory(_cgroup(record))
    try:
        asking = _asking(init)
        sending.sendmsg([_terms(record)], beside(asking.fileno()))
        asking.close()
        way = program.Program()
        given = (init, receiving.fileno(), sending.fileno())
        running = program.start(_laid_down(way, home, given, attach.slice_of(record)), jailinit.path())
        pid = running.forked()
        complaint = running.complaint()
        if complaint:
            raise JailError(f"ng.stack=shared: {complaint}")
        record.append([f"sockets {processid.of(pid)}"])
    finally:
        posix.close(home)
        receiving.close()
        sending.close()


def _asking(init: int) -> socket:
    """A socket of the jail's own network namespace, of which to ask what interfaces there are."""
    with InNamespace(init, ns.CLONE_NEWNET):
        return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)


def _laid_down(way: program.Program, home: int, given: tuple[int, int, int], slice_of: int) -> program.Program:
    process.orphan(way, home, given, "ng.stack=shared: clone3", slice_of)
    way.may("prlimit64", 0, _RLIMIT_NOFILE, way.data(words(_LISTENERS, _LISTENERS)), 0)
    process.bound(way, caps.mask(_CAPABILITIES))
    way.execute([jailinit.path(), "sockets"], {"PATH": ""})
    return way


def _terms(record: Record) -> bytes:
    """struct terms of jailinit/sockets.c: whose the sockets are, and the primary addresses."""
    private = record.params.get("ng.uids") != "shared"
    addresses = _addresses(record)
    four, six = ([address.packed for address in addresses if len(address.packed) == size][:1] for size in (4, 16))
    # struct sockaddr_in: family port addr zero[8]; struct sockaddr_in6: family port flowinfo addr scope_id
    free = [record.params.get(name) == "inherit" for name in ("ip4", "ip6")]
    address4 = words(AF_INET if four or free[0] else 0, 0, size=2) + (four[0] if four else bytes(4)) + bytes(8)
    address6 = (
        words(AF_INET6 if six or free[1] else 0, 0, size=2) + bytes(4) + (six[0] if six else bytes(16)) + bytes(4)
    )
    return words(record.base, record.base, 65536 if private else 0, size=4) + address4 + address6
