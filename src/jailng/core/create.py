"""jail_set(2): a jail from settled parameters, by way of a plan that can be printed."""

from __future__ import annotations

import posix

from jailng.core import (
    boot,
    conflicts,
    devfs,
    devicecontrol,
    origin,
    own,
    privileges,
    procfiles,
    reach,
    registry,
    rootfs,
    share,
)
from jailng.core.index import DIRECTORY, RULES, SLOTS, Index, holders
from jailng.core.operation import Operation, carry_out
from jailng.errors import JailError, explain
from jailng.linux import cgroup, ns
from jailng.linux.libc import exists
from jailng.params.values import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.confinement import Confinement
    from jailng.core.devfs import Link, Node
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_OWN = (("dev", "devfs"), ("fd", "fdescfs"), ("proc", "procfs"))
_OWN_LEAF = "members/own"  # of a jail in which there may be others: a controller wants them apart
_SPARE = 16  # ranges of uids, of 36,861 in all
_ENOUGH = 1024  # of them, for a jail whose children.max is above what there can be
_SWEPT = 4  # how many records are looked at for dead jails whenever one is made


def plan(
    params: Parameters,
    jid: int,
    creator: int,
    reserved: Record | None = None,
    parent: Record | None = None,
    joined: Record | None = None,
) -> list[Operation]:
    """The operations that make this jail, decided to the last; nothing is touched, the host's state is only read.

    ``reserved`` is its record, which tells of what has been mounted for it; ``parent`` the jail in which it is made,
    ``joined`` that whose network namespace it is to be in. Raises JailError.
    """
    path = params.text("path")
    private = params.text("ng.uids") == "private"
    base = creator if private else 0
    record = reserved or registry.Record(jid)
    new_net = joined is None and not privileges.share_network(params)
    mounts = rootfs.mounts()
    if parent is None and not params.flag("ng.lenient"):
        check_doors(path, mounts)
    below = rootfs.mounts_below(path, mounts)
    wanted: dict[bytes, bool] = {}
    more: list[Operation] = []
    shm = ""
    has = {name: params.flag(f"mount.{kind}") for name, kind in _OWN} | {"sys": False}
    if any(line.startswith("mount ") for line in record.undo):
        from jailng.core import mounting

        wanted, more = mounting.wanted(record, path, below, has)
        shm = mounting.shared_memory(record)
    below = taken_along(below, wanted, private or parent is None)
    nodes, links = check_host(params)
    if not has["fd"]:
        links = [link for link in links if link[0] != "fd"]
    home = f"{record.cgroup}/{_OWN_LEAF if kept(params) else 'members'}"
    layout = _layout(params, record, base, home)
    links += layout.links
    tree, hidden = _tree(params, below, private, wanted)
    build: list[Operation] = [
        *tree,
        devicecontrol.JudgeDevices(
            record.cgroup, nodes if has["dev"] else list(devfs.DEVICES), parent is not None, params.flag("ng.lenient")
        ),
    ]
    host: list[Operation] = []
    if has["dev"]:
        told = own.text(params) if params.flag("ng.self") else b""
        build.append(rootfs.MountDev(nodes, links, base, private, told, shm))
    if has["dev"] and params.number("children.max") and not hidden:
        from jailng.core import kit

        if kit.is_wanted(path):
            from jailng.core import outfit

            build.append(kit.MountKit(outfit.ready()))
            if path != "/":  # the host's own directories are no jail's
                host.append(kit.LinkCommands())
    if has["proc"]:
        build.append(rootfs.MountProc(procfiles.texts(params, parent), privileges.has_vnet(params), hidden))
    build += more
    build += layout.tree({relative for relative, _ in below}, has["sys"])
    build.append(rootfs.Pivot())
    new_ipc = params.text("sysvshm") != "inherit"
    host += _network(params, record, base, parent, joined)
    after: list[Operation] = layout.after
    if privileges.has_vnet(params):
        from jailng.core import modules

        after += modules.operations(record.cgroup)
    if params.flag("allow.mount"):
        from jailng.core import mountable

        after += mountable.operations(params, record.cgroup, base)
    if params["ng.limits"] or record.rules:
        from jailng.core import limit

        after += limit.operations(params, record)
    return [
        boot.MakeCgroup(record.cgroup, layout.home, layout.leaf),
        share.Allot(record.cgroup, layout.home, share.usual(), params.flag("ng.lenient")),
        *layout.before,
        boot.Boot(
            cgroup=record.cgroup,
            beside=share.beside(),
            creator=creator,
            ids=base,
            hostname=params.text("host.hostname"),
            domainname=params.text("host.domainname"),
            new_net=new_net,
            new_ipc=new_ipc,
            new_uts=params.text("host") != "inherit",
            own_mounts=params.flag("allow.mount"),
            confinement=privileges.confine(params, joined is not None),
            kept=kept(params),
            parent=parent,
            host=host,
            build=build,
            gate=layout.gate,
            joined=f"mnt{' ipc' if new_ipc else ''}{' net' if has['sys'] or privileges.has_vnet(params) else ''}",
        ),
        *after,
    ]


