"""The network of an address jail: one routed veth(4), and an address that the host lends for the jail's life.

Host                                              Jail
  ep0  192.0.2.1/24, 192.0.2.10/24 (stays)          ep0  192.0.2.10/24, with the MAC address of the host's ep0
  jng7                                              default via 169.254.1.1 dev ep0 onlink
  192.0.2.10 dev jng7 table local (first)           169.254.1.1 lladdr JNG7 permanent
  192.0.2.10 lladdr EP0 dev jng7 permanent
  192.0.2.10 proxy

``survey`` decides everything and touches nothing; ``host_side`` and ``inside`` carry it out. When the namespace dies
the kernel takes jng7 and with it the routes, so that the host answers on the address again; what else there is to undo
is in ``undo_lines``. With ip4=inherit or ip6=inherit the jail has the host's namespace, and nothing here is called.
The reasons are in docs/decisions/0003-address-jail.md.
"""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, if_nametoindex, inet_pton

from jailng.core import alias, firewall, origin, registry
from jailng.core.index import Index, addressed, holders
from jailng.core.link import GATEWAY, PROTOCOL, End, Host, Link, Place, network_of, survey
from jailng.errors import JailError
from jailng.linux import netdevice
from jailng.linux import rtnetlink as rt
from jailng.linux.libc import exists
from jailng.linux.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.linux.netlink import Message

__all__ = ["GONE", "UNDO", "Link", "host_side", "inside", "survey", "undo_lines"]

_FIRST_TABLE = 1000  # inside, of those that lead out from one interface
_PROTOCOL_INSIDE = 3  # as the installer of any system makes them: RTPROT_BOOT
# All IPv6 sources in two halves: a route with a source goes before one without, which ::/0 would be.
_HALVES = (bytes(16), b"\x80" + bytes(15))
_METRIC = 1024  # of an IPv6 route for which none is given
_LOOPBACK6 = bytes(15) + b"\1"
GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV)


def undo_lines(link: Link) -> list[str]:
    """What ``host_side`` makes and the death of the namespace does not unmake; the last line is undone first.

    ``firewall JID SWITCH...``, where other jails may need the same, and ``addresses LINK INTERFACE|ADDRESS...``.
    """
    if not link.ends:
        return []
    lines = [firewall.undo_line(link.jid, link.switches)]
    for end in link.ends:
        carried = [f"{place.interface}|{place.text}" for place in end.addresses]
        lines.append(" ".join(["addresses", end.host_name, *carried]))
    return lines


def host_side(link: Link, pid: int) -> None:
    """Make the veth, its peer in the network namespace of process ``pid``, and lead the addresses there.

    Raises JailError naming what this kernel lacks, or OSError; then walk ``undo_lines``.
    """
    if not link.ends:
        return
    firewall.hold(link.switches)
    link.outside = netlink = Netlink()
    for end in link.ends:
        _connect(netlink, end, pid)
        _lead_to(netlink, end)


def _lead_to(netlink: Netlink, end: End) -> None:
    """Make the host's end ready, and lead the addresses there."""
    index = if_nametoindex(end.host_name)
    if end.of(6):
        if firewall.can_forward_one():
            firewall.write_switch(f"ipv6/conf/{end.host_name}/force_forwarding", 1)
        if end.has_room_for_ipv6:
            # When the address that a route names goes from the host, it speaks from the gateway's, not the jail's.
            firewall.write_switch(f"ipv6/conf/{end.host_name}/use_oif_addrs_only", 1)
            firewall.write_switch(f"ipv6/conf/{end.host_name}/accept_ra", 0)  # with that address it would solicit
        off = f"ipv6/conf/{end.host_name}/disable_ipv6"
        if firewall.read_switch(off):  # as somebody's sysctl.conf has it for interfaces to come
            firewall.write_switch(off, 0)
    conf = {
        rt.IPV4_DEVCONF_FORWARDING: 1,
        rt.IPV4_DEVCONF_RP_FILTER: 1,  # the second line, behind the table's source filter
        # Only where somebody's sysctl.conf turns rp_filter off again: else the host takes its address for forged.
        rt.IPV4_DEVCONF_ACCEPT_LOCAL: 1,
        rt.IPV4_DEVCONF_ACCEPT_REDIRECTS: 0,
        rt.IPV4_DEVCONF_SEND_REDIRECTS: 0,
    }
    messages = [rt.set_link(index, ipv4=conf, ipv6_silent=_has_ipv6() and end.has_room_for_ipv6)]
    if end.of(6):
        messages += _own_gateway(index)
    anywhere = bool(end.of(4)) and _answers_anywhere({place.interface for place in end.of(4)})
    for place in end.addresses:
        messages += _lead(end, place, index, anywhere)
    try:
        netlink.batch(messages)
    except OSError as error:
        raise JailError(f"{end.host_name}: {error.strerror}") from None
    if end.of(4):
        _check_source(netlink, end.of(4), index)
    if end.of(6):
        _spare_others(netlink, end.of(6))


