"""The rules of ipnat(5), as values: what FreeBSD keeps in a struct ipnat, by form.

A rule is a ``Map``, ``MapBlock``, ``Rdr``, ``Rewrite``, ``Divert`` or ``Encap``, or a ``No``, which is an exception to
others. All of them have

* ``family``: 4 or 6, of everything in the rule;
* ``interfaces``: two names, where packets come in and where they go out. One written name stands for both. What leaves
  by the second is mapped (map, bimap, map-block, ``out``), what arrives at the first is redirected (rdr, ``in``). ``*``
  is any interface;
* ``match``: which packets;
* ``protocols``: their numbers; ``()`` is any protocol, ``(6, 17)`` is tcp/udp;
* ``line``: where it was read, which is no part of its value.

Ports and addresses are checked when a rule is read: what is here is within its range. Nothing is looked up later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

Address = IPv4Address | IPv6Address

TCP = 6
UDP = 17
ICMP = 1
ICMPV6 = 58


@dataclass(frozen=True, slots=True)
class Net:
    """Addresses under a mask. ``mask`` may have holes, as a hexadecimal or dotted one may; no bit of ``address`` is
    outside it.

    On the right of ``->``: ``0/0`` (``everything``) leaves the address as it is, ``0/32`` or ``::/128``
    (``interface``) is whatever address the interface has now.
    """

    address: Address
    mask: Address

    @property
    def bits(self) -> int | None:
        """The length of the prefix; None where the mask has holes."""
        size = self.mask.max_prefixlen
        inverse = int(self.mask) ^ ((1 << size) - 1)
        return None if inverse & (inverse + 1) else size - inverse.bit_length()

    @property
    def everything(self) -> bool:
        """Whether it is any address."""
        return int(self.mask) == 0

    @property
    def interface(self) -> bool:
        """Whether it stands for the interface's own address."""
        return int(self.address) == 0 and self.bits == self.mask.max_prefixlen

    @property
    def host(self) -> bool:
        """Whether it is a single address, and not the interface's own."""
        return int(self.address) != 0 and self.bits == self.mask.max_prefixlen


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses from ``first`` to ``last``, both included."""

    first: Address
    last: Address


@dataclass(frozen=True, slots=True)
class Split:
    """Two addresses, which take turns (rdr)."""

    first: Address
    second: Address


@dataclass(frozen=True, slots=True)
class Lookup:
    """Addresses that ippool(8) keeps under a name or number. ``dstlist`` is for the right of ``->`` alone (rewrite)."""

    kind: Literal["pool", "hash", "dstlist"]
    name: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports that a match takes. ``high`` counts for the last three signs, and is never below ``low`` there.

    ``low <> high`` is what is below low or above high, ``low >< high`` what lies between them, without either of them,
    and ``low : high`` what lies between them, both included.
    """

    sign: Literal["=", "!=", "<", ">", "<=", ">=", "<>", "><", ":"]
    low: int
    high: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """Which packets a rule is for.

    ``extended`` says how it was written: ``from … to …``, or the one address that the short form has. That is the
    source for map, the destination for rdr with ``port P`` (``=``) or ``port P-Q`` (``:``); the other is any.
    ``not_destination`` (``! to``) is only with map, rewrite and the like, ``not_source`` (``! from``) only with rdr.
    """

    source: Net | Lookup
    destination: Net | Lookup
    source_ports: Ports | None = None
    destination_ports: Ports | None = None
    not_source: bool = False
    not_destination: bool = False
    extended: bool = False


@dataclass(frozen=True, slots=True)
class PortMap:
    """New source ports, or ids of ICMP queries (``icmp``), both ends included.

    ``auto`` gives each source address a part of 1024 to 65535 for its own. ``sequential`` takes them in order.
    """

    low: int
    high: int
    auto: bool = False
    sequential: bool = False
    icmp: bool = False


@dataclass(frozen=True, slots=True)
class Proxy:
    """A protocol that speaks of addresses: ``proxy port PORT LABEL/PROTO``, or ``proxy LABEL`` of rdr (``port`` 0).

    ``label`` is ftp, irc, rpcbind, pptp, h323, raudio, dns, ipsec, netbios or rcmd, or what the kernel does not know.
    With a port, only packets to it are matched, and ``protocols`` of the rule is the proxy's.
    """

    label: str
    port: int = 0
    config: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """What map and rdr have in common.

    ``age`` is seconds of idleness after which a session is forgotten, forwards and for replies; None is the kernel's
    own. ``mssclamp`` is the greatest MSS in bytes, 0 is not to touch it. ``tag`` is of up to 16 bytes, and ``""`` none.
    ``purge`` says that a session goes with its rule.
    """

    round_robin: bool = False
    frag: bool = False
    age: tuple[int, int] | None = None
    mssclamp: int = 0
    tag: str = ""
    purge: bool = False


