"""What rtnetlink(7) can be asked: interfaces, addresses, routes and neighbours, one message a function.

Addresses are ``bytes`` in network order; their length tells the family. A number for an interface is its ifindex.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from jailng.linux.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attributes,
    nested,
    number,
    string,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

AF_INET = 2
AF_INET6 = 10

IFF_UP = 1
IFF_LOOPBACK = 8
IFF_NOARP = 0x80

IFA_F_TEMPORARY = 1  # of IPv6: a privacy address (RFC 8981), gone within days
IFA_F_NODAD = 2
IFA_F_OPTIMISTIC = 4
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40  # of IPv6: not known yet to be nobody else's
IFA_F_NOPREFIXROUTE = 0x200

RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
_RT_SCOPE_HOST = 254

# Indices of net.ipv4.conf.*, which a link message can set: include/uapi/linux/ip.h.
IPV4_DEVCONF_FORWARDING = 1
IPV4_DEVCONF_ACCEPT_REDIRECTS = 4
IPV4_DEVCONF_SEND_REDIRECTS = 6
IPV4_DEVCONF_RP_FILTER = 8
IPV4_DEVCONF_ACCEPT_LOCAL = 23

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_RTM_NEWRULE = 32
_RTM_DELRULE = 33

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_PID, _IFLA_AF_SPEC = 1, 3, 4, 18, 19, 26
_IFLA_MASTER, _IFLA_NET_NS_FD = 10, 28
_IFLA_EXT_MASK, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 29, 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INET_CONF, _IFLA_INET6_ADDR_GEN_MODE = 1, 8
_IN6_ADDR_GEN_MODE_NONE = 1
_RTEXT_FILTER_SKIP_STATS = 8
_ARPHRD_ETHER = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 4, 6, 8
_FOREVER = 0xFFFFFFFF

_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 2, 4, 5, 6, 7, 15
_RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID = 9, 18, 30
_RTN_UNICAST, _RTN_LOCAL, _RTN_BROADCAST = 1, 2, 3
_RTPROT_KERNEL = 2
_RTM_F_FIB_MATCH = 0x2000
_RTNH_F_ONLINK = 4

_FRA_SRC, _FRA_PRIORITY, _FRA_TABLE = 2, 6, 15
_FR_ACT_TO_TBL = 1
_BEFORE_MAIN = 1000  # table main is looked at by the rule of priority 32766

_NDA_DST, _NDA_LLADDR, _NDA_PROTOCOL = 1, 2, 12
_NUD_PERMANENT = 0x80
_NTF_PROXY = 8


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6


def _link(index: int, flags: int, change: int, *parts: bytes) -> bytes:
    return pack("BxHiII", 0, 0, index, flags, change) + b"".join(parts)


def _end(name: str, address: bytes, mtu: int) -> bytes:
    # One queue a direction: the default is one a processor, which a machine of 64 pays for in each jail.
    parts = [string(_IFLA_IFNAME, name), number(_IFLA_NUM_TX_QUEUES, 1), number(_IFLA_NUM_RX_QUEUES, 1)]
    if address:
        parts.append(attribute(_IFLA_ADDRESS, address))
    if mtu:
        parts.append(number(_IFLA_MTU, mtu))
    return b"".join(parts)


def new_veth(
    name: str, address: bytes, peer: str, peer_address: bytes, pid: int, mtu: int = 0, flags: int = IFF_UP
) -> Message:
    """veth(4): ``name`` here, ``peer`` in the network namespace of process ``pid`` (down: it could not be up yet).

    MAC addresses of six bytes (empty: the kernel takes random ones); ``mtu`` 0 is the kernel's default.
    """
    there = _link(0, 0, 0, _end(peer, peer_address, mtu), number(_IFLA_NET_NS_PID, pid))
    data = nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, there))
    info = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"veth"), data)
    return _RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _link(0, flags, flags, _end(name, address, mtu), info)


def new_pair(name: str, peer: str) -> Message:
    """veth(4) with both ends in this network namespace, and down."""
    data = nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, _link(0, 0, 0, _end(peer, b"", 0))))
    info = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"veth"), data)
    return _RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _link(0, 0, 0, _end(name, b"", 0), info)


def new_bridge(name: str, address: bytes, mtu: int = 0) -> Message:
    """A bridge without ports, down. ``address`` and ``mtu`` as of ``new_veth``."""
    info = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"bridge"))
    return _RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _link(0, 0, 0, _end(name, address, mtu), info)


def move_link(index: int, netns: int) -> Message:
    """Take an interface to another network namespace, by a descriptor of that: it comes down, and loses its addresses.

    EEXIST if there is one of its name; EINVAL if it cannot be moved, as lo.
    """
    return _RTM_SETLINK, 0, _link(index, 0, 0, number(_IFLA_NET_NS_FD, netns))


def set_link(index: int, up: bool = False, ipv4: dict[int, int] | None = None, ipv6_silent: bool = False) -> Message:
    """Change an interface. ``ipv4``: net.ipv4.conf settings by IPV4_DEVCONF_ index.

    ``ipv6_silent``: no link-local address of its own, hence no router solicitation (addr_gen_mode none).
    """
    families = []
    if ipv4:
        settings = b"".join([number(setting, value) for setting, value in ipv4.items()])
        families.append(nested(AF_INET, nested(_IFLA_INET_CONF, settings)))
    if ipv6_silent:
        mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))
        families.append(nested(AF_INET6, mode))
    spec = nested(_IFLA_AF_SPEC, *families) if families else b""
    return _RTM_SETLINK, 0, _link(index, IFF_UP if up else 0, IFF_UP if up else 0, spec)


def delete_link(name: str) -> Message:
    """Remove an interface (of a veth, both ends). It costs 20 ms: the kernel waits until nobody can still use it."""
    return _RTM_DELLINK, 0, _link(0, 0, 0, string(_IFLA_IFNAME, name))


def get_link(index: int = 0, name: str = "") -> Message:
    """Ask for one interface, by ``index`` or by ``name``. Answered by what ``Interface`` reads."""
    which = string(_IFLA_IFNAME, name) if name else b""
    return _RTM_GETLINK, 0, _link(index, 0, 0, which, number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS))


def get_links() -> Message:
    """Ask for all interfaces. Answered by what ``Interface`` reads."""
    return _RTM_GETLINK, NLM_F_DUMP, _link(0, 0, 0, number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS))


class Interface:
    """An answer to ``get_link``. ``address`` is the MAC address, empty where there is none.

    ``kind`` is that of whoever made it ("bridge"), "" for hardware and lo; ``master`` is the number of the bridge that
    it is a port of, 0 for none.
    """

    __slots__ = ("address", "flags", "index", "kind", "master", "mtu", "name")

    def __init__(self, body: bytes) -> None:
        kind, self.index, self.flags = unpack_from("xxHiI", body)
        found = attributes(body, 16)
        self.name = found[_IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape")
        self.mtu: int = unpack_from("I", found[_IFLA_MTU])[0]
        address = found.get(_IFLA_ADDRESS, b"")
        self.address = address if kind == _ARPHRD_ETHER and any(address) else b""
        made = attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
        self.kind = made.rstrip(b"\0").decode()
        self.master: int = unpack_from("I", found[_IFLA_MASTER])[0] if _IFLA_MASTER in found else 0


def new_address(
    index: int, address: bytes, prefix: int, broadcast: bytes = b"", flags: int = 0, preferred: int = _FOREVER
) -> Message:
    """Give an interface an address. ``preferred`` 0: never taken as a source by itself (deprecated, in IPv6's word)."""
    # As ip-address(8) does: else the kernel takes one of 127.0.0.0/8 for a source towards others, and then refuses it.
    scope = _RT_SCOPE_HOST if len(address) == 4 and address[0] == 127 else RT_SCOPE_UNIVERSE
    head = pack("BBBBI", _family(address), prefix, flags & 0xFF, scope, index)
    parts = [attribute(_IFA_LOCAL, address), attribute(_IFA_ADDRESS, address), number(_IFA_FLAGS, flags)]
    if broadcast:
        parts.append(attribute(_IFA_BROADCAST, broadcast))
    if preferred != _FOREVER:
        parts.append(attribute(_IFA_CACHEINFO, pack("IIII", preferred, _FOREVER, 0, 0)))
    return _RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, head + b"".join(parts)


def delete_address(index: int, address: bytes, prefix: int) -> Message:
    """Take an address from an interface."""
    head = pack("BBBBI", _family(address), prefix, 0, 0, index)
    return _RTM_DELADDR, 0, head + attribute(_IFA_LOCAL, address)


def get_addresses(family: int) -> Message:
    """Ask for every address of a family. Answered by what ``Address`` reads, in the order of the interfaces."""
    return _RTM_GETADDR, NLM_F_DUMP, pack("BBBBI", family, 0, 0, 0, 0)


def get_address(address: bytes) -> Message:
    """Ask for one address, IPv6 only; EADDRNOTAVAIL if no interface has it. Answered by what ``Address`` reads."""
    return _RTM_GETADDR, 0, pack("BBBBI", AF_INET6, 0, 0, 0, 0) + attribute(_IFA_ADDRESS, address)


class Address:
    """An address of an interface. ``broadcast`` is empty where there is none, and so is ``peer``, who has the other end
    of a point-to-point interface; ``flags`` are IFA_F_.
    """

    __slots__ = ("broadcast", "flags", "index", "packed", "peer", "prefix", "scope")

    def __init__(
        self,
        index: int,
        packed: bytes,
        prefix: int,
        broadcast: bytes,
        scope: int = 0,
        flags: int = 0,
        peer: bytes = b"",
    ) -> None:
        self.index = index
        self.packed = packed
        self.prefix = prefix
        self.broadcast = broadcast
        self.scope = scope
        self.flags = flags
        self.peer = peer

    @classmethod
    def read(cls, body: bytes) -> Address:
        """From an answer to ``get_address`` or ``get_addresses``."""
        prefix, flags, scope, index = unpack_from("xBBBI", body)
        found = attributes(body, 8)
        # With a point-to-point peer, IFA_ADDRESS is the peer's; IPv6 has no IFA_LOCAL without one.
        packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
        peer = found.get(_IFA_ADDRESS, packed)
        if _IFA_FLAGS in found:
            flags = unpack_from("I", found[_IFA_FLAGS])[0]
        broadcast = found.get(_IFA_BROADCAST, b"")
        return cls(index, packed, prefix, broadcast, scope, flags, b"" if peer == packed else peer)


class Route:
    """A unicast route, to be made or to be deleted: the latter needs the same values.

    ``source``: only for packets from that address and prefix (IPv6 with CONFIG_IPV6_SUBTREES). ``gateway`` is taken to
    be on the link. ``preferred``: the address from which this host then speaks. ``metric``: 0 for the kernel's.
    """

    __slots__ = ("gateway", "index", "metric", "preferred", "protocol", "source", "table", "target", "target_prefix")

    def __init__(
        self,
        index: int,
        target: bytes,
        target_prefix: int,
        table: int,
        protocol: int,
        gateway: bytes = b"",
        preferred: bytes = b"",
        source: tuple[bytes, int] = (b"", 0),
        metric: int = 0,
    ) -> None:
        self.index = index
        self.metric = metric
        self.target = target
        self.target_prefix = target_prefix
        self.table = table
        self.protocol = protocol
        self.gateway = gateway
        self.preferred = preferred
        self.source = source

    def prepended(self) -> Message:
        """Make it, before any equal one (``ip route prepend``; IPv6 has it behind them)."""
        return _RTM_NEWROUTE, NLM_F_CREATE, self.body()

    def deleted(self) -> Message:
        """Delete it, with any metric where it has the kernel's."""
        return _RTM_DELROUTE, 0, self.body()

    def body(self, kind: int = _RTN_UNICAST) -> bytes:
        """What follows the header, for a route of that RTN_ kind."""
        family = _family(self.target)
        scope = RT_SCOPE_UNIVERSE if self.gateway or family == AF_INET6 else RT_SCOPE_LINK
        if kind == _RTN_LOCAL and family == AF_INET:
            scope = _RT_SCOPE_HOST
        head = pack(
            "BBBBBBBBI", family, self.target_prefix, self.source[1], 0, min(self.table, 255), self.protocol, scope,
            kind, _RTNH_F_ONLINK if self.gateway else 0,
        )  # fmt: skip
        parts = [number(_RTA_OIF, self.index)]
        if self.table > 255:
            parts.append(number(_RTA_TABLE, self.table))
        if self.metric:
            parts.append(number(_RTA_PRIORITY, self.metric))
        pairs = (
            (_RTA_DST, self.target if self.target_prefix else b""),
            (_RTA_SRC, self.source[0]),
            (_RTA_GATEWAY, self.gateway),
            (_RTA_PREFSRC, self.preferred),
        )
        parts += [attribute(kind, value) for kind, value in pairs if value]
        return head + b"".join(parts)


def new_local(index: int, address: bytes) -> Message:
    """Take packets to an address of the interface for this host's own, from now on.

    With a new IPv6 address the kernel makes such a route by itself, but some time later: addrconf_dad_start leaves it
    to a worker, duplicate address detection or not.
    """
    route = Route(index, address, 8 * len(address), RT_TABLE_LOCAL, _RTPROT_KERNEL)
    return _RTM_NEWROUTE, NLM_F_CREATE, route.body(_RTN_LOCAL)


def missing_local(index: int, address: bytes, protocol: int) -> Message:
    """The same for IPv4, where there is none: EEXIST if there is."""
    route = Route(index, address, 8 * len(address), RT_TABLE_LOCAL, protocol)
    return _RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route.body(_RTN_LOCAL)


def delete_local(index: int, address: bytes, protocol: int) -> Message:
    """Delete what ``missing_local`` has made: ESRCH if it had not to."""
    route = Route(index, address, 8 * len(address), RT_TABLE_LOCAL, protocol)
    return _RTM_DELROUTE, 0, route.body(_RTN_LOCAL)


def new_rule(source: bytes, table: int) -> Message:
    """Have what is sent from that address look for its way in a table of its own (ip-rule(8)), before table main."""
    head = pack("BBBBBBBBI", _family(source), 0, 8 * len(source), 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    parts = (attribute(_FRA_SRC, source), number(_FRA_PRIORITY, _BEFORE_MAIN), number(_FRA_TABLE, table))
    return _RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, head + b"".join(parts)


def delete_rule(family: int) -> Message:
    """Remove the first of those that ``new_rule`` has made; ENOENT if there is none."""
    head = pack("BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    return _RTM_DELRULE, 0, head + number(_FRA_PRIORITY, _BEFORE_MAIN)


def get_route(target: bytes, matched: bool = False) -> Message:
    """Ask how this host would send to ``target``, or (``matched``) which entry says so. Nothing is sent.

    Answered by what ``Found`` reads; ENETUNREACH if there is no way.
    """
    flags = _RTM_F_FIB_MATCH if matched else 0
    head = pack("BBBBBBBBI", _family(target), 8 * len(target), 0, 0, 0, 0, 0, 0, flags)
    return _RTM_GETROUTE, 0, head + attribute(_RTA_DST, target)


class Found:
    """An answer to ``get_route``. ``preferred``: the source address, empty if it names none."""

    __slots__ = ("broadcast", "index", "local", "preferred", "protocol")

    def __init__(self, body: bytes) -> None:
        self.protocol = body[5]
        self.local = body[7] == _RTN_LOCAL
        self.broadcast = body[7] == _RTN_BROADCAST
        found = attributes(body, 12)
        self.index: int = unpack_from("i", found[_RTA_OIF])[0] if _RTA_OIF in found else 0
        self.preferred = found.get(_RTA_PREFSRC, b"")


def get_routes(family: int, table: int = RT_TABLE_MAIN) -> Message:
    """Ask for the routes of a family in a table. Answered by what ``Entry`` reads, and by others' as well."""
    return _RTM_GETROUTE, NLM_F_DUMP, pack("BBBBBBBBI", family, 0, 0, 0, table, 0, 0, 0, 0)


class Entry:
    """A route of a table, an answer to ``get_routes``. ``on_link``: whoever is meant is reached without a gateway.

    ``index`` is the interface's, 0 where it has none or several; ``leads``: to others, and in the table main.
    """

    __slots__ = ("bits", "index", "leads", "on_link", "protocol", "target")

    def __init__(self, body: bytes) -> None:
        family, self.bits, table, self.protocol, kind = body[0], body[1], body[4], body[5], body[7]
        found = attributes(body, 12)
        self.target = found.get(_RTA_DST, bytes(4 if family == AF_INET else 16))
        through = any(kind in found for kind in (_RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID))
        self.index: int = unpack_from("i", found[_RTA_OIF])[0] if _RTA_OIF in found else 0
        self.leads = kind == _RTN_UNICAST and table == RT_TABLE_MAIN and self.bits > 0
        self.on_link = self.leads and not through


def _neighbour(index: int, address: bytes, state: int, flags: int) -> bytes:
    return pack("BxxxiHBB", _family(address), index, state, flags, 0) + attribute(_NDA_DST, address)


def new_neighbour(index: int, address: bytes, mac: bytes) -> Message:
    """Where ``address`` is on the link, for good: never asked for, never overwritten by what the link says."""
    body = _neighbour(index, address, _NUD_PERMANENT, 0) + attribute(_NDA_LLADDR, mac)
    return _RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body


def new_proxy(index: int, address: bytes, protocol: int) -> Message:
    """Answer for ``address`` on that link: ARP where its route leaves by another interface and forwarding is on.

    Of IPv4 the link may be 0: on whatever link one asks. It is permanent, as else it is gone when the link has lost its
    carrier for a moment.
    """
    body = _neighbour(index, address, _NUD_PERMANENT, _NTF_PROXY) + attribute(_NDA_PROTOCOL, bytes([protocol]))
    return _RTM_NEWNEIGH, NLM_F_CREATE, body


def get_proxies(family: int) -> Message:
    """Ask for what this host answers for, of IPv4 (4) or IPv6. Answered by what ``proxied`` reads."""
    body = pack("BxxxiHBB", AF_INET if family == 4 else AF_INET6, 0, 0, _NTF_PROXY, 0)
    return _RTM_GETNEIGH, NLM_F_DUMP, body


def proxied(body: bytes) -> tuple[int, bytes]:
    """The interface and the address of an answer to ``get_proxies``."""
    return unpack_from("i", body, 4)[0], attributes(body, 12)[_NDA_DST]


def delete_proxy(index: int, address: bytes) -> Message:
    """Answer for it no more."""
    return _RTM_DELNEIGH, 0, _neighbour(index, address, 0, _NTF_PROXY)
