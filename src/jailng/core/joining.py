"""Jails that have one address between them, each no other: on FreeBSD both use it, each its own ports.

Here that is one network stack for both: the second joins the network namespace of the first, which lasts as long as the
last of them, with its interface and the routes to it. Its root has no more to say there than in the host's: the
namespace belongs to the first one's user namespace (docs/decisions/0003-address-jail.md).
"""

from __future__ import annotations

from jailng.core import attach, firewall, origin, privileges, registry
from jailng.core.connection import Policed
from jailng.core.index import holders
from jailng.errors import JailError
from jailng.linux import processid
from jailng.params.model import Parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.registry import Record


def first(record: Record, params: Parameters) -> Record | None:
    """The jail whose network namespace a new one is to join; None for one that has its address to itself.

    One that is being made by another process at this moment is waited for. Raises JailError for what a jail that joins
    cannot have.
    """
    given = [address.bare for name in ("ip4.addr", "ip6.addr") for address in params.addresses(name)]
    jids: list[int] = []
    for address in given:
        jids += [jid for jid in holders(address) if jid not in (record.jid, *jids) and not is_loopback(address)]
    for jid in jids:
        other = registry.load(jid)
        if other is not None and _may_join(record, other) and _is_there(other):
            ours, theirs = [privileges.share_stack(one) for one in (params, Parameters.from_texts(other.params))]
            if ours != theirs:
                raise JailError(f'ng.stack: jail "{other.name}" has the address too, on another network stack')
            if ours:
                return None
            if params.strings("ng.egress") != Parameters.from_texts(other.params).strings("ng.egress"):
                raise JailError(f'ng.egress: jail "{other.name}" has the address too, and not the same rules')
            if params.flag("allow.raw_sockets"):
                raise JailError(
                    f'allow.raw_sockets: jail "{other.name}" has the address too, and only in the jail that was there '
                    "first can Linux allow them"
                )
            return other
    return None


def is_loopback(address: str) -> bool:
    """Whether each jail has that address for itself anyhow."""
    return address.startswith("127.") or address == "::1"


def _may_join(record: Record, other: Record) -> bool:
    """Whether they are of one place and in the same jail: what those around a jail have they lend it."""
    return origin.is_here(other) and other.parent == record.parent and other.current


def _is_there(other: Record) -> bool:
    # One that has been reserved by then and no more will look for this one, when it comes to that.
    begun = f"cgroup {other.cgroup}" in other.undo
    if begun and not other.created and not processid.is_own(other.starter) and other.lock():
        other.unlock()
    return begun and other.created and other.alive()


class Join(Policed):
    """What leads to the first jail is the second's as well, and stays as long as either does."""

    __slots__ = ("jid", "lines", "other")

    def __init__(self, jid: int, other: Record) -> None:
        super().__init__([])
        self.jid = jid
        self.other = other
        self.lines = _lines(other)

    def undo_lines(self) -> list[str]:
        """What does not die with the network namespace."""
        found = []
        for line in self.lines:
            kind, *words = line.split(" ")
            if kind == "firewall":
                more = [switch for switch in self.switches if switch not in words]
                found.append(firewall.undo_line(self.jid, [*words[1:], *more]))
            else:
                found.append(" ".join(["joined", str(self.jid), *words[kind == "joined" :]]))
        return self.with_policy(found)

    def apply(self, slots: Slots) -> None:
        """Once PID 1 is in there, see whether what leads to it still does. Raises JailError or OSError.

        Whoever takes the first jail apart gives its addresses up in the index before he looks for others that have them
        (core/network.py); if he has not done so by now, he will find this one.
        """
        for line in self.lines:
            if line.startswith("firewall "):
                firewall.hold([*line.split(" ")[2:], *self.switches])
        left = registry.load(self.other.jid)
        given = [word.rpartition("|")[2] for line in self.lines for word in line.split(" ") if "|" in word]
        kept = all(self.other.jid in holders(address) for address in given)
        if left is None or left.init != self.other.init or _lines(left) != self.lines or not kept:
            raise ended(self.other)
        self.hold_policy()

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f'join the network namespace of jail "{self.other.name}"'


def _lines(record: Record) -> list[str]:
    return [line for line in record.undo if line.split(" ")[0] in ("firewall", "addresses", "joined")]


def ended(other: Record) -> JailError:
    """That the first jail has ended while another was about to join."""
    return JailError(f'jail "{other.name}", whose address this one has too, has ended meanwhile: try again')


def open_namespace(other: Record) -> int:
    """A pidfd by which to join. Raises JailError where the jail has ended meanwhile."""
    try:
        return attach.open_init(other)
    except JailError:
        raise ended(other) from None
