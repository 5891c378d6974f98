"""By what a session of ours is known: 64 of the 128 bits that conntrack keeps for labels, and has no use for itself.

Each half says which rule has translated that end, and as what::

    64-83   number of the rule    84-87   kind    88-95   a sign     destination: rdr and the like
    96-115  number of the rule    116-119 kind    120-127 a sign     source: map and the like

Marks would be shorter, but whoever has rules of his own on the host uses those. nf_tables can set bits, not numbers, so
a label is written as the bits that are set, and each costs a rule two microseconds when it is loaded.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

Side = Literal["destination", "source"]

SIDES: tuple[Side, ...] = ("destination", "source")
_NUMBER_BITS = 20
NUMBERS = 1 << _NUMBER_BITS
# FreeBSD's words: libipf/getnattype.c. What stands at 0 is never written.
KINDS = ("", "MAP", "MAP-BLOCK", "RDR", "BIMAP", "RWR-MAP", "RWR-RDR")
_BASE: dict[Side, int] = {"destination": 64, "source": 96}
_SIGN = 0x81  # no single bit, which somebody else may have set


@dataclass(frozen=True)
class Mark:
    """Which rule has made a session, by its number, and what FreeBSD calls such a session."""

    number: int
    kind: str

    def bits(self, side: Side) -> str:
        """As nf_tables is told: ``64 | 66 | 88 …``."""
        value = self.number | KINDS.index(self.kind) << _NUMBER_BITS | _SIGN << 24
        return _written(value, _BASE[side])


def mask(side: Side) -> str:
    """All bits of that end."""
    return _written(0xFFFFFFFF, _BASE[side])


def _written(value: int, base: int) -> str:
    return "|".join([str(base + at) for at in range(32) if value >> at & 1])


def read(label: bytes, side: Side) -> Mark | None:
    """What a label of conntrack's (CTA_LABELS) says of that end; None if it is not ours."""
    if len(label) != 16:
        return None
    ordered = label if sys.byteorder == "little" else label[7::-1] + label[:7:-1]  # an array of unsigned long
    value = int.from_bytes(ordered, "little")
    part = value >> _BASE[side] & 0xFFFFFFFF
    kind = part >> _NUMBER_BITS & 15
    if part >> 24 != _SIGN or not 0 < kind < len(KINDS):
        return None
    return Mark(part & NUMBERS - 1, KINDS[kind])
