"""Operations for a jail's network: what ``core.network`` does, as steps of a plan."""

from __future__ import annotations

import posix

from jailng import start
from jailng.core import firewall, network
from jailng.core.operation import Operation
from jailng.linux import cgroup, ns
from jailng.linux.visit import InNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.network import Link
    from jailng.core.operation import Slots
    from jailng.core.policy import Policy
    from jailng.core.registry import Record
    from jailng.params.address import Address
    from jailng.params.model import Parameters

_FORWARD = "ipv4/ip_forward"


def operations(
    jid: int,
    addresses: list[Address],
    interface: str | None,
    fixed: tuple[int, ...] = (),
    lent: set[str] | None = None,
    depth: int = 0,
) -> list[Operation]:
    """What gives a jail with a network namespace of its own these addresses. Raises JailError (core.network.survey).

    In the families that are ``fixed`` it speaks from its first address alone. Those that are ``lent`` are the ones of
    the jail above, which has them again afterwards: the LAN finds them anyhow. The jail is in ``depth`` others.
    """
    link = network.survey(jid, addresses, interface, fixed)
    for place in link.addresses:
        place.depth = depth
        if lent and place.text in lent:
            place.interface = ""
    return [HostSide(link), InsideNetwork(link)]


def own_loopback(jid: int) -> Operation:
    """What switches the loopback on in a network namespace of which all else is its root's to configure."""
    link = network.Link(jid)
    link.ipv6 = True
    return OwnStack(link)


def police(host: Operation, jid: int, params: Parameters, parent: Record | None) -> None:
    """Let a ``HostSide`` or ``Join`` carry out ng.rdr and ng.egress as well, and what binds the jail from above.

    Raises JailError where that cannot be.
    """
    if parent is None and not (params["ng.rdr"] or params["ng.egress"]):
        return
    start.load_more("policed")
    from jailng.core import policy

    assert isinstance(host, Policed)
    host.policy = made = policy.Policy(jid, params, host.undo_lines(), policy.above_of(parent))
    needed = policy.switches(made.leads)
    host.switches += [switch for switch in needed if switch not in host.switches]


def record_policy(record: Record, policy: Policy, state: str) -> None:
    """Have the record of a jail that runs tell of its policy, and how far that is carried out. Needs the jail's lock.

    The line stands where it does in that of a jail that was made with a policy: before those of its addresses.
    """
    from jailng.core import firewall
    from jailng.core.policy import switches

    place = next(number for number, line in enumerate(record.undo) if line.startswith("firewall "))
    held = record.undo[place].split(" ")[2:]
    needed = [switch for switch in switches(policy.leads) if switch not in held]
    behind = [line for line in record.undo[place + 1 :] if not line.startswith("policy ")]
    lines = [firewall.undo_line(record.jid, [*held, *needed]), policy.undo_line(state), *behind]
    if lines != record.undo[place:]:
        record.append(["undone"] * (len(record.undo) - place) + [f"undo {line}" for line in lines])
    if needed:
        firewall.hold([*held, *needed])


class Policed(Operation):
    """An operation that leads to a jail, and carries out its ``policy``, if it has one, too.

    ``switches`` is for core/firewall.py.
    """

    __slots__ = ("policy", "switches")

    def __init__(self, switches: list[str]) -> None:
        self.policy: Policy | None = None
        self.switches = switches

    def with_policy(self, lines: list[str]) -> list[str]:
        """The undo lines, that of core/firewall.py first: the policy goes when nothing leaves the jail any more."""
        if self.policy is None or not lines:
            return lines
        return [lines[0], self.policy.undo_line(), *lines[1:]]

    def of_policy(self) -> list[str]:
        """What ``hold_policy`` does, as `jail --plan` shows it."""
        if not self.policy:
            return []
        told = [f"lead {lead.rule.text}" for lead in self.policy.leads]
        return [*told, "judge what leaves it"] if self.policy.is_judged else told

    def hold_policy(self) -> None:
        """Nothing runs in the jail yet, so that this may come last. Raises JailError, OSError."""
        if self.policy:
            from jailng.core.ruleset import begin

            begin(self.policy)


class HostSide(Policed):
    """The host's end of the jail's network: interface, routes, neighbours, and what the host lets in and out by it."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        super().__init__(link.switches)
        self.link = link

    def undo_lines(self) -> list[str]:
        """What does not die with the network namespace."""
        return self.with_policy(network.undo_lines(self.link))

    def apply(self, slots: Slots) -> None:
        """Raises JailError or OSError."""
        network.host_side(self.link, slots["init.pid"])
        self.hold_policy()

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        lines = [
            f"connect {end.host_name} to {end.inside_name} inside: {', '.join([place.text for place in end.addresses])}"
            for end in self.link.ends
        ]
        lines += [f"leave out {text}, which is on no interface" for text in self.link.nowhere]
        return "; ".join([*lines, *self.of_policy()]) or "connect it to nothing"


class InsideNetwork(Operation):
    """The jail's end of its network, configured from within its namespace."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    def apply(self, slots: Slots) -> None:
        """Raises JailError or OSError."""
        with InNamespace(slots["init"], ns.CLONE_NEWNET):
            self.configure()

    def configure(self) -> None:
        """What is done there. Raises JailError or OSError."""
        network.inside(self.link)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"configure {', '.join([end.inside_name for end in self.link.ends]) or 'lo'} inside"


class OwnStack(InsideNetwork):
    """The loopback of a stack that is its root's to configure, and of which nobody has been made a router."""

    __slots__ = ()

    def configure(self) -> None:
        """Raises JailError or OSError."""
        super().configure()
        from jailng.core import proxies

        proxies.clear()
        try:
            # It is born with the machine's, which may be a router for containers: devinet_init_net().
            if firewall.read_switch(_FORWARD):
                firewall.write_switch(_FORWARD, 0)
        except OSError:
            pass  # a container's /proc/sys is read-only


class AllowReservedPorts(Operation):
    """Let the jail's root bind ports below 1024 in a network namespace of others', where it has no privilege.

    ``leaves`` are the cgroups of its own members.
    """

    __slots__ = ("leaves", "uid")

    def __init__(self, leaves: list[str], uid: int) -> None:
        self.leaves = leaves
        self.uid = uid

    def apply(self, slots: Slots) -> None:
        """Raises OSError. The program goes with the cgroup."""
        from jailng.linux import bpf

        for path in self.leaves:
            members = cgroup.open_directory(path)
            try:
                bpf.allow_reserved_ports(members, self.uid)
            finally:
                posix.close(members)

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "allow ports below 1024"
