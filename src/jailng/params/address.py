"""Addresses of ip4.addr and ip6.addr, and names of interfaces; loaded where a jail is given any."""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.values import visible

AF_INET = 2  # socket.AF_INET; the module costs 0.3 ms
AF_INET6 = 10
_FULL = {AF_INET: 32, AF_INET6: 128}
_LARGEST = {"ip4.addr": b"\xff" * 4}  # broadcast, which FreeBSD's kernel refuses as it does the address of zeros


class Address:
    """One element of ip4.addr or ip6.addr: ``[interface|]address[/prefix][ words]``.

    ``packed`` is the address in network order, ``prefix`` its number of network bits (32 or 128 if not given),
    ``interface`` and ``words`` (for ifconfig(8)) are empty if not given. ``broadcast`` is what the words say of it,
    empty for the last address of the network.
    """

    __slots__ = ("broadcast", "family", "packed", "prefix", "interface", "words")

    def __init__(self, family: int, packed: bytes, prefix: int | None = None, interface: str = "", words: str = ""):
        self.family = family
        self.packed = packed
        self.prefix = _FULL[family] if prefix is None else prefix
        self.interface = interface
        self.words = words
        self.broadcast = b""

    @property
    def bare(self) -> str:
        """The address alone, as inet_ntop(3) writes it: what FreeBSD's kernel keeps, and jls(8) shows."""
        if self.family == AF_INET:
            return ".".join([str(byte) for byte in self.packed])
        from _socket import inet_ntop

        return inet_ntop(AF_INET6, self.packed)

    @property
    def text(self) -> str:
        """All of it in one form: ``parse`` makes an equal address of it."""
        front = f"{self.interface}|" if self.interface else ""
        middle = "" if self.prefix == _FULL[self.family] else f"/{self.prefix}"
        return f"{front}{self.bare}{middle}{' ' if self.words else ''}{self.words}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Address {self.text}>"


def addresses(kind: str, name: str, text: str) -> tuple[Address, ...]:
    """The addresses of a comma-separated list; none for "" and "-". ``kind`` is ip4 or ip6. Raises JailError."""
    if text in ("", "-"):
        return ()
    return tuple([_address(AF_INET if kind == "ip4" else AF_INET6, name, item) for item in text.split(",")])


def _address(family: int, name: str, text: str) -> Address:
    interface, bar, rest = text.partition("|")
    if not bar:
        interface, rest = "", text
    elif not is_interface(interface):
        raise JailError(f'{name}: not the name of an interface: "{visible(interface)}"')
    middle, _, words = rest.partition(" ")
    address, slash, mask = middle.partition("/")
    packed = ipv4(address) if family == AF_INET else _ipv6(address)
    if packed is None:
        raise JailError(f"{name}: not an IPv{4 if family == AF_INET else 6} address: {visible(address)}")
    prefix = netmask(family, mask) if slash else _FULL[family]
    if prefix is None:
        raise JailError(f'{name}: {address}: not a netmask or prefix length: "{visible(mask)}"')
    return Address(family, packed, prefix, interface, " ".join(words.split()))


def packed(text: str) -> bytes | None:
    """An IPv4 or IPv6 address in network order; None if the text is neither."""
    return _ipv6(text) if ":" in text else ipv4(text)


def ipv4(text: str) -> bytes | None:
    """The four bytes of an IPv4 address; None if it is not one."""
    parts = text.split(".")
    if len(parts) != 4:
        return None
    for part in parts:
        # Like inet_pton(3): decimal without leading zeros, which elsewhere would mean octal.
        if not (part.isascii() and part.isdigit() and len(part) < 4 and int(part) < 256 and str(int(part)) == part):
            return None
    return bytes([int(part) for part in parts])


def _ipv6(text: str) -> bytes | None:
    from _socket import inet_pton

    try:
        return inet_pton(AF_INET6, text)
    except (OSError, ValueError):  # ValueError: a NUL, or bytes that are not UTF-8
        return None


def netmask(family: int, text: str) -> int | None:
    """The number of network bits that a prefix length, or an IPv4 netmask, says; None if it is neither."""
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= _FULL[family]:
        return int(text)
    packed = ipv4(text) if family == AF_INET else None
    if packed is None:
        return None
    ones = f"{int.from_bytes(packed, 'big'):032b}".rstrip("0")
    return len(ones) if "0" not in ones else None


def is_interface(text: str) -> bool:
    """Whether Linux could have a network interface of that name (dev_valid_name in net/core/dev.c)."""
    return (
        0 < len(text.encode("utf-8", "surrogateescape")) < 16
        and text not in (".", "..")
        and text.isprintable()
        and not any(mark in text for mark in "/: ")
    )


def in_order(name: str, given: tuple[Address, ...], most: int) -> tuple[Address, ...]:
    """The addresses as FreeBSD's kernel keeps them: the first is the primary one, the others sorted.

    ``most`` is how many there may be. Raises JailError.
    """
    if len(given) > most:
        raise JailError(f"too many IPv{name[2]} addresses")
    seen = set()
    for address in given:
        if address.words:
            from jailng.params import aliaswords

            aliaswords.take(name, address)
        if not any(address.packed) or address.packed == _LARGEST.get(name):
            raise JailError(f"{name}: {address.bare}: no address of a host")
        if address.packed in seen:
            raise JailError(f"{name}: {address.bare}: given twice")
        seen.add(address.packed)
    return (*given[:1], *sorted(given[1:], key=lambda address: address.packed))
