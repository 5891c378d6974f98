"""A network interface as it is, and what takes it to another network namespace and makes it again what it was.

rtnetlink(7); numbers of include/uapi/linux/if_link.h.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from jailng.linux.netlink import NLM_F_DUMP, attribute, attributes, nested, number, string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

IFF_UP = 1
# What of an interface's flags can be set, but for IFF_UP: DEBUG, NOTRAILERS, NOARP, PROMISC, ALLMULTI, MULTICAST,
# PORTSEL, AUTOMEDIA, DYNAMIC (__dev_change_flags() in net/core/dev.c).
SETTABLE = 0x4 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x2000 | 0x4000 | 0x8000
_IFF_NOARP = 0x80

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_GETNSID, _NETNSA_NSID, _NETNSA_FD = 90, 1, 3
_RTM_NEWLINKPROP, _RTM_DELLINKPROP = 108, 109
_IFLA_ADDRESS, _IFLA_BROADCAST, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 2, 3, 4, 5, 10
_IFLA_PROTINFO, _IFLA_TXQLEN, _IFLA_LINKMODE, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_PROTO_DOWN = 12, 13, 17, 18, 20, 39
# GSO_MAX_SEGS, GSO_MAX_SIZE, GRO_MAX_SIZE, GSO_IPV4_MAX_SIZE, GRO_IPV4_MAX_SIZE, in an order in which they can be set:
# the size for all is that for IPv4, too.
_IFLA_SIZES = (40, 41, 58, 63, 64)
_IFLA_STATS64, _IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 23, 27, 28, 29
_IFLA_CARRIER, _IFLA_NEW_IFINDEX, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 33, 49, 52, 53
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_VLAN_ID, _IFLA_BRPORT_ISOLATED = 1, 2, 1, 33
_AF_BRIDGE = 7
_RTEXT_FILTER_SKIP_STATS = 8
_NLM_F_CREATE, _NLM_F_EXCL = 0x400, 0x200


def _link(index: int, flags: int, change: int, *parts: bytes) -> bytes:
    return pack("BxHiII", 0, 0, index, flags, change) + b"".join(parts)


class Device:
    """What an interface is: ``kind`` is that of whoever made it ("veth"), "" for hardware and lo.

    ``flags`` are those of ``SETTABLE``; ``mac`` is empty where it has none, and ``everybody``, the hardware's address
    of all, likewise; ``carrier`` and ``mode`` are IFLA_CARRIER and IFLA_LINKMODE, ``sizes`` those of ``_IFLA_SIZES``,
    as far as they are known; ``others`` are its alternative names; ``master`` is the number of the bridge that it is a
    member of, 0 for none, and not among ``words``.
    """

    __slots__ = (
        *("alias", "carrier", "everybody", "flags", "group", "index", "kind", "mac", "master", "mode", "mtu"),
        *("name", "others", "queue", "sizes", "up"),
    )

    def __init__(self, name: str, index: int = 0) -> None:
        self.name = name
        self.index = index
        self.kind = ""
        self.flags = 0
        self.up = False
        self.mtu = 0
        self.queue = 0
        self.group = 0
        self.master = 0
        self.mac = b""
        self.everybody = b""
        self.carrier = self.mode = 0
        self.sizes: list[int] = []
        self.alias = b""
        self.others: list[bytes] = []

    @classmethod
    def read(cls, body: bytes) -> Device:
        """From an answer to ``get`` or ``everyone``."""
        index, flags = unpack_from("iI", body, 4)
        found = attributes(body, 16)
        made = cls(text(found[_IFLA_IFNAME]), index)
        made.kind = text(attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b""))
        made.flags, made.up = flags & SETTABLE, bool(flags & IFF_UP)
        made.mtu, made.queue, made.group = (_number(found, key) for key in (_IFLA_MTU, _IFLA_TXQLEN, _IFLA_GROUP))
        made.master = _number(found, _IFLA_MASTER)
        made.mac, made.everybody = found.get(_IFLA_ADDRESS, b""), found.get(_IFLA_BROADCAST, b"")
        made.carrier, made.mode = [found.get(key, b"\0")[0] for key in (_IFLA_CARRIER, _IFLA_LINKMODE)]
        made.sizes = [_number(found, key) for key in _IFLA_SIZES]
        made.alias = found.get(_IFLA_IFALIAS, b"").rstrip(b"\0")
        made.others = _alternatives(found.get(_IFLA_PROP_LIST, b""))
        return made

    def words(self) -> list[str]:
        """All of it, as words for a line of a record."""
        numbers = [str(value) for value in (self.index, self.flags, self.mtu, self.queue, self.group)]
        texts = [text.hex() or "-" for text in (self.mac, self.alias, *self.others)]
        more = ",".join([self.everybody.hex(), *[str(value) for value in (self.carrier, self.mode, *self.sizes)]])
        return [self.name, self.kind or "-", *numbers, *texts, f"={more}"]

    @classmethod
    def of_words(cls, words: list[str]) -> Device:
        """What ``words`` wrote."""
        made = cls(words[0], int(words[2]))
        made.kind = words[1] if words[1] != "-" else ""
        made.flags, made.mtu, made.queue, made.group = [int(word) for word in words[3:7]]
        texts = words[7:]
        if texts[-1].startswith("="):  # not in a record of an earlier release
            everybody, *rest = texts.pop()[1:].split(",")
            made.everybody = bytes.fromhex(everybody)
            made.carrier, made.mode, *made.sizes = [int(value) for value in rest]
        made.mac, made.alias, *made.others = [bytes.fromhex(word) if word != "-" else b"" for word in texts]
        return made


def text(value: bytes) -> str:
    """A name as the kernel has it, which need not be UTF-8."""
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def _number(found: dict[int, bytes], key: int) -> int:
    return int(unpack_from("I", found[key])[0]) if key in found else 0


def _alternatives(data: bytes) -> list[bytes]:
    """The names in an IFLA_PROP_LIST, which are several attributes of one kind."""
    names = []
    offset = 0
    while offset + 4 <= len(data):
        length, kind = unpack_from("HH", data, offset)
        if length < 4:
            break
        if kind & 0x3FFF == _IFLA_ALT_IFNAME:
            names.append(data[offset + 4 : offset + length].rstrip(b"\0"))
        offset += (length + 3) & ~3
    return names


def get(index: int = 0, name: str = "") -> Message:
    """Ask for one interface, by ``index`` or by ``name``. ENODEV: there is no such."""
    which = string(_IFLA_IFNAME, name) if name else b""
    return _RTM_GETLINK, 0, _link(index, 0, 0, which, number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS))


def everyone() -> Message:
    """Ask for every interface of the network namespace."""
    return _RTM_GETLINK, NLM_F_DUMP, _link(0, 0, 0, number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS))


def everyone_counted() -> Message:
    """As ``everyone``, with what ``Counters`` reads."""
    return _RTM_GETLINK, NLM_F_DUMP, _link(0, 0, 0)


class Counters:
    """What has gone through an interface, of an answer to ``everyone_counted``: in and out, since it was made."""

    __slots__ = (
        *("bytes_in", "bytes_out", "collisions", "dropped_in", "dropped_out", "errors_in", "errors_out"),
        *("packets_in", "packets_out"),
    )

    def __init__(self, body: bytes) -> None:
        counted = unpack_from("10Q", attributes(body, 16).get(_IFLA_STATS64, bytes(80)))
        self.packets_in, self.packets_out, self.bytes_in, self.bytes_out = counted[:4]
        self.errors_in, self.errors_out, self.dropped_in, self.dropped_out = counted[4:8]
        self.collisions = counted[9]


def get_namespace(netns: int) -> Message:
    """Ask for the number by which this network namespace speaks of another, by a descriptor, in IFLA_LINK_NETNSID."""
    return _RTM_GETNSID, 0, bytes(4) + number(_NETNSA_FD, netns)


def namespace(body: bytes) -> int:
    """The number in an answer to ``get_namespace``; -1: it never spoke of it."""
    return int(unpack_from("i", attributes(body, 4)[_NETNSA_NSID])[0])


def move(index: int, netns: int, number_there: int) -> Message:
    """Take an interface to a network namespace, by a descriptor, and number it ``number_there``: Linux 5.13.

    It goes down, leaves its bridge, and loses its addresses. EEXIST: one of its name, or one of its other names, is
    there; EBUSY: one of that number; EINVAL: the kernel moves none of its kind.
    """
    there = pack("HHi", 8, _IFLA_NEW_IFINDEX, number_there)
    return _RTM_SETLINK, 0, _link(index, 0, 0, number(_IFLA_NET_NS_FD, netns), there)


def rename(index: int, name: str) -> Message:
    """Give an interface that is down another name."""
    return _RTM_SETLINK, 0, _link(index, 0, 0, string(_IFLA_IFNAME, name))


def take_down(index: int) -> Message:
    """Have it be down."""
    return _RTM_SETLINK, 0, _link(index, 0, IFF_UP)


def prepare(index: int, was: Device) -> Message:
    """Have it be down for ``move``, and with ARP or without as it ``was``.

    One that gets anywhere without ARP has no detection of duplicate addresses there (ipv6_add_dev(),
    net/ipv6/addrconf.c), whatever becomes of its flags.
    """
    return _RTM_SETLINK, 0, _link(index, was.flags & _IFF_NOARP, IFF_UP | _IFF_NOARP)


def take_names(index: int, names: list[bytes]) -> Message:
    """Take these of its alternative names from it."""
    listed = [attribute(_IFLA_ALT_IFNAME, name + b"\0") for name in names]
    return _RTM_DELLINKPROP, 0, _link(index, 0, 0, nested(_IFLA_PROP_LIST, *listed))


def give_names(index: int, names: list[bytes]) -> Message:
    """Give it further alternative names."""
    listed = [attribute(_IFLA_ALT_IFNAME, name + b"\0") for name in names]
    return _RTM_NEWLINKPROP, _NLM_F_CREATE | _NLM_F_EXCL, _link(index, 0, 0, nested(_IFLA_PROP_LIST, *listed))


def restore(index: int, was: Device) -> list[Message]:
    """What makes an interface again what it ``was``, but for its names; each for itself, as not every kind has all."""
    messages = [set_mtu(index, was.mtu), describe(index, was.alias)]
    messages += [(_RTM_SETLINK, 0, _link(index, 0, 0, number(_IFLA_TXQLEN, was.queue)))]
    messages += [(_RTM_SETLINK, 0, _link(index, 0, 0, number(_IFLA_GROUP, was.group)))]
    messages += [(_RTM_SETLINK, 0, _link(index, 0, 0, attribute(_IFLA_PROTO_DOWN, b"\0")))]
    messages += [(_RTM_SETLINK, 0, _link(index, 0, 0, attribute(_IFLA_LINKMODE, bytes([was.mode]))))]
    if was.mac:
        messages.append(set_mac(index, was.mac))
    if was.everybody:
        messages.append((_RTM_SETLINK, 0, _link(index, 0, 0, attribute(_IFLA_BROADCAST, was.everybody))))
    if was.carrier:  # a tap's, say: root there can take it
        messages.append((_RTM_SETLINK, 0, _link(index, 0, 0, attribute(_IFLA_CARRIER, b"\1"))))
    if was.sizes:
        sizes = [number(key, size) for key, size in zip(_IFLA_SIZES, was.sizes, strict=True)]
        messages.append((_RTM_SETLINK, 0, _link(index, 0, 0, *sizes)))
    return [*messages, (_RTM_SETLINK, 0, _link(index, was.flags, SETTABLE))]


def new(name: str, kind: str, *parts: bytes, data: bytes = b"") -> Message:
    """Make an interface of that kind, which is down. EOPNOTSUPP: this kernel has none of the kind."""
    info = [attribute(_IFLA_INFO_KIND, kind.encode())]
    if data:
        info.append(nested(_IFLA_INFO_DATA, data))
    body = _link(0, 0, 0, string(_IFLA_IFNAME, name), *parts, nested(_IFLA_LINKINFO, *info))
    return _RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body


def new_vlan(name: str, tag: int, index: int) -> Message:
    """Make an interface for what has that tag on the interface ``index``."""
    return new(name, "vlan", number(_IFLA_LINK, index), data=attribute(_IFLA_VLAN_ID, pack("H", tag)))


def set_master(index: int, bridge: int) -> Message:
    """Make an interface a member of a bridge; 0: of none any more."""
    return _RTM_SETLINK, 0, _link(index, 0, 0, number(_IFLA_MASTER, bridge))


def isolate(index: int, isolated: bool) -> Message:
    """Have a member of a bridge reach no other that is isolated, or reach it."""
    body = pack("BxHiII", _AF_BRIDGE, 0, index, 0, 0)
    return _RTM_SETLINK, 0, body + nested(_IFLA_PROTINFO, attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated])))


def bring_up(index: int) -> Message:
    """Have it be up."""
    return _RTM_SETLINK, 0, _link(index, IFF_UP, IFF_UP)


def set_mtu(index: int, mtu: int) -> Message:
    """How many bytes a packet may have on it."""
    return _RTM_SETLINK, 0, _link(index, 0, 0, number(_IFLA_MTU, mtu))


def set_mac(index: int, mac: bytes) -> Message:
    """What its hardware's address is."""
    return _RTM_SETLINK, 0, _link(index, 0, 0, attribute(_IFLA_ADDRESS, mac))


def describe(index: int, words: bytes) -> Message:
    """What the administrator has to say of it; at most 255 bytes."""
    return _RTM_SETLINK, 0, _link(index, 0, 0, attribute(_IFLA_IFALIAS, words))


def delete(index: int) -> Message:
    """Remove an interface. EOPNOTSUPP: it is hardware, or lo."""
    return _RTM_DELLINK, 0, _link(index, 0, 0)
