"""What the rules of ng.rdr and ng.egress have counted, asked of the kernel."""

from __future__ import annotations

from jailng.core import egress, elsewhere, forward
from jailng.core.fragment import chain_name
from jailng.errors import JailError
from jailng.linux import nftrules as nfr
from jailng.linux.netlink import NETLINK_NETFILTER, Netlink
from jailng.params import egress as egress_rules
from jailng.params import redirect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record


class Counted:
    """A rule as text, and what fitted it. ``first`` are the packets that began a connection.

    Of a redirect ``packets`` and ``bytes`` are those of all its connections, both ways. A rule of ng.egress is asked
    once for each connection: they are those that it has let begin, or dropped; ``over`` are those beyond its rate.
    """

    __slots__ = ("bytes", "first", "over", "packets", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.bytes = self.first = self.over = self.packets = 0


class _Chains:
    """Sums of counters by the comments of rules, chain by chain."""

    __slots__ = ("netlink", "table")

    def __init__(self, netlink: Netlink, table: str) -> None:
        self.netlink = netlink
        self.table = table

    def sums(self, chain: str) -> dict[str, tuple[int, int]]:
        """Packets and bytes; empty where there is no such chain."""
        found: dict[str, tuple[int, int]] = {}
        try:
            answers = self.netlink.ask(nfr.get_rules(self.table, chain))
        except FileNotFoundError:
            return found
        for _, body in answers:
            comment, packets, size = nfr.counted(body)
            before = found.get(comment, (0, 0))
            found[comment] = before[0] + packets, before[1] + size
        return found


def redirects(record: Record) -> list[Counted]:
    """Of each rule of ng.rdr. Raises JailError, OSError."""
    rules = redirect.read([record.params.get("ng.rdr", "")])
    base = chain_name(record.jid)
    made = [Counted(rule.text) for rule in rules]
    with _there(record), Netlink(NETLINK_NETFILTER) as netlink:
        chains = _Chains(netlink, forward.TABLE)
        through = chains.sums(f"{base}-in")
        for number, one in enumerate(made, 1):
            one.packets, one.bytes = through.get(str(number), (0, 0))
            for suffix in ("", "-6"):
                one.first += chains.sums(f"{base}-{number}{suffix}").get(str(number), (0, 0))[0]
    return made


def leaving(record: Record) -> list[Counted]:
    """Of each rule of ng.egress, presets replaced by theirs; the last is the rest. Raises JailError, OSError."""
    given = egress_rules.read([record.params.get("ng.egress", "")])
    if not given:
        return []
    rules = egress_rules.expanded(given)
    made = [Counted(rule.text) for rule in rules]
    rest = Counted("drop the rest")
    with _there(record), Netlink(NETLINK_NETFILTER) as netlink:
        chains = _Chains(netlink, egress.TABLE)
        for suffix in ("", "-host"):
            base = chain_name(record.jid) + suffix
            sums = chains.sums(base)
            _add(rest, sums.get(egress.REST, (0, 0)))
            for number, one in enumerate(made, 1):
                _add(one, sums.get(str(number), (0, 0)))
                action = chains.sums(f"{base}-{number}") if rules[number - 1].rate or rules[number - 1].log else {}
                _add(one, action.get(str(number), (0, 0)))
                one.over += action.get(f"{number} over", (0, 0))[0]
    return [*made, rest]


def _add(one: Counted, found: tuple[int, int]) -> None:
    one.packets += found[0]
    one.bytes += found[1]


def _there(record: Record) -> elsewhere.Network:
    if record.remote:
        raise JailError("only the host's administrator is told")
    return elsewhere.Network(record)
