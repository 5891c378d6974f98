"""All rules as tables of nf_tables, ``ip jailng_nat`` and ``ip6 jailng_nat``: the text of one transaction.

    table ip jailng_nat {
        ct helper ftp { type "ftp" protocol tcp; l3proto ip; }
        chain listed {          # at no hook: the rules as they are written, for ipnat -l
            counter comment "7 0 map ep0 192.168.10.2/32 -> 0/32"
        }
        chain postrouting {
            type nat hook postrouting priority srcnat - 5
            oifname "ep0" ip saddr 192.168.10.2 … masquerade comment "7"
        }
    }

The kernel is the only one who remembers them: what somebody flushes is gone from ``ipnat -l`` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

from jailng.errors import JailError
from jailng.nat import label
from jailng.nat.condition import Family, Hook, Refused
from jailng.nat.dispatch import Chains, Entry
from jailng.nat.translation import HELPERS, Loaded, Objects, timeout_name, translate

TABLE = "jailng_nat"
LISTED = "listed"
FAMILIES = (Family(4), Family(6))

# Before others' nat chains (whoever translates first has translated); and where clamping sees what these have marked.
_HOOKS: dict[str, tuple[str, tuple[Hook, ...]]] = {
    "prerouting": ("type nat hook prerouting priority dstnat - 5", ("prerouting", "leaving")),
    "output": ("type nat hook output priority -105", ("output", "sending")),
    "input": ("type nat hook input priority 95", ()),
    "postrouting": ("type nat hook postrouting priority srcnat - 5", ("postrouting",)),
}
_CLAMP = "type filter hook postrouting priority srcnat + 50"
_COMMENT = 100  # bytes of a rule's text in one comment, of which the kernel's tools take 128 with what stands before
# Of the states of TCP, that in which nothing has come back yet.
_TCP_REPLIED = ("syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close")


def compile_rules(
    name: str,
    rules: Iterable[tuple[Loaded, str]],
    standing: Container[str] = (),
    held: Container[str] = (),
    has: Callable[[str], bool] = lambda module: True,
) -> str:
    """The transaction that makes these rules, each with its text, all that there are.

    ``standing`` are the families that have a table already, ``ip`` or ``ip6``, and ``held`` those that have sessions:
    the kernel translates these only as long as there is a chain of that type somewhere. ``has`` tells whether the
    kernel has a module; ``name`` is the file's, for messages.
    Raises JailError, ``FILE:LINE: why``, for what Linux cannot carry.
    """
    rules = list(rules)
    parts = []
    for family in FAMILIES:
        word = family.word
        own = [(at, loaded, text) for at, (loaded, text) in enumerate(rules) if loaded.rule.family == family.number]
        if word in standing:
            parts.append(f"table {word} {TABLE}\ndelete table {word} {TABLE}\n")
        if own:
            parts.append("\n".join([f"table {word} {TABLE} {{", *_table(name, family, own, Objects(has)), "}", ""]))
        elif word in held:
            where, _ = _HOOKS["postrouting"]
            parts.append(f"table {word} {TABLE} {{ chain {LISTED} {{ }}; chain postrouting {{ {where}; }}; }}\n")
    return "".join(parts)


def _table(file: str, family: Family, rules: list[tuple[int, Loaded, str]], objects: Objects) -> Iterator[str]:
    entries: dict[Hook, list[Entry]] = {}
    for _, loaded, _ in rules:
        try:
            for hook, made in translate(loaded, objects).items():
                entries.setdefault(hook, []).extend(made)
        except Refused as why:
            raise JailError(f"{file}:{loaded.rule.line}: {why}") from None
    yield from _objects(family, objects)
    yield from _chain(LISTED, "", [line for rule in rules for line in _listed(*rule)])
    for name, (where, parts) in _HOOKS.items():
        base = list(_second_ends(name, objects))
        for part in parts:
            chains = Chains(family, "saddr" if name == "postrouting" else "daddr", f"{part}_")
            chains.build(entries.get(part, []))
            for other, lines in chains.others.items():
                yield from _chain(other, "", lines)
            base += chains.base
        if base:
            yield from _chain(name, where, base)
    if objects.clamped:
        yield from _chain("clamp", _CLAMP, list(_clamping(objects)))


def _objects(family: Family, objects: Objects) -> Iterator[str]:
    for word in sorted(objects.helpers):
        kernels, protocol, *_ = HELPERS[word]
        yield f'ct helper {word} {{ type "{kernels}" protocol {protocol}; l3proto {family.word}; }}'
    for protocol, forward, reply in sorted(objects.timeouts):
        if protocol == "udp":
            policy = f"unreplied : {forward}, replied : {reply}"
        else:
            policy = ", ".join([f"syn_sent : {forward}", *[f"{state} : {reply}" for state in _TCP_REPLIED]])
        made = f"protocol {protocol}; l3proto {family.word}; policy = {{ {policy} }};"
        yield f"ct timeout {timeout_name(protocol, forward, reply)} {{ {made} }}"
    address = "ipv4_addr" if family.number == 4 else "ipv6_addr"
    for name, elements in objects.maps.items():
        yield f"map {name} {{ type {address} : interval {address} . inet_service; flags interval;"
        yield f"elements = {{ {', '.join(elements)} }}; }}"


def _chain(name: str, where: str, lines: list[str]) -> Iterator[str]:
    yield f"chain {name} {{{f' {where};' if where else ''}"
    yield from lines
    yield "}"


def _listed(place: int, loaded: Loaded, text: str) -> Iterator[str]:
    """A rule's text in pieces that comments can hold: its number, its place among all rules, and the piece."""
    coded = text.replace("%", "%25").replace('"', "%22").encode()
    for at in range(0, len(coded), _COMMENT):
        yield f'counter comment "{loaded.number} {place} {coded[at : at + _COMMENT].decode("ascii", "replace")}"'


def _second_ends(hook: str, objects: Objects) -> Iterator[str]:
    """The sources of what has a new destination already; the host itself may be that, if it came in."""
    for mark, change in objects.rewritten:
        if hook == "postrouting" or (hook == "input" and mark.kind == "RWR-RDR"):
            yield f"{_labelled('destination', [mark])} {change}"


def _labelled(side: label.Side, marks: list[label.Mark]) -> str:
    bits = dict.fromkeys([mark.bits(side) for mark in marks])
    return f"ct label & ({label.mask(side)}) == {{ {', '.join(bits)} }}"


def _clamping(objects: Objects) -> Iterator[str]:
    for size, sessions in objects.clamped.items():
        for side in label.SIDES:
            marks = [mark for where, mark in sessions if where == side]
            if marks:
                yield f"tcp flags & (syn|rst) == syn {_labelled(side, marks)} tcp option maxseg size set {size}"
