"""In which order rules are tried, and how a packet finds its rule without trying a thousand.

IPFilter's order: rules whose own address (the source for map, the destination for rdr) has the longest mask come first,
and where two are of one network, that which stands first in the file. Of each network there is a chain, which a map
leads to; in it, rules that differ in exact values alone (a port, say) are behind a map as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from jailng.nat.condition import Condition, Family
from jailng.nat.rule import Lookup, Net

# Below this a list of rules is as quick as a map, and easier to read.
_FEW = 4
SEED = 0x6A61696C  # of the hash that keeps a client with its rule: the same after each load


@dataclass(frozen=True)
class Step:
    """One rule of nf_tables: what it does if ``conditions`` hold, and those of its entry that ask something else."""

    statement: str
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A rule of ipnat(5) at one hook. ``network`` is its own address; the last of ``steps`` translates.

    ``rotates`` is round-robin: rules of which all conditions are the same take turns; with ``sticky`` a client stays
    with the one that it had.
    """

    network: Net | Lookup
    conditions: tuple[Condition, ...]
    steps: tuple[Step, ...]
    rotates: bool = False
    sticky: bool = False


@dataclass
class Chains:
    """The chains of one hook: ``base`` are the lines of the first, ``others`` what it leads to, by name."""

    family: Family
    side: Literal["saddr", "daddr"]
    prefix: str
    base: list[str] = field(default_factory=list)
    others: dict[str, list[str]] = field(default_factory=dict)

    def build(self, entries: list[Entry]) -> None:
        """Lay them out in the order in which they are to be tried."""
        levels: dict[int, dict[str, list[Entry]]] = {}
        for entry in entries:
            bits, network = _place(entry.network)
            levels.setdefault(bits, {}).setdefault(network, []).append(entry)
        for bits in sorted(levels, reverse=True):
            self._level(bits, levels[bits])

    def _level(self, bits: int, networks: dict[str, list[Entry]]) -> None:
        elements = []
        for network, entries in networks.items():
            # What has no address that a map could have, and what is not worth one.
            if not network or (len(networks) < _FEW and len(entries) < _FEW):
                self.base += self._lines(entries, "")
            else:
                what = f"{self.family.word} {self.side}"
                elements.append(f"{network} : jump {self._chain(self._lines(entries, what))}")
        if elements:
            masked = "" if bits == self.family.width else f" & {_mask(self.family, bits)}"
            self.base.append(f"{self.family.word} {self.side}{masked} vmap {{ {', '.join(elements)} }}")

    def _chain(self, lines: list[str]) -> str:
        name = f"{self.prefix}{len(self.others) + 1}"
        self.others[name] = lines
        return name

    def _lines(self, entries: list[Entry], known: str) -> list[str]:
        """Rules of one network. ``known`` is what need not be asked any more."""
        lines: list[str] = []
        run: list[Entry] = []
        taken: set[tuple[str, ...]] = set()
        for turn in _turns(entries):
            whats = _signature(turn[0], known) if len(turn) == 1 else ()
            keys = _keys(turn[0], whats)
            if not whats or (run and whats != _signature(run[0], known)) or not taken.isdisjoint(keys):
                lines += self._run(run, known)
                run, taken = [], set()
            if len(turn) > 1:
                lines.append(self._rotation(turn, known))
            elif not whats:
                lines += _plain(turn[0], known)
            else:
                run.append(turn[0])
                taken.update(keys)
        return lines + self._run(run, known)

    def _run(self, run: list[Entry], known: str) -> list[str]:
        """Rules that ask the same and want other answers: a map of these, unless they are few."""
        if len(run) < _FEW:
            return [line for entry in run for line in _plain(entry, known)]
        whats = _signature(run[0], known)
        elements = []
        for entry in run:
            name = self._chain(_plain(entry, known))
            elements += [f"{' . '.join(key)} : jump {name}" for key in _keys(entry, whats)]
        return [f"{' . '.join(whats)} vmap {{ {', '.join(elements)} }}"]

    def _rotation(self, turn: list[Entry], known: str) -> str:
        tests = [test.text for test in turn[0].conditions if test.what != known]
        chains = [self._chain(_plain(entry, known)) for entry in turn]
        elements = ", ".join([f"{at} : jump {name}" for at, name in enumerate(chains)])
        if all(entry.sticky for entry in turn):
            which = f"jhash {self.family.word} saddr mod {len(turn)} seed {SEED:#x}"
        else:
            which = f"numgen inc mod {len(turn)}"
        return " ".join([*tests, f"{which} vmap {{ {elements} }}"])


def _place(network: Net | Lookup) -> tuple[int, str]:
    """The length of the mask, and the network as the key of a map; "" where it can be none."""
    if isinstance(network, Lookup) or network.bits is None:
        return 0, ""
    if network.everything or network.interface:
        return network.bits, ""
    return network.bits, str(network.address)


def _mask(family: Family, bits: int) -> str:
    value = ((1 << bits) - 1) << (family.width - bits)
    if family.number == 4:
        return ".".join([str(byte) for byte in value.to_bytes(4, "big")])
    return ":".join([f"{value >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)])


def _turns(entries: list[Entry]) -> list[list[Entry]]:
    """The entries, those together that take turns, where the first of them stands."""
    turns: list[list[Entry]] = []
    rings: dict[tuple[Condition, ...], list[Entry]] = {}
    for entry in entries:
        if entry.rotates and entry.conditions in rings:
            rings[entry.conditions].append(entry)
            continue
        turns.append([entry])
        if entry.rotates:
            rings[entry.conditions] = turns[-1]
    return turns


def _signature(entry: Entry, known: str) -> tuple[str, ...]:
    return tuple([test.what for test in entry.conditions if test.keys and test.what != known])


def _keys(entry: Entry, whats: tuple[str, ...]) -> list[tuple[str, ...]]:
    values = {test.what: test.keys for test in entry.conditions}
    return list(product(*[values[what] for what in whats]))


def _plain(entry: Entry, known: str) -> list[str]:
    lines = []
    for step in entry.steps:
        narrowed = {known, *[test.what for test in step.conditions]}
        tests = [test.text for test in entry.conditions if test.what not in narrowed]
        lines.append(" ".join([*tests, *[test.text for test in step.conditions], step.statement]))
    return lines
