"""What jail(8) says with -v of steps that are commands on FreeBSD (usr.sbin/jail/command.c) and system calls here."""

from __future__ import annotations

from jailng.core import devfs
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.params.model import Parameters

_OWN = {"mount.devfs": ("devfs", "dev"), "mount.fdescfs": ("fdescfs", "dev/fd"), "mount.procfs": ("procfs", "proc")}

# FreeBSD's errors by how the sentences end that its kernel gives with them; any other is EINVAL.
_ERRORS = (
    ("already exists", "File exists"),
    ("not found", "No such file or directory"),
    ("prison limit exceeded", "Operation not permitted"),
    ("Operation not permitted", "Operation not permitted"),
    ("addresses clash", "Address already in use"),
)


def alias(line: str, down: bool) -> str:
    """What puts an alias, ``alias INTERFACE ADDRESS/PREFIX`` in the record, on its interface, or takes it off it."""
    _, interface, address = line.split(" ")
    bare, _, prefix = address.partition("/")
    if ":" in bare:
        family, where = "inet6", f"{bare} prefixlen 128" if prefix == "128" else address
    else:
        family, where = "inet", f"{bare} netmask 255.255.255.255" if prefix == "32" else address
    return f"/sbin/ifconfig {interface} {family} {where} {'-' if down else ''}alias"


def undoing(line: str, params: Parameters) -> str:
    """What takes away an alias or a mount that a line of the record tells of."""
    if line.startswith("alias "):
        return alias(line, down=True)
    from jailng.core import mounting
    from jailng.params.values import unescape

    path = params.text("path").rstrip("/")
    if line.startswith("image "):
        return f"/sbin/umount {path}"
    relative = unescape(line.split(" ")[2])
    target = path if relative == "." else f"{path}/{relative}"
    try:
        commands = {entry.target.rstrip("/"): entry.undo_command for _, entry in mounting.entries(params)}
    except JailError:  # a file that is no more
        commands = {}
    return commands.get(target, f"/sbin/umount {target}")


def refused(line: str, error: JailError) -> str:
    """A system call that has failed, with what strerror(3) has of the number that FreeBSD's kernel gives."""
    return f"{line}: {next((why for words, why in _ERRORS if str(error).endswith(words)), 'Invalid argument')}"


def own_mount(name: str, params: Parameters) -> str:
    """What mounts that of mount.devfs, mount.fdescfs or mount.procfs."""
    kind, place = _OWN[name]
    options = f" -oruleset={devfs.ruleset(params)}" if kind == "devfs" else ""
    return f"/sbin/mount -t {kind}{options} . {params.text('path').rstrip('/')}/{place}"


def own_unmount(name: str, params: Parameters) -> str:
    """What unmounts it."""
    return f"/sbin/umount {params.text('path').rstrip('/')}/{_OWN[name][1]}"
