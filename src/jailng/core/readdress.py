"""ip4.addr of a jail that runs: its network is taken down, and made anew with the addresses that it is to have.

Killed in the middle the jail has no network, and its record tells of both: whoever changes the address again, or
removes the jail, takes down all of it. What fails before anything is taken down leaves all as it was; what fails
afterwards has the former addresses back.
"""

from __future__ import annotations

import posix

from jailng.core import alias, attach, network, origin, privileges, registry, undo
from jailng.core.index import Index, holders
from jailng.core.joining import is_loopback
from jailng.core.link import Link
from jailng.errors import JailError
from jailng.linux import ns
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.linux.visit import InNamespace
from jailng.params.model import Parameters
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.address import Address

_KINDS = ("firewall", "addresses")


def change(record: Record, params: Parameters) -> None:
    """Have the jail have the addresses of ``params``. Needs the lock. Raises JailError, OSError."""
    before = Parameters.from_texts(record.params)
    _check(record, before, params)
    link = _surveyed(record, params)  # which refuses what cannot be, while all is as it was
    init = attach.open_init(record)
    try:
        _lend(record.jid, [*_addresses(before), *_addresses(params)], alone=True)
        try:
            _exchange(record, link, init)
        except BaseException:  # ^C, too
            _lend(record.jid, _addresses(before))
            _exchange(record, _surveyed(record, before), init)
            raise
        _lend(record.jid, _addresses(params))
    finally:
        posix.close(init)
        if record.posts:
            from jailng.observe import posts

            posts.follow(record)


def is_settled(record: Record) -> bool:
    """Whether the record tells of no other addresses that the jail's network has, or may have, than it is to have."""
    lines = [line.split(" ") for line in record.undo]
    told = {word.rpartition("|")[2] for words in lines if words[0] == "addresses" for word in words[2:]}
    wanted = {address.bare for address in _addresses(Parameters.from_texts(record.params))}
    return told <= wanted and sum([words[0] == "firewall" for words in lines]) < 2


def _addresses(params: Parameters) -> list[Address]:
    return [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]


def _surveyed(record: Record, params: Parameters) -> Link:
    fixed = tuple([family for family in (4, 6) if not params.flag(f"ip{family}.saddrsel")])
    return network.survey(record.jid, _addresses(params), None, fixed)


def _check(record: Record, before: Parameters, params: Parameters) -> None:
    """Refuse what takes a restart. Raises JailError."""
    why = ""
    if record.parent:
        why = "of a jail in a jail"
    elif privileges.share_stack(params) or privileges.share_stack(before):
        why = "with ng.stack=shared"
    elif params["ng.rdr"] or params["ng.egress"]:
        why = "with ng.rdr or ng.egress"
    elif record.joined:
        why = "of a jail that is on the stack of another, with which it has an address in common"
    elif any(_inner(jid) for jid in registry.jids_below(record.name)):
        why = "while a jail in it has an address"
    if why:
        raise JailError(f"ip4.addr cannot be changed after creation {why}")
    if not origin.is_here(record):
        raise JailError("ip4.addr: the jail was made in another network namespace: change it from there")
    given = [*_addresses(before), *_addresses(params)]
    for other in [other for address in given for other in _others(record.jid, address)]:
        undo.recover(other)  # one that has ended by itself has none
    _check_alone(record.jid, given)
    for address in params.addresses("ip4.addr"):
        if address.interface and not alias.exists(address.interface, address):
            raise JailError(
                f"ip4.addr: {address.bare}: not on {visible(address.interface)}: only a restart puts it there"
            )


def _others(jid: int, address: Address) -> list[Record]:
    """The other jails of this network namespace that have the address."""
    if is_loopback(address.bare):
        return []
    found = [registry.load(other) for other in holders(address.bare) if other != jid]
    return [other for other in found if other is not None and origin.is_here(other)]


def _check_alone(jid: int, addresses: list[Address]) -> None:
    """Refuse an address that another jail has as well. Raises JailError."""
    for address in addresses:
        if _others(jid, address):
            raise JailError(
                f"ip4.addr: {address.bare}: another jail has it, too: only a restart shares it, or parts it"
            )


def _inner(jid: int) -> bool:
    record = registry.load(jid)
    return record is not None and bool(record.params.get("ip4.addr") or record.params.get("ip6.addr"))


def _lend(jid: int, addresses: list[Address], alone: bool = False) -> None:
    """Enter the jail in the index with these addresses. Raises JailError if ``alone`` and another has one."""
    with Index() as index:
        if alone:  # who came between the first look and this
            _check_alone(jid, addresses)
        index.set_addresses(jid, list(dict.fromkeys([address.bare for address in addresses])))


def _exchange(record: Record, link: Link, init: int) -> None:
    """Take down what the record tells of, and make what was decided. Raises JailError, OSError."""
    there = [line for line in record.undo if line.split(" ")[0] in _KINDS]
    wanted = network.undo_lines(link)
    _tell(record, [*there, *wanted])
    _take_down(there)
    _tell(record, wanted)  # now: what records tell of is guarded when the table is made anew
    network.host_side(link, record.init_pid)
    with InNamespace(init, ns.CLONE_NEWNET):
        with Netlink() as netlink:
            network.forget_rules(netlink)
            loopback = rt.Interface(netlink.ask(rt.get_link(1))[0][1])
        if loopback.flags & rt.IFF_UP:
            link.ipv6 = True  # of its own address there is nothing to be removed any more, or to be left
        network.inside(link)


def _tell(record: Record, lines: list[str]) -> None:
    """Have the record tell of these instead of what it told of the network: where a start has them, by its cgroup."""
    others = [line for line in record.undo if line.split(" ")[0] not in _KINDS]
    place = next(number for number, line in enumerate(others) if line.startswith("cgroup ")) + 1
    told = [*others[:place], *lines, *others[place:]]
    if told != record.undo:
        same = 0
        while same < min(len(told), len(record.undo)) and told[same] == record.undo[same]:
            same += 1
        cookie = origin.lines(bool(lines))[2:] if not record.cookie else []
        undone = ["undone"] * (len(record.undo) - same)
        record.append([*cookie, *undone, *[f"undo {line}" for line in told[same:]]])


def _take_down(lines: list[str]) -> None:
    """Give the addresses back, and remove the interfaces. Raises OSError."""
    for line in reversed(lines):
        kind, *words = line.split(" ")
        network.UNDO[kind](words)
        if kind == "addresses":
            with Netlink() as netlink:
                netlink.batch([rt.delete_link(words[0])], ignored=network.GONE)
