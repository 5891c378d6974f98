"""Rules as ``ipnat -l`` prints them, after printnat() of IPFilter 5.1's libipf.

Every field of a rule is in the text, and reading it gives an equal rule. Where FreeBSD leaves out a part or prints what
its own ipnat would not read (round-robin of map, ipv6-icmp of icmpidmap, the config of a proxy), the part is there. Two
things are spelt as older IPFilters do, which printed them in the article that jailng follows: ``0.0.0.0/32`` for the
interface's address after ``->``, and no ``/32`` after the address that rdr goes to.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from jailng.nat import names
from jailng.nat.lex import RESERVED
from jailng.nat.rule import (
    TCP,
    UDP,
    Divert,
    Encap,
    Lookup,
    Map,
    MapBlock,
    Match,
    Net,
    NewPorts,
    No,
    Options,
    Ports,
    Proxy,
    Range,
    Rdr,
    Rewrite,
    Rule,
    Split,
)

# A word that needs no quotes. One that is so read, and comes from a rule, has no quote of either kind but one.
_PLAIN = re.compile(r"(?:<thishost>|[A-Za-z_*%+&?|~^\[\]](?:[A-Za-z0-9_*%+&?|~^\[\].]|-(?!>))*)\Z")


def printed(rule: Rule, resolve: bool = True) -> str:
    """A rule in one line, without its end. ``resolve`` puts names for ports where FreeBSD does (``ipnat -R`` does not).

    parse() of it gives an equal rule.
    """
    start = {
        Map: _map,
        MapBlock: _map_block,
        Rdr: _rdr,
        No: _no,
        Rewrite: _rewrite,
        Divert: _divert,
        Encap: _encap,
    }[type(rule)]
    text: str = start(rule, resolve)  # type: ignore[operator]  # each takes what it is there for
    return text


def _map(rule: Map, resolve: bool) -> str:
    parts = [rule.kind, _where(rule), _left(rule, resolve), "->", _target(rule.target, word="range ")]
    told = False
    if rule.proxy:
        parts += [_proxy(rule.proxy, rule.protocols, resolve)]
        told = True
    elif rule.portmap:
        portmap = rule.portmap
        ends = "auto" if portmap.auto else f"{portmap.low}:{portmap.high}"
        parts += ["icmpidmap" if portmap.icmp else "portmap", _protocols(rule.protocols), ends]
        parts += ["sequential"] * portmap.sequential
        told = True
    return " ".join([*parts, *_mapped(rule.options, () if told else rule.protocols)])


def _map_block(rule: MapBlock, resolve: bool) -> str:
    parts = ["map-block", _where(rule), _left(rule, resolve), "->", _target(rule.target)]
    parts += ["ports auto" if rule.auto and not rule.ports else f"ports {rule.ports}"]
    return " ".join([*parts, *_mapped(rule.options, rule.protocols)])


def _rdr(rule: Rdr, resolve: bool) -> str:
    parts = ["rdr", _where(rule), _left(rule, resolve), "->", _target(rule.target, bare=True)]
    if _has_ports(rule.protocols) and not (rule.proxy and rule.proxy.config):
        parts += [f"port = {rule.port}" if rule.fixed else f"port {_span(rule.port, rule.port_high)}"]
    options = rule.options
    parts += [_protocols(rule.protocols)]
    parts += ["round-robin"] * options.round_robin + ["frag"] * options.frag
    parts += [f"age {options.age[0]}/{options.age[1]}"] if options.age else []
    parts += ["sticky"] * rule.sticky
    parts += [f"mssclamp {options.mssclamp}"] if options.mssclamp else []
    if rule.proxy:
        whole = Proxy(rule.proxy.label, rule.port, rule.proxy.config)
        config = rule.proxy.config
        parts += [_proxy(whole, rule.protocols, resolve) if config else f"proxy {_word(rule.proxy.label)}"]
    return " ".join([*parts, *_last(options)])


def _no(rule: No, resolve: bool) -> str:
    return f"no {rule.kind} {_where(rule)} {_left(rule, resolve)} {_protocols(rule.protocols)};"


def _rewrite(rule: Rewrite, resolve: bool) -> str:
    source = _target(rule.source) + _new_ports(rule.source_ports)
    destination = _target(rule.destination) + _new_ports(rule.destination_ports)
    return f"rewrite {_both(rule, resolve)} src {source} dst {destination}{' purge' * rule.purge};"


def _divert(rule: Divert, resolve: bool) -> str:
    source = f"{_target(rule.source)},{rule.source_port}"
    destination = f"{_target(rule.destination)},{rule.destination_port} udp"
    return f"divert {_both(rule, resolve)} src {source} dst {destination}{' purge' * rule.purge};"


def _encap(rule: Encap, resolve: bool) -> str:
    ends = f"src {_target(rule.source)} dst {_target(rule.destination)}"
    return f"encap {_both(rule, resolve)} {ends}{' purge' * rule.purge};"


# Parts


def _both(rule: Rewrite | Divert | Encap, resolve: bool) -> str:
    proto = f"proto {_protocols(rule.protocols)} " if rule.protocols else ""
    return f"{rule.direction} on {_where(rule)} {proto}{_left(rule, resolve)} ->"


def _where(rule: Rule) -> str:
    first, second = rule.interfaces
    both = _word(first) if first == second else f"{_word(first)},{_word(second)}"
    return both + " inet6" * (rule.family == 6)


def _left(rule: Rule, resolve: bool) -> str:
    match = rule.match
    if match.extended:
        return _from_to(match, rule.protocols, resolve)
    if not (isinstance(rule, Rdr) or (isinstance(rule, No) and rule.kind == "rdr")):
        return _object(match.source)
    ports = match.destination_ports
    if not _has_ports(rule.protocols):
        return _object(match.destination)
    return f"{_object(match.destination)} port {_span(ports.low, ports.high or ports.low) if ports else 0}"


def _from_to(match: Match, protocols: tuple[int, ...], resolve: bool) -> str:
    source = _object(match.source) + _compared(match.source_ports, protocols, resolve)
    destination = _object(match.destination) + _compared(match.destination_ports, protocols, resolve)
    return f"{'! ' * match.not_source}from {source} {'! ' * match.not_destination}to {destination}"


def _compared(ports: Ports | None, protocols: tuple[int, ...], resolve: bool) -> str:
    if ports is None:
        return ""
    if ports.sign in ("<>", "><"):
        return f" port {ports.low} {ports.sign} {ports.high}"
    if ports.sign == ":":
        return f" port {ports.low}:{ports.high}"
    return f" port {ports.sign} {_port(ports.low, protocols, resolve)}"


def _port(port: int, protocols: tuple[int, ...], resolve: bool) -> str:
    return names.service_name(port, protocols[0]) if resolve and protocols in ((TCP,), (UDP,)) else str(port)


def _object(given: Net | Lookup) -> str:
    if isinstance(given, Lookup):
        return f"{given.kind}/{_word(given.name)}"
    if isinstance(given.address, IPv6Address):
        return "any" if given.everything else _masked(given)
    return f"0/{_mask(given)}" if int(given.address) == 0 else _masked(given)


def _target(given: Net | Range | Split | Lookup, word: str = "", bare: bool = False) -> str:
    if isinstance(given, Range):
        return f"{word}{given.first}-{given.last}"
    if isinstance(given, Split):
        return f"{given.first},{given.second}"
    if isinstance(given, Net):
        if given.interface:
            return _masked(given)
        if bare and given.host:
            return str(given.address)
    return _object(given)


def _masked(given: Net) -> str:
    return f"{given.address}/{_mask(given)}"


def _mask(given: Net) -> str:
    return str(given.mask) if given.bits is None else str(given.bits)


def _protocols(protocols: tuple[int, ...]) -> str:
    if protocols == (TCP, UDP):
        return "tcp/udp"
    return names.protocol_name(protocols[0]) if protocols and protocols[0] else "ip"


def _proxy(proxy: Proxy, protocols: tuple[int, ...], resolve: bool) -> str:
    config = f" config {_word(proxy.config)}" if proxy.config else ""
    port = _port(proxy.port, protocols, resolve)
    return f"proxy port {port} {_word(proxy.label)}/{_protocols(protocols)}{config}"


def _mapped(options: Options, protocols: tuple[int, ...]) -> list[str]:
    parts = ["round-robin"] * options.round_robin + ["frag"] * options.frag
    parts += [f"age {options.age[0]}/{options.age[1]}"] if options.age else []
    parts += [f"mssclamp {options.mssclamp}"] if options.mssclamp else []
    parts += [f"tag {_word(options.tag)}"] if options.tag else []
    parts += [_protocols(protocols)] if protocols else []
    return parts + ["purge"] * options.purge


def _last(options: Options) -> list[str]:
    return ([f"tag {_word(options.tag)}"] if options.tag else []) + ["purge"] * options.purge


def _new_ports(ports: NewPorts | None) -> str:
    if ports is None:
        return ""
    return f",port = {ports.low}" if ports.fixed else f",{_span(ports.low, ports.high)}"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _has_ports(protocols: tuple[int, ...]) -> bool:
    return bool(set(protocols) & {TCP, UDP})


def _word(text: str) -> str:
    """A name, quoted if it is not one without."""
    if (_PLAIN.match(text) and text.lower() not in RESERVED) or text.isdecimal():
        return text
    quote = "'" if '"' in text else '"'
    return f"{quote}{text}{quote}"
