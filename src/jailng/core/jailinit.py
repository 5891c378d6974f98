"""Where jailinit is, and how it is executed: PID 1, and the way into a jail whose uids are the host's."""

from __future__ import annotations

from jailng.errors import JailError
from jailng.linux import mount


def path() -> str:
    """Where the program is: beside a checkout's sources, else in lib/jailng of what the package is installed below."""
    package = __file__.rpartition("/core/")[0]
    if package.endswith("/src/jailng"):
        return package[: -len("src/jailng")] + "jailinit/jailinit"
    prefix, installed, _ = package.partition("/lib/python3/")
    return f"{prefix if installed else '/usr'}/lib/jailng/jailinit"


def open_program() -> int:
    """jailinit on a detached read-only mount of its own, for fexecve(3).

    Through /proc/PID/exe a jailed root whose uids are the host's could otherwise write to it (CVE-2019-5736).
    Raises JailError where it is not built.
    """
    where = path()
    try:
        tree = mount.open_tree(mount.AT_FDCWD, where.encode())
    except FileNotFoundError:
        raise JailError(f"{where}: not built: make -C {where.rpartition('/')[0]}") from None
    mount.mount_setattr(tree, mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV)
    return tree