def _answers_anywhere(interfaces: set[str]) -> bool:
    """Whether the host answers ARP for what these have by whatever interface it is asked."""
    names = ["all", *[name for name in interfaces if name]]
    own = [f"ipv4/conf/{name}/{what}" for name in names for what in ("arp_ignore", "arp_filter")]
    return not any(firewall.read_switch(path) for path in own)


def _check_source(netlink: Netlink, places: list[Place], index: int) -> None:
    """See to it that the host does not speak to a jail from a jail's address.

    It takes the first address of the first interface. Naming another in the route would not do: when that address is
    removed, the route goes with it.
    """
    source = rt.Found(netlink.ask(rt.get_route(places[0].packed))[0][1]).preferred
    # The gateway's address, on another jail's interface, is as good only as long as that jail lives.
    ours = [GATEWAY[4], *[place.packed for place in places]]
    if not source or source in ours or not rt.Found(netlink.ask(rt.get_route(source))[0][1]).local:
        netlink.batch([rt.new_address(index, GATEWAY[4], 32)])
    if source in ours[1:]:
        # By which the host has spoken to the others until now.
        lines = [line.split(" ") for jid in addressed() if (record := registry.load(jid)) for line in record.undo]
        links = [netdevice.index(words[1]) for words in lines if words[0] == "addresses"]
        messages = [rt.new_address(other, GATEWAY[4], 32) for other in links if other not in (0, index)]
        if messages:
            netlink.batch(messages, ignored=(*GONE, errno.EEXIST))


def _spare_others(netlink: Netlink, places: list[Place]) -> None:
    """Have the host speak to no other jail from an address that is this one's by now, as it may have named it there."""
    host, source = Host(netlink), places[0].source
    speaking = host.elsewhere(6)
    if speaking is not None and speaking.preferred == source:
        return  # by which it speaks to others as well, and which no jail can have
    found = [host.alias(place.packed) for place in places]  # it names none that is deprecated, as ours are
    ours = [one.packed for one in found if one is not None and not one.flags & rt.IFA_F_DEPRECATED]
    if not ours:
        return
    for jid in addressed():
        record = registry.load(jid)
        lines = [line.split(" ") for line in record.undo] if record is not None else []
        for link, *carried in [words[1:] for words in lines if words[0] == "addresses"]:
            for packed in [_packed(text) for word in carried if ":" in (text := word.rpartition("|")[2])]:
                route = rt.Found(netlink.ask(rt.get_route(packed))[0][1])
                if route.preferred in ours and route.index == netdevice.index(link):
                    netlink.batch(_own_gateway(route.index) if source == GATEWAY[6] else [], ignored=(errno.EEXIST,))
                    ways = _routes(packed, route.index, source, record.name.count(".") if record is not None else 0)
                    routes = [way.prepended() for way in ways]
                    netlink.batch([*[way.deleted() for way in _routes(packed, route.index)], *routes])


def _own_gateway(index: int) -> list[Message]:
    return [rt.new_address(index, GATEWAY[6], 128, flags=rt.IFA_F_NODAD), rt.new_local(index, GATEWAY[6])]


def _has_ipv6() -> bool:
    # Not below /proc/sys: see ``inside``.
    return exists("/proc/net/if_inet6")


def _connect(netlink: Netlink, link: End, pid: int) -> None:
    # Without ARP the host neither asks inside nor believes what it hears from there; the jail does not see the flag.
    flags = rt.IFF_UP | rt.IFF_NOARP
    veth = rt.new_veth(link.host_name, link.host_mac, link.inside_name, link.mac, pid, link.mtu, flags)
    try:
        try:
            netlink.batch([veth])
        except FileExistsError:
            _check_left(link.host_name)
            # Of a jail of this jid that is gone, but whose namespace is still being taken apart, or is kept by a TCP
            # connection that waits for a peer to take the rest.
            netlink.batch([rt.delete_link(link.host_name)], ignored=GONE)
            netlink.batch([veth])
    except OSError as error:
        raise JailError(f"veth {link.host_name}: {error.strerror}") from None


