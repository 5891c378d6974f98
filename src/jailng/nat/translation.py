"""What a rule does to a packet, in nf_tables' words: each rule as entries at the hooks where it has something to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jailng.nat import label
from jailng.nat.condition import (
    Condition,
    Family,
    Hook,
    Never,
    Refused,
    conditions,
    interface,
    protocols,
    reversed_match,
    takes_port,
)
from jailng.nat.dispatch import Entry, Step
from jailng.nat.rule import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Divert,
    Encap,
    Map,
    MapBlock,
    Match,
    Net,
    No,
    Options,
    Proxy,
    Rdr,
    Rewrite,
    Rule,
)
from jailng.nat.target import blocks, new_destination, new_source, rewritten, turned, unchanged

# Proxies of ipnat(5) that Linux has: the kernel's name for each, the protocol, the usual port, and the module.
HELPERS = {
    "ftp": ("ftp", "tcp", 21, "nf_nat_ftp"),
    "irc": ("irc", "tcp", 6667, "nf_nat_irc"),
    "pptp": ("pptp", "tcp", 1723, "nf_nat_pptp"),
    "h323": ("Q.931", "tcp", 1720, "nf_nat_h323"),
    "tftp": ("tftp", "udp", 69, "nf_nat_tftp"),
}
_NO_OPTIONS = Options()


@dataclass
class Objects:
    """What rules of one family need in their table besides chains, by name.

    ``has`` tells whether the kernel has a module.
    """

    has: Callable[[str], bool]
    helpers: set[str] = field(default_factory=set)
    timeouts: set[tuple[str, int, int]] = field(default_factory=set)
    maps: dict[str, list[str]] = field(default_factory=dict)
    # By maximum segment size: whose sessions.
    clamped: dict[int, list[tuple[label.Side, label.Mark]]] = field(default_factory=dict)
    # Sessions whose destination is translated, and whose source will be: the label, and what does it.
    rewritten: list[tuple[label.Mark, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Loaded:
    """A rule with what it is known by: ``number``, and what it has counted before."""

    number: int
    rule: Rule
    packets: int = 0
    octets: int = 0


Entries = dict[Hook, list[Entry]]


def translate(loaded: Loaded, objects: Objects) -> Entries:
    """The rule's entries. Raises Refused for what Linux cannot carry."""
    made = _Translation(loaded, objects)
    try:
        made.run()
    except Never:
        return {}
    return made.entries


