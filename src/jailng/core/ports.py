"""Ports below 1024 for root of a jail that lives in a network namespace of others': programs on cgroups of its members.

They are on the leaves of its own members, and not on what is above, where jails in it would have them too: with
ng.uids=shared their root has the same uid.
"""

from __future__ import annotations

import posix

from jailng.core import privileges
from jailng.errors import JailError
from jailng.linux import bpf, bpfattached, cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

_HOOKS = (bpf.CGROUP_INET4_BIND, bpf.CGROUP_INET6_BIND)


def permit(record: Record, params: Parameters) -> None:
    """Have root of a jail that runs bind them, or no longer, as ``params`` say. Needs the lock. Raises JailError.

    Where its network namespace is its own, its privileges say so, and where its sockets are the host's, their broker.
    """
    if record.sockets or not (record.shares_network or record.joined):
        return
    parts = [record.home, f"{record.cgroup}/members/guest"] if record.home else [f"{record.cgroup}/members"]
    permitted = privileges.may_bind_reserved(params)
    try:
        # One that an older version has made may have it above.
        for path in dict.fromkeys([*parts, f"{record.cgroup}/members"]):
            if cgroup.exists(path):
                _set(path, record.owner, permitted and path in parts)
    except OSError as error:
        raise JailError(f"allow.reserved_ports: a program on the jail's cgroup: {error.strerror}") from None


def _set(path: str, uid: int, permitted: bool) -> None:
    """Have the programs there, or not. Raises OSError."""
    directory = cgroup.open_directory(path)
    try:
        there = [(program, hook) for hook in _HOOKS for program in bpfattached.ours(directory, hook)]
        for program, hook in there:
            try:
                if not permitted:
                    bpfattached.detach(directory, program, hook)
            finally:
                posix.close(program)
        if permitted and not there:
            bpf.allow_reserved_ports(directory, uid)
    finally:
        posix.close(directory)
