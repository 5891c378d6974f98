"""What may leave a jail: ng.egress as rules of nf_tables.

    table inet jailng_egress {
        map leaving { type ifname : verdict; }     # what the host would route: a jail's interface to its rules
        map arriving { type ifname : verdict; }    # what is for the host itself
        set lan4 { type ipv4_addr; flags interval; }
        set lan6 { type ipv6_addr; flags interval; }
        chain forward {
            type filter hook forward priority -10
            iifname != "jng*" accept
            ct state established,related accept
            iifname vmap @leaving
        }
        chain input {
            type filter hook input priority -10
            iifname != "jng*" accept
            ct state established,related accept
            iifname vmap @arriving
        }
    }

A jail has chains ``jail7`` and ``jail7-host`` (what is for the host), which end with ``counter drop``; what they let
pass they ``return``, and the administrator's chains have their say. A rule that logs or has a rate is a chain of its
own, ``jail7-2``. The chains of a jail in a jail are gone through first and then those of the jails above, by way of
``jail8-up``: it can do what all of them let pass. The host itself is reached only by what is in the set ``judged`` of
``core/firewall.py``: jails with rules, if every jail above has some, too.
"""

from __future__ import annotations

from jailng.core.fragment import BEFORE_FILTER, Fragment, chain_name
from jailng.linux import nftables as nft
from jailng.linux import nftrules as nfr
from jailng.params.egress import SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message
    from jailng.params.egress import Rule
    from jailng.params.rules import Network

TABLE = "jailng_egress"
MAPS = {"leaving": True, "arriving": True}  # those whose keys are interfaces of jails
REST = "rest"
_JAILS = b"jng"
_PROTOCOLS = {"tcp": (nfr.TCP,), "udp": (nfr.UDP,), "icmp": (nfr.ICMP, nfr.ICMPV6)}
# Nobody reaches these through a router but where it is his own network.
_PRIVATE = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 224.0.0.0/3",
    "::/8 fc00::/7 fe80::/10 fec0::/10 ff00::/8",
)


def table() -> list[Message]:
    """The table, with nothing of any jail in it."""
    name = [(nft.TYPE_IFNAME, 16)]
    made = [
        nft.new_table(TABLE),
        nfr.new_map(TABLE, "leaving", 1, name),
        nfr.new_map(TABLE, "arriving", 2, name),
        nfr.new_range_set(TABLE, "lan4", 3, nfr.TYPE_IPV4, 4),
        nfr.new_range_set(TABLE, "lan6", 4, nfr.TYPE_IPV6, 16),
        nft.new_chain(TABLE, "forward", nft.FORWARD, BEFORE_FILTER),
        nft.new_chain(TABLE, "input", nft.INPUT, BEFORE_FILTER),
    ]
    for chain, map_ in (("forward", "leaving"), ("input", "arriving")):
        others = [nft.load(nft.IIFNAME), nft.compare(nft.UNEQUAL, _JAILS), nft.verdict(nft.ACCEPT)]
        answers = [*nft.connection_state(nft.ESTABLISHED | nft.RELATED), nft.verdict(nft.ACCEPT)]
        ours = nfr.Key().meta(nft.IIFNAME, 16).led_by(map_)
        made += [nft.new_rule(TABLE, chain, *rule) for rule in (others, answers, ours)]
    return made


def neighbourhood(connected: list[Network]) -> list[Message]:
    """What ``lan`` means from now on: the networks to which the host is connected, and all that are private."""
    from jailng.params.rules import Words

    made = []
    for table_set, length, private in (("lan4", 4, _PRIVATE[0]), ("lan6", 16, _PRIVATE[1])):
        networks = [Words("", word).network(word) for word in private.split()]
        networks += [network for network in connected if len(network[0]) == length]
        ranges = _merged([_range(network) for network in networks])
        made += [nfr.delete_all_elements(TABLE, table_set), *nfr.new_ranges(TABLE, table_set, ranges, length)]
    return made


def _range(network: Network) -> tuple[int, int]:
    address, bits = network
    first = int.from_bytes(address, "big")
    return first, first | ((1 << (8 * len(address) - bits)) - 1)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1] + 1:
            made[-1] = made[-1][0], max(last, made[-1][1])
        else:
            made.append((first, last))
    return made


class Above:
    """A jail above: its ``jid``, and whether it has rules of its own (``judged``)."""

    __slots__ = ("jid", "judged")

    def __init__(self, jid: int, judged: bool) -> None:
        self.jid = jid
        self.judged = judged


def reaches_host(rules: list[Rule] | None, above: list[Above]) -> bool:
    """Whether rules decide what the jail reaches of the host; else it is nothing."""
    return (rules is not None or bool(above)) and all(jail.judged for jail in above)


