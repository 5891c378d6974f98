"""Whether a new jail can be beside those that there are: by its jid, its name and its addresses."""

from __future__ import annotations

from jailng.core import origin, privileges, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.index import Index
    from jailng.core.registry import Record
    from jailng.params.model import Parameters


def find(params: Parameters, index: Index, parent: Record | None) -> tuple[int, str] | None:
    """A jail in the index that has the jid, the name or an address that is asked for, and what to say of it.

    The jails above have the same addresses: what they share with it they do without for its life. Raises JailError
    where ``parent`` has no room for another, which FreeBSD says before it looks at addresses.
    """
    conflict: tuple[int, str] | None = None
    jid, name = params.number("jid"), params.text("name")
    wanted = {address.bare for family in ("ip4.addr", "ip6.addr") for address in params.addresses(family)}
    for row in index.rows_with(f"\n{jid}\t", f"\t{name or jid}\t", *wanted):
        if jid and row[0] == str(jid):
            return int(row[0]), f"jail {jid} already exists"
        if row[2] == (name or str(jid)):
            return int(row[0]), f'jail "{name or jid}" already exists'
        if conflict or not row[3] or not wanted or (parent is not None and f"{parent.name}.".startswith(row[2] + ".")):
            continue
        theirs = set(row[3].split(","))
        sentence = _clash(wanted, theirs) or ("" if privileges.share_stack(params) else _differ(wanted, theirs, row[2]))
        if sentence and _shares_network(int(row[0])):
            conflict = int(row[0]), sentence
    if jid and registry.load(jid) is not None:  # what a killed command has left, without the index
        return jid, f"jail {jid} already exists"
    if parent is not None:
        from jailng.core import hierarchy

        hierarchy.check_room(index, parent)
    return conflict


def _clash(mine: set[str], theirs: set[str]) -> str:
    """What FreeBSD says of two jails that cannot both have the same address, since one of them has others; else "".

    As prison_check_conflicting_ips of FreeBSD's kern_jail.c has it.
    """
    for address in sorted(mine & theirs):
        six = ":" in address
        if any(sum([(":" in one) == six for one in addresses]) > 1 for addresses in (mine, theirs)):
            return f"IPv{6 if six else 4} addresses clash"
    return ""


def _differ(mine: set[str], theirs: set[str], name: str) -> str:
    """What Linux makes of it that they have one address and not the other, if so: those on one stack have all of it."""
    mine, theirs = [{one for one in of if not one.startswith("127.") and one != "::1"} for of in (mine, theirs)]
    if mine == theirs or not mine & theirs:
        return ""
    return (
        f'{min(mine & theirs)}: jail "{name}" has it too, and not the same addresses besides: '
        "on Linux jails that have one in common have one network stack"
    )


def _shares_network(jid: int) -> bool:
    other = registry.load(jid)
    return other is None or origin.is_here(other)
