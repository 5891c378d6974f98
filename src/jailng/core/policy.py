"""What the host's administrator leads into a jail and lets out of it: ng.rdr and ng.egress, decided.

Nothing here changes anything; core/ruleset.py carries it out.
"""

from __future__ import annotations

from jailng.core import egress, firewall, forward, origin, registry
from jailng.core.fragment import owner_of_interface
from jailng.core.index import holders
from jailng.errors import JailError
from jailng.linux import nftrules as nfr
from jailng.linux.libc import ENODEV
from jailng.linux.netlink import Netlink
from jailng.params import egress as egress_rules
from jailng.params import redirect, rules
from jailng.params.address import packed
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.fragment import Fragment
    from jailng.core.link import Host
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

MADE, CHANGING = "made", "changing"
_REACHED = ("addresses ", "joined ")


class Policy:
    """The rules of one jail, decided. ``reached`` are its addresses, as the host leads them there, by interface."""

    __slots__ = ("above", "addresses", "egress", "interfaces", "jid", "leads", "links", "name", "texts")

    def __init__(self, jid: int, params: Parameters, reached: list[str], above: list[egress.Above]) -> None:
        """``reached`` are undo lines, of which those matter that begin with ``addresses LINK INTERFACE|ADDRESS``, and
        with ``joined JID LINK INTERFACE|ADDRESS`` of a jail in the network namespace of another.

        ``links`` are its interfaces on the host, ``interfaces`` those that it has not by way of another jail, whose
        rules of what may leave it are the same, and hold for both. Raises JailError.
        """
        self.jid = jid
        self.name = shown(params.text("name"))
        lines = _links(reached)
        self.links = [words[0] for words in lines]
        self.texts = texts = [word.rpartition("|")[2] for words in lines for word in words[1:]]
        self.interfaces = [link for link in self.links if not _is_anothers(jid, link, texts)]
        there = {address for address in map(packed, texts) if address is not None}
        wanted = [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]
        self.addresses = [address.packed for address in wanted if address.packed in there]
        self.leads = forward.leads(redirect.read(params.strings("ng.rdr")), self.addresses)
        given = egress_rules.read(params.strings("ng.egress"))
        self.egress = egress_rules.expanded(given) if given else None
        self.above = above

    def __bool__(self) -> bool:
        """Whether there is anything to be carried out."""
        return bool(self.links) and (bool(self.leads) or self.is_judged)

    def differs(self, other: Policy) -> bool:
        """Whether another has other rules of what may leave."""
        mine, theirs = [None if one is None else [rule.text for rule in one] for one in (self.egress, other.egress)]
        return mine != theirs

    @property
    def is_judged(self) -> bool:
        """Whether what leaves it is, by rules of its own or of a jail above."""
        return self.egress is not None or any(jail.judged for jail in self.above)

    def undo_line(self, state: str = MADE) -> str:
        """For the record, to be written before it is carried out: ``policy JID STATE LINK,... ADDRESS...``.

        The state is CHANGING while the record does not tell for sure which rules there are. The line stands behind that
        of core.firewall and before those of addresses: it is undone when nothing leaves the jail any more.
        """
        addresses = [rules.show_address(address) for address in self.addresses]
        return " ".join(["policy", str(self.jid), state, ",".join(self.links), *addresses])

    @property
    def meets_neighbours(self) -> bool:
        """Whether what ``lan`` means matters."""
        return any(place in ("lan", "world") for rule in self.egress or () for place in rule.places)

    @property
    def may_ask_host(self) -> bool:
        """Whether it reaches anything of the host itself, as far as its own rules tell."""
        return self.is_judged and (self.egress is None or egress.passes_to_host(self.egress))

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


def shown(name: str) -> str:
    """The name of a jail as it stands in the log."""
    return visible(name)[:64]