@dataclass(frozen=True, slots=True)
class Map:
    """``map``: the source of what leaves becomes ``target``; ``bimap``: and the destination of what comes, reversed."""

    kind: Literal["map", "bimap"]
    family: Literal[4, 6]
    interfaces: tuple[str, str]
    match: Match
    target: Net | Range
    protocols: tuple[int, ...] = ()
    portmap: PortMap | None = None
    proxy: Proxy | None = None
    options: Options = Options()
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class MapBlock:
    """``map-block``: each source address has a fixed address of ``target`` and a block of ``ports`` ports of its own.

    ``ports`` 0 with ``auto`` is as many as there are for each; 0 without is FreeBSD's ``ports 0``, one.
    """

    family: Literal[4, 6]
    interfaces: tuple[str, str]
    match: Match
    target: Net
    ports: int = 0
    auto: bool = False
    protocols: tuple[int, ...] = ()
    options: Options = Options()
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Rdr:
    """``rdr``: the destination of what arrives becomes ``target``, its port one of ``port`` to ``port_high``.

    ``port`` 0 leaves the port. ``fixed`` (``port = P``) takes all ports to that one; without it the first port of a
    range in the match becomes ``port``, the next the next. ``sticky`` keeps a client with the target that it had.
    Where the match has no ports (None), all become ``port``.
    """

    family: Literal[4, 6]
    interfaces: tuple[str, str]
    match: Match
    target: Net | Range | Split
    port: int = 0
    port_high: int = 0
    fixed: bool = False
    protocols: tuple[int, ...] = ()
    sticky: bool = False
    proxy: Proxy | None = None
    options: Options = Options()
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class No:
    """``no map`` and the like: packets that match are not for rules of this kind that come after it."""

    kind: Literal["map", "bimap", "map-block", "rdr"]
    family: Literal[4, 6]
    interfaces: tuple[str, str]
    match: Match
    protocols: tuple[int, ...] = ()
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class NewPorts:
    """Ports of a rewrite: from ``low`` to ``high``. ``fixed`` is ``port = P``."""

    low: int
    high: int
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """``rewrite in|out on …``: both addresses, and ports if they are given, become new ones."""

    direction: Literal["in", "out"]
    family: Literal[4, 6]
    interfaces: tuple[str, str]
    match: Match
    source: Net | Range
    destination: Net | Range | Lookup
    source_ports: NewPorts | None = None
    destination_ports: NewPorts | None = None
    protocols: tuple[int, ...] = ()
    purge: bool = False
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Divert:
    """``divert in|out on …``: packets are put into UDP from ``source`` to ``destination``, which is a socket."""

    direction: Literal["in", "out"]
    family: Literal[4, 6]
    interfaces: tuple[str, str]
    match: Match
    source: Net
    source_port: int
    destination: Net
    destination_port: int
    protocols: tuple[int, ...] = ()
    purge: bool = False
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Encap:
    """``encap in|out on …``: packets are put into IP from ``source`` to ``destination``."""

    direction: Literal["in", "out"]
    family: Literal[4, 6]
    interfaces: tuple[str, str]
    match: Match
    source: Net
    destination: Net
    protocols: tuple[int, ...] = ()
    purge: bool = False
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """``proxy dns/udp config NAME { … };``: names that the proxy lets through (True) or not, in their order."""

    label: str
    protocol: int
    name: str
    names: tuple[tuple[bool, str], ...]
    line: int = field(default=0, compare=False)


Rule = Map | MapBlock | Rdr | No | Rewrite | Divert | Encap


@dataclass(frozen=True, slots=True)
class Rules:
    """A file of rules: ``name`` is the file's, for messages; ``rules`` are in its order.

    ``warnings`` are lines for who loads them, about what means nothing (``sticky`` where there is one address).
    """

    name: str
    rules: tuple[Rule, ...]
    proxies: tuple[ProxyConfig, ...] = ()
    warnings: tuple[str, ...] = ()