def _check_left(name: str) -> None:
    """Of the jail that an interface was made for, another may be left that has the same address. Raises JailError."""
    for jid in addressed():
        record = registry.load(jid)
        if record is not None and record.current and record.joined and _leads_to(record, name):
            raise JailError(f'{name} is the interface of jail "{record.name}", which has joined it: take another jid')


def _lead(end: End, place: Place, index: int, anywhere: bool) -> list[Message]:
    """``anywhere``: the host answers ARP for an address of its own by whatever interface it is asked."""
    messages = [rt.new_neighbour(index, place.packed, end.mac)]
    messages += [route.prepended() for route in _routes(place.packed, index, place.source, place.depth)]
    if place.interface:
        # For a jail's, then, too. Of one that it answers for on an interface the kernel forgets that when the interface
        # is taken down, or loses the last of its addresses.
        where = 0 if anywhere and place.family == 4 else place.index
        messages.append(rt.new_proxy(where, place.packed, PROTOCOL))
    return messages


def _routes(packed: bytes, index: int, source: bytes = b"", depth: int = 0) -> list[rt.Route]:
    """The way to an address of the jail, before the host's own; of one in ``depth`` others, before theirs."""
    sources = [(half, 1) for half in _HALVES] if len(packed) == 16 else [(b"", 0)]
    metric = _METRIC - depth if depth and len(packed) == 16 else 0  # of IPv4's the last to be made goes first
    # The kernel's own IPv6 route has the metric 0, and no other can: but more specific in its source, ours goes first.
    bits = 8 * len(packed)
    return [rt.Route(index, packed, bits, rt.RT_TABLE_LOCAL, PROTOCOL, b"", source, half, metric) for half in sources]


def inside(link: Link) -> None:
    """Configure the jail's end, as a process that is in its network namespace with the host's privileges.

    Nothing is written below /proc/sys/net: there the namespaces share one bucket of names, and with a thousand jails a
    look takes a millisecond. The defaults of a new namespace are what a jail needs; above all nobody, not even root,
    may ping without a raw socket (net.ipv4.ping_group_range). Raises JailError or OSError.
    """
    has_ipv6 = _has_ipv6()
    messages = [rt.set_link(1, up=True)]
    if has_ipv6 and not link.ipv6:
        messages.append(rt.delete_address(1, _LOOPBACK6, 128))
    ends = [(end, if_nametoindex(end.inside_name)) for end in link.ends]
    for end, index in ends:
        silent = has_ipv6 and end.has_room_for_ipv6
        messages.append(rt.set_link(index, ipv4={rt.IPV4_DEVCONF_ACCEPT_REDIRECTS: 0}, ipv6_silent=silent))
        flags = rt.IFA_F_NOPREFIXROUTE | rt.IFA_F_NODAD
        for place in end.addresses:
            messages.append(rt.new_address(index, place.packed, place.prefix, place.broadcast, flags))
        messages.append(rt.set_link(index, up=True))
        messages += [rt.new_local(index, place.packed) for place in end.of(6)]
    for family in link.ways:
        messages += _ways_out(link, family, [(end, index) for end, index in ends if end.of(family)])
    # A namespace may be born without ::1: where net.core.devconf_inherit_init_net hands on that IPv6 is off.
    passed_over = () if link.ipv6 else (errno.EADDRNOTAVAIL,)
    with Netlink() as netlink:
        try:
            netlink.batch(messages, passed_over)
        except OSError as error:
            names = ", ".join([end.inside_name for end in link.ends]) or "lo"
            raise JailError(f"{names} inside: {error.strerror}") from None
    if link.outside is not None:
        # The host's end sends nothing until a worker of the kernel has noticed that ours is up; to be asked makes it
        # notice (linkwatch_sync_dev, Linux 6.8). Else one connection in fifty lost its first packet, and a second.
        with link.outside as outside:
            for end in link.ends:
                outside.ask(rt.get_link(name=end.host_name))


