"""What the host's administrator leads into a jail and lets out of it: ng.rdr and ng.egress, carried out.

The tables (core/forward.py, core/egress.py) are made with the first jail that needs them, and go with the last. What a
jail has in them is put there, changed and taken away in one transaction each, also of several jails: those in a jail
are bound by its rules. The kernel does not take it away with the jail: the undo line ``policy JID`` stands before those
of its addresses, so that this is done when nothing leaves the jail any more.
"""

from __future__ import annotations

import errno

from jailng.core import egress, firewall, forward, origin, registry
from jailng.core.fragment import Table, owner, owner_of_interface
from jailng.core.index import addressed
from jailng.errors import JailError
from jailng.linux import nftables as nft
from jailng.linux import nftrules as nfr
from jailng.linux.netlink import NETLINK_NETFILTER, Netlink
from jailng.params import egress as egress_rules
from jailng.params import redirect, rules
from jailng.params.address import packed
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.fragment import Fragment
    from jailng.core.link import Host
    from jailng.core.registry import Record
    from jailng.linux.netlink import Message
    from jailng.params.model import Parameters

NAMES = ("ng.rdr", "ng.egress")
_JUDGED = "judged"  # the set of core/firewall.py
_REACHED = ("addresses ", "joined ")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


class Policy:
    """The rules of one jail, decided. ``reached`` are its addresses, as the host leads them there, by interface."""

    __slots__ = ("above", "addresses", "egress", "interfaces", "jid", "leads", "links", "name")

    def __init__(self, jid: int, params: Parameters, reached: list[str], above: list[egress.Above]) -> None:
        """``reached`` are undo lines, of which those matter that begin with ``addresses LINK INTERFACE|ADDRESS``, and
        with ``joined JID LINK INTERFACE|ADDRESS`` of a jail in the network namespace of another.

        ``links`` are its interfaces on the host, ``interfaces`` those that it has not by way of another jail, whose
        rules of what may leave it are the same, and hold for both. Raises JailError.
        """
        self.jid = jid
        self.name = visible(params.text("name"))[:64]
        lines = _links(reached)
        self.links = [words[0] for words in lines]
        self.interfaces = [words[0] for words in lines if not _is_anothers(jid, words[0])]
        texts = [word.rpartition("|")[2] for words in lines for word in words[1:]]
        there = {address for address in map(packed, texts) if address is not None}
        wanted = [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]
        self.addresses = [address.packed for address in wanted if address.packed in there]
        self.leads = forward.leads(redirect.read(params.strings("ng.rdr")), self.addresses)
        given = egress_rules.read(params.strings("ng.egress"))
        self.egress = egress_rules.expanded(given) if given else None
        self.above = above

    def __bool__(self) -> bool:
        """Whether there is anything to be carried out."""
        return bool(self.links) and (bool(self.leads) or self.egress is not None or self._is_bound)

    @property
    def _is_bound(self) -> bool:
        return any(jail.judged for jail in self.above)

    @property
    def undo_line(self) -> str:
        """For the record, to be written before ``hold``, behind that of core.firewall and before those of addresses."""
        return " ".join(["policy", str(self.jid), *[rules.show_address(address) for address in self.addresses]])

    @property
    def meets_neighbours(self) -> bool:
        """Whether what ``lan`` means matters."""
        return any(place in ("lan", "world") for rule in self.egress or () for place in rule.places)

    def fragments(self) -> list[Fragment]:
        """What it has in the tables."""
        return [
            forward.fragment(self.jid, self.name, self.links, self.leads),
            egress.fragment(self.jid, self.name, self.interfaces, self.egress, self.above),
        ]

    def judged(self) -> list[bytes]:
        """The interfaces of which the rules decide what they reach of the host."""
        if not egress.reaches_host(self.egress, self.above):
            return []
        return [nfr.interface_name(interface) for interface in self.interfaces]


def _links(undo: list[str]) -> list[list[str]]:
    """Of each interface of a jail on the host: its name, and the addresses that are reached by it."""
    lines = [line.split(" ") for line in undo if line.startswith(_REACHED)]
    return [words[1 + (words[0] == "joined") :] for words in lines]


def _is_anothers(jid: int, link: str) -> bool:
    """Whether what leaves by an interface is another jail's to judge: whose it is, or who has joined it before."""
    whose = owner_of_interface(link.encode())
    if whose == jid:
        return False
    first = registry.load(whose)
    if first is not None and any(line.startswith(f"addresses {link} ") for line in first.undo):
        return True
    return any(other < jid for other in _joined(link))


def _joined(link: str) -> list[int]:
    """The jails that have joined the network namespace to which that interface leads."""
    found = []
    for jid in addressed():
        record = registry.load(jid)
        if record is not None and any(line.startswith(f"joined {jid} {link} ") for line in record.undo):
            found.append(jid)
    return sorted(found)


