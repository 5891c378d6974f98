"""What a network stack of a jail's own answers for in others' stead: proxies of ARP.

Those that are of no interface outlive their stack: the kernel takes away what is an interface's, knows the rest by
where the stack's structure lies in memory, and so hands it on to the stack that is made there next, be it a jail's or
the machine's (pneigh_ifdown_and_unlock() in net/core/neighbour.c). IPv6 has none of no interface. Loaded for jails with
vnet, whose root can make such.
"""

from __future__ import annotations

import posix
import time

from jailng.core import undo
from jailng.linux import cgroupend, ns, processid
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.linux.visit import InNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_SECONDS = 10.0
_AT_ONCE = 1000


def clear() -> None:
    """Take away those of no interface in the network namespace that this process is in, as far as that can be done."""
    try:
        with Netlink() as netlink:
            found = [rt.proxied(body) for _, body in netlink.ask(rt.get_proxies(4))]
            messages = [rt.delete_proxy(0, address) for index, address in found if not index]
            for first in range(0, len(messages), _AT_ONCE):
                netlink.batch(messages[first : first + _AT_ONCE])
    except OSError:
        pass  # they harm nobody unless he forwards


def clear_in(namespace: int) -> None:
    """The same in the network namespace behind a descriptor. Raises OSError where there is no way back from there."""
    there = InNamespace(namespace, ns.CLONE_NEWNET)
    try:
        there.__enter__()
    except OSError:
        return  # which is no reason for a jail to stay
    try:
        clear()
    finally:
        there.__exit__()


def end(record: Record) -> None:
    """Kill what is in a jail with vnet, and take them away when nobody can make more. Raises OSError."""
    if not processid.is_alive(record.init):
        return  # and its stack has gone with it, or is held by what it was lent (core/vnet.py)
    try:
        stack = processid.open_namespace(record.init, "net")
    except OSError:
        return
    try:
        cgroupend.end(record.cgroup, undo.LEAVES, time.monotonic() + _SECONDS)
        clear_in(stack)
    finally:
        posix.close(stack)
