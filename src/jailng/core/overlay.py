"""unionfs and overlay for ``mount``: a directory above another, with uids that a jail can have.

An overlay cannot be mounted with mapped ids (EINVAL), but its layers can. Then all of it has the jail's uids, on the
host too, where root has no uid in it (EOVERFLOW) and can read and remove, but not make files. The layers are clones,
told to the kernel by descriptor, so that no path of the host's is seen inside (docs/decisions/0007-mounts.md).
"""

from __future__ import annotations

import posix

from jailng.core import filesystem, hostpath
from jailng.core.apart import apart
from jailng.core.index import DIRECTORY
from jailng.errors import JailError
from jailng.linux import child, mountfd, ns
from jailng.linux import mount as m
from jailng.linux.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.conf.fstab import Entry
    from jailng.core.filesystem import Place

_PR_GET_SECUREBITS, _PR_SET_SECUREBITS = 27, 28
_NO_SETUID_FIXUP = 4
_DIRECTORY = m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


class _Layers:
    """The directories that an entry names, as O_PATH descriptors that ``close`` closes; upper and work may be -1.

    ``trees`` are clones of the mounts that they are on.
    """

    __slots__ = ("fds", "lower", "others", "trees", "upper", "work")

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.lower: list[int] = []
        self.trees: list[int] = []
        self.upper = self.work = -1
        self.others: list[tuple[bytes, bytes | None]] = []

    def keep(self, fd: int) -> int:
        """Have it closed with the others."""
        self.fds.append(fd)
        return fd

    def close(self) -> None:
        """Close all."""
        while self.fds:
            posix.close(self.fds.pop())


def detached(entry: Entry, place: Place) -> tuple[int, str]:
    """A new overlay as a detached mount, and a warning or "". Raises JailError, OSError."""
    flags, others = filesystem.attributes(entry)
    layers = _Layers()
    try:
        (_unionfs if entry.kind == "unionfs" else _overlay)(layers, entry, place, others)
        warning = ""
        if layers.upper >= 0:
            place.written.append(hostpath.identity(layers.upper))
        if layers.upper >= 0 and not flags & m.MOUNT_ATTR_RDONLY and not _in(place.root, layers.upper):
            warning = filesystem.guard(entry, layers.upper, _real(layers.upper), place.lenient)
        return _mount(entry, place, layers, flags), warning
    finally:
        layers.close()


def _unionfs(layers: _Layers, entry: Entry, place: Place, others: list[str]) -> None:
    """mount_unionfs(8): the device above what is at the target, or with ``below`` the other way round.

    It knows no directory to work in, which overlay must have beside the upper one: ``.NAME.work``.
    """
    for word in others:
        if word not in ("below", "above"):
            raise filesystem.refuse(entry, word)
    source = layers.keep(filesystem.open_source(entry, entry.device, place))
    if "below" not in others:
        layers.lower, layers.upper = [place.point], source
        directory, _, name = _real(source).rpartition("/")
    else:  # in the jail's tree its root could get at the work directory
        layers.lower, layers.upper = [source], place.point
        directory, _, name = _real(place.root).rpartition("/")
        name += _real(place.point).removeprefix(_real(place.root)).replace("/", ".")
    above = layers.keep(posix.open(directory or "/", _DIRECTORY))
    try:
        posix.mkdir(f".{name}.work", 0o700, dir_fd=above)
    except FileExistsError:
        pass
    layers.work = layers.keep(posix.open(f".{name}.work", _DIRECTORY | posix.O_NOFOLLOW, dir_fd=above))


def _overlay(layers: _Layers, entry: Entry, place: Place, others: list[str]) -> None:
    """Linux's own words: ``lowerdir=a:b,upperdir=c,workdir=d``."""
    for word in others:
        key, equals, value = word.partition("=")
        if key == "lowerdir":
            layers.lower = [layers.keep(filesystem.open_source(entry, path, place)) for path in value.split(":")]
        elif key == "upperdir":
            layers.upper = layers.keep(filesystem.open_source(entry, value, place))
        elif key == "workdir":
            layers.work = layers.keep(filesystem.open_source(entry, value, place))
        else:
            layers.others.append((key.encode(), value.encode("utf-8", "surrogateescape") if equals else None))
    if not layers.lower or (layers.upper < 0) is not (layers.work < 0):
        raise JailError(f"{entry.where}: overlay needs lowerdir, and with upperdir a workdir")


