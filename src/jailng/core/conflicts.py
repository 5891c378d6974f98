"""Whether a new jail can be beside those that there are: by its jid, its name and its addresses."""

from __future__ import annotations

from jailng.core import origin, privileges, registry
from jailng.errors import JailError
from jailng.linux.libc import EADDRINUSE, EEXIST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.index import Index
    from jailng.core.registry import Record
    from jailng.params.model import Parameters


def find(params: Parameters, index: Index, parent: Record | None) -> tuple[int, JailError] | None:
    """A jail in the index that has the jid, the name or an address that is asked for, and what is wrong with that.

    The jails above have the same addresses: what they share with it they do without for its life. Raises JailError
    where ``parent`` has no room for another, which FreeBSD says before it looks at addresses.
    """
    conflict: tuple[int, JailError] | None = None
    jid, name = params.number("jid"), params.text("name")
    wanted = {address.bare for family in ("ip4.addr", "ip6.addr") for address in params.addresses(family)}
    for row in index.rows_with(f"\n{jid}\t", f"\t{name or jid}\t", *wanted):
        if jid and row[0] == str(jid):
            return int(row[0]), JailError(f"jail {jid} already exists", errno=EEXIST)
        if row[2] == (name or str(jid)):
            return int(row[0]), JailError(f'jail "{name or jid}" already exists', errno=EEXIST)
        if conflict or not row[3] or not wanted or (parent is not None and f"{parent.name}.".startswith(row[2] + ".")):
            continue
        theirs = set(row[3].split(","))
        error = _clash(wanted, theirs)
        if error is None and not privileges.share_stack(params):
            error = _differ(wanted, theirs, row[2])
        if error is not None and _shares_network(int(row[0])):
            conflict = int(row[0]), error
    if jid and registry.load(jid) is not None:  # what a killed command has left, without the index
        return jid, JailError(f"jail {jid} already exists", errno=EEXIST)
    if parent is not None:
        from jailng.core import hierarchy

        hierarchy.check_room(index, parent)
    return conflict


def _clash(mine: set[str], theirs: set[str]) -> JailError | None:
    """What FreeBSD says of two jails that cannot both have the same address, since one of them has others.

    As prison_check_conflicting_ips of FreeBSD's kern_jail.c has it.
    """
    for address in sorted(mine & theirs):
        six = ":" in address
        if any(sum([(":" in one) == six for one in addresses]) > 1 for addresses in (mine, theirs)):
            return JailError(f"IPv{6 if six else 4} addresses clash", errno=EADDRINUSE)
    return None


def _differ(mine: set[str], theirs: set[str], name: str) -> JailError | None:
    """What Linux makes of it that they have one address and not the other, if so: those on one stack have all of it."""
    mine, theirs = [{one for one in of if not one.startswith("127.") and one != "::1"} for of in (mine, theirs)]
    if mine == theirs or not mine & theirs:
        return None
    return JailError(
        f'{min(mine & theirs)}: jail "{name}" has it too, and not the same addresses besides: '
        "on Linux jails that have one in common have one network stack"
    )


def _shares_network(jid: int) -> bool:
    other = registry.load(jid)
    return other is None or origin.is_here(other)
