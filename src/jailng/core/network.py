"""The network of an address jail: one routed veth(4), and an address that the host lends for the jail's life.

Host                                              Jail
  ep0  192.0.2.1/24, 192.0.2.10/24 (stays)          ep0  192.0.2.10/24, with the MAC address of the host's ep0
  jng7                                              default via 169.254.1.1 dev ep0 onlink
  192.0.2.10 dev jng7 table local (first)           169.254.1.1 lladdr JNG7 permanent
  192.0.2.10 lladdr EP0 dev jng7 permanent
  192.0.2.10 proxy dev ep0

``survey`` decides everything and touches nothing; ``host_side`` and ``inside`` carry it out. When the namespace dies
the kernel takes jng7 and with it the routes, so that the host answers on the address again; what else there is to undo
is in ``undo_lines``. With ip4=inherit or ip6=inherit the jail has the host's namespace, and nothing here is called.
The reasons are in docs/decisions/0003-address-jail.md.
"""

from __future__ import annotations

import errno
import posix
from _socket import AF_INET, AF_INET6, if_nametoindex, inet_pton

from jailng.core import alias, firewall, origin, registry
from jailng.core.index import Index, has_one_address
from jailng.core.link import GATEWAY, PROTOCOL, Link, Place, survey
from jailng.errors import JailError
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.linux.netlink import Message

__all__ = ["UNDO", "Link", "host_side", "inside", "survey", "undo_lines"]

_PROTOCOL_INSIDE = 3  # as the installer of any system makes them: RTPROT_BOOT
# All IPv6 sources in two halves: a route with a source goes before one without, which ::/0 would be.
_HALVES = (bytes(16), b"\x80" + bytes(15))
_LOOPBACK6 = bytes(15) + b"\1"
_GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV)


def undo_lines(link: Link) -> list[str]:
    """What ``host_side`` makes and the death of the namespace does not unmake; the last line is undone first.

    ``firewall JID SWITCH...``, where other jails may need the same, and ``addresses LINK INTERFACE|ADDRESS...``.
    """
    if not link.addresses:
        return []
    carried = [f"{place.interface}|{place.text}" for place in link.addresses]
    return [firewall.undo_line(link.jid, link.switches), " ".join(["addresses", link.host_name, *carried])]


def host_side(link: Link, pid: int) -> None:
    """Make the veth, its peer in the network namespace of process ``pid``, and lead the addresses there.

    Raises JailError naming what this kernel lacks, or OSError; then walk ``undo_lines``.
    """
    if not link.addresses:
        return
    firewall.hold(link.switches)
    link.outside = netlink = Netlink()
    _connect(netlink, link, pid)
    index = if_nametoindex(link.host_name)
    if link.ipv6 and firewall.can_forward_one():
        firewall.write_switch(f"ipv6/conf/{link.host_name}/force_forwarding", 1)
    conf = {
        rt.IPV4_DEVCONF_FORWARDING: 1,
        rt.IPV4_DEVCONF_RP_FILTER: 1,  # the second line, behind the table's source filter
        # Only where somebody's sysctl.conf turns rp_filter off again: else the host takes its address for forged.
        rt.IPV4_DEVCONF_ACCEPT_LOCAL: 1,
        rt.IPV4_DEVCONF_ACCEPT_REDIRECTS: 0,
        rt.IPV4_DEVCONF_SEND_REDIRECTS: 0,
    }
    messages = [rt.set_link(index, ipv4=conf, ipv6_silent=_has_ipv6())]
    if any(place.source == GATEWAY[6] for place in link.addresses):
        messages += [rt.new_address(index, GATEWAY[6], 128, flags=rt.IFA_F_NODAD), rt.new_local(index, GATEWAY[6])]
    for place in link.addresses:
        messages += _lead(link, place, index)
    try:
        netlink.batch(messages)
    except OSError as error:
        raise JailError(f"{link.host_name}: {error.strerror}") from None
    if link.of(4):
        _check_source(netlink, link.of(4), index)


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


def _has_ipv6() -> bool:
    # Not below /proc/sys: see ``inside``.
    return posix.access("/proc/net/if_inet6", posix.F_OK)


