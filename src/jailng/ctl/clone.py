"""Interfaces that are made by a word: epair(4), bridge(4), vlan(4) and lo(4), by what Linux has of the kind."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator

from jailng.errors import JailError, UsageError
from jailng.linux import interface as device
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.linux.netlink import Message

_NAME = re.compile("(epair|bridge|vlan|lo)(0|[1-9][0-9]{0,5})?")
_SUBINTERFACE = re.compile(r"(.+)\.([0-9]{1,4})")
_MOST = 1 << 15  # IF_MAXUNIT of FreeBSD's sys/net/if.h
_TAGS = range(1, 4095)
# What takes addresses and leads nowhere. Of the second there are some in every kernel that counts packets' shares.
_LIKE_LO = ("dummy", "ifb")


def create(name: str, tag: str = "", parent: str = "") -> str:
    """Make the interface ``name``, or of ``bridge`` and the like the first that there is not yet; what it is called.

    ``tag`` and ``parent`` are a VLAN's. Raises JailError, and UsageError for an interface of another kind.
    """
    asked = _NAME.fullmatch(name)
    if asked is None:
        sub = _SUBINTERFACE.fullmatch(name)
        if sub is None or tag or parent:
            raise UsageError(f"ifconfig: {name}: only epair, bridge, vlan and lo can be created")
        return _make("vlan", name, _link_of("vlan", sub[2], sub[1]), name)
    kind, unit = asked[1], asked[2]
    link = _link_of(kind, tag, parent)
    for number in _units(kind, unit):
        try:
            return _make(kind, f"{kind}{number}", link, name)
        except FileExistsError:
            if unit:
                raise _refused(f"SIOCIFCREATE2 ({name})", errno.EEXIST) from None
    raise _refused(f"SIOCIFCREATE2 ({name})", errno.ENOSPC)


def _units(kind: str, unit: str | None) -> Iterator[int]:
    if unit:
        yield int(unit)
    else:
        yield from range(kind == "lo", _MOST)  # lo0 is there, if by another name


def _link_of(kind: str, tag: str, parent: str) -> tuple[int, int]:
    """The tag of a VLAN, and the number of the interface that it is on. Raises JailError."""
    if kind != "vlan":
        if tag or parent:
            raise UsageError("ifconfig: only a vlan has a tag")
        return 0, 0
    if not tag or not parent:
        raise JailError("vlan: on Linux tag and vlandev are to be given when it is created")
    if not (tag.isascii() and tag.isdigit() and len(tag) < 5 and int(tag) in _TAGS):
        raise JailError(f"invalid vlan tag {visible(tag)}")
    try:
        return int(tag), socket.if_nametoindex(parent)
    except OSError:
        raise JailError(f"interface {visible(parent)} does not exist") from None


def _make(kind: str, name: str, link: tuple[int, int], asked: str) -> str:
    """Make it, and return its name. Raises FileExistsError: there is one of that name; JailError."""
    if kind == "epair":
        messages, name = [rt.new_pair(f"{name}a", f"{name}b")], f"{name}a"
    elif kind == "vlan":
        messages = [device.new_vlan(name, *link)]
    else:
        messages = [device.new(name, each) for each in (_LIKE_LO if kind == "lo" else (kind,))]
    failed = _any_of(messages)
    if failed == errno.EEXIST:
        raise FileExistsError(failed, name)
    if failed:
        raise _refused(f"SIOCIFCREATE2 ({asked})", failed)
    return name


def _any_of(messages: list[Message]) -> int:
    """Have the first done that the kernel knows; 0, or the errno."""
    failed = 0
    with Netlink() as netlink:
        for message in messages:
            try:
                netlink.batch([message])
                return 0
            except OSError as error:
                failed = error.errno or 0
            if failed != errno.EOPNOTSUPP:
                break
    return failed


def destroy(interface: str) -> None:
    """Remove an interface, and the one at the other end. Raises JailError: it is no pseudo-device."""
    try:
        with Netlink() as netlink:
            netlink.batch([rt.delete_link(interface)])
    except OSError as error:
        code = error.errno or 0
        raise _refused("SIOCIFDESTROY", errno.EINVAL if code == errno.EOPNOTSUPP else code) from None


def _refused(call: str, code: int) -> JailError:
    return JailError(f"{visible(call)}: {os.strerror(code)}")
