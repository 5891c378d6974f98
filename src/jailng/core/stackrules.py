"""What the sockets of a jail on the host's stack are held to, and how a program looks at an address.

An IPv4 address is a word of 32 bits in a register, an IPv6 address four in ``ADDRESS6``, in the machine's order.
"""

from __future__ import annotations

import sys
from _socket import AF_INET, AF_INET6, inet_ntop

from jailng.linux.bpf import R1, R2, R3, R4, R5

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from jailng.linux.assembler import Code


class Rules:
    """What a jail's sockets are held to: addresses in network order with their prefixes, the primary ones first.

    Those of a version in ``free`` (4, 6) are not held to any.
    ``root`` is the uid on the host that may bind ports below 1024, -1 for none. ``select``: an address on whose network
    the peer is goes before the primary one, by version (4, 6). ``networks`` are further ones, with the bits of their
    prefixes and the address that is meant; as an attribute all of them, with the number of the address. ``others``: the
    address that is meant for all others, if that is not the primary one; as an attribute its number.
    """

    __slots__ = ("addresses", "free", "networks", "others", "root", "select")

    def __init__(
        self,
        addresses: list[tuple[bytes, int]],
        root: int,
        select: dict[int, bool],
        free: tuple[int, ...] = (),
        networks: Sequence[tuple[bytes, int, bytes]] = (),
        others: dict[int, bytes] | None = None,
    ) -> None:
        self.free = free
        self.addresses = {
            4: [(packed, prefix) for packed, prefix in addresses if len(packed) == 4],
            6: [(packed, prefix) for packed, prefix in addresses if len(packed) == 16],
        }
        number = {packed: place for version in (4, 6) for place, packed in enumerate(self.all(version))}
        near = [*[(packed, prefix, packed) for packed, prefix in addresses], *networks]
        self.networks = {
            version: [(net, prefix, number[own]) for net, prefix, own in near if own in number and len(own) == size]
            for version, size in ((4, 4), (6, 16))
        }
        self.others = {version: number.get((others or {}).get(version, b""), 0) for version in (4, 6)}
        self.root = root
        self.select = select

    def all(self, version: int) -> list[bytes]:
        """The addresses of version 4 or 6."""
        return [packed for packed, _ in self.addresses[version]]

    def texts(self) -> list[str]:
        """The addresses as people write them."""
        families = {4: AF_INET, 6: AF_INET6}
        return [inet_ntop(family, packed) for version, family in families.items() for packed in self.all(version)]

    def primary(self, version: int) -> bytes:
        """The first of them. There is one."""
        return self.addresses[version][0][0]


def words(packed: bytes) -> list[int]:
    """An address in the words that a program holds it in."""
    return [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]


def netmask(prefix: int, bits: int) -> list[int]:
    """The netmask of a prefix, of an address of so many bits, in words."""
    return words((((1 << prefix) - 1) << (bits - prefix)).to_bytes(bits // 8, "big"))


LOOPBACK_NET = words(b"\xff\0\0\0")[0], words(b"\x7f\0\0\0")[0]
LOOPBACK6 = bytes(15) + b"\1"
MAPPED = words(bytes(10) + b"\xff\xff")
ADDRESS6 = (R2, R3, R4, R5)  # where an IPv6 address is held while it is looked at


def load6(code: Code, source: int, offset: int) -> None:
    """Have ``ADDRESS6`` hold the IPv6 address there."""
    for number, register in enumerate(ADDRESS6):
        code.load(register, source, offset + 4 * number)


def store6(code: Code, target: int, offset: int, packed: bytes) -> None:
    """Write an IPv6 address there. r1 is lost."""
    for number, word in enumerate(words(packed)):
        code.set(R1, word)
        code.store(target, offset + 4 * number, R1)


def jump_if6(code: Code, packed: bytes, label: str) -> None:
    """Go on at ``label`` if the loaded address is that one."""
    other = f"not {packed.hex()} {label}"
    for register, word in zip(ADDRESS6, words(packed), strict=True):
        code.jump_unless(register, word, other)
    code.jump(label)
    code.label(other)


def jump_if_mapped(code: Code, label: str) -> None:
    """Go on at ``label`` if the loaded address is an IPv4 address in IPv6's clothes, which its last word then is."""
    for register, word in zip(ADDRESS6, MAPPED, strict=False):
        code.jump_unless(register, word, f"not {label}")
    code.jump(label)
    code.label(f"not {label}")


def in_network4(code: Code, register: int, packed: bytes, prefix: int, label: str) -> None:
    """Go on at ``label`` if the address in ``register`` is on that network. r1 is lost."""
    mask = netmask(prefix, 32)[0]
    code.copy(R1, register)
    code.mask(R1, mask)
    code.jump_if(R1, words(packed)[0] & mask, label)


def in_network6(code: Code, packed: bytes, prefix: int, label: str) -> None:
    """Go on at ``label`` if the loaded address is on that network. r1 is lost."""
    other = f"not on {packed.hex()}/{prefix}"
    for register, word, mask in zip(ADDRESS6, words(packed), netmask(prefix, 128), strict=True):
        if mask:
            code.copy(R1, register)
            code.mask(R1, mask)
            code.jump_unless(R1, word & mask, other)
    code.jump(label)
    code.label(other)
