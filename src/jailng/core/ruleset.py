"""The rules of jails' networks carried out: ng.rdr and ng.egress, as core/policy.py has decided them.

The tables (core/forward.py, core/egress.py) are made with the first jail that needs them, and go with the last. What a
jail has in them is put there, changed and taken away in one transaction each, also of several jails: those in a jail
are bound by its rules. What a jail has, its record tells, so that to add and to take away one's rules costs the same
however many jails there are; where something else is there than that tells of, all of it is asked for.
"""

from __future__ import annotations

import errno

from jailng.core import egress, firewall, forward, policy, registry
from jailng.core.fragment import Fragment, Table, chain_name, owner, owner_of_interface
from jailng.core.policy import CHANGING, MADE, Policy
from jailng.errors import JailError
from jailng.linux import nftables as nft
from jailng.linux import nftrules as nfr
from jailng.linux.netlink import Netlink
from jailng.params.address import packed
from jailng.params.model import Parameters
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jailng.core.registry import Record
    from jailng.linux.netlink import Message
    from jailng.params import rules

_TABLES = {
    egress.TABLE: (egress.table, egress.MAPS),
    forward.TABLE: (forward.table, forward.MAPS),
}
_JUDGED = "judged"  # the set of core/firewall.py
_OWN = "ng.rdr: two of the jail's redirects are for the same packets"
_WIDEST = {4: 8, 16: 16}  # bits of the widest network that is one, by the length of an address
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


def hold(policies: list[Policy], before: list[Policy] | None = None, gone: set[int] | None = None) -> None:
    """Carry policies out. In the same transaction what ``before`` says is taken away, or all that ``gone``, jids, have.

    Raises JailError: another jail has what one of these is to have; nf_tables lacks something, or has not what it
    should have.
    """
    sentence = ""
    for _ in range(3):
        try:
            with firewall.Netfilter() as netlink, firewall.Lock():
                _hold(netlink, policies, before or [], gone or set())
            return
        except _Conflict as conflict:
            sentence = conflict.sentence
            if not conflict.is_over():
                break
    raise JailError(sentence)


def begin(one: Policy) -> None:
    """Carry out the policy of a jail in which nothing runs yet. Raises JailError, OSError.

    What was begun from its addresses before, by the host or another jail, would pass unjudged, and is forgotten.
    """
    hold([one])
    _forget(senders=one.addresses if one.is_judged and one.interfaces else (), new=one.leads)


def _hold(netlink: Netlink, policies: list[Policy], before: list[Policy], gone: set[int]) -> None:
    fragments = [fragment for one in policies for fragment in one.fragments()]
    uses = {table: _uses(netlink, table) for table in _TABLES}
    if any(not uses[table] for table in _needed(fragments)):  # it is the first, or somebody has flushed them
        missing = {table for table in _needed(fragments) if not uses[table]}
        jids = {one.jid for one in policies}
        others = [one for one in policy.recorded(jids) if missing & _needed(one.fragments())]
        policies = policies + others
        gone = gone | {one.jid for one in others} | ({one.jid for one in before} if others else set())
        before = [] if others else before
        fragments += [fragment for one in others for fragment in one.fragments()]
    if conflict := _enclosed(netlink, fragments, gone | {one.jid for one in [*policies, *before]}):
        raise conflict
    needed = _needed(fragments)
    messages = _removal(netlink, gone, needed) if gone else _taken_out(before, needed, uses)
    for table, (make, _) in _TABLES.items():
        if table in needed and not uses[table]:
            messages += make()
    if any(one.meets_neighbours for one in policies) or (egress.TABLE in needed and not uses[egress.TABLE]):
        messages += egress.neighbourhood(connected())
    for adding in (Fragment.new_chains, Fragment.new_rules, Fragment.new_elements):  # rules lead to others' chains
        for fragment in fragments:
            messages += adding(fragment)
    messages += [nft.new_element(firewall.TABLE, _JUDGED, key) for one in policies for key in one.judged()]
    if not messages:
        return
    try:
        netlink.transaction(messages)
    except OSError as error:
        jids = {one.jid for one in [*policies, *before]} - gone
        # Something else is there than the record tells of: what was left by one that had this jid, or nothing yet.
        if before or jids & {owner(chain) for _, chain in _chains(netlink)}:
            _hold(netlink, policies, [], gone | jids)
        elif error.errno in _TAKEN:
            raise _conflict(netlink, fragments, gone) from None
        else:
            made = any(not uses[table] for table in needed)  # else it has what they are made of
            lacks = ": it takes nft_ct, nft_fib_inet, nft_limit, nft_log and nft_nat" if made else ""
            raise JailError(f"nf_tables: {error.strerror}{lacks}") from None