def passes_to_host(rules: list[Rule]) -> bool:
    """Whether one of these lets anything of the host be reached."""
    return any(rule.passes and _matches(rule, for_host=True) for rule in rules)


def fragment(jid: int, name: str, interfaces: list[str], rules: list[Rule] | None, above: list[Above]) -> Fragment:
    """What a jail has in the table. ``rules`` is None where it has none of its own; ``above`` begins with the nearest.

    ``name`` is for the log.
    """
    made = Fragment(TABLE, jid)
    for map_, suffix in (("leaving", ""), ("arriving", "-host")):
        if rules is not None:
            chain = made.chain(chain_name(jid) + suffix)
            for number, rule in enumerate(rules, 1):
                _add(made, chain, number, rule, name)
            made.rule(chain, nfr.counter(), nft.verdict(nft.DROP), comment=REST)
        judged = [jail.jid for jail in above if jail.judged]
        outer = _entry(judged, suffix)
        entry = _entry([jid, *judged] if rules is not None else judged, suffix)
        if rules is not None and outer:
            made.chain(entry)
            made.rule(entry, nfr.jump(chain_name(jid) + suffix))
            made.rule(entry, nfr.goto(outer))
        if entry and (not suffix or reaches_host(rules, above)):
            for interface in interfaces:
                made.element(map_, nfr.interface_name(interface), chain=entry)
    return made


def _entry(judged: list[int], suffix: str) -> str:
    """Where the packets of a jail begin, whose jid is the first, those of the jails above the others."""
    if not judged:
        return ""
    return chain_name(judged[0]) + suffix + ("-up" if len(judged) > 1 else "")


def _add(made: Fragment, chain: str, number: int, rule: Rule, name: str) -> None:
    """The rule of that number as rules of the chain."""
    matches = _matches(rule, chain.endswith("-host"))
    verdict = nfr.leave() if rule.passes else nft.verdict(nft.DROP)
    if not matches:
        return
    if not (rule.rate or rule.log):
        for match in matches:
            made.rule(chain, *match, nfr.counter(), verdict, comment=str(number))
        return
    action = made.chain(f"{chain}-{number}")
    if rule.rate:
        over = nfr.limit(rule.rate, SECONDS[rule.unit], rule.burst, over=True)
        made.rule(action, over, nfr.counter(), nft.verdict(nft.DROP), comment=f"{number} over")
    if rule.log is not None:
        made.log(action, name, rule.log)
    made.rule(action, nfr.counter(), verdict, comment=str(number))
    for match in matches:
        made.rule(chain, *match, nfr.goto(action))


def _matches(rule: Rule, for_host: bool) -> list[list[bytes]]:
    """The packets that a rule is about, each list one way to be among them."""
    places: list[list[bytes]] = []
    for place in rule.places:
        places += _for_host(place) if for_host else _beyond(place)
    kinds: list[list[bytes]] = [[]]
    if rule.protocols:
        numbers = [number for protocol in rule.protocols for number in _PROTOCOLS[protocol]]
        kinds = [nfr.equals(nft.load(nft.L4PROTO), bytes([number])) for number in numbers]
    ports: list[list[bytes]] = [[]]
    if rule.ports:
        to_port = nfr.payload(2, 2, 2)
        ports = [nfr.within(to_port, low.to_bytes(2, "big"), high.to_bytes(2, "big")) for low, high in rule.ports]
    return [[*place, *kind, *port] for place in places for kind in kinds for port in ports]


def _for_host(place: str | Network) -> list[list[bytes]]:
    if isinstance(place, str):
        return [[]] if place == "host" else []
    return [_to(place)] if place[1] == 8 * len(place[0]) else []


def _beyond(place: str | Network) -> list[list[bytes]]:
    to_jail = nft.load(nft.OIFNAME)
    if not isinstance(place, str):
        return [_to(place)]
    if place in ("any", "jails"):
        return [[]] if place == "any" else [[to_jail, nft.compare(nft.EQUAL, _JAILS)]]
    if place == "host":
        return []
    not_to_jail = [to_jail, nft.compare(nft.UNEQUAL, _JAILS)]
    return [
        [*not_to_jail, *nfr.family_is(six), *nfr.Key().destination(six).is_in(name, inverted=place == "world")]
        for six, name in ((False, "lan4"), (True, "lan6"))
    ]


def _to(network: Network) -> list[bytes]:
    address, bits = network
    six = len(address) == 16
    return [*nfr.family_is(six), *(nfr.in_network(nfr.destination(six), address, bits) if bits else [])]
