"""What a jail may know of itself: a file in its /dev, made with it, written anew by ``jail -m``, read inside.

The file lies in the jail's tree, so root inside can write to it or take it away, and then misleads nobody but itself:
nothing that decides anything reads it.
"""

from __future__ import annotations

import posix

from jailng.params.values import LIMITS, escape, show, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.program import Kept, Program
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

PATH = "/dev/.jailng/self"
_FOLDER, _FILE, _NEW = b".jailng", b"self", b"new"
_BYTES = 1 << 20
# With all of allow.*: not what the host calls the jail and where it has it, nor meta, which is the host's alone.
_TOLD = (
    "securelevel children.max enforce_statfs devfs_ruleset env vnet ip4 ip6 host host.hostname host.domainname "
    "host.hostuuid host.hostid osrelease osreldate sysvmsg sysvsem sysvshm"
).split()
_CREATE = posix.O_CREAT | posix.O_EXCL | posix.O_WRONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


def read() -> dict[str, str]:
    """Inside: the parameters of this jail that it may know of, by name, as the record has them, and ``LIMITS``.

    Empty where there is nothing to read: on the host, and in a jail without a /dev of its own. Raises OSError.
    """
    try:
        fd = posix.open(PATH, _READ)
    except FileNotFoundError:
        return {}
    try:
        lines = posix.read(fd, _BYTES).decode("utf-8", "surrogateescape").split("\n")
    finally:
        posix.close(fd)
    parts = [line.partition("=") for line in lines]
    return {name: unescape(value) for name, equals, value in parts if equals}


def text(params: Parameters) -> bytes:
    """The content of the file, a line ``name=value`` each, defaults among them, and the host's ``LIMITS``."""
    from jailng.params.table import names  # whoever has Parameters has it; for ``jailed`` alone it would be dear

    allowed = [name for name in names() if name.startswith("allow.") and name != "allow.dying"]
    lines = [f"{name}={escape(show(params[name]))}\n" for name in [*_TOLD, *allowed]]
    lines += [f"{name}={limit}\n" for name, limit in LIMITS.items()]
    return "".join(lines).encode("utf-8", "surrogateescape")


def lay_down(way: Program, dev: Kept, new: Kept, content: bytes) -> None:
    """Have the builder make the file, whose directory is there, in a /dev that is nowhere yet.

    It keeps the file as ``new`` for a moment.
    """
    label = f"jail_set: {PATH}"
    way.must("openat", dev, way.text(_FOLDER + b"/" + _FILE), _CREATE, 0o644, keep=new, label=label)
    way.must("write", new, way.data(content), len(content), label=label)
    way.must("close", new)


def rewrite(record: Record) -> None:
    """Write the file of a running jail anew; where its root has put something else in its place, nothing is done.

    It is an enemy's tree: no link is followed and no mount but /dev crossed, and the new file, which takes the place of
    the old one at once, is made as the jail's own root, who may do no more.
    """
    from jailng.core.attach import open_tree_of
    from jailng.linux import mount
    from jailng.linux.mountfd import openat2
    from jailng.params.model import Parameters

    params = Parameters.from_texts(record.params)
    beneath = mount.RESOLVE_BENEATH | mount.RESOLVE_NO_SYMLINKS | mount.RESOLVE_NO_MAGICLINKS
    flags = mount.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW
    fds: list[int] = []
    owner = 0 if params.text("ng.uids") == "shared" else record.base
    try:
        fds.append(open_tree_of(record))
        fds.append(openat2(fds[0], b"dev", flags, beneath))
        folder = openat2(fds[1], _FOLDER, flags, beneath | mount.RESOLVE_NO_XDEV)
        fds.append(folder)
        if posix.stat(_FILE, dir_fd=folder, follow_symlinks=False).st_mode & 0o170000 != 0o100000:
            return
        posix.setegid(owner)
        posix.seteuid(owner)
        _replace(folder, text(params))
    except OSError:
        pass
    finally:
        posix.seteuid(0)
        posix.setegid(0)
        for fd in fds:
            posix.close(fd)


def _replace(folder: int, content: bytes) -> None:
    try:
        posix.unlink(_NEW, dir_fd=folder)  # of a command that was killed
    except FileNotFoundError:
        pass
    fd = posix.open(_NEW, _CREATE, 0o644, dir_fd=folder)
    try:
        posix.fchmod(fd, 0o644)
        posix.write(fd, content)
    finally:
        posix.close(fd)
    posix.rename(_NEW, _FILE, src_dir_fd=folder, dst_dir_fd=folder)