def switches(leads: list[forward.Lead]) -> list[str]:
    """What has to be switched on for core.firewall where the connections come in. Raises JailError, OSError."""
    from jailng.core.link import Host
    from jailng.linux import rtnetlink as rt

    found: list[str] = []
    with Netlink() as netlink:
        host = Host(netlink)
        for lead in leads:
            for name in _arriving(host, lead):
                interface = host.interface(name=name)
                if not interface.flags & rt.IFF_LOOPBACK and not name.startswith("jng"):
                    found += [one for one in firewall.switches_for(lead.family, name) if one not in found]
    return found


def _arriving(host: Host, lead: forward.Lead) -> list[str]:
    """The interfaces by which connections of a redirect arrive."""
    if lead.rule.interface:
        return [lead.rule.interface]
    if lead.rule.address:
        alias = host.alias(lead.rule.address)
        return [host.interface(alias.index).name] if alias is not None else []
    indexes = {alias.index for alias in host.aliases(2 if lead.family == 4 else 10)}
    return [host.interface(index).name for index in sorted(indexes)]


def above_of(record: Record | None, new: Record | None = None, params: Parameters | None = None) -> list[egress.Above]:
    """``record`` and the jails above it, the nearest first. The jail ``new`` is to have ``params``."""
    found = []
    while record is not None:
        given = record.params.get("ng.egress", "")
        if new is not None and params is not None and record.jid == new.jid:
            given = ",".join(params.strings("ng.egress"))
        found.append(egress.Above(record.jid, bool(given)))
        record = registry.load(record.parent) if record.parent else None
    return found


def hold(policies: list[Policy], gone: set[int] | None = None) -> None:
    """Carry the rules out. ``gone`` are jids whose rules are taken away before, in the same transaction.

    Raises JailError: another jail has what one of these is to have; nf_tables lacks something.
    """
    sentence = ""
    for _ in range(3):
        try:
            with Netlink(NETLINK_NETFILTER) as netlink, firewall.Lock():
                _hold(netlink, policies, gone or set())
            return
        except _Conflict as conflict:
            sentence = conflict.sentence
            if not conflict.is_over():
                break
    raise JailError(sentence)


def _hold(netlink: Netlink, policies: list[Policy], gone: set[int]) -> None:
    tables = ((forward.TABLE, forward.table), (egress.TABLE, egress.table))
    fragments = [fragment for policy in policies for fragment in policy.fragments()]
    missing = {table for table in _tables(fragments) if not _is_there(netlink, table)}
    if missing:  # it is the first, or somebody has flushed them
        others = _recorded(besides={policy.jid for policy in policies}, tables=missing)
        policies = policies + others
        gone = gone | {policy.jid for policy in others}
        fragments += [fragment for policy in others for fragment in policy.fragments()]
        missing = {table for table in _tables(fragments) if not _is_there(netlink, table)}
    needed = _tables(fragments)
    messages = _removal(netlink, gone, needed) if gone else []
    for table, make in tables:
        if table in missing:
            messages += make()
    if egress.TABLE in missing or any(policy.meets_neighbours for policy in policies):
        messages += egress.neighbourhood(_connected())
    for fragment in fragments:
        messages += fragment.messages()
    messages += [nft.new_element(firewall.TABLE, _JUDGED, key) for policy in policies for key in policy.judged()]
    if not messages:
        return
    try:
        netlink.transaction(messages)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise JailError(f"nf_tables: {error.strerror}") from None
        mine = {policy.jid for policy in policies} - gone
        if mine & {owner(chain) for _, chain in _chains(netlink)}:  # left by one that had this jid
            _hold(netlink, policies, gone | mine)
            return
        raise _conflict(netlink, fragments, gone) from None


def _chains(netlink: Netlink) -> list[tuple[str, str]]:
    """Table and name of every chain that is ours."""
    found = [nfr.chain_of(body) for _, body in netlink.ask(nfr.get_chains())]
    return [(table, chain) for table, chain in found if table in (forward.TABLE, egress.TABLE)]


def _recorded(besides: set[int], tables: set[str]) -> list[Policy]:
    """What the records of the jails in this network namespace say that there should be in these tables, and theirs."""
    found = []
    for jid in registry.jids():
        record = registry.load(jid) if jid not in besides else None
        if record is None or not record.current or not any(line.startswith("policy ") for line in record.undo):
            continue
        if origin.is_here(record) and any(line.startswith(_REACHED) for line in record.undo):
            found.append(_of(record))
    return [policy for policy in found if tables & _tables(policy.fragments())]


def _of(record: Record, new: Record | None = None, params: Parameters | None = None) -> Policy:
    from jailng.params.model import Parameters

    above = registry.load(record.parent) if record.parent else None
    own = Parameters.from_texts(record.params)
    return Policy(record.jid, own, record.undo, above_of(above, new, params))


def restore() -> None:
    """Have what the records tell of standing again, after somebody has flushed it. Raises JailError."""
    policies = _recorded(set(), {forward.TABLE, egress.TABLE})
    if policies:
        hold(policies, {policy.jid for policy in policies})


