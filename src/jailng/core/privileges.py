"""From a jail's parameters to what its processes may do."""

from __future__ import annotations

import posix

from jailng.core import confinement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.confinement import Confinement
    from jailng.params.model import Parameters

# What root of the host cannot do without to make any jail; in a container he may have less.
OF_ROOT = "DAC_OVERRIDE SETGID SETUID SETPCAP SYS_CHROOT SYS_PTRACE SYS_ADMIN MKNOD"
_CORE_PATTERN = "/proc/sys/kernel/core_pattern"


def confine(params: Parameters, joined: bool = False) -> Confinement:
    """What the parameters leave a process of the jail to do; ``joined`` as ``core.registry.Record`` has it."""
    mounts = _may_mount(params)
    ipv4, unix, route = _families(params)
    return confinement.compute(
        confinement.Privileges(
            set_hostname=params.flag("allow.set_hostname"),
            bind_mounts=mounts and params.flag("allow.mount.nullfs"),
            file_systems=mounts and (params.flag("allow.mount.tmpfs") or params.flag("allow.mount.fusefs")),
            raw_sockets=params.flag("allow.raw_sockets") or has_vnet(params),
            socket_af=params.flag("allow.socket_af"),
            mlock=params.flag("allow.mlock"),
            reserved_ports=params.flag("allow.reserved_ports"),
            proc_debug=params.flag("allow.unprivileged_proc_debug"),
            suser=params.flag("allow.suser"),
            sysvmsg=params.text("sysvmsg") != "disable",
            sysvsem=params.text("sysvsem") != "disable",
            sysvshm=params.text("sysvshm") != "disable",
            inet4=ipv4,
            inet6=has_family(params, "ip6"),
            shared_net=joined or share_network(params),
            vnet=has_vnet(params),
            shared_stack=share_stack(params),
            own_init=has_own_init(params),
            uevents=has_own_init(params) and not share_network(params),
            core_files=_cores_are_files(),
            no_unix=not unix,
            no_route=not route,
            shared_uids=params.text("ng.uids") == "shared",
        )
    )


def _may_mount(params: Parameters) -> bool:
    """Whether root inside may mount at all; what, allow.mount.* say. As on FreeBSD not where enforce_statfs is 2."""
    return params.flag("allow.mount") and params.number("enforce_statfs") < 2


def has_own_init(params: Parameters) -> bool:
    """Whether PID 1 may be the guest's own: ``ng.init``."""
    return params.text("ng.init") not in ("none", "rc")


def _cores_are_files() -> bool:
    """Whether the host writes cores to files, and hands them to no program and no socket. Raises OSError."""
    return _core_pattern()[:1] not in (b"|", b"@")


def core_socket() -> str:
    """The socket of the host's that cores are sent to (Linux 6.16), or ""; no limit keeps them from it. Raises OSError.

    coredump_sock_connect() in fs/coredump.c: a limit of 1 is asked for by coredump_pipe() alone.
    """
    pattern = _core_pattern()
    return pattern.decode("utf-8", "replace").strip() if pattern[:1] == b"@" else ""


def _core_pattern() -> bytes:
    pattern = posix.open(_CORE_PATTERN, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(pattern, 4096)
    finally:
        posix.close(pattern)


def _families(params: Parameters) -> tuple[bool, bool, bool]:
    """Whether it may make sockets of IPv4, of unix and of netlink's route."""
    if not params.text("ng.sockets"):
        return has_family(params, "ip4"), True, True
    families = permitted(params)
    return "ipv4" in families, "unix" in families, "route" in families


def permitted(params: Parameters) -> tuple[str, ...]:
    """The families of params.sockets that the jail may have."""
    from jailng.params import sockets

    return sockets.permitted(params.text("ng.sockets"), has_family(params, "ip4"))


def has_family(params: Parameters, family: str) -> bool:
    """Whether it has addresses of ``family``, ip4 or ip6: its own, or the host's."""
    return has_vnet(params) or params.text(family) == "inherit" or bool(params.addresses(f"{family}.addr"))


def is_rootless(params: Parameters) -> bool:
    """Whether its processes bring their roots (core/view.py)."""
    return params.text("ng.root") == "none"


def has_vnet(params: Parameters) -> bool:
    """Whether the jail has a network stack of its own, which its root configures."""
    return params.text("vnet") == "new"


def share_stack(params: Parameters) -> bool:
    """Whether the jail's sockets are of the host's stack, held to its addresses, though its namespace is its own."""
    if params.text("ng.stack") == "own" or has_vnet(params):
        return False
    if "inherit" in (params.text("ip4"), params.text("ip6")):  # of one family all, of the other what it is given
        return params.text("ip4") != "inherit" or bool(params.addresses("ip6.addr"))
    return bool(params.addresses("ip4.addr") or params.addresses("ip6.addr"))


def share_network(params: Parameters) -> bool:
    """Whether the jail lives in the host's network namespace."""
    inherited = "inherit" in (params.text("ip4"), params.text("ip6"))
    return inherited and not has_vnet(params) and not share_stack(params)


def may_bind_reserved(params: Parameters) -> bool:
    """Whether ports below 1024 are for the jail's root where no capability says so: not in a stack of its own."""
    return params.flag("allow.reserved_ports") and params.flag("allow.suser")
