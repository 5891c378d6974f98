"""The operations that make a jail, decided to the last before the first is carried out (core/create.py)."""

from __future__ import annotations

import posix

from jailng.core import boot, devfs, devicecontrol, own, privileges, procfiles, procfs, reach, registry, rootfs, share
from jailng.core.index import SLOTS
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.devfs import Link, Node
    from jailng.core.operation import Operation
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_OWN = (("dev", "devfs"), ("fd", "fdescfs"), ("proc", "procfs"))
OWN_LEAF = "members/own"  # of a jail in which there may be others: a controller wants them apart
_SPARE = 16  # ranges of uids, of 36,861 in all
_ENOUGH = 1024  # of them, for a jail whose children.max is above what there can be


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
    private = params.text("ng.uids") == "private"
    base = creator if private else 0
    record = reserved or registry.Record(jid)
    new_net = joined is None and not privileges.share_network(params)
    has = {name: params.flag(f"mount.{kind}") for name, kind in _OWN} | {"sys": False}
    below, wanted, more, shm = _mounts(params, record, parent, has)
    nodes, links = check_host(params)
    if not has["fd"]:
        links = [link for link in links if link[0] != "fd"]
    home = f"{record.cgroup}/{OWN_LEAF if kept(params) else 'members'}"
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
        if params.number("children.max") and not hidden:
            _have_commands(params.text("path"), build, host)
    if has["proc"]:
        build.append(procfs.MountProc(procfiles.texts(params, parent), privileges.has_vnet(params), hidden))
    build += more
    build += layout.tree({relative for relative, _ in below}, has["sys"])
    build.append(rootfs.Pivot())
    new_ipc = params.text("sysvshm") != "inherit"
    host += _network(params, record, base, parent, joined, layout)
    after = [*layout.after, *_held(params, record, base, parent)]
    return [
        share.MakeCgroup(record.cgroup, layout.home, layout.leaf),
        share.Allot(record.cgroup, layout.home, share.usual(), params.flag("ng.lenient"), bool(kept(params))),
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
            slice_of=params.number("ng.slice") * 1_000_000 or _slice_of(parent),
            parent=parent,
            host=host,
            build=build,
            gate=layout.gate,
            joined=f"mnt{' ipc' if new_ipc else ''}{' net' if has['sys'] or privileges.has_vnet(params) else ''}",
        ),
        *after,
    ]


def _mounts(
    params: Parameters, record: Record, parent: Record | None, has: dict[str, bool]
) -> tuple[list[tuple[bytes, str]], dict[bytes, bool], list[Operation], str]:
    """The mounts below the root that the jail gets; as ``mounting.wanted`` has it which of them were asked for, and the
    builder's work for others; and how much /dev/shm holds.

    ``has`` says which file systems of its own the jail has, and is changed to what was asked for. Raises JailError.
    """
    path = params.text("path")
    mounts = rootfs.mounts()
    if parent is None and not params.flag("ng.lenient"):
        reach.check_doors(path, mounts)
    below = rootfs.mounts_below(path, mounts)
    wanted: dict[bytes, bool] = {}
    more: list[Operation] = []
    shm = ""
    if any(line.startswith("mount ") for line in record.undo):
        from jailng.core import mounting

        wanted, more = mounting.wanted(record, path, below, has)
        shm = mounting.shared_memory(record)
    safe = params.text("ng.uids") == "private" or parent is None
    return taken_along(below, wanted, safe), wanted, more, shm


def _have_commands(path: str, build: list[Operation], host: list[Operation]) -> None:
    """Have a jail that may have jails in it have the commands for them, where its root is without."""
    from jailng.core import kit

    if kit.is_wanted(path):
        from jailng.core import outfit

        build.append(kit.MountKit(outfit.ready()))
        if path != "/":  # the host's own directories are no jail's
            host.append(kit.LinkCommands())


def _held(params: Parameters, record: Record, base: int, parent: Record | None) -> list[Operation]:
    """What holds a jail whose PID 1 is there to what it may do, beyond what each process is confined to."""
    found: list[Operation] = []
    if privileges.has_vnet(params):
        from jailng.core import modules

        found += modules.operations(record.cgroup)
    if params.text("ng.sockets"):
        from jailng.core import sockets

        found += sockets.operations(params, record.cgroup)
    if params.flag("allow.mount"):
        from jailng.core import mountable

        found += mountable.operations(params, record, base)
    if params["ng.limits"] or record.rules or _is_limited(parent):
        from jailng.core import mechanism

        found += mechanism.operations(params, record)
    return found


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


def _network(
    params: Parameters, record: Record, base: int, parent: Record | None, joined: Record | None, layout: boot.Layout
) -> list[Operation]:
    """What is done for the network of a jail, if it is to have any. Raises JailError."""
    addresses = [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]
    if joined is not None or privileges.share_network(params):
        found: list[Operation] = []
        if joined is not None:
            from jailng.core import connection, joining

            found.append(joining.Join(record.jid, joined))
            connection.police(found[0], record.jid, params, parent)
        if privileges.may_bind_reserved(params):
            from jailng.core import connection

            leaves = [path for path in dict.fromkeys([layout.home, layout.leaf]) if path]
            found.append(connection.AllowReservedPorts(leaves, base))
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
    depth = record.name.count(".")
    operations = connection.operations(record.jid, addresses, params.text("interface") or None, fixed, lent, depth)
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


def _is_limited(parent: Record | None) -> bool:
    if parent is None:
        return False
    from jailng.core import attach  # what only enters is not loaded to print a plan

    return attach.is_limited(parent)


def _slice_of(parent: Record | None) -> int:
    if parent is None:
        return 0
    from jailng.core import attach  # what only enters is not loaded to print a plan

    return attach.slice_of(parent)


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
    if params.number("ng.slice"):
        from jailng.core import timeslice

        timeslice.check(params)
    level, number = params.number("securelevel"), devfs.ruleset(params)
    nodes, links = dev(params)  # whatever the level is: rules with a mistake in them are an error now, not half-way
    if level > 0:
        from jailng.core import rulesets

        found = rulesets.writable(nodes)
        if found:
            raise JailError(f"securelevel={level}: devfs ruleset {number} shows {', '.join(found)}, to be written to")
    return nodes, links
