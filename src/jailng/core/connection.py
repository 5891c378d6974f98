"""Operations for a jail's network: what ``core.network`` does, as steps of a plan."""

from __future__ import annotations

import posix

from jailng.core import network
from jailng.core.operation import Operation
from jailng.linux import cgroup, ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.network import Link
    from jailng.core.operation import Slots
    from jailng.params.address import Address


def operations(
    jid: int,
    addresses: list[Address],
    interface: str | None,
    fixed: tuple[int, ...] = (),
    lent: set[str] | None = None,
) -> list[Operation]:
    """What gives a jail with a network namespace of its own these addresses. Raises JailError (core.network.survey).

    In the families that are ``fixed`` it speaks from its first address alone. Those that are ``lent`` are the ones of
    the jail above, which has them again afterwards: the LAN finds them anyhow.
    """
    link = network.survey(jid, addresses, interface, fixed)
    for place in link.addresses:
        if lent and place.text in lent:
            place.interface = ""
    return [HostSide(link), InsideNetwork(link)]


def own_loopback(jid: int) -> Operation:
    """What switches the loopback on in a network namespace of which all else is its root's to configure."""
    link = network.Link(jid)
    link.ipv6 = True
    return InsideNetwork(link)


class HostSide(Operation):
    """The host's end of the jail's network: interface, routes, neighbours."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    def undo_lines(self) -> list[str]:
        """What does not die with the network namespace."""
        return network.undo_lines(self.link)

    def apply(self, slots: Slots) -> None:
        """Raises JailError or OSError."""
        network.host_side(self.link, slots["init.pid"])

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        lines = [
            f"connect {end.host_name} to {end.inside_name} inside: {', '.join([place.text for place in end.addresses])}"
            for end in self.link.ends
        ]
        lines += [f"leave out {text}, which is on no interface" for text in self.link.nowhere]
        return "; ".join(lines) or "connect it to nothing"


class InsideNetwork(Operation):
    """The jail's end of its network, configured from within its namespace."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    def apply(self, slots: Slots) -> None:
        """Raises JailError or OSError."""
        here = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            ns.setns(slots["init"], ns.CLONE_NEWNET)
            network.inside(self.link)
        finally:
            ns.setns(here, ns.CLONE_NEWNET)
            posix.close(here)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"configure {', '.join([end.inside_name for end in self.link.ends]) or 'lo'} inside"


class AllowReservedPorts(Operation):
    """Let the jail's members bind ports below 1024 in the host's network namespace, where they have no privilege."""

    __slots__ = ("cgroup", "uid")

    def __init__(self, cgroup: str, uid: int) -> None:
        self.cgroup = cgroup
        self.uid = uid

    def apply(self, slots: Slots) -> None:
        """Raises OSError. The program goes with the cgroup."""
        from jailng.linux import bpf

        members = cgroup.open_directory(f"{self.cgroup}/members")
        bpf.allow_reserved_ports(members, self.uid)
        posix.close(members)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "allow ports below 1024"
