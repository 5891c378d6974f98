"""What stands on the right of ``->``, as what nf_tables is to do."""

from __future__ import annotations

from typing import Literal

from jailng.nat.condition import Family, Refused, first_and_last
from jailng.nat.dispatch import SEED
from jailng.nat.rule import Address, Lookup, MapBlock, Net, PortMap, Range, Rdr, Rewrite, Rule

# What FreeBSD gives out where a rule says auto: 1024 is MAPBLK_MINPORT.
_FIRST_PORT, _LAST_PORT = 1024, 65535
# Of a range of so many addresses the next one is taken each time, as on FreeBSD; of a larger one the kernel chooses, by
# the client's address.
_TURNS = 1 << 10
_MANY = 1 << 16  # elements of a map; more than that is refused


def new_source(family: Family, target: Net | Range, portmap: PortMap | None) -> str:
    """``snat`` or ``masquerade``, of map."""
    ports = ""
    if portmap is not None:
        low, high = (_FIRST_PORT, _LAST_PORT) if portmap.auto else (portmap.low, portmap.high)
        ports = f"{low}-{high}" if low < high else str(low)
    if isinstance(target, Net) and target.interface:
        return f"masquerade to :{ports}" if ports else "masquerade"
    if isinstance(target, Net) and target.everything:
        return f"snat to :{ports}" if ports else "accept"
    return f"snat to {family.with_port(_addresses(target), ports)}"


def turned(family: Family, verb: Literal["snat", "dnat"], old: Net, new: Net) -> str:
    """The same host of another network."""
    if new.interface:
        return "masquerade" if verb == "snat" else "redirect"
    if new.host:
        return f"{verb} to {new.address}"
    if new.everything:
        return "accept"
    word = family.word
    where = "saddr" if verb == "snat" else "daddr"
    return f"{verb} {word} prefix to {word} {where} map {{ {old.address}/{old.bits} : {new.address}/{new.bits} }}"


def blocks(family: Family, rule: MapBlock, source: Net, target: Net) -> tuple[list[str], list[str]]:
    """What each source gets, an address and ports, and which sources share an address: elements of two maps.

    Raises Refused.
    """
    if target.interface:
        raise Refused("map-block: 0/32 has no ports to divide, as the address is not known")
    assert source.bits is not None and target.bits is not None
    share = max(target.bits - source.bits, 0)  # so many bits of sources have one address
    sources = family.width - source.bits
    if 1 << sources > _MANY:
        raise Refused(f"map-block: more than {_MANY} addresses")
    each = rule.ports or ((_LAST_PORT + 1 - _FIRST_PORT) >> share if rule.auto else 1)
    if each < 1 or _FIRST_PORT + (each << share) > _LAST_PORT + 1:
        raise Refused(f"map-block: {rule.ports} ports for each of {1 << share} addresses are more than there are")
    make = type(source.address)
    elements = []
    for at in range(1 << sources):
        low = _FIRST_PORT + (at & (1 << share) - 1) * each
        new = make(int(target.address) + (at >> share))
        elements.append(f"{make(int(source.address) + at)} : {new}-{new} . {low}-{low + each - 1}")
    shared = [
        f"{make(int(source.address) + (at << share))}/{family.width - share} : {make(int(target.address) + at)}"
        for at in range(1 << sources - share)
    ]
    return elements, shared


def new_destination(family: Family, rule: Rdr) -> str:
    """``dnat`` or ``redirect``, of rdr. Raises Refused."""
    port = _new_port(rule)
    target = rule.target
    _check_loopback(rule)
    if isinstance(target, Net):
        if target.interface:
            return f"redirect to :{port}" if port else "redirect"
        if target.everything:
            return f"dnat to :{port}" if port else "accept"
        if target.bits != family.width:
            raise Refused("rdr: an address or a range of addresses, no network")
        return f"dnat {family.word} to {family.with_port(str(target.address), port)}"
    if isinstance(target, Range):
        count = int(target.last) - int(target.first) + 1
        if rule.sticky and count > _MANY:
            raise Refused(f"sticky: more than {_MANY} addresses")
        if rule.sticky or count <= _TURNS:
            choices = [type(target.first)(int(target.first) + at) for at in range(count)]
            return _chosen(family, choices, port, sticky=rule.sticky)
        return f"dnat {family.word} to {family.with_port(_addresses(target), port)}"
    return _chosen(family, [target.first, target.second], port, sticky=rule.sticky)