def _mount(entry: Entry, place: Place, layers: _Layers, flags: int) -> int:
    for fd in layers.lower:
        filesystem.check_shown(entry, fd, _real(fd))
    userns = layers.keep(user_namespace(place.base)) if place.base else -1
    try:
        lower = [_by_number(_clone(layers, fd, userns)) for fd in layers.lower]
        # The source is seen inside: no path of the host's, then.
        options: list[tuple[bytes, bytes | None]] = [(b"source", entry.kind.encode())]
        options.append((b"lowerdir", b":".join(lower)))
        if layers.upper >= 0:
            upper, work = _upper(layers, userns, entry)
            options += [(b"upperdir", _by_number(upper)), (b"workdir", _by_number(work))]
    except OSError as error:
        raise JailError(f"{entry.where}: {entry.kind}: a layer: {error.strerror}") from None
    try:
        return apart(lambda _: _made_by(place.base, layers.trees, [*options, *layers.others], flags))
    except JailError as error:
        raise JailError(f"{entry.where}: {entry.kind}: {str(error).rpartition(': ')[2]}") from None


def _clone(layers: _Layers, fd: int, userns: int) -> int:
    tree = layers.keep(mountfd.open_tree(fd))
    layers.trees.append(tree)
    mountfd.mount_setattr(tree, m.MOUNT_ATTR_IDMAP if userns >= 0 else 0, max(userns, 0), propagation=m.MS_PRIVATE)
    return tree


def _upper(layers: _Layers, userns: int, entry: Entry) -> tuple[int, int]:
    """The upper directory and the one to work in, in one clone: overlay wants them on one mount."""
    paths = [_real(fd).split("/") for fd in (layers.upper, layers.work)]
    common = 0
    while common < min(map(len, paths)) and paths[0][common] == paths[1][common]:
        common += 1
    above = layers.keep(posix.open("/".join(paths[0][:common]) or "/", _DIRECTORY))
    if len({mountfd.mount_id(fd) for fd in (above, layers.upper, layers.work)}) > 1:
        raise JailError(
            f"{entry.where}: {_real(layers.upper)} is a mount of its own: no directory to work in beside it"
        )
    tree = _clone(layers, above, userns)
    found = []
    for fd, path in zip((layers.upper, layers.work), paths, strict=True):
        name = "/".join(path[common:]).encode("utf-8", "surrogateescape")
        inside = layers.keep(mountfd.openat2(tree, name or b".", m.O_PATH | posix.O_DIRECTORY, m.BENEATH))
        if posix.fstat(inside).st_ino != posix.fstat(fd).st_ino:
            raise JailError(f"{entry.where}: {_real(fd)}: moved meanwhile")
        found.append(inside)
    return found[0], found[1]


def _made_by(uid: int, trees: list[int], options: list[tuple[bytes, bytes | None]], flags: int) -> int:
    """The overlay, made as somebody with that uid and root's capabilities: it works on its layers as its maker would.

    For the host's root, who has no id in a mapped layer, the upper one would be read-only. And before Linux 6.15 layers
    have to be mounted somewhere (clone_private_mount, EINVAL). Changes the process: for a child.
    """
    here = DIRECTORY.encode()
    mountfd.move_mount(mountfd.new_file_system(b"tmpfs", [(b"size", b"64k")]), posix.open(here, _DIRECTORY))
    for number, tree in enumerate(trees):
        place = b"%s/%d" % (here, number)
        posix.mkdir(place)
        mountfd.move_mount(tree, posix.open(place, _DIRECTORY))
    before = syscall("prctl", _PR_GET_SECUREBITS, 0, 0, 0, 0)
    syscall("prctl", _PR_SET_SECUREBITS, before | _NO_SETUID_FIXUP, 0, 0, 0)
    child.set_fs_ids(uid)
    return mountfd.new_file_system(b"overlay", options, flags)


def user_namespace(base: int, count: int = 65536) -> int:
    """A user namespace in which the first ids are the ``count`` from ``base`` on, to map a mount by. Raises OSError."""
    gate, end = posix.pipe2(posix.O_CLOEXEC)
    pid, pidfd = child.clone3(ns.CLONE_NEWUSER)
    if pid == 0:
        posix.close(end)
        posix.read(gate, 1)
        posix._exit(0)
    try:
        for name in ("uid_map", "gid_map", "projid_map"):
            fd = posix.open(f"/proc/{pid}/{name}", posix.O_WRONLY | posix.O_CLOEXEC)
            posix.write(fd, b"0 %d %d" % (base, count))
            posix.close(fd)
        return posix.open(f"/proc/{pid}/ns/user", posix.O_RDONLY | posix.O_CLOEXEC)
    finally:
        for fd in (gate, end, pidfd):
            posix.close(fd)
        posix.waitpid(pid, 0)


def _by_number(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd


def _real(fd: int) -> str:
    return posix.readlink(f"/proc/self/fd/{fd}")


def _in(root: int, fd: int) -> bool:
    """Whether it is in the jail's tree, which nobody else reaches."""
    return f"{_real(fd)}/".startswith(f"{_real(root).rstrip('/')}/")