def _layout(params: Parameters, record: Record, base: int, home: str) -> boot.Layout:
    """Raises JailError where the root has not what ng.init says."""
    if params.text("ng.init") == "none":
        return boot.Layout(home)
    from jailng.core import guest

    return guest.Layout(guest.decide(params), params, record, base, home)


def _tree(
    params: Parameters, below: list[tuple[bytes, str]], private: bool, wanted: dict[bytes, bool]
) -> tuple[list[Operation], tuple[bytes, ...]]:
    """What makes the root, and the further directories of /proc that it does not show."""
    if privileges.is_rootless(params):
        from jailng.core import rootless

        return [rootless.EmptyTree(private)], rootless.HIDDEN
    path = params.text("path")
    return [rootfs.CloneTree(path, below, wanted), rootfs.AttachTree(path, below, private, wanted)], ()


def check_doors(path: str, mounts: list[list[bytes]]) -> None:
    """Refuse a root that other users reach in another place than at its path. Raises JailError."""
    for door, mend in reach.doors(path, mounts):
        raise JailError(
            f"path {path}: other users of this host can reach it at {visible(door)}, "
            f"and a set-uid file made inside would be one outside: {visible(mend)} (or set ng.lenient)"
        )


def _network(
    params: Parameters, record: Record, base: int, parent: Record | None, joined: Record | None
) -> list[Operation]:
    """What is done for the network of a jail, if it is to have any. Raises JailError."""
    addresses = [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]
    if joined is not None or privileges.share_network(params):
        found: list[Operation] = []
        if joined is not None:
            from jailng.core import connection, joining

            found.append(joining.Join(record.jid, joined))
            connection.police(found[0], record.jid, params, parent)
        if params.flag("allow.reserved_ports"):
            from jailng.core import connection

            found.append(connection.AllowReservedPorts(record.cgroup, base))
        return found
    if privileges.has_vnet(params):
        from jailng.core import connection

        return [connection.own_loopback(record.jid)]
    if privileges.share_stack(params):
        from jailng.core import stack

        return stack.operations(record, params, base, parent)
    if not addresses:
        if params.text("ng.sockets") and "ipv4" in privileges.permitted(params):  # else any address can be bound
            from jailng.core import connection

            return [connection.own_loopback(record.jid)]
        return []
    from jailng.core import connection

    lent = None
    if parent is not None:
        from jailng.core import get

        lent = {*get.addresses(parent, "ip4.addr"), *get.addresses(parent, "ip6.addr")}
    fixed = tuple([family for family in (4, 6) if not params.flag(f"ip{family}.saddrsel")])
    operations = connection.operations(record.jid, addresses, params.text("interface") or None, fixed, lent)
    connection.police(operations[0], record.jid, params, parent)
    return operations


def taken_along(below: list[tuple[bytes, str]], wanted: dict[bytes, bool], safe: bool) -> list[tuple[bytes, str]]:
    """Of the mounts below the root those that a jail gets: all, or if that is not ``safe`` those that were asked for.

    With the host's uids nothing refuses to be cloned, be it a sysfs; and the root of the jail above can exchange the
    directories that they are mounted on at any moment.
    """
    return below if safe else [entry for entry in below if entry[0] in wanted]


def kept(params: Parameters) -> int:
    """How many ranges of uids a jail has beyond its own, for the jails in it.

    As many as there may be jails, and some more: those may have jails in them, too, and each has its ranges in one
    piece, whatever becomes of it; and children.max can be raised a little. Who says more than there are ranges at all,
    as FreeBSD's own tests do, says that he does not count.
    """
    most = params.number("children.max")
    if most >= len(SLOTS):
        return _ENOUGH
    return most + min(most * (most - 1), _SPARE)


