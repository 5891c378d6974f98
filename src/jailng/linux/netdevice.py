"""netdevice(7): what interfaces have, by ioctl(2)."""

from __future__ import annotations

import fcntl
from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket
from _struct import pack

_SIOCGIFADDR, _SIOCGIFBRDADDR, _SIOCGIFNETMASK = 0x8915, 0x8919, 0x891B


def ipv4_alias(interface: str, address: bytes) -> tuple[int, bytes] | None:
    """Prefix length and broadcast address (empty for none) of one IPv4 address of an interface.

    Costs the same for one alias and for a thousand, where rtnetlink(7) can only list them all. None if that address is
    not to be had in this way: its label is not the interface's name. Raises OSError.
    """
    question = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        answers = []
        for what in (_SIOCGIFADDR, _SIOCGIFNETMASK, _SIOCGIFBRDADDR):
            # struct ifreq with a struct sockaddr_in: the kernel compares label and address (devinet_ioctl).
            request = pack("16sHH4s16x", interface.encode("utf-8", "surrogateescape"), AF_INET, 0, address)
            answers.append(fcntl.ioctl(question, what, request)[20:24])
    finally:
        question.close()
    found, mask, broadcast = answers
    if found != address:
        return None
    return int.from_bytes(mask, "big").bit_count(), broadcast if any(broadcast) else b""