def _needed(fragments: list[Fragment]) -> set[str]:
    """The tables that there have to be."""
    return {fragment.table for fragment in fragments if fragment.elements or fragment.chains}


def _uses(netlink: Netlink, table: str) -> int:
    """How many chains and sets the table has, 0 if there is no such table."""
    try:
        return nfr.uses(netlink.ask(nfr.get_table(table))[0][1])
    except FileNotFoundError:
        return 0


def _taken_out(policies: list[Policy], needed: set[str], uses: dict[str, int]) -> list[Message]:
    """What takes away what these say, and the tables in which there is nothing else then, but those ``needed``."""
    shut = [nft.delete_element(firewall.TABLE, _JUDGED, key) for one in policies for key in one.judged()]
    fragments = [fragment for one in policies for fragment in one.fragments()]
    messages: list[Message] = []
    for table, (make, _) in _TABLES.items():
        mine = [fragment for fragment in fragments if fragment.table == table and table in _needed([fragment])]
        for fragment in mine:
            messages += fragment.without_elements()
        chains = [chain for fragment in mine for chain in fragment.chains]
        messages += [nfr.delete_rules(table, chain) for chain in chains]
        messages += [nfr.delete_chain(table, chain) for chain in chains]
        # Told by their number, once these have gone: where they are not there, what is counted is another jail's.
        own = sum([kind in (nft.NEWCHAIN, nft.NEWSET) for kind, _, _ in make()]) if mine else 0
        if mine and table not in needed and uses[table] == own + len(chains):
            messages.append(nft.delete_table(table))
    return [*shut, *messages]


def lacking(one: Policy) -> bool:
    """Whether the tables lack something of what a jail is to have. Raises OSError."""
    with firewall.Netfilter() as netlink:
        there = set(_chains(netlink))
    return any((fragment.table, chain) not in there for fragment in one.fragments() for chain in fragment.chains)


def restore() -> None:
    """Have what the records tell of standing again, after somebody has flushed it. Raises JailError."""
    policies = policy.recorded(set())
    if policies:
        hold(policies, gone={one.jid for one in policies})


def change(record: Record, params: Parameters) -> None:
    """Let a jail that runs have the rules that ``params`` give it; ``settle`` when its record tells of these.

    Needs its lock; raises JailError, and nothing is changed then. What it and those in it have begun is judged anew;
    connections by a redirect that is no more are cut.
    """
    from jailng.core import connection

    above = registry.load(record.parent) if record.parent else None
    before = policy.of(record)
    after = Policy(record.jid, params, record.undo, policy.above_of(above))
    if not (before or after):
        return
    if before.differs(after):
        _check_alone(after)
    firewall.hold([])  # where somebody has flushed all rules, what the records tell of stands again first
    below = [one for one in registry.below(record.name) if one.alive() and one.netns == record.netns]
    policies = [after, *[policy.of(one, record, params) for one in below]]
    settled = all(policy.is_settled(one) for one in (record, *below))
    connection.record_policy(record, after, CHANGING)
    if settled:
        hold(policies, before=[before, *[policy.of(one) for one in below]])
    else:
        hold(policies, gone={one.jid for one in policies})
    kept, had = [{lead.text for lead in one.leads} for one in (after, before)]
    cut = [lead for lead in before.leads if lead.text not in kept]
    new = [lead for lead in after.leads if lead.text not in had]
    _forget(cut, before.addresses if before.differs(after) else (), new=new)