def dev(params: Parameters) -> tuple[list[Node], list[Link]]:
    """The nodes and links of the jail's /dev, by the host's rules. Raises JailError."""
    try:  # without O_NONBLOCK a fifo would be waited for
        rules = posix.open(devfs.RULES, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except FileNotFoundError:
        if not any(params.flag(parameter) for parameter in devfs.GATED.values()):
            return devfs.shown(devfs.ruleset(params))
        rules = -1
    from jailng.core import devices

    return devices.shown(params, rules)


def check_host(params: Parameters) -> tuple[list[Node], list[Link]]:
    """Refuse what this host cannot give, before anything is made; the jail's ``dev``. Raises JailError."""
    release = params.text("osrelease")
    if release and release != posix.uname().release:
        raise JailError(f"osrelease={release}: not honoured on Linux: uname(2) says {posix.uname().release} everywhere")
    if privileges.is_rootless(params):
        from jailng.core import rootless

        rootless.check(params)
    if params.flag("allow.mount"):
        from jailng.core import mountable

        mountable.check(params)
    if privileges.has_vnet(params):
        from jailng.core import modules

        modules.check()
    if params.flag("allow.cgroup") and not privileges.has_own_init(params):
        raise JailError("allow.cgroup: only with an init of the guest's own: ng.init=auto, sysv, openrc or systemd")
    if params.number("children.max") and not params.flag("ng.self"):
        raise JailError("ng.self=false: a jail with children.max has what its commands need in /dev/.jailng")
    if params["ng.limits"] and not params.flag("ng.lenient"):
        from jailng.core import limit

        limit.check_texts(params)
    level, number = params.number("securelevel"), devfs.ruleset(params)
    nodes, links = dev(params)  # whatever the level is: rules with a mistake in them are an error now, not half-way
    if level > 0:
        from jailng.core import rulesets

        found = rulesets.writable(nodes)
        if found:
            raise JailError(f"securelevel={level}: devfs ruleset {number} shows {', '.join(found)}, to be written to")
    return nodes, links


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
        params.set("path", posix.readlink(f"/proc/self/fd/{root}"))
    except BaseException:
        posix.close(root)
        raise
    return root, warning


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
        raise JailError("jail_set: Operation not permitted")
    parent = settle_below(params, within)
    check_host(params)  # before a command of exec.prepare has run
    _sweep()
    sentence = ""
    for _ in range(3):
        with Index() as index:
            conflict = conflicts.find(params, index, parent)
            if conflict is None:
                return _enter(params, index, parent)
        jid, sentence = conflict
        record = registry.load(jid)
        if record is None:  # whoever struck it out died before the index was written
            with Index() as index:
                index.drop(jid)
            continue
        from jailng.core import undo

        if not undo.recover(record):
            break
    raise JailError(sentence)


def settle_below(params: Parameters, within: Record | None = None) -> Record | None:
    """The jail in which this one is to be made, by its name; from that, the parameters take over what they have to.

    ``within`` is that where it has no name. None: it is the host's. Raises JailError.
    """
    if within is None and "." not in params.text("name"):
        return None
    from jailng.core import hierarchy

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
    _note_rules(record)
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
        operations = plan(params, record.jid, record.base, record, parent, joined)
        booted = next(operation for operation in operations if isinstance(operation, boot.Boot))

        def there() -> None:
            path = [f"param {line}" for line in params.to_lines(["path"])]
            record.append([f"init {registry.process_id(slots['init.pid'])}", *path])
            if meanwhile is not None and _will_have_null(booted.build, root):
                meanwhile(booted.confinement)

        booted.meanwhile = there
        carry_out(operations, slots, record)
        record.append(["created"])
        if booted.gate is not None:
            booted.gate.keep(record)
        _begin_rules(record)
    except OSError as error:
        raise JailError(f"jail_set: {explain(error)}") from None
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


def _note_rules(record: Record) -> None:
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
    more = kept(params)
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
        lines.append(f"home {place}/{_OWN_LEAF}")
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
        record = registry.load(jid)
        if record is not None and not record.alive():
            from jailng.core import undo

            undo.recover(record)
    del _to_look_at[:_SWEPT]