def forget_rules(netlink: Netlink) -> None:
    """Remove what ``inside`` has made that does not go with the interfaces. Raises OSError."""
    for family in (AF_INET, AF_INET6):
        try:
            while True:
                netlink.batch([rt.delete_rule(family)])
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # none left, or no IPv6
                raise


def _ways_out(link: Link, family: int, ends: list[tuple[End, int]]) -> list[Message]:
    """What leads out of the jail, and from which of its addresses; ``ends`` are those with one of the family.

    As on FreeBSD: to a network that one of its addresses is in, from that address; to one that the host is in, from its
    first one on that interface; to all else from its first one where the host would send it (in_pcbladdr() in
    sys/netinet/in_pcb.c). Of IPv6 addresses the kernel chooses by RFC 6724.
    """
    gateway = GATEWAY[family]
    way, first = link.ways[family]
    messages = [rt.new_neighbour(index, gateway, end.host_mac) for end, index in ends]

    def lead(index: int, table: int, source: bytes, network: bytes = bytes(len(gateway)), prefix: int = 0) -> None:
        route = rt.Route(index, network, prefix, table, _PROTOCOL_INSIDE, gateway, source)
        messages.append(route.prepended())

    several, choosing = len(link.of(family)) > 1, family not in link.fixed
    by_kernel = several and choosing and family == 6
    lead(next(index for end, index in ends if end is way), rt.RT_TABLE_MAIN, b"" if by_kernel else first.packed)
    if several and choosing:
        bits = 8 * len(gateway)
        places = [(index, place) for end, index in ends for place in end.of(family) if place.prefix < bits]
        near = [(index, network_of(place.packed, place.prefix), place.prefix, place.packed) for index, place in places]
        near += [(index, *network) for end, index in ends for network in end.networks]
        known = set()
        for index, network, prefix, source in near:
            if len(network) == len(gateway) and (network, prefix) not in known:
                known.add((network, prefix))
                lead(index, rt.RT_TABLE_MAIN, b"" if family == 6 else source, network, prefix)
    if len(ends) > 1:
        # The host takes for forged what comes by another interface than the one that its sender's address is on.
        for number, (end, index) in enumerate(ends):
            lead(index, _FIRST_TABLE + number, b"")
            messages += [rt.new_rule(place.packed, _FIRST_TABLE + number) for place in end.of(family)]
    return messages


def _packed(text: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)


def _take_back(words: list[str]) -> None:
    """``addresses LINK INTERFACE|ADDRESS...``: the host answers on them again, at once."""
    _lead_back(int(words[0].removeprefix("jng").partition("-")[0]), words[0], words[1:])


def _leave(words: list[str]) -> None:
    """``joined JID LINK INTERFACE|ADDRESS...``: the same for a jail in the network namespace of another."""
    _lead_back(int(words[0]), words[1], words[2:])


def _lead_back(jid: int, link: str, carried: list[str]) -> None:
    index = netdevice.index(link)
    messages = []
    for word in carried:
        interface, _, text = word.rpartition("|")
        packed = _packed(text)
        others = _others(jid, text)
        if any(_leads_to(record, link) for record in others):
            continue
        if index:
            messages += [route.deleted() for route in _routes(packed, index)]
        if interface and not others:
            where = {netdevice.index(interface), 0} if len(packed) == 4 else {netdevice.index(interface)} - {0}
            messages += [rt.delete_proxy(proxied, packed) for proxied in sorted(where)]
    if messages:
        with Netlink() as netlink:
            netlink.batch(messages, ignored=GONE)


def _others(jid: int, address: str) -> list[registry.Record]:
    """The other jails of this network namespace that have the address, which is no longer that jid's."""
    if not [holder for holder in holders(address) if holder != jid]:
        return []
    with Index() as index:
        found = [record for other in index.give_up(jid, address) if (record := registry.load(other)) is not None]
    return [record for record in found if origin.is_here(record)]


def _leads_to(record: registry.Record, link: str) -> bool:
    """Whether a jail is reached by that interface of the host."""
    ways = (f"addresses {link} ", f"joined {record.jid} {link} ")
    return any(line.startswith(ways) for line in record.undo)


UNDO: dict[str, Callable[[list[str]], None]] = {
    "addresses": _take_back,
    "alias": alias.remove,
    "firewall": firewall.release,
    "joined": _leave,
}
