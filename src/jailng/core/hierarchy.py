"""Jails in jails: who is above whom, what is taken over from above, and what that limits (kern_jail.c of FreeBSD 15).

The names say it: ``a.b`` is a jail in ``a``, and ``a`` one of the host's.
"""

from __future__ import annotations

import posix

from jailng.core import devfs, ownfile, privileges, registry, rootfs, undo
from jailng.core.index import Index, names_of
from jailng.errors import JailError, not_permitted
from jailng.linux import mount, mountfd
from jailng.linux.libc import ENOENT, EPERM
from jailng.params import sockets, table
from jailng.params.model import SYSV, Parameters
from jailng.params.values import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_BY_DESCRIPTOR = "/proc/self/fd/"  # as the broker has found it (engine/behalf.py)


def parent_of(params: Parameters, within: Record | None = None) -> Record:
    """The jail in which one of this name, ``parent.name``, is to be made; ``within`` for one without.

    Raises JailError: jail "a" not found, or ``within``, on whose behalf it is, may have none (EPERM).
    """
    if within is not None and within.params.get("children.max", "0") == "0":
        raise not_permitted("jail_set")
    head = params.text("name").rpartition(".")[0]
    if within is not None and head in ("", within.name):
        return within
    record = registry.find(head)
    if record is None or record.name != head:
        from jailng.params.values import visible

        raise JailError(f'jail "{visible(head)}" not found', errno=ENOENT)
    return record


def open_root(parent: Record | None, path: str) -> int:
    """The directory ``path``, which may lie in the tree of the jail ``parent``, as an O_PATH descriptor.

    What lies in there is an enemy's: no link in it leads out of it. Raises JailError.
    """
    top = parent.params.get("path", "/").rstrip("/") if parent is not None else ""
    if parent is None or not f"{path}/".startswith(f"{top}/") or path.startswith(_BY_DESCRIPTOR):
        return rootfs.open_root(path)
    tree = open_root(registry.load(parent.parent) if parent.parent else None, top or "/")
    flags = mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
    try:
        return mountfd.openat2(tree, path[len(top) :].encode("utf-8", "surrogateescape") or b"/", flags, mount.IN_ROOT)
    except OSError as error:
        raise JailError(f"path {path}: {error.strerror}") from None
    finally:
        posix.close(tree)


def children(name: str) -> int:
    """How many living jails there are in the jail of that name ("" for the host), to any depth."""
    return sum([record.alive() for record in (registry.below(name) if name else registry.records())])


def inherit(params: Parameters, parent: Record) -> None:
    """Take over what a jail in ``parent`` has from it. Raises JailError (EPERM) where more is asked than that has."""
    above = Parameters.from_texts(parent.params)
    for name in table.names():
        if not (name.startswith("allow.") and not above.flag(name) and params[name] is True):
            continue
        if params.given(name):
            raise not_permitted("jail_set")
        params.imply(name, False)
    for name in SYSV:
        if above.text(name) == "disable" and params[name] != "disable":
            if params[name] == "new":
                raise not_permitted("jail_set")
            params.imply(name, "disable")
    _take_sockets(params, above)
    _take_highest(params, above, "securelevel")
    _take_highest(params, above, "enforce_statfs")
    if params.number("children.max") >= max(above.number("children.max"), 1):
        raise not_permitted("jail_set")
    for name in ("devfs_ruleset", "ng.uids", "ng.lenient"):
        if params.given(name) and params[name] not in (above[name], 0, False):
            raise not_permitted("jail_set")
        params.imply(name, above[name])
    if params["vnet"] == "new" and params.number("devfs_ruleset") == 0:
        params.imply("devfs_ruleset", devfs.ruleset(above))  # not that of a vnet because the inner one has one
    stack = _stack_above(parent)
    for family in ("ip4", "ip6"):
        _share_addresses(params, above, family, stack)


def inherit_anew(params: Parameters, parent: Record, record: Record) -> None:
    """As ``inherit``, for a jail that was reserved: ``parent``, locked now, may have less than it had then."""
    before = params.to_lines()
    inherit(params, parent)
    record.append([f"param {line}" for line in params.to_lines() if line not in before])


