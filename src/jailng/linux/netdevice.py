"""netdevice(7): what interfaces have, by ioctl(2)."""

from __future__ import annotations

import fcntl
from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket
from _struct import pack
from sys import byteorder

from jailng.linux.libc import ENODEV

_SIOCGIFADDR, _SIOCGIFBRDADDR, _SIOCGIFNETMASK, _SIOCGIFINDEX = 0x8915, 0x8919, 0x891B, 0x8933
_LONGEST = 15  # bytes of a name


def index(interface: str) -> int:
    """The interface's number, 0 if there is none of that name. Raises OSError where there is no telling.

    if_nametoindex(3), as Python has it before 3.14, says that there is none whatever has failed.
    """
    name = interface.encode("utf-8", "surrogateescape")
    if not 0 < len(name) <= _LONGEST:
        return 0
    question = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        answer = fcntl.ioctl(question, _SIOCGIFINDEX, pack("16s24x", name))
    except OSError as error:
        if error.errno != ENODEV:
            raise
        return 0
    finally:
        question.close()
    return int.from_bytes(answer[16:20], byteorder)


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