def _connect(netlink: Netlink, link: Link, pid: int) -> None:
    # Without ARP the host neither asks inside nor believes what it hears from there; the jail does not see the flag.
    flags = rt.IFF_UP | rt.IFF_NOARP
    veth = rt.new_veth(link.host_name, link.host_mac, link.inside_name, link.mac, pid, link.mtu, flags)
    try:
        try:
            netlink.batch([veth])
        except FileExistsError:
            # Of a jail of this jid that is gone, but whose namespace is still being taken apart, or is kept by a TCP
            # connection that waits for a peer to take the rest.
            netlink.batch([rt.delete_link(link.host_name)], ignored=_GONE)
            netlink.batch([veth])
    except OSError as error:
        raise JailError(f"veth {link.host_name}: {error.strerror}") from None


def _lead(link: Link, place: Place, index: int) -> list[Message]:
    messages = [rt.new_neighbour(index, place.packed, link.mac)]
    messages += [route.prepended() for route in _routes(place.packed, index, place.index != 0, place.source)]
    if place.interface:
        messages.append(rt.new_proxy(place.index, place.packed, PROTOCOL))
    return messages


def _routes(packed: bytes, index: int, on_host: bool, source: bytes = b"") -> list[rt.Route]:
    """The way to an address of the jail; if the host has the address too, before its own."""
    table = rt.RT_TABLE_LOCAL if on_host else rt.RT_TABLE_MAIN
    bits = 8 * len(packed)
    if on_host and len(packed) == 16:
        # The kernel's own route has the metric 0, and no other can: but more specific in its source, ours goes first.
        return [rt.Route(index, packed, bits, table, PROTOCOL, preferred=source, source=(half, 1)) for half in _HALVES]
    return [rt.Route(index, packed, bits, table, PROTOCOL, preferred=source)]


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
    if link.addresses:
        index = if_nametoindex(link.inside_name)
        messages.append(rt.set_link(index, ipv4={rt.IPV4_DEVCONF_ACCEPT_REDIRECTS: 0}, ipv6_silent=has_ipv6))
        flags = rt.IFA_F_NOPREFIXROUTE | rt.IFA_F_NODAD
        for place in link.addresses:
            messages.append(rt.new_address(index, place.packed, place.prefix, place.broadcast, flags))
        messages.append(rt.set_link(index, up=True))
        messages += [rt.new_local(index, place.packed) for place in link.of(6)]
        for family, gateway in GATEWAY.items():
            for first in link.of(family)[:1]:
                messages.append(rt.new_neighbour(index, gateway, link.host_mac))
                everywhere = bytes(len(gateway))
                route = rt.Route(index, everywhere, 0, rt.RT_TABLE_MAIN, _PROTOCOL_INSIDE, gateway, first.packed)
                messages.append(route.prepended())
    with Netlink() as netlink:
        try:
            netlink.batch(messages)
        except OSError as error:
            raise JailError(f"{link.inside_name} inside: {error.strerror}") from None
    if link.outside is not None:
        # The host's end sends nothing until a worker of the kernel has noticed that ours is up; to be asked makes it
        # notice (linkwatch_sync_dev, Linux 6.8). Else one connection in fifty lost its first packet, and a second.
        with link.outside as outside:
            outside.ask(rt.get_link(name=link.host_name))


def _packed(text: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)


def _index(name: str) -> int:
    """The interface's number, 0 if there is no such interface any more."""
    try:
        return if_nametoindex(name) if name else 0
    except OSError:
        return 0


def _take_back(words: list[str]) -> None:
    """``addresses LINK INTERFACE|ADDRESS...``: the host answers on them again, at once."""
    link = _index(words[0])
    messages = []
    for word in words[1:]:
        interface, _, text = word.rpartition("|")
        packed = _packed(text)
        if link:
            # Where the address was then is not recorded, nor need it be: one of the two is not there.
            for on_host in (True, False):
                messages += [route.deleted() for route in _routes(packed, link, on_host)]
        index = _index(interface)
        if index and not _is_anothers(int(words[0].removeprefix("jng")), text):
            messages.append(rt.delete_proxy(index, packed))
    if messages:
        with Netlink() as netlink:
            netlink.batch(messages, ignored=_GONE)


def _is_anothers(jid: int, address: str) -> bool:
    """Whether another jail of this network namespace has the address, which is no longer that jid's."""
    if has_one_address(address):
        return False
    with Index() as index:
        others = [record for other in index.give_up(jid, address) if (record := registry.load(other)) is not None]
    return any(origin.is_here(record) for record in others)


UNDO: dict[str, Callable[[list[str]], None]] = {
    "addresses": _take_back,
    "alias": alias.remove,
    "firewall": firewall.release,
}