def change(record: Record, params: Parameters) -> None:
    """Let a jail that runs have the rules that ``params`` give it. Needs its lock; raises JailError, and nothing is
    changed then.

    What it and those in it have begun is judged anew; connections by a redirect that is no more are cut.
    """
    from jailng.core import connection, hierarchy

    above = registry.load(record.parent) if record.parent else None
    before = _of(record)
    after = Policy(record.jid, params, record.undo, above_of(above))
    below = [one for one in hierarchy.below(record.name) if one.alive() and one.netns == record.netns]
    policies = [after, *[_of(one, record, params) for one in below]]
    if not (before or after):
        return
    if _differ(before, after):
        _check_alone(record)
    connection.record_policy(record, after)
    hold(policies, {policy.jid for policy in policies})
    kept = {lead.text for lead in after.leads}
    cut = [lead for lead in before.leads if lead.text not in kept]
    _forget(cut, before.addresses if _differ(before, after) else [], [])


def _check_alone(record: Record) -> None:
    """The rules of what may leave are those of a network stack, which jails of one address share. Raises JailError."""
    links = {words[0] for words in _links(record.undo)}
    for jid in addressed():
        other = registry.load(jid) if jid != record.jid else None
        if other is not None and origin.is_here(other) and links & {words[0] for words in _links(other.undo)}:
            raise JailError(f'ng.egress: jail "{visible(other.name)}" has the address too, and its rules are the same')


def _differ(before: Policy, after: Policy) -> bool:
    return [rule.text for rule in before.egress or ()] != [rule.text for rule in after.egress or ()] or (
        (before.egress is None) != (after.egress is None)
    )


def release(words: list[str]) -> None:
    """``policy JID ADDRESS...``: undo ``hold`` for that jail, whose interfaces are gone, or another's alone by now.

    Raises JailError, OSError.
    """
    jid = int(words[0])
    left = [record for record in map(registry.load, _left_by(jid)) if record is not None]
    hold([_of(record) for record in left], {jid, *[record.jid for record in left]})
    _forget([], [], [address for address in map(packed, words[1:]) if address is not None])


def _left_by(jid: int) -> list[int]:
    """The jails that have joined its network namespace, and have it to themselves from now on."""
    found = []
    for other in addressed():
        record = registry.load(other) if other != jid else None
        links = _links(record.undo) if record is not None and record.current else []
        if any(owner_of_interface(words[0].encode()) == jid for words in links):
            found.append(other)
    return found


def _forget(leads: list[forward.Lead], senders: list[bytes], targets: list[bytes]) -> None:
    """Have the kernel forget connections that were led by ``leads`` or to ``targets``, or begun by ``senders``.

    One that is allowed goes on: its next packet is taken for the first. Raises OSError.
    """
    if not (leads or senders or targets):
        return
    from jailng.linux import conntrack

    with Netlink(NETLINK_NETFILTER) as netlink:
        gone = [one for address in senders for one in conntrack.of_source(netlink, address, answering=False)]
        for address in {*targets, *[lead.target for lead in leads]}:
            for one in conntrack.of_source(netlink, address, answering=True):
                to = one.original.destination.packed
                led = to != address or one.original.destination_port != one.reply.source_port
                if led and (address in targets or any(lead.has_led(one) for lead in leads)):
                    gone.append(one)
        conntrack.forget(netlink, gone)


def _tables(fragments: list[Fragment]) -> set[str]:
    """The tables that there have to be."""
    return {fragment.table for fragment in fragments if fragment.elements or fragment.chains}


def _is_there(netlink: Netlink, table: str) -> bool:
    try:
        netlink.ask(nfr.get_table(table))
    except FileNotFoundError:
        return False
    return True


def _connected() -> list[rules.Network]:
    """The networks that the host is in: routes that lead through no gateway."""
    from jailng.core.link import PROTOCOL
    from jailng.linux import rtnetlink as rt

    with Netlink() as netlink:
        found = [rt.Entry(body) for family in (2, 10) for _, body in netlink.ask(rt.get_routes(family))]
    return [(entry.target, entry.bits) for entry in found if entry.on_link and entry.protocol != PROTOCOL]


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


def _conflict(netlink: Netlink, fragments: list[Fragment], gone: set[int]) -> _Conflict:
    for table, maps in ((forward.TABLE, forward.MAPS), (egress.TABLE, egress.MAPS)):
        held = Table(netlink, table, _chains(netlink), maps).elements
        for fragment in fragments:
            for map_, elements in fragment.elements.items() if fragment.table == table else ():
                for key, last, chain in elements:
                    for other, end, holder in held.get(map_, ()):
                        if owner(holder) not in gone and _overlap(key, last or key, other, end or other, map_):
                            return _taken_by(chain, owner(holder))
    return _Conflict("ng.rdr: two of the jail's redirects are for the same packets", 0)


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


def _removal(netlink: Netlink, jids: set[int], needed: set[str]) -> list[Message]:
    """What takes away all that these jails have, and the tables in which no other has any, but those ``needed``."""
    messages: list[Message] = []
    chains = _chains(netlink)
    shut: set[bytes] = set()  # interfaces for which the host is closed again
    for name, maps in ((egress.TABLE, egress.MAPS), (forward.TABLE, forward.MAPS)):
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