def _chosen(family: Family, choices: list[Address], port: str, *, sticky: bool) -> str:
    word = family.word
    turn = f"jhash {word} saddr mod {len(choices)} seed {SEED:#x}" if sticky else f"numgen inc mod {len(choices)}"
    elements = ", ".join([f"{at} : {address}" for at, address in enumerate(choices)])
    colon = f" : {port}" if port else ""
    return f"dnat {word} to {turn} map {{ {elements} }}{colon}"


def _new_port(rule: Rdr) -> str:
    old = rule.match.destination_ports
    if not rule.port:
        return ""
    if rule.fixed or old is None or old.sign != ":" or old.low == old.high:
        high = rule.port_high if rule.port_high > rule.port and not rule.fixed else rule.port
        return f"{rule.port}-{high}" if high > rule.port else str(rule.port)
    if old.low == rule.port:
        return ""  # each becomes itself
    count = old.high - old.low + 1
    if rule.port + count - 1 > _LAST_PORT:
        raise Refused(f"port {rule.port}: the last of {count} would be above {_LAST_PORT}")
    elements = ", ".join([f"{old.low + at} : {rule.port + at}" for at in range(count)])
    return f"th dport map {{ {elements} }}"


def rewritten(family: Family, verb: Literal["snat", "dnat"], rule: Rewrite) -> str:
    """``snat``, ``dnat`` and the like, of rewrite. Raises Refused."""
    target, ports = rule.source, rule.source_ports
    if verb == "dnat":
        if isinstance(rule.destination, Lookup):
            raise Refused(f"{rule.destination.kind}/{rule.destination.name}: there is no ippool(8)")
        target, ports = rule.destination, rule.destination_ports
        _check_loopback(rule)
    port = ""
    if ports is not None:
        port = str(ports.low) if ports.fixed or ports.low == ports.high else f"{ports.low}-{ports.high}"
    if isinstance(target, Net) and target.interface:
        own = {("in", "dnat"): "redirect", ("out", "snat"): "masquerade"}.get((rule.direction, verb))
        if own is None:
            raise Refused(f"rewrite {rule.direction}: Linux does not know the interface's address there")
        return f"{own} to :{port}" if port else own
    if unchanged(target):
        return f"{verb} to :{port}" if port else "accept"
    return f"{verb} to {family.with_port(_addresses(target), port)}"


def unchanged(target: Net | Range | Lookup) -> bool:
    """``0/0``: the address stays."""
    return isinstance(target, Net) and target.everything


def loopback(rule: Rule) -> Address | None:
    """The loopback's address that what comes from the network is to be led to, if it is one."""
    target = rule.target if isinstance(rule, Rdr) else rule.destination if isinstance(rule, Rewrite) else None
    if target is None or isinstance(target, Lookup) or rule.interfaces[0] in ("lo", "lo0"):
        return None
    if isinstance(target, Net) and (target.everything or target.interface):
        return None
    first = target.address if isinstance(target, Net) else target.first
    return first if first.is_loopback else None


def _check_loopback(rule: Rdr | Rewrite) -> None:
    """With route_localnet of the interface IPv4 knows a way there, which ipnat(8) warns of; IPv6 knows none."""
    address = loopback(rule)
    if address is not None and address.version == 6:
        raise Refused(f"{address}: Linux leads nothing from the network to a loopback address")


def _addresses(target: Net | Range) -> str:
    if isinstance(target, Net):
        if target.host:
            return str(target.address)
        if target.bits is None:
            raise Refused(f"{target.mask}: a mask with holes")
        first, last = first_and_last(target)
    else:
        first, last = target.first, target.last
    return f"{first}-{last}" if first != last else str(first)