def look_again(record: Record) -> None:
    """Have a jail's rules be carried out as they are, all others with them where somebody has flushed them.

    ``lan`` means the networks that the host is in by now. Raises JailError, OSError.
    """
    one = policy.of(record)
    if one:
        firewall.hold([])
        with firewall.Netfilter() as netlink:
            flushed = not all(_uses(netlink, part.table) for part in one.fragments() if part.chains)
        if flushed:
            restore()
    if not one.meets_neighbours:
        return
    with firewall.Netfilter() as netlink, firewall.Lock():
        if _uses(netlink, egress.TABLE):
            netlink.transaction(egress.neighbourhood(connected()))


def settle(record: Record) -> None:
    """The record of a jail tells of the rules that it has by now. Needs its lock."""
    if any(line.startswith("policy ") for line in record.undo):
        from jailng.core import connection

        connection.record_policy(record, policy.of(record), MADE)


def _check_alone(after: Policy) -> None:
    """The rules of what may leave are those of a network stack, which jails of one address share. Raises JailError."""
    for other in [one for link in after.links for one in policy.sharing(after.jid, link, after.texts)]:
        raise JailError(f'ng.egress: jail "{visible(other.name)}" has the address too, and its rules are the same')


def release(words: list[str]) -> None:
    """``policy JID STATE LINK,... ADDRESS...``: undo ``hold`` for that jail, whose interfaces are gone, or another's.

    Raises JailError, OSError.
    """
    jid, links, texts = int(words[0]), words[2].split(","), words[3:]
    others = [
        one for link in links for one in policy.sharing(jid, link, texts) if owner_of_interface(link.encode()) == jid
    ]
    record = registry.load(jid)
    led, asked = True, not others
    if others or record is None or not policy.is_settled(record):
        hold([policy.of(one) for one in others], gone={jid, *[one.jid for one in others]})
    else:
        above = registry.load(record.parent) if record.parent else None
        reached = [" ".join(["addresses", link, *[f"|{text}" for text in texts]]) for link in links]
        params = Parameters.from_texts(record.params)
        made = Policy(jid, params, reached, policy.above_of(above))
        led, asked = _has_led(made), made.may_ask_host
        hold([], before=[made])
    addresses = [address for address in map(packed, texts) if address is not None]
    # A jail without rules that has the address next reaches nothing of the host.
    _forget(senders=addresses if asked else (), targets=addresses if led else ())


def _has_led(one: Policy) -> bool:
    """Whether its redirects have led any connection: to look for these among all of the host's takes milliseconds."""
    with firewall.Netfilter() as netlink:
        for lead in one.leads:
            try:
                answers = netlink.ask(nfr.get_rules(forward.TABLE, chain_name(one.jid) + lead.chain))
            except FileNotFoundError:
                return True  # it did not come to that, or somebody has flushed it: who knows
            if any(nfr.counted(body)[1] for _, body in answers):
                return True
    return False


def _forget(
    cut: Sequence[forward.Lead] = (),
    senders: Sequence[bytes] = (),
    targets: Sequence[bytes] = (),
    new: Sequence[forward.Lead] = (),
) -> None:
    datagrams = [lead for lead in new if nfr.UDP in lead.protocols]
    if (cut or senders or targets or datagrams) and firewall.read_switch("netfilter/nf_conntrack_count") != 0:
        from jailng.core import tracked

        with firewall.Netfilter() as netlink:
            tracked.forget(netlink, cut, senders, targets, datagrams)


def connected() -> list[rules.Network]:
    """The networks that the host is in, for ``lan``: routes that lead through no gateway.

    One to half of the world, or to all that is global of IPv6, is the way to the world, as tunnels have it.
    """
    from jailng.core.link import PROTOCOL
    from jailng.linux import rtnetlink as rt

    with Netlink() as netlink:
        found = [rt.Entry(body) for family in (2, 10) for _, body in netlink.ask(rt.get_routes(family))]
    near = [entry for entry in found if entry.on_link and entry.bits >= _WIDEST[len(entry.target)]]
    return [(entry.target, entry.bits) for entry in near if entry.protocol != PROTOCOL]


