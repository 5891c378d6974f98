"""Connections that are led to a jail: ng.rdr as rules of nf_tables.

    table inet jailng_rdr {
        map from_on_to_4 { type ipv4_addr . ifname . ipv4_addr . inet_proto . inet_service : verdict; flags interval; }
        map from_on_4, map from_to_4, map from_4, map on_to_4, map on_4, map to_4, map any_4, and the same for IPv6
        map targets_4 { type ipv4_addr . inet_proto . inet_service : verdict; flags interval; }, map targets_6
        set hairpins { type ifname . ifname; }
        chain prerouting  { type nat hook prerouting priority dstnat; for each of these: KEY vmap @MAP }
        chain output      { type nat hook output priority -100; the same, less those with an interface }
        chain postrouting { type nat hook postrouting priority srcnat; iifname . oifname @hairpins snat }
        chain forward     { type filter hook forward priority -10; ct status dnat; TARGET vmap @targets_4; ... }
        chain input       { type filter hook input priority -10; ct status dnat; TARGET vmap @targets_4; ... }
    }

One look-up in each map finds the rule that a new connection fits, however many jails there are. The maps are asked in
the order in which they are named: who it comes from counts before what it goes to. No two rules fit the same packet in
the same map: the kernel refuses the second. Each rule is a chain, ``jail7-2``, that logs, counts and translates.

``jail7-to`` judges what is on its way to a target of the jail's: what does not go through one of its interfaces is
dropped, for the jail is dead, and its address is the host's again, or nobody's. ``jail7-in`` counts, rule by rule. A
jail that calls itself by the host's address (``hairpins``) sees that as its client, as it would not answer itself.
Whatever else the administrator drops, before or after, is dropped: nothing here accepts before his chains.
"""

from __future__ import annotations

from jailng.core import egress
from jailng.core.fragment import BEFORE_FILTER, Fragment, chain_name
from jailng.errors import JailError
from jailng.linux import nftables as nft
from jailng.linux import nftrules as nfr
from jailng.params.rules import show_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailng.linux.ctnetlink import Ends
    from jailng.linux.netlink import Message
    from jailng.params.redirect import Redirect

TABLE = "jailng_rdr"
GONE = "gone"
# What a rule may tell of a packet, besides protocol and port: the first that fits counts.
_TIERS = (
    ("from", "on", "to"), ("from", "on"), ("from", "to"), ("from",), ("on", "to"), ("on",), ("to",), ()
)  # fmt: skip
_FAMILIES = {4: (nfr.TYPE_IPV4, 4), 6: (nfr.TYPE_IPV6, 16)}
_PROTOCOLS = {"tcp": nfr.TCP, "udp": nfr.UDP}
_LOOPBACK = {4: (b"\x7f\0\0\0", 8), 6: (bytes(15) + b"\1", 128)}


def _map(tier: tuple[str, ...], family: int) -> str:
    return f"{'_'.join(tier) or 'any'}_{family}"


_HAIRPINS = "hairpins"
MAPS = {_map(tier, family): False for family in _FAMILIES for tier in _TIERS}
MAPS |= {"targets_4": False, "targets_6": False, _HAIRPINS: True}  # whose keys are interfaces of jails
_NAME, _PROTOCOL, _PORT = (nft.TYPE_IFNAME, 16), (nft.TYPE_INET_PROTO, 1), (nft.TYPE_INET_SERVICE, 2)


def lengths(map_: str) -> list[int]:
    """How many bytes each part of a key of the map has."""
    if map_ in egress.MAPS or map_ == _HAIRPINS:
        return [16, 16][: 1 + (map_ == _HAIRPINS)]
    *words, family = map_.split("_")
    address = _FAMILIES[int(family)][1]
    return [*[16 if word == "on" else address for word in words if word != "any"], 1, 2]


def table() -> list[Message]:
    """The table, with nothing of any jail in it."""
    made = [nft.new_table(TABLE)]
    number = 0
    for family, address in _FAMILIES.items():
        for tier in _TIERS:
            number += 1
            parts = [*[_NAME if word == "on" else address for word in tier], _PROTOCOL, _PORT]
            made.append(nfr.new_map(TABLE, _map(tier, family), number, parts, joined=True))
        number += 1
        made.append(nfr.new_map(TABLE, f"targets_{family}", number, [address, _PROTOCOL, _PORT], joined=True))
    made += [
        nfr.new_joined_set(TABLE, _HAIRPINS, number + 1, [_NAME, _NAME]),
        nfr.new_nat_chain(TABLE, "prerouting", nft.PREROUTING, nfr.DSTNAT),
        nfr.new_nat_chain(TABLE, "output", nfr.OUTPUT, nfr.DSTNAT),
        nfr.new_nat_chain(TABLE, "postrouting", nfr.POSTROUTING, nfr.SRCNAT),
        nft.new_chain(TABLE, "forward", nft.FORWARD, BEFORE_FILTER),
        nft.new_chain(TABLE, "input", nft.INPUT, BEFORE_FILTER),
    ]
    rules = [*_leading("prerouting", _TIERS), *_leading("output", [tier for tier in _TIERS if "on" not in tier])]
    hairpin = nfr.Key().meta(nft.IIFNAME, 16).meta(nft.OIFNAME, 16).is_in(_HAIRPINS)
    for six in (False, True):
        translated = [*nft.connection_status(nft.DNATTED), *nfr.family_is(six)]
        rules.append(("postrouting", [*hairpin, *translated, *nfr.snat_to_original(six)]))
    rules += [*_judging("forward"), *_judging("input")]
    return made + [nft.new_rule(TABLE, chain, *expressions) for chain, expressions in rules]


