"""What all jails' networks share on the host: one table of nf_tables, and the switches of forwarding.

    table inet jailng {
        comment "form 2"
        chain prerouting {  # an address that this jail does not have, and those of the host that nobody can have
            type filter hook prerouting priority raw
            iifname != "jng*" accept
            fib saddr . iif oif missing counter name spoofed update @spoofers { iif counter } drop
            ip daddr 127.0.0.0/8 counter name denied update @deniers { iif counter } drop
            ip6 daddr fe80::/10 fib daddr . iif type != local counter name denied update @deniers { iif counter } drop
        }
        chain input {       # the host itself, from a jail: answers, and what ``allowed`` lists (nothing, by default)
            type filter hook input priority filter
            iifname != "jng*" accept
            ct state established,related accept
            meta l4proto . th dport @allowed accept
            iifname @judged accept      # what ng.egress has let pass (core/egress.py)
            counter name denied update @deniers { iif counter } drop
        }
        chain forward {     # what the host would route for others, only because a jail needs it to route
            type filter hook forward priority filter
            iifname "jng*" accept
            oifname "jng*" accept
            ct state established,related accept
            ct status dnat accept       # whoever leads others on by rules of his own means the host to route
            iifname . oifname @bridged iifname . ether daddr != @own accept  # core/bridged.py
            meta nfproto . iifname @guarded counter name unrouted drop
            meta nfproto @everywhere counter name unrouted drop
        }
    }

What is dropped is counted, and of ``spoofers`` and ``deniers`` by the interface of the jail: only there, where nothing
else is done for the packet, so that it costs a jail nothing that drops none.

It is made with the first jail and removed with the last: which one that is, the records tell. A *switch* is what must
be on for a jail to be reached from outside: forwarding, ``4:ep0``, ``6:ep0``, or ``6:all`` on kernels that forward IPv6
for all interfaces or none; and ``proxy:6``. Whose it is can be seen from it: an administrator's 1 is never touched.
"""

from __future__ import annotations

import errno
import posix
from sys import byteorder

from jailng.core import index, origin, registry
from jailng.core.index import DIRECTORY, addressed
from jailng.errors import JailError
from jailng.linux import nftables as nft
from jailng.linux.libc import exists
from jailng.linux.netlink import NETLINK_NETFILTER, Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jailng.linux.netlink import Message

TABLE = "jailng"
FORM = "form 2"  # another one with each change of ``table``: core/renewal.py
TALLIES = ("spoofers", "deniers")
_REMEMBERED = 30 * 86400  # seconds: of interfaces that are gone nobody asks
JAILS = b"jng"
_ETHERNET = b"\1\0" if byteorder == "little" else b"\0\1"  # ARPHRD_ETHER
_LOOPBACK, _LINK_LOCAL = bytes([127, 0, 0, 0]), b"\xfe\x80" + bytes(14)
# Of such a switch the kernel asks only whether it is 0. These are ours; the second says that proxy_delay is, too.
# (force_forwarding takes only 0 and 1: there it is ours if the table guards it.)
OURS = (2, 3)
# The kernel's default, in hundredths of a second: a broadcast ARP request for a jail would be answered that much later.
_PROXY_DELAY = 80
_PROXY = "proxy:6"


def _key(switch: str) -> tuple[str, bytes]:
    family, _, interface = switch.partition(":")
    protocol = nft.NFPROTO_IPV4 if family == "4" else nft.NFPROTO_IPV6
    if interface == "all":
        return "everywhere", bytes([protocol])
    return "guarded", bytes([protocol, 0, 0, 0]) + interface.encode("utf-8", "surrogateescape").ljust(16, b"\0")


def _switch(table_set: str, key: bytes) -> str:
    family = 4 if key[0] == nft.NFPROTO_IPV4 else 6
    return (
        f"{family}:{'all' if table_set == 'everywhere' else key[4:].rstrip(bytes(1)).decode(errors='surrogateescape')}"
    )