def _links(undo: list[str]) -> list[list[str]]:
    """Of each interface of a jail on the host: its name, and the addresses that are reached by it."""
    lines = [line.split(" ") for line in undo if line.startswith(_REACHED)]
    return [words[1 + (words[0] == "joined") :] for words in lines]


def _is_anothers(jid: int, link: str, addresses: list[str]) -> bool:
    """Whether what leaves by an interface is another jail's to judge: whose it is, or who has joined it before."""
    whose = owner_of_interface(link.encode())
    if whose == jid:
        return False
    return any(record.jid == whose or record.jid < jid for record in sharing(jid, link, addresses))


def sharing(jid: int, link: str, addresses: list[str]) -> list[Record]:
    """The other jails that are reached by an interface of the host, at one of these addresses."""
    jids = {other for address in addresses for other in holders(address)} - {jid}
    records = [record for other in sorted(jids) if (record := registry.load(other)) is not None and record.current]
    return [record for record in records if any(words[0] == link for words in _links(record.undo))]


def switches(leads: list[forward.Lead]) -> list[str]:
    """What has to be switched on for core.firewall where the connections come in. Raises JailError, OSError."""
    from jailng.core.link import Host, leads_outside

    found: list[str] = []
    with Netlink() as netlink:
        host = Host(netlink)
        for lead in leads:
            for name in _arriving(host, lead):
                try:
                    interface = host.interface(name=name)
                except OSError as error:
                    if error.errno == ENODEV:
                        raise JailError(f'ng.rdr: "{lead.rule.text}": interface {name} does not exist') from None
                    raise
                if interface.name != name:
                    raise JailError(
                        f'ng.rdr: "{lead.rule.text}": {name} is another name of {interface.name}, by which packets come'
                    )
                if leads_outside(interface):
                    found += [one for one in firewall.switches_for(lead.family, name) if one not in found]
    return found


def _arriving(host: Host, lead: forward.Lead) -> list[str]:
    """The interfaces by which connections of a redirect arrive."""
    if lead.rule.interface:
        return [lead.rule.interface]
    if lead.rule.address:
        alias = host.alias(lead.rule.address)
        return [host.interface(alias.index).name] if alias is not None else []
    return [interface.name for interface in host.carriers(lead.family)]


def above_of(record: Record | None, new: Record | None = None, params: Parameters | None = None) -> list[egress.Above]:
    """``record`` and the jails above it, the nearest first. The jail ``new`` is to have ``params``."""
    found = []
    for one in registry.upwards(record):
        given = one.params.get("ng.egress", "")
        if new is not None and params is not None and one.jid == new.jid:
            given = ",".join(params.strings("ng.egress"))
        found.append(egress.Above(one.jid, bool(given)))
    return found


def of(record: Record, new: Record | None = None, params: Parameters | None = None) -> Policy:
    """That of a jail that runs, by its record. The jail ``new``, above it, is to have ``params``. Raises JailError."""
    from jailng.params.model import Parameters

    above = registry.load(record.parent) if record.parent else None
    made = Policy(record.jid, Parameters.from_texts(record.params), record.undo, above_of(above, new, params))
    if new is not None and params is not None:
        made.name = shown(params.text("name") + record.name[len(new.name) :])
    return made


def recorded(besides: set[int]) -> list[Policy]:
    """Of each jail in this network namespace of which the record tells that it has one. Raises JailError."""
    found = []
    for jid in registry.jids():
        record = registry.load(jid) if jid not in besides else None
        if record is None or not record.current or not any(line.startswith("policy ") for line in record.undo):
            continue
        if origin.is_here(record) and any(line.startswith(_REACHED) for line in record.undo):
            found.append(of(record))
    return found


def is_settled(record: Record | None) -> bool:
    """Whether the records of a jail and of those above it tell for sure which rules it has."""
    undo = [line for one in registry.upwards(record) for line in one.undo]
    return not any(line.startswith("policy ") and line.split(" ")[2] != MADE for line in undo)