class _Conflict(Exception):
    """What is asked for belongs to another jail."""

    def __init__(self, sentence: str, holder: int) -> None:
        self.sentence = sentence
        self.holder = holder

    def is_over(self) -> bool:
        """Whether that jail is no more, in which case its rules have been taken away by now."""
        record = registry.load(self.holder) if self.holder else None
        if record is None:
            return False
        from jailng.core import undo

        return undo.recover(record)


def _enclosed(netlink: Netlink, fragments: list[Fragment], gone: set[int]) -> _Conflict | None:
    """Whether a range of these encloses another key, which the kernel lets in.

    nft_set_pipapo asks only whether the ends of a new range are in one that is there.
    """
    wide = [fragment for fragment in fragments if fragment.has_ranges()]
    for fragment in wide:
        for map_, elements in fragment.elements.items():
            for number, (key, last, chain) in enumerate(elements):
                for other, end, _ in elements[:number] if chain else ():
                    if _overlap(key, last or key, other, end or other, map_):
                        return _Conflict(_OWN, 0)
    return _held_by_others(netlink, wide, gone) if wide else None


def _conflict(netlink: Netlink, fragments: list[Fragment], gone: set[int]) -> _Conflict:
    return _held_by_others(netlink, fragments, gone) or _Conflict(_OWN, 0)


def _held_by_others(netlink: Netlink, fragments: list[Fragment], gone: set[int]) -> _Conflict | None:
    for table, (_, maps) in _TABLES.items():
        held = Table(netlink, table, _chains(netlink), maps).elements
        for fragment in fragments:
            for map_, elements in fragment.elements.items() if fragment.table == table else ():
                for key, last, chain in elements:
                    for other, end, holder in held.get(map_, ()):
                        if (
                            holder
                            and owner(holder) not in gone
                            and _overlap(key, last or key, other, end or other, map_)
                        ):
                            return _taken_by(chain, owner(holder))
    return None


def _overlap(first: bytes, last: bytes, other: bytes, end: bytes, map_: str) -> bool:
    """Whether two ranges of keys have a packet in common: they do if they do in each part."""
    at = 0
    for length in forward.lengths(map_):
        part = slice(at, at + length)
        if last[part] < other[part] or end[part] < first[part]:
            return False
        at += (length + 3) & ~3
    return True


def _taken_by(chain: str, jid: int) -> _Conflict:
    record = registry.load(jid)
    name = visible(record.name) if record is not None else str(jid)
    what = f"ng.rdr: rule {chain.split('-')[1]}" if chain.split("-")[1:] else "ng.egress"
    if what.endswith("to"):
        what = "ng.rdr: the port of the jail"
    return _Conflict(f'{what}: jail "{name}" has a redirect for the same packets', jid)


def _chains(netlink: Netlink) -> list[tuple[str, str]]:
    """Table and name of every chain that is ours."""
    found = [nfr.chain_of(body) for _, body in netlink.ask(nfr.get_chains())]
    return [(table, chain) for table, chain in found if table in _TABLES]


def _removal(netlink: Netlink, jids: set[int], needed: set[str]) -> list[Message]:
    """What takes away all that these jails have, and the tables in which no other has any, but those ``needed``."""
    messages: list[Message] = []
    chains = _chains(netlink)
    shut: set[bytes] = set()  # interfaces for which the host is closed again
    for name, (_, maps) in _TABLES.items():
        table = Table(netlink, name, chains, maps)
        for map_ in egress.MAPS:
            elements = table.elements.get(map_, ())
            shut |= {key for key, _, chain in elements if table.is_of(map_, key, chain, jids)}
        if table.there and name not in needed and not table.others(jids):
            messages.append(nft.delete_table(name))
        elif table.there:
            messages += table.without(jids)
    try:
        answers = netlink.ask(nft.get_elements(firewall.TABLE, _JUDGED))
    except FileNotFoundError:
        return messages
    keys = sorted(
        {key for _, body in answers for key in nft.keys(body) if key in shut or owner_of_interface(key) in jids}
    )
    return [*[nft.delete_element(firewall.TABLE, _JUDGED, key) for key in keys], *messages]


UNDO: dict[str, Callable[[list[str]], None]] = {"policy": release}