def _rules() -> Iterator[Message]:
    from_jail = [nft.load(nft.IIFNAME), nft.compare(nft.EQUAL, JAILS)]
    to_jail = [nft.load(nft.OIFNAME), nft.compare(nft.EQUAL, JAILS)]
    not_from_jail = [nft.load(nft.IIFNAME), nft.compare(nft.UNEQUAL, JAILS)]
    answers = nft.connection_state(nft.ESTABLISHED | nft.RELATED)
    allowed = [nft.load(nft.L4PROTO), nft.load_destination_port(nft.SECOND), nft.look_up("allowed")]
    judged = [nft.load(nft.IIFNAME), nft.look_up("judged")]
    bridged = [nft.load(nft.IIFNAME), nft.load(nft.OIFNAME, nft.BEHIND_NAME), nft.look_up("bridged")]
    bridged += [nft.load(nft.IIFTYPE), nft.compare(nft.EQUAL, _ETHERNET), nft.load(nft.IIFNAME)]
    bridged += [nft.load_frame_destination(nft.BEHIND_NAME), nft.look_up("own", inverted=True)]
    guarded_lan = [nft.load(nft.NFPROTO), nft.load(nft.IIFNAME, nft.SECOND), nft.look_up("guarded")]
    guarded_family = [nft.load(nft.NFPROTO), nft.look_up("everywhere")]
    accept, drop = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
    spoofed = [nft.count("spoofed"), *nft.count_by_interface("spoofers"), drop]
    denied = [nft.count("denied"), *nft.count_by_interface("deniers"), drop]
    rules: list[tuple[str, list[bytes]]] = [
        ("prerouting", [*not_from_jail, accept]),
        ("prerouting", [*nft.no_way_back(), *spoofed]),
        ("prerouting", [*nft.aimed_at(_LOOPBACK, 8), *denied]),
        ("prerouting", [*nft.aimed_at(_LINK_LOCAL, 10), *nft.not_ours(), *denied]),
        ("input", [*not_from_jail, accept]),
        ("input", [*answers, accept]),
        ("input", [*allowed, accept]),
        ("input", [*judged, accept]),
        ("input", denied),
        ("forward", [*from_jail, accept]),
        ("forward", [*to_jail, accept]),
        ("forward", [*answers, accept]),
        ("forward", [*nft.connection_status(nft.DNATTED), accept]),
        ("forward", [*bridged, accept]),
        ("forward", [*guarded_lan, nft.count("unrouted"), drop]),
        ("forward", [*guarded_family, nft.count("unrouted"), drop]),
    ]
    for chain, expressions in rules:
        yield nft.new_rule(TABLE, chain, *expressions)


def table() -> list[Message]:
    """The messages that make the table."""

    def joined(first: int, second: int) -> int:
        return first << nft.TYPE_BITS | second

    return [
        nft.new_table(TABLE, FORM),
        *[nft.new_counter(TABLE, name) for name in ("spoofed", "denied", "unrouted")],
        nft.new_set(TABLE, "guarded", 1, joined(nft.TYPE_NFPROTO, nft.TYPE_IFNAME), 20),
        nft.new_set(TABLE, "allowed", 2, joined(nft.TYPE_INET_PROTO, nft.TYPE_INET_SERVICE), 8),
        nft.new_set(TABLE, "everywhere", 3, nft.TYPE_NFPROTO, 1),
        nft.new_set(TABLE, "judged", 4, nft.TYPE_IFNAME, 16),
        nft.new_set(TABLE, "bridged", 5, joined(nft.TYPE_IFNAME, nft.TYPE_IFNAME), 32),
        nft.new_set(TABLE, "own", 6, joined(nft.TYPE_IFNAME, nft.TYPE_ETHERADDR), 24),
        *[nft.new_tally(TABLE, name, number, _REMEMBERED) for number, name in enumerate(TALLIES, 7)],
        nft.new_chain(TABLE, "prerouting", nft.PREROUTING, nft.RAW),
        nft.new_chain(TABLE, "input", nft.INPUT, nft.FILTER),
        nft.new_chain(TABLE, "forward", nft.FORWARD, nft.FILTER),
        *_rules(),
    ]


def guarded(netlink: Netlink) -> set[str] | None:
    """The switches that the table guards; None if there is no such table. ``netlink`` is of NETLINK_NETFILTER."""
    found = set()
    for name in ("guarded", "everywhere"):
        try:
            answers = netlink.ask(nft.get_elements(TABLE, name))
        except FileNotFoundError:
            return None
        found |= {_switch(name, key) for _, body in answers for key in nft.keys(body)}
    return found


