"""Words for ifconfig(8) behind an address of ip4.addr or ip6.addr: what of them an alias can have on Linux.

jail(8) hands them to ifconfig(8) as they are; here they are read, and what cannot be carried is refused by name.
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.address import AF_INET, Address, ipv4, netmask
from jailng.params.values import visible

_CARP = "Linux has no CARP"
_INTERFACE = "a setting of the interface, which is its administrator's and outlives the jail"
_LIFETIME = "an alias lasts as long as the jail"
# What a word says that changes nothing: it is an alias anyhow, one that nobody tests for duplicates, and in IPv6 one
# from which the host does not speak by itself.
_ANYHOW = {4: ("alias", "add"), 6: ("alias", "add", "no_dad", "deprecated")}
_REFUSED = {
    **dict.fromkeys(("vhid", "advbase", "advskew", "pass", "peer", "peer6", "state", "carpver", "vrrpprio"), _CARP),
    **dict.fromkeys(("mtu", "metric", "up", "down", "media", "mediaopt", "mode", "ether", "lladdr"), _INTERFACE),
    **dict.fromkeys(("link", "name", "description", "descr", "promisc", "arp", "-arp", "fib", "vnet"), _INTERFACE),
    **dict.fromkeys(("pltime", "vltime", "autoconf", "temporary", "tentative"), _LIFETIME),
    **dict.fromkeys(("delete", "remove", "-alias"), "would take away what the jail is to have"),
    "anycast": "Linux has anycast addresses only where it routes",
    "eui64": "the address would be another than the one that is written",
    "prefer_source": "Linux chooses by RFC 6724 alone",
}


def take(name: str, address: Address) -> None:
    """Have the words settle the prefix and the broadcast address: netmask, prefixlen, broadcast; the last one counts.

    ``name`` is the parameter. Raises JailError for what an alias cannot have on Linux.
    """
    words = address.words.split(" ")
    while words:
        word = words.pop(0)
        if word in _ANYHOW[4 if address.family == AF_INET else 6]:
            continue
        where = f"{name}: {address.bare}: {visible(word)}"
        if word in _REFUSED:
            raise JailError(f"{where}: not honoured on Linux: {_REFUSED[word]}")
        if word == "prefixlen" or (word in ("netmask", "broadcast") and address.family == AF_INET):
            if not words:
                raise JailError(f"{where}: a value is missing")
            _set(address, where, word, words.pop(0))
        else:
            raise JailError(f"{where}: not understood")


def _set(address: Address, where: str, word: str, text: str) -> None:
    if word == "broadcast":
        packed = ipv4(text)
        if packed is None:
            raise JailError(f'{where}: not an IPv4 address: "{visible(text)}"')
        address.broadcast = packed
        return
    if word == "netmask" and text.startswith("0x"):  # as ifconfig(8) itself shows it
        try:
            text = ".".join([str(byte) for byte in int(text, 16).to_bytes(4, "big")])
        except (ValueError, OverflowError):
            pass
    prefix = netmask(address.family, text) if (word == "prefixlen") != ("." in text) else None
    if prefix is None:
        raise JailError(f'{where}: not a netmask or prefix length: "{visible(text)}"')
    address.prefix = prefix