def _leading(chain: str, tiers: Iterable[tuple[str, ...]]) -> list[tuple[str, list[bytes]]]:
    rules = []
    for family in _FAMILIES:
        six = family == 6
        for tier in tiers:
            key = nfr.Key()
            if "from" in tier:
                key.source(six)
            if "on" in tier:
                key.meta(nft.IIFNAME, 16)
            if "to" in tier:
                key.destination(six)
            expressions = nfr.family_is(six)
            if "to" not in tier:  # any address, but of the host's
                address, bits = _LOOPBACK[family]
                expressions += nfr.is_local()
                expressions += nfr.in_network(nfr.destination(six), address, bits, inverted=True)
            rules.append((chain, [*expressions, *key.protocol().destination_port().led_by(_map(tier, family))]))
    return rules


def _judging(chain: str) -> list[tuple[str, list[bytes]]]:
    rules = []
    for family in _FAMILIES:
        six = family == 6
        translated = [*nft.connection_status(nft.DNATTED), *nfr.family_is(six)]
        there = nfr.Key().destination(six).protocol().destination_port().led_by(f"targets_{family}")
        back = nfr.Key().source(six).protocol().source_port().led_by(f"targets_{family}")
        rules.append((chain, [*translated, *nfr.goes(nfr.FROM_BEGINNER), *there]))
        rules.append((chain, [*translated, *nfr.goes(nfr.ANSWER), *back]))
    return rules


class Lead:
    """A redirect of one family, with the address of the jail that it leads to. ``number`` is its place in ng.rdr."""

    __slots__ = ("family", "number", "rule", "target")

    def __init__(self, number: int, rule: Redirect, target: bytes) -> None:
        self.number = number
        self.rule = rule
        self.target = target
        self.family = 4 if len(target) == 4 else 6

    @property
    def protocols(self) -> list[int]:
        """Their numbers."""
        return [_PROTOCOLS[protocol] for protocol in self.rule.protocols]

    @property
    def text(self) -> str:
        """The rule, with the address that it leads to."""
        return f"{show_address(self.target)} {self.rule.text}"

    def has_led(self, began: Ends) -> bool:
        """Whether a connection, which has been led to the target, fits this rule by how it was begun."""
        low, high = self.rule.ports
        here = self.rule.address in (b"", began.destination)
        return here and began.protocol in self.protocols and low <= began.destination_port <= high

    def port_for(self, port: int) -> int:
        """The target's port that a connection to this port is led to."""
        low, high = self.rule.target_ports
        return low if low == high else port

    @property
    def chain(self) -> str:
        """What its chain's name ends with."""
        return f"-{self.number}{'-6' if self.family == 6 else ''}"


def leads(rules: list[Redirect], addresses: list[bytes]) -> list[Lead]:
    """Where the rules of a jail with these addresses lead, its first ones first. Raises JailError."""
    made = []
    for number, rule in enumerate(rules, 1):
        if rule.target:
            if rule.target not in addresses:
                raise JailError(f'ng.rdr: "{rule.text}": {show_address(rule.target)} is no address of the jail')
            made.append(Lead(number, rule, rule.target))
            continue
        first: dict[int, bytes] = {}
        for address in addresses:
            first.setdefault(4 if len(address) == 4 else 6, address)
        wanted = [first[family] for family in first if rule.family in (0, family)]
        if not wanted:
            kind = f"IPv{rule.family} address" if rule.family else "address"
            raise JailError(f'ng.rdr: "{rule.text}": the jail has no {kind} that could be reached')
        made += [Lead(number, rule, address) for address in wanted]
    return made