def check_lending(params: Parameters, parent: Record) -> None:
    """Whether a jail that ``parent`` itself asks for may have these addresses.

    Nor may it have a stack of its own where ``parent`` has none.

    One with the host's network has all that are there, but it is the host alone that may lead one to a jail: others
    would take it away from whoever has it, on the host or beyond. Raises JailError (EPERM).
    """
    if params["ng.root"] == "none":
        raise not_permitted("jail_set")  # it is the host's directories that are joined with
    if params["vnet"] == "new" and parent.params.get("vnet") != "new":
        raise not_permitted("jail_set")  # its root would open for itself what the host has not given it
    for family in ("ip4", "ip6"):
        if parent.params.get(family) == "inherit" and params.addresses(f"{family}.addr"):
            raise not_permitted("jail_set")


def lock(record: Record) -> Record:
    """The jail above, which is neither removed nor changed then before it is unlocked. Raises JailError: not found."""
    parent = registry.load(record.parent)
    if parent is not None and parent.lock():
        if parent.alive() and record.name.startswith(parent.name + "."):  # else it has been renamed
            return parent
        parent.unlock()
    raise JailError(f'jail "{record.name.rpartition(".")[0]}" not found', errno=ENOENT)


def make_room(parent: Record) -> None:
    """Clear away those of the jails in ``parent`` that have ended by themselves, as they count no more.

    Raises JailError.
    """
    for record in registry.below(parent.name):
        undo.recover(record)


def check_room(index: Index, parent: Record) -> None:
    """Whether another jail may be made in ``parent``, as that and those above it say.

    Raises JailError: prison limit exceeded; not found, where it is being renamed, for then all in it have been already.
    """
    rows = index.rows()
    if {row[2] for row in rows if row[0] == str(parent.jid)} != {parent.name}:
        raise JailError(f'jail "{parent.name}" not found', errno=ENOENT)
    names = [row[2] for row in rows]
    for above in registry.upwards(parent):
        there = sum([name.startswith(above.name + ".") for name in names])
        if there >= int(above.params.get("children.max", "0")):
            raise JailError("prison limit exceeded", errno=EPERM)


def slot(params: Parameters, index: Index, parent: Record, more: int) -> int:
    """The first slot, with ``more`` behind it, of those that were kept for a jail in ``parent``. Raises JailError."""
    held = index.slots_of(parent.jid)
    if params["ng.uids"] == "shared":
        return held.start
    return index.free_slot(more, held[1:])


def check_change(record: Record, params: Parameters, changed: list[str]) -> None:
    """Whether a jail that runs may have these parameters, which differ from those it has in what has ``changed``.

    Raises JailError: what the jail above has not (EPERM); more jails than uids were kept for.
    """
    if record.parent:
        above = registry.load(record.parent)
        if above is not None:
            inherit(Parameters.from_lines(params.to_lines(changed)), above)
    if "children.max" in changed:
        most = params.number("children.max")
        with Index() as index:
            kept = len(index.slots_of(record.jid)) - 1
        if most > kept:
            raise JailError(
                f"children.max={most}: the jail was made with uids for {kept}: only a restart gives it more"
            )


def pass_down(record: Record, outer: str, params: Parameters, changed: list[str]) -> None:
    """Have the jails in ``record``, whose name was ``outer``, follow what has changed there. Needs its lock.

    From the outermost inwards, each while the one above it is locked: what is made in there meanwhile sees the change.
    """
    for inner in registry.below(outer):
        if inner.parent == record.jid and lock_if_made(inner):
            try:
                _pass_to(inner, record, outer, params, changed)
            finally:
                inner.unlock()


def lock_if_made(inner: Record) -> bool:
    """Lock a jail whose outer one is locked; not one in the making, whose maker waits for that lock (``create``)."""
    if inner.lock(wait=False):
        return True
    found = registry.load(inner.jid)
    return found is not None and found.created and inner.lock()


def finish_renaming(record: Record) -> bool:
    """Carry on where who renamed the jail, or one that it is in, was killed; whether that was so, and now is not.

    Not while another command is at work on one of them, which may be renaming it. Raises JailError, OSError.
    """
    chain = list(registry.upwards(record))
    if all(_is_named(one) for one in chain):
        return False
    locked: list[Record] = []
    try:
        for one in reversed(chain):
            if not one.lock(wait=False):
                return False
            locked.append(one)
            settle_names(one)
    finally:
        for one in locked:
            one.unlock()
    return all(_is_named(one) for one in chain)


