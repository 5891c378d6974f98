"""The alias that jail(8) puts on a host interface for the life of a jail: ``interface``, and ``ep0|192.0.2.10``."""

from __future__ import annotations

import errno
from _socket import AF_INET, AF_INET6, if_indextoname, inet_pton

from jailng.core import firewall
from jailng.core.link import PROTOCOL, Host
from jailng.errors import JailError
from jailng.linux import netdevice
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.link import Address
    from jailng.linux.netlink import Message

_GONE = (errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH)


def exists(interface: str, address: Address) -> bool:
    """Whether the interface has the address, whatever its prefix: then it is not ours to remove. Raises JailError."""
    index = netdevice.index(interface)
    if not index:
        raise JailError(f"interface {interface} does not exist")
    with Netlink() as netlink:
        host = Host(netlink)
        if host.interface(name=interface).flags & rt.IFF_UP:  # to an address on one that is down no route leads
            found = host.alias(address.packed)
            if found is None or found.index == index:
                return found is not None
        family = AF_INET if len(address.packed) == 4 else AF_INET6
        return any(found.index == index and found.packed == address.packed for found in host.aliases(family))


def add(interface: str, address: Address) -> None:
    """Give the interface the address; one that it has already is left as it is. Raises JailError.

    Written to the record before, unless it ``exists``: ``alias INTERFACE ADDRESS/PREFIX``. An IPv6 alias is deprecated
    (the host does not speak from it by itself) and not tried for duplicates, which would take a second. An interface
    that is down comes up, as far as it can, and stays so, as by ifconfig(8) of FreeBSD.
    """
    index = netdevice.index(interface)
    if not index:
        raise JailError(f"interface {interface} does not exist")
    prefix = address.prefix
    if not prefix:  # of IPv6 the kernel would make it a route, which goes before the host's default route
        raise JailError(f"interface {interface}: {address.bare}/0: a network of all addresses")
    if len(address.packed) == 4:
        hosts = (1 << (32 - prefix)) - 1
        last = (int.from_bytes(address.packed, "big") | hosts).to_bytes(4, "big") if prefix < 31 else b""
        broadcast = address.broadcast or last
        # Of a network of which the first address is led into a jail the kernel makes no route to another, and says
        # nothing: that route names the first as its source, which is not local then (fib_valid_prefsrc).
        messages = [
            rt.new_address(index, address.packed, prefix, broadcast),
            rt.missing_local(index, address.packed, PROTOCOL),
        ]
    else:
        messages = [rt.new_address(index, address.packed, prefix, flags=rt.IFA_F_NODAD, preferred=0)]
    with Netlink() as netlink:
        try:
            netlink.batch(messages, ignored=(errno.EEXIST,))
        except OSError as error:
            raise JailError(f"interface {interface}: {address.bare}/{prefix}: {error.strerror}") from None
        try:
            netlink.batch([rt.set_link(index, up=True)])
        except OSError:
            pass


class Promoting:
    """``with Promoting(interface)``: with its first IPv4 address of a network the kernel removes no others of it.

    These are aliases of other jails. It is switched on for the moment, by one command at a time: the first to be done
    would switch it off under the next one. Raises OSError.
    """

    __slots__ = ("_lock", "_switch", "_was")

    def __init__(self, interface: str) -> None:
        self._switch = f"ipv4/conf/{interface}/promote_secondaries"
        self._lock = firewall.Lock()
        self._was = False

    def __enter__(self) -> None:
        self._lock.__enter__()
        try:
            self._was = firewall.read_switch(self._switch) == 1
            if not self._was:
                firewall.write_switch(self._switch, 1)
        except BaseException:
            self._lock.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if not self._was:
                firewall.write_switch(self._switch, 0)
        finally:
            self._lock.__exit__()


def remove(words: list[str]) -> None:
    """``alias INTERFACE ADDRESS/PREFIX``: take the address away. It may be gone already. Raises OSError."""
    interface, (text, _, prefix) = words[0], words[1].partition("/")
    index = netdevice.index(interface)
    if not index:
        return
    if ":" in text:
        _delete(rt.delete_address(index, inet_pton(AF_INET6, text), int(prefix)))
        return
    packed = inet_pton(AF_INET, text)
    # What was given may be another name of the interface (altname of ip-link(8)), and of those sysctls know nothing.
    with Promoting(if_indextoname(index)):
        _delete(rt.delete_address(index, packed, int(prefix)), rt.delete_local(index, packed, PROTOCOL))


def _delete(*messages: Message) -> None:
    with Netlink() as netlink:
        netlink.batch([*messages], ignored=_GONE)