def fragment(jid: int, name: str, interfaces: list[str], wanted: list[Lead]) -> Fragment:
    """What a jail has in the table. ``name`` is for the log."""
    made = Fragment(TABLE, jid)
    if not wanted:
        return made
    base = chain_name(jid)
    judge, tally = made.chain(f"{base}-to"), made.chain(f"{base}-in")
    for interface in interfaces:
        for way in (nft.OIFNAME, nft.IIFNAME):
            made.rule(judge, *nfr.equals(nft.load(way), nfr.interface_name(interface)), nfr.goto(tally))
        for other in interfaces:
            made.element(_HAIRPINS, nfr.interface_name(interface) + nfr.interface_name(other))
    made.rule(judge, nfr.counter(), nft.verdict(nft.DROP), comment=GONE)
    for lead in wanted:
        chain = made.chain(base + lead.chain)
        _translate(made, chain, lead, name)
        for key, last in _keys(lead):
            made.element(_map(_tier(lead.rule), lead.family), key, last, chain)
    for lead in sorted(wanted, key=lambda lead: _TIERS.index(_tier(lead.rule))):  # the first that fits has led it
        _count(made, tally, lead)
    targets = {(lead.target, protocol, lead.rule.target_ports) for lead in wanted for protocol in lead.rule.protocols}
    for target, protocol, (low, high) in _apart(sorted(targets)):
        front = target + _padded(bytes([_PROTOCOLS[protocol]]))
        first, last = [front + _padded(port.to_bytes(2, "big")) for port in (low, high)]
        made.element(f"targets_{4 if len(target) == 4 else 6}", first, last, judge)
    return made


def _tier(rule: Redirect) -> tuple[str, ...]:
    told = (("from", rule.sources), ("on", rule.interface), ("to", rule.address))
    return tuple([word for word, given in told if given])


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


def _keys(lead: Lead) -> list[tuple[bytes, bytes]]:
    """The first and the last key of each range of packets that it is about."""
    rule = lead.rule
    front = [(b"", b"")]
    if rule.sources:
        front = [_ends(*network) for network in rule.sources]
    if rule.interface:
        interface = nfr.interface_name(rule.interface)
        front = [(a + interface, b + interface) for a, b in front]
    if rule.address:
        front = [(a + rule.address, b + rule.address) for a, b in front]
    made = []
    for protocol in rule.protocols:
        number = _padded(bytes([_PROTOCOLS[protocol]]))
        low, high = [_padded(port.to_bytes(2, "big")) for port in rule.ports]
        made += [(a + number + low, b + number + high) for a, b in front]
    return made


def _ends(address: bytes, bits: int) -> tuple[bytes, bytes]:
    mask = (1 << (8 * len(address) - bits)) - 1
    return address, (int.from_bytes(address, "big") | mask).to_bytes(len(address), "big")


def _apart(
    targets: list[tuple[bytes, str, tuple[int, int]]],
) -> list[tuple[bytes, str, tuple[int, int]]]:
    """Targets, sorted, with ranges of ports that overlap made one."""
    made: list[tuple[bytes, str, tuple[int, int]]] = []
    for target, protocol, (low, high) in targets:
        if made and made[-1][:2] == (target, protocol) and low <= made[-1][2][1]:
            made[-1] = target, protocol, (made[-1][2][0], max(high, made[-1][2][1]))
        else:
            made.append((target, protocol, (low, high)))
    return made


def _translate(made: Fragment, chain: str, lead: Lead, name: str) -> None:
    rule = lead.rule
    if rule.log is not None:
        made.log(chain, name, rule.log)
    low, high = rule.target_ports
    comment = str(lead.number)
    if low < high:
        made.rule(chain, nfr.counter(), *nfr.dnat(lead.target, 0), comment=comment)
        return
    for number in lead.protocols:  # nft(8) takes no port without a protocol
        kind = nfr.equals(nft.load(nft.L4PROTO), bytes([number]))
        made.rule(chain, *kind, nfr.counter(), *nfr.dnat(lead.target, low), comment=comment)


def _count(made: Fragment, chain: str, lead: Lead) -> None:
    """Count what belongs to connections that this rule has led here, in both directions."""
    rule, six = lead.rule, lead.family == 6
    low, high = [port.to_bytes(2, "big") for port in rule.ports]
    shared = nfr.within(nfr.originally("proto-dst"), low, high)
    if rule.address:
        shared = [*nfr.equals(nfr.originally("daddr", six), rule.address), *shared]
    sources: list[list[bytes]] = [[]]
    if rule.sources:
        sources = [nfr.in_network(nfr.originally("saddr", six), *network) for network in rule.sources]
    ways: list[list[bytes]] = [[]]
    if rule.interface:
        interface = nfr.interface_name(rule.interface)
        ways = [nfr.equals(nft.load(way), interface) for way in (nft.IIFNAME, nft.OIFNAME)]
    for protocol in rule.protocols:
        kind = nfr.equals(nft.load(nft.L4PROTO), bytes([_PROTOCOLS[protocol]]))
        for way in ways:
            for source in sources:
                match = [*nfr.family_is(six), *way, *kind, *source, *shared]
                made.rule(chain, *match, nfr.counter(), nfr.leave(), comment=str(lead.number))