def read_switch(path: str) -> int | None:
    """A number below /proc/sys/net; None if there is none of that name."""
    try:
        fd = posix.open(f"/proc/sys/net/{path}", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return int(posix.read(fd, 32))
    finally:
        posix.close(fd)


def write_switch(path: str, value: int) -> None:
    """Set a number below /proc/sys/net. Raises OSError."""
    fd = posix.open(f"/proc/sys/net/{path}", posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, b"%d" % value)
    finally:
        posix.close(fd)


def switches_for(family: int, interface: str) -> list[str]:
    """What a jail whose address is on that interface needs switched on, beyond what the administrator has.

    Reads only. Raises JailError where it cannot be had without harm to the host.
    """
    if family == 4:
        return [f"4:{interface}"] if read_switch(f"ipv4/conf/{interface}/forwarding") in (0, *OURS) else []
    # The host asks its LAN for a jail's peer from the jail's address, since it has it. Where the answer would be led
    # into the jail, only a proxy takes it for itself (ip6_forward_proxy_check).
    proxy = [_PROXY] if read_switch(_path(_PROXY)) in (0, *OURS) else []
    everywhere = read_switch("ipv6/conf/all/forwarding")
    if everywhere in OURS:
        return ["6:all", *proxy]
    if everywhere != 0:
        return proxy
    if not can_forward_one():
        from jailng.core import advertisements

        advertisements.check()
        return ["6:all", *proxy]
    own = f"6:{interface}"
    if read_switch(_path(own)) == 0 or own in (_guarded_now() or _recorded()):
        return [own, *proxy]
    return proxy


def can_forward_one() -> bool:
    """Whether this kernel can forward IPv6 for one interface (Linux 6.17)."""
    return exists("/proc/sys/net/ipv6/conf/all/force_forwarding")


def guards(switches: Iterable[str], netlink: Netlink | None = None) -> list[Message]:
    """What has the table guard these switches. ``netlink``, of NETLINK_NETFILTER, where that stands already."""
    from jailng.core import bridged

    made = [nft.new_element(TABLE, *_key(switch)) for switch in sorted(switches)]
    if netlink is not None and not bridged.is_known(netlink, TABLE):
        return made
    return made + bridged.spare(TABLE, {switch.partition(":")[2] for switch in switches})


def _guarded_now() -> set[str] | None:
    with Netfilter() as netlink:
        return guarded(netlink)


def _path(switch: str) -> str:
    family, _, interface = switch.partition(":")
    if switch == _PROXY:
        return "ipv6/conf/all/proxy_ndp"
    if family == "4" or interface == "all":
        return f"ipv{family}/conf/{interface}/forwarding"
    return f"ipv6/conf/{interface}/force_forwarding"


def sysctl(path: str) -> str:
    """What is below /proc/sys/net, or a switch, as sysctl(8) has it: an interface may have a dot in its name."""
    path = f"net/{_path(path) if ':' in path and '/' not in path else path}"
    return path if "." in path else path.replace("/", ".")


def state(switch: str) -> str:
    """``off``, ``ours``, or ``theirs``: meanwhile an administrator (or a program of his) has switched on forwarding."""
    if switch.startswith("6") and not switch.endswith(":all"):
        if read_switch("ipv6/conf/all/forwarding") != 0:
            return "theirs"
        return "off" if read_switch(_path(switch)) == 0 else "ours"
    value = read_switch(_path(switch))
    return "off" if value == 0 else "ours" if value in OURS else "theirs"


def _switch_on(switch: str) -> None:
    family, _, interface = switch.partition(":")
    if family != "4":
        write_switch(_path(switch), 1 if family == "6" and interface != "all" else OURS[0])
        return
    delay = f"ipv4/neigh/{interface}/proxy_delay"
    default = read_switch(delay) == _PROXY_DELAY
    write_switch(_path(switch), OURS[default])
    if default:
        write_switch(delay, 0)


def _switch_off(switch: str) -> None:
    family, _, interface = switch.partition(":")
    value = read_switch(_path(switch))
    if family == "6" and interface != "all":
        if value == 1:
            write_switch(_path(switch), 0)
    elif value in OURS:
        delay = f"ipv4/neigh/{interface}/proxy_delay"
        if family == "4" and value == OURS[1] and read_switch(delay) == 0:
            write_switch(delay, _PROXY_DELAY)
        write_switch(_path(switch), 0)


_kept: list[tuple[int, int, Netlink]] = []  # of which process and network namespace, and the socket


class Netfilter:
    """``with Netfilter() as netlink``: a socket of nf_tables. Raises OSError.

    Where a process has opened its first one that stays open until it ends: to close such a socket takes a grace period
    of RCU (6 to 20 ms) whenever something has been deleted, and so it is one for many jails.
    """

    __slots__ = ("_kept", "_netlink")

    def __init__(self) -> None:
        here = posix.getpid(), origin.inode("net")
        self._kept = not _kept or _kept[0][:2] == here
        self._netlink = _kept[0][2] if _kept and self._kept else Netlink(NETLINK_NETFILTER)
        if not _kept:
            _kept.append((*here, self._netlink))

    def __enter__(self) -> Netlink:
        return self._netlink

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._netlink.__exit__()


class Lock:
    """Against another command that takes down what this one has just found standing."""

    __slots__ = ("_fd",)

    def __enter__(self) -> None:
        self._fd = index.hold(index.FIREWALL) if exists(DIRECTORY) else -1  # no registry, no other jail

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            posix.close(self._fd)


def _records(besides: int = 0) -> Iterator[set[str]]:
    """The switches of each jail with a network of its own in this network namespace, but for that jid's."""
    for jid in addressed():
        record = registry.load(jid) if jid != besides else None
        if record is None or not record.current:
            continue
        for line in record.undo:
            kind, *words = line.split(" ")
            if kind == "firewall" and origin.is_here(record):
                yield set(words[1:])


def _recorded() -> set[str]:
    found: set[str] = set()
    return found.union(*_records())


def undo_line(jid: int, switches: list[str]) -> str:
    """The line for the record, to be written before ``hold``."""
    return " ".join(["firewall", str(jid), *switches])


def hold(switches: list[str]) -> None:
    """Have the table standing, and these switches on and guarded, whatever is there already.

    Raises JailError naming what this kernel lacks, or OSError.
    """
    try:
        netfilter = Netfilter()
    except OSError as error:
        raise JailError(f"nf_tables, which keeps jails from using others' addresses: {error.strerror}") from None
    with netfilter as netlink, Lock():
        present = guarded(netlink)
        anew = present is None
        if present is None:
            # Also after `nft flush ruleset`: then other jails' switches are unguarded too.
            present = {switch for switch in _recorded().union(switches) if switch != _PROXY}
            try:
                netlink.transaction(table() + guards(present))
            except OSError as error:
                raise JailError(f"nf_tables: {error.strerror}") from None
        states = {switch: state(switch) for switch in sorted(present.union(switches))}
        theirs = {switch for switch, its in states.items() if its == "theirs"}
        missing = states.keys() - theirs - present - {_PROXY}
        changes = [nft.delete_element(TABLE, *_key(switch)) for switch in sorted(present & theirs)]
        if missing:
            changes += guards(missing, netlink)
        if changes:
            netlink.transaction(changes)
        for switch in switches:
            if states[switch] == "off":
                _switch_on(switch)
    if anew and _are_policed():
        from jailng.core import ruleset

        ruleset.restore()


def _are_policed() -> bool:
    """Whether the record of a jail tells of rules that went with the table, if there were any."""
    records = [record for jid in addressed() if (record := registry.load(jid)) is not None]
    return any(line.startswith("policy ") for record in records for line in record.undo)


def release(words: list[str], done: Callable[[], None] = lambda: None) -> None:
    """Undo ``hold`` for the jail whose jid is the first word, as far as no other jail needs it. Raises OSError.

    ``done`` has the record tell so before another command may ask it: of two that go at once each would leave what
    there is to the other.
    """
    jid, *switches = words
    with Netfilter() as netlink, Lock():
        _release(netlink, int(jid), set(switches))
        done()


def _release(netlink: Netlink, jid: int, unused: set[str]) -> None:
    alone = True
    for others in _records(besides=jid):
        alone = False
        unused -= others
        if not unused:
            return
    for switch in sorted(unused):
        _switch_off(switch)
    present = guarded(netlink)
    if present is None:
        return
    if alone:
        changes = [nft.delete_table(TABLE)]
    else:
        changes = [nft.delete_element(TABLE, *_key(switch)) for switch in sorted(unused & present)]
    if changes:
        try:
            netlink.transaction(changes)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
