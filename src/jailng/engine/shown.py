"""What jail(8) says with -v of steps that are commands on FreeBSD (usr.sbin/jail/command.c) and system calls here."""

from __future__ import annotations

import posix

from jailng.core import devfs
from jailng.errors import JailError
from jailng.linux.libc import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.model import Parameters

_OWN = {"mount.devfs": ("devfs", "dev"), "mount.fdescfs": ("fdescfs", "dev/fd"), "mount.procfs": ("procfs", "proc")}


def alias(line: str, down: bool) -> str:
    """What puts an alias, ``alias INTERFACE ADDRESS/PREFIX`` in the record, on its interface, or takes it off it."""
    _, interface, address = line.split(" ")
    bare, _, prefix = address.partition("/")
    if ":" in bare:
        family, where = "inet6", f"{bare} prefixlen 128" if prefix == "128" else address
    else:
        family, where = "inet", f"{bare} netmask 255.255.255.255" if prefix == "32" else address
    return f"/sbin/ifconfig {interface} {family} {where} {'-' if down else ''}alias"


def undoing(line: str, left: list[str], params: Parameters, path: str) -> str:
    """What takes away an alias or a mount that a line of the record tells of, the last of those that are ``left``.

    ``path`` is the root of the jail that there was: what ``params`` say now may be another.
    """
    if line.startswith("alias "):
        return alias(line, down=True)
    from jailng.core import mounting
    from jailng.params.values import unescape

    path = path.rstrip("/")
    if line.startswith("image "):
        return f"/sbin/umount {path}"
    relative = unescape(line.split(" ")[2])
    target = path if relative == "." else f"{path}/{relative}"
    try:
        commands = [entry.undo_command for _, entry in mounting.entries(params) if entry.target.rstrip("/") == target]
    except JailError:  # a file that is no more
        commands = []
    there = [one for one in left if one.startswith("mount ") and one.split(" ")[2] == line.split(" ")[2]]
    return commands[len(there) - 1] if 0 < len(there) <= len(commands) else f"/sbin/umount {target}"


def refused(line: str, error: JailError) -> str:
    """A system call that has failed, with what strerror(3) has of the number that FreeBSD's kernel gives."""
    return f"{line}: {posix.strerror(error.errno or EINVAL)}"


def own_mount(name: str, params: Parameters) -> str:
    """What mounts that of mount.devfs, mount.fdescfs or mount.procfs."""
    kind, place = _OWN[name]
    options = f" -oruleset={devfs.ruleset(params)}" if kind == "devfs" else ""
    return f"/sbin/mount -t {kind}{options} . {params.text('path').rstrip('/')}/{place}"


def own_unmount(name: str, params: Parameters) -> str:
    """What unmounts it."""
    return f"/sbin/umount {params.text('path').rstrip('/')}/{_OWN[name][1]}"