def settle_names(record: Record) -> None:
    """Have the jails in a jail be called after it, and each stand in the index by its own name alone. Needs its lock.

    It is otherwise where a command was killed that renamed it. Raises OSError.
    """
    names = {record.jid: record.name}
    for inner in sorted(registry.below(record.name), key=lambda one: one.name.count(".")):
        if inner.parent not in names:
            continue
        name = f"{names[inner.parent]}.{inner.name.rpartition('.')[2]}"
        if inner.name != name:
            if not lock_if_made(inner):
                continue
            try:
                inner.append([f"param name={escape(name)}"])
                ownfile.rewrite(inner)
            finally:
                inner.unlock()
        names[inner.jid] = name
    for jid, name in names.items():
        if names_of(jid) != [name]:
            with Index() as index:
                index.keep_name(jid, name)


def _is_named(record: Record) -> bool:
    """Whether it stands in the index by its name alone, and those in it are called after it."""
    below = registry.below(record.name)
    return names_of(record.jid) == [record.name] and all(one.name.startswith(record.name + ".") for one in below)


def _pass_to(inner: Record, record: Record, outer: str, params: Parameters, changed: list[str]) -> None:
    before = inner.name
    lines = _following(Parameters.from_texts(inner.params), params, changed)
    if "name" in changed:
        lines.append(f"name={escape(record.name + before[len(outer) :])}")
    inner.append([f"param {line}" for line in lines])
    ownfile.rewrite(inner)
    if "allow.reserved_ports" in changed or "allow.suser" in changed:
        from jailng.core import ports

        ports.permit(inner, Parameters.from_texts(inner.params))
    with Index() as index:
        index.keep_name(inner.jid, inner.name)
    pass_down(inner, before, params, changed)


def _following(inner: Parameters, params: Parameters, changed: list[str]) -> list[str]:
    """What a jail has to follow in: a permission that was taken away, a securelevel that was raised.

    Of jails it may have fewer than the one in which it is, however deep (kern_jail_set in FreeBSD's kern_jail.c).
    """
    follow = [name for name in changed if name.startswith("allow.") and not params.flag(name) and inner.flag(name)]
    for name in ("securelevel", "enforce_statfs"):
        if name in changed and inner.number(name) < params.number(name):
            follow.append(name)
    follow += [name for name in SYSV if name in changed and params[name] == "disable" and inner[name] != "disable"]
    lines = params.to_lines(follow)
    lost = ("ip4" in changed or "ip4.addr" in changed) and not privileges.has_family(params, "ip4")
    if lost and inner["ip4"] == "inherit":  # else it could go on making sockets, without an address
        lines.append("ip4=disable")
    below = max(params.number("children.max") - 1, 0)
    if "children.max" in changed and inner.number("children.max") > below:
        lines.append(f"children.max={below}")
    if "ng.sockets" in changed:
        families = _common(privileges.permitted(inner), privileges.permitted(params))
        if families != inner["ng.sockets"]:
            lines.append(f"ng.sockets={families}")
    return lines


def _common(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    """A value of ng.sockets: the families that are in both."""
    return sockets.written(tuple([family for family in ours if family in theirs]))


def _take_sockets(params: Parameters, above: Parameters) -> None:
    if above.text("ng.sockets"):
        ours, theirs = privileges.permitted(params), privileges.permitted(above)
        if params.given("ng.sockets") and not set(ours) <= set(theirs):
            raise not_permitted("jail_set")
        params.imply("ng.sockets", _common(ours, theirs))


def _take_highest(params: Parameters, above: Parameters, name: str) -> None:
    if params.number(name) < above.number(name):
        if params.given(name):
            raise not_permitted("jail_set")
        params.imply(name, above[name])


def _stack_above(parent: Record) -> Record | None:
    """The jail with vnet whose stack a jail in ``parent`` can share, if it is not the host's or an address jail's."""
    above = next((one for one in registry.upwards(parent) if not one.shares_network), None)
    return above if above is not None and above.params.get("vnet") == "new" else None


def _share_addresses(params: Parameters, above: Parameters, family: str, stack: Record | None) -> None:
    """A jail has no address that the one above has not, unless that has the host's.

    In the ``stack`` of a jail with vnet its root configures them, and the host leads none there.
    """
    if stack is not None and params.addresses(f"{family}.addr"):
        raise JailError(
            f"{family}.addr: in a jail with vnet a jail has that one's stack ({family}=inherit), one of its own "
            f"(vnet), or no address"
        )
    if above.text(family) == "inherit" or stack is not None:
        return
    there = {address.bare for address in above.addresses(f"{family}.addr")}
    if not {address.bare for address in params.addresses(f"{family}.addr")} <= there:
        raise not_permitted("jail_set")
    if params[family] == "inherit" and not there:
        params.imply(family, "disable")
