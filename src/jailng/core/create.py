"""jail_set(2): a jail from settled parameters, by way of a plan that can be printed (core/blueprint.py)."""

from __future__ import annotations

import posix

from jailng.core import blueprint, boot, conflicts, origin, privileges, reach, registry, rootfs, share
from jailng.core.index import DIRECTORY, RULES, Index, holders
from jailng.core.operation import Operation, carry_out
from jailng.errors import JailError, explain, not_permitted
from jailng.linux import caps, cgroup, ns, processid
from jailng.linux.libc import exists
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.confinement import Confinement
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_SWEPT = 4  # how many records are looked at for dead jails whenever one is made


def open_path(params: Parameters) -> tuple[int, str]:
    """The jail's root, checked, and a warning or ""; ``path`` in the parameters becomes its real path.

    Raises JailError.
    """
    path = params.text("path")
    root = _open_root(params, path)
    try:
        warning, mend = "", reach.reachable(root, path)
        if mend:
            warning = reach.warning(path, mend)
            if not params.flag("ng.lenient"):
                raise JailError(warning)
        rootfs.check_mount_points(root, path)
        params.imply("path", posix.readlink(f"/proc/self/fd/{root}"))
    except BaseException:
        posix.close(root)
        raise
    return root, warning


def check_cores(params: Parameters) -> str:
    """A warning if nothing keeps the jail's cores from a program of the host's, or "". Raises JailError."""
    where = privileges.core_socket()
    if not where:
        return ""
    warning = (
        f"kernel.core_pattern={visible(where)}: no limit keeps a jail's cores from a socket, behind which is root of "
        f"the host: name a file or a program (or set ng.lenient)"
    )
    if not params.flag("ng.lenient"):
        raise JailError(warning)
    return warning


def _open_root(params: Parameters, path: str) -> int:
    head = params.text("name").rpartition(".")[0]
    if head and not ns.is_jailed():
        from jailng.core import hierarchy

        return hierarchy.open_root(registry.find(head), path)
    return rootfs.open_root(path)


def reserve(params: Parameters, within: Record | None = None) -> Record:
    """Give a new jail its jid, name and uids: a record, locked by this process, of a jail that is not yet there.

    It is made on behalf of the jail ``within``, if any: in that, or in one of those in it, by its name. If this process
    dies, whatever the record says by then is undone by the next command. Raises JailError.
    """
    if ns.is_jailed():
        from jailng.core import nested

        return nested.reserve(params)
    if posix.geteuid() != 0:
        raise not_permitted("jail_set")
    lacking = caps.lacking(privileges.OF_ROOT)
    if lacking:
        raise JailError(f"jail_set: Operation not permitted: root has no {', '.join(lacking)} here")
    parent = settle_below(params, within)
    blueprint.check_host(params)  # before a command of exec.prepare has run
    check_cores(params)
    _sweep()
    while True:
        with Index() as index:
            conflict = conflicts.find(params, index, parent)
            if conflict is None:
                return _enter(params, index, parent)
        _make_way(params, *conflict)


def _make_way(params: Parameters, jid: int, error: JailError) -> None:
    """Clear away what is in the way of a new jail, and is none any more. Raises ``error`` if it is one."""
    record = registry.load(jid)
    if record is None:  # whoever struck it out died before the index was written
        with Index() as index:
            if registry.load(jid) is None:  # nor has another command made one of that jid since
                index.drop(jid)
        return
    from jailng.core import leftover

    if not leftover.settled(record, params.text("name")):
        raise error


def settle_below(params: Parameters, within: Record | None = None) -> Record | None:
    """The jail in which this one is to be made, by its name; from that, the parameters take over what they have to.

    ``within`` is that where it has no name. None: it is the host's. Raises JailError.
    """
    if within is None and "." not in params.text("name"):
        return None
    from jailng.core import hierarchy

    parent = hierarchy.parent_of(params, within)
    if hierarchy.finish_renaming(parent):
        parent = hierarchy.parent_of(params, within)
    if params["ng.quota"] or params["ng.limits"]:
        from jailng.core import quota

        if quota.wanted(params) is not None:
            raise quota.inner()
    if not origin.is_here(parent):
        raise JailError(f'jail "{parent.name}" was made in another network namespace: make jails in it from there')
    hierarchy.inherit(params, parent)
    if within is not None:
        hierarchy.check_lending(params, parent)
    hierarchy.make_room(parent)
    return parent