class _Translation:
    def __init__(self, loaded: Loaded, objects: Objects) -> None:
        self.loaded = loaded
        self.objects = objects
        self.family = Family(loaded.rule.family)
        self.entries: Entries = {}
        # Only one of the entries begins where the counters of the rule were.
        self._counted = loaded.packets, loaded.octets

    def run(self) -> None:
        rule = self.loaded.rule
        match rule:
            case No():
                self._except(rule)
            case Map():
                self._map(rule)
            case MapBlock():
                self._map_block(rule)
            case Rdr():
                self._rdr(rule)
            case Rewrite():
                self._rewrite(rule)
            case Divert():
                raise Refused("divert: Linux has no such thing")
            case Encap():
                raise Refused("encap: Linux has no such thing")

    # --- the parts that rules have in common

    def _add(
        self,
        hook: Hook,
        name: str,
        match: Match,
        numbers: tuple[int, ...],
        steps: Callable[[], list[Step]],
        options: Options = _NO_OPTIONS,
        *,
        sticky: bool = False,
    ) -> None:
        family = self.family
        for where in interface(hook, name):
            tests = (*where, *conditions(family, hook, match, numbers))
            network = match.source if hook == "postrouting" else match.destination
            entry = Entry(network, tests, tuple(steps()), options.round_robin, sticky)
            self.entries.setdefault(hook, []).append(entry)

    def _count(self) -> str:
        packets, octets = self._counted
        self._counted = 0, 0
        return f"counter packets {packets} bytes {octets}"

    def _step(self, statement: str, tests: tuple[Condition, ...] = ()) -> Step:
        return Step(f'{self._count()} {statement} comment "{self.loaded.number}"', tests)

    def _mark(self, side: label.Side, kind: str) -> str:
        return f"ct label set {label.Mark(self.loaded.number, kind).bits(side)}"

    def _before(self, side: label.Side, kind: str, rule: Map | Rdr) -> list[Step]:
        """What is to be done to a session before it is translated: its helper, its time-outs."""
        _check_options(rule.options)
        steps = self._helper(rule)
        if rule.options.age is not None:
            forward, reply = rule.options.age
            if not rule.protocols or not set(rule.protocols) <= {TCP, UDP}:
                raise Refused("age: Linux sets the time-outs of tcp and udp alone")
            for word in ("tcp" if number == TCP else "udp" for number in rule.protocols):
                self.objects.timeouts.add((word, forward, reply))
                test = Condition("meta l4proto", f"meta l4proto {word}")
                steps.append(Step(f'ct timeout set "{timeout_name(word, forward, reply)}"', (test,)))
        if rule.options.mssclamp:
            mark = label.Mark(self.loaded.number, kind)
            self.objects.clamped.setdefault(rule.options.mssclamp, []).append((side, mark))
        return steps

    def _helper(self, rule: Map | Rdr) -> list[Step]:
        """The proxy that is asked for; and that for FTP wherever its port is translated, which cannot do without."""
        asked = rule.proxy
        word = _helper_word(asked) if asked else "ftp"
        _, protocol, usual, module = HELPERS[word]
        number = TCP if protocol == "tcp" else UDP
        if rule.protocols and number not in rule.protocols:
            if asked:
                raise Refused(f"proxy {word}: only with {protocol}")
            return []
        port = asked.port if asked and asked.port else usual
        old = rule.match.destination_ports
        if isinstance(rule, Rdr) and rule.port == usual and old is not None and old.sign == "=":
            port = old.low  # whatever port it is that becomes the proxy's
        tests = [Condition("meta l4proto", f"meta l4proto {protocol}")]
        if takes_port(rule.match.destination_ports, port):
            tests.append(Condition("th dport", f"th dport {port}"))
        elif not asked:
            return []
        if not self.objects.has(module):
            if asked:
                raise Refused(f"proxy {word}: this kernel has no {module}")
            return []
        self.objects.helpers.add(word)
        return [Step(f'ct helper set "{word}"', tuple(tests))]

    # --- each kind of rule

    def _except(self, rule: No) -> None:
        def steps() -> list[Step]:
            return [self._step("accept")]

        if rule.kind == "rdr":
            for hook in ("prerouting", "output"):
                self._add(hook, rule.interfaces[0], rule.match, rule.protocols, steps)
            return
        self._add("postrouting", rule.interfaces[1], rule.match, rule.protocols, steps)

    def _map(self, rule: Map) -> None:
        if rule.kind == "bimap":
            self._bimap(rule)
            return
        numbers = rule.protocols
        tests: tuple[Condition, ...] = ()
        if rule.portmap is not None and rule.portmap.icmp:
            numbers = (ICMP if rule.family == 4 else ICMPV6,)
            request = f"{self.family.icmp} type echo-request"
            tests = (Condition("icmp", request),)
        match = rule.match
        if rule.proxy is not None and rule.proxy.port:
            tests = (Condition("th dport", f"th dport {rule.proxy.port}"),)
            numbers = rule.protocols or (TCP,)
        rule = replace(rule, protocols=numbers)

        def steps() -> list[Step]:
            before = self._before("source", "MAP", rule)
            source = self._mark("source", "MAP")
            return [*before, self._step(f"{source} {new_source(self.family, rule.target, rule.portmap)}", tests)]

        self._add("postrouting", rule.interfaces[1], match, numbers, steps, rule.options)

    def _bimap(self, rule: Map) -> None:
        source, target = rule.match.source, rule.target
        if not isinstance(source, Net) or not isinstance(target, Net):
            raise Refused("bimap: one network for another")
        if target.bits != source.bits or target.bits is None:
            raise Refused("bimap: two networks of one size")

        def out() -> list[Step]:
            mark = self._mark("source", "BIMAP")
            return [
                *self._before("source", "BIMAP", rule),
                self._step(f"{mark} {turned(self.family, 'snat', source, target)}"),
            ]

        def back() -> list[Step]:
            mark = self._mark("destination", "BIMAP")
            before = self._before("destination", "BIMAP", rule)
            return [*before, self._step(f"{mark} {turned(self.family, 'dnat', target, source)}")]

        self._add("postrouting", rule.interfaces[1], rule.match, rule.protocols, out, rule.options)
        match = reversed_match(rule.match, target)
        for hook in ("prerouting", "output"):
            self._add(hook, rule.interfaces[0], match, rule.protocols, back, rule.options)

    def _map_block(self, rule: MapBlock) -> None:
        _check_options(rule.options)
        source, target = rule.match.source, rule.target
        if rule.family == 6:  # the kernel has it, and nft(8) 1.1 loads only a part of the registers
            raise Refused("map-block: of IPv4 alone")
        if not isinstance(source, Net) or source.bits is None or target.bits is None or target.everything:
            raise Refused("map-block: one network for another")
        if rule.options.age is not None or rule.options.mssclamp:
            raise Refused("map-block: without age and mssclamp")
        mark = self._mark("source", "MAP-BLOCK")
        name = f"block{self.loaded.number}"
        each, shared = blocks(self.family, rule, source, target)
        self.objects.maps[name] = each
        word = self.family.word
        whole = new_source(self.family, target, None)

        def steps() -> list[Step]:
            tcp_udp = Condition("meta l4proto", "meta l4proto { tcp, udp }")
            found = []
            if not rule.protocols or {TCP, UDP} & set(rule.protocols):
                found.append(self._step(f"{mark} snat {word} to {word} saddr map @{name}", (tcp_udp,)))
            if not rule.protocols or set(rule.protocols) - {TCP, UDP}:
                if target.interface or target.host or target.bits == source.bits:
                    change = whole if target.bits != source.bits else turned(self.family, "snat", source, target)
                else:
                    change = f"snat to {word} saddr map {{ {', '.join(shared)} }}"
                found.append(self._step(f"{mark} {change}"))
            return found

        self._add("postrouting", rule.interfaces[1], rule.match, rule.protocols, steps, rule.options)

    def _rdr(self, rule: Rdr) -> None:
        def steps() -> list[Step]:
            before = self._before("destination", "RDR", rule)
            mark = self._mark("destination", "RDR")
            return [*before, self._step(f"{mark} {new_destination(self.family, rule)}")]

        for hook in ("prerouting", "output"):
            options = rule.options
            self._add(hook, rule.interfaces[0], rule.match, rule.protocols, steps, options, sticky=rule.sticky)

    # --- rewrite: both ends at once, and Linux changes the source on the way out alone

    def _rewrite(self, rule: Rewrite) -> None:
        kind = "RWR-RDR" if rule.direction == "in" else "RWR-MAP"
        same_destination = unchanged(rule.destination) and rule.destination_ports is None
        if rule.direction == "out" and same_destination:

            def leaves() -> list[Step]:
                return [self._step(f"{self._mark('source', kind)} {rewritten(self.family, 'snat', rule)}")]

            self._add("postrouting", rule.interfaces[1], rule.match, rule.protocols, leaves)
            return

        def arrives() -> list[Step]:
            return [self._step(f"{self._mark('destination', kind)} {rewritten(self.family, 'dnat', rule)}")]

        hooks: tuple[Hook, ...] = ("prerouting", "output") if rule.direction == "in" else ("leaving", "sending")
        for hook in hooks:
            self._add(hook, rule.interfaces[0 if rule.direction == "in" else 1], rule.match, rule.protocols, arrives)
        if not unchanged(rule.source) or rule.source_ports is not None:
            mark = label.Mark(self.loaded.number, kind)
            tests = [test.text for test in protocols(rule.protocols)]
            self.objects.rewritten.append((mark, " ".join([*tests, rewritten(self.family, "snat", rule)])))


def timeout_name(protocol: str, forward: int, reply: int) -> str:
    """What the object is called that has these time-outs."""
    return f"{protocol}_{forward}_{reply}"


def _helper_word(proxy: Proxy) -> str:
    if proxy.label not in HELPERS:
        raise Refused(f"proxy {proxy.label}: Linux has none")
    if proxy.config:
        raise Refused(f"proxy {proxy.label}: config {proxy.config}: Linux has nothing to configure")
    return proxy.label


def _check_options(options: Options) -> None:
    if options.tag:
        raise Refused(f"tag {options.tag}: there is no ipf(8) to set it")