def jail_set(
    params: Parameters,
    record: Record,
    meanwhile: Callable[[Confinement], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[str]:
    """Make the jail that was reserved. It has PID 1 and no member, and persists until ``core.remove.set_persist``.

    ``meanwhile`` is called with what the jail confines to when its PID 1 is there and its tree is not yet, if that will
    have a null device; ``warn`` with what could not be done, and is let pass (ng.lenient).
    Returns what -v should tell of: mounts of the host's that are not seen inside. Raises JailError; the caller then
    walks the record back (core.undo).
    """
    if record.remote:
        from jailng.core import nested

        return nested.make(record, params)
    note_rules(record)
    root, _ = open_path(params)
    slots = {"root": root}
    parent = joined = None
    try:
        if record.parent:
            from jailng.core import hierarchy

            parent = hierarchy.lock(record)
            hierarchy.inherit_anew(params, parent, record)
        if _others_have(params):
            from jailng.core import joining

            joined = joining.first(record, params)
            if joined is not None:
                slots["joined"] = joining.open_namespace(joined)
        operations = blueprint.plan(params, record.jid, record.base, record, parent, joined)
        booted = next(operation for operation in operations if isinstance(operation, boot.Boot))

        def there() -> None:
            path = [f"param {line}" for line in params.to_lines(["path"])]
            record.append([f"init {processid.of(slots['init.pid'])}", *path])
            if meanwhile is not None and _will_have_null(booted.build, root):
                meanwhile(booted.confinement)

        booted.meanwhile = there
        carry_out(operations, slots, record)
        record.append(["created"])
        if booted.gate is not None:
            booted.gate.keep(record)
        _begin_rules(record)
    except OSError as error:
        raise JailError(f"jail_set: {explain(error)}", errno=error.errno or 0) from None
    finally:
        if parent is not None:
            parent.unlock()
        for name, fd in slots.items():
            if name != "init.pid":
                posix.close(fd)
    return _told(operations, warn)


def _told(operations: list[Operation], warn: Callable[[str], None] | None) -> list[str]:
    if warn is not None:
        for warning in [warning for operation in operations for warning in operation.warnings([])]:
            warn(warning)
    return [note for operation in operations for note in operation.notes([])]


def note_rules(record: Record) -> None:
    """Have the record of a jail that is being made say which rules of rctl(8) there are for it. Raises OSError."""
    if exists(RULES):
        from jailng.limits import standing

        standing.note(record)


def _begin_rules(record: Record) -> None:
    if record.rules or record.params.get("ng.limits") or exists(RULES):
        from jailng.limits import standing

        standing.begin(record)


def _others_have(params: Parameters) -> bool:
    """Whether another jail in the index has an address of a jail that is in there, too."""
    return any(
        len(holders(address.bare)) > 1
        for name in ("ip4.addr", "ip6.addr")
        for address in params.addresses(name)[:1]  # who has more than one has them alone
    )


def _will_have_null(build: list[Operation], root: int) -> bool:
    nodes = [node[0] for operation in build if isinstance(operation, rootfs.MountDev) for node in operation.nodes]
    try:
        posix.stat("dev", dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    return "null" in nodes


def _enter(params: Parameters, index: Index, parent: Record | None) -> Record:
    jid = params.number("jid") or index.next_jid()
    params.identify(jid)
    if parent is not None and "." not in params.text("name"):
        params.imply("name", f"{parent.name}.{jid}")
    addresses = [address.bare for family in ("ip4.addr", "ip6.addr") for address in params.addresses(family)]
    lines = [*origin.lines(bool(addresses)), *[f"param {line}" for line in params.to_lines()]]
    more = blueprint.kept(params)
    place = f"jailng/{jid}"
    if cgroup.populated(place):
        raise JailError(f"cgroup {place} is another jail's, of which {DIRECTORY} does not know")
    if parent is None:
        first = index.free_slot(more)
    else:
        from jailng.core import hierarchy

        first = hierarchy.slot(params, index, parent, more)
        place = f"{parent.cgroup}/members/{jid}"
        lines += [f"parent {parent.jid}", f"cgroup {place}"]
    lines.append(f"controllers {' '.join(share.beside())}")
    if more:
        lines.append(f"home {place}/{blueprint.OWN_LEAF}")
    return registry.enter(index, jid, range(first, first + more + 1), params.text("name"), addresses, lines)


_to_look_at: list[int] = []


def _sweep() -> None:
    """Look at a few records, others each time, and clear away those whose jail has ended by itself.

    Which there are is asked when all that there were have been looked at, and not for each of a thousand jails.
    """
    if not _to_look_at:
        jids = registry.jids()
        first = posix.getpid() % len(jids) if jids else 0
        _to_look_at.extend(jids[first:] + jids[:first])
    for jid in _to_look_at[:_SWEPT]:
        try:
            record = registry.load(jid)
            if record is not None and not record.alive():
                from jailng.core import undo

                undo.recover(record)
        except JailError:
            pass  # told to who asks for that jail, or for all; this one has nothing to do with it
    del _to_look_at[:_SWEPT]
