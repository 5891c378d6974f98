"""A jail's root in a file of its own, ``PATH.img``: an ext4 on a loop device, mounted on ``PATH`` while the jail is.

What root inside writes are files; the blocks are written by the host's ext4 alone. So the file has to lie where nobody
else writes, and is root's, with mode 0600. It is locked (flock(2)) for as long as the loop device holds it: an ext4
that is mounted twice is destroyed.
"""

from __future__ import annotations

import fcntl
import posix
import time
from _struct import unpack_from

from jailng.core import registry
from jailng.errors import JailError, explain
from jailng.linux import child, filekind, loop, mountfd, ns
from jailng.linux import mount as m
from jailng.linux.libc import EINVAL, ELOOP, ENODEV, ENOENT, EPERM
from jailng.params.values import escape_word, unescape, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.quota import Quota

_READ_WRITE = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_BLOCK = 4096
_SUPERBLOCK, _BLOCKS_LOW, _MAGIC, _STATE, _BLOCKS_HIGH = 1024, 4, 0x38, 0x3A, 0x150
_ERRORS = 2
_FILE, _TREE = 100, 101  # what mkfs.ext4 is given, by these numbers
_ENXIO = 6
_PATIENCE = 3.0  # seconds


def file_of(path: str) -> str:
    """The image of the root at ``path``."""
    return f"{path}.img"


def begin(record: Record, root: int, path: str, quota: Quota, count: int) -> str:
    """Mount the image on the directory ``root``, which is ``path``; a sentence of what there is to know, or "".

    ``count`` is how many uids the jail has. An image that is not there is made, of what the directory contains; one
    that is smaller than it should be grows. The undo record is written before it is mounted. Needs the jail's lock.
    Raises JailError, OSError.
    """
    file = file_of(path)
    _check_place(root, path)
    said = ""
    image = _open(file)
    if image < 0:
        from jailng.core import project

        project.check_alone(record, root, path)  # mkfs.ext4 goes by names, as root
        _make(root, file, quota, record.base, count)
        said = f"ng.quota: {visible(file)} was made of {visible(path)}, which stays as it is, and unused"
        image = _open(file)
    tree = -1
    try:
        _lock(image, file)
        lacking = _looked_at(image, file)
        tree = _mounted(image, file)
        if _has_to_grow(image, quota.bytes, file) or lacking:
            _grow(image, tree, quota.bytes, file)
        _check_inodes(tree, quota.inodes, file)
        record.append([f"undo image {mountfd.mount_id(tree)} {escape_word(file)}"])
        mountfd.move_mount(tree, root)
    finally:
        for fd in (tree, image):
            if fd >= 0:
                posix.close(fd)
    return said


def of(record: Record) -> str:
    """The image that the jail was started with, "" where it has none."""
    return next((unescape(line.split(" ")[2]) for line in record.undo if line.startswith("image ")), "")


def grow(record: Record, root: int, size: int, inodes: int) -> None:
    """Have the image of a running jail, of which ``root`` is the root directory, hold ``size`` bytes.

    With ``inodes`` other than 0 it has to have as many already. Raises JailError, OSError.
    """
    file = of(record)
    image = _open(file)
    if image < 0:
        raise JailError(f"ng.quota: {visible(file)}: {posix.strerror(ENOENT)}")
    try:
        _check_inodes(root, inodes, file)
        if _has_to_grow(image, size, file):
            _grow(image, root, size, file)
    finally:
        posix.close(image)


# Where it lies


def _check_place(root: int, path: str) -> None:
    """Refuse an image where a running jail's root writes, who would be the author of its blocks. Raises JailError."""
    from jailng.core import hostpath

    owner = hostpath.owner(posix.readlink(f"/proc/self/fd/{root}").rpartition("/")[0] or "/")
    if owner:
        raise JailError(f'ng.quota: {visible(file_of(path))}: in the tree of jail "{visible(owner)}"')


def _open(file: str) -> int:
    """The image, checked; -1 where there is none. Raises JailError."""
    try:
        fd = posix.open(file, _READ_WRITE)
    except OSError as error:
        if error.errno == ENOENT:
            return -1
        why = "is a symbolic link" if error.errno == ELOOP else error.strerror
        raise JailError(f"ng.quota: {visible(file)}: {why}") from None
    status = posix.fstat(fd)
    if filekind.of(status) != filekind.REGULAR:
        why = "not a regular file"
    elif status.st_uid or status.st_mode & 0o077 or status.st_nlink != 1:
        why = f"has to be root's alone: chown root {visible(file)} && chmod 0600 {visible(file)}"
    else:
        return fd
    posix.close(fd)
    raise JailError(f"ng.quota: {visible(file)}: {why}")


def _lock(image: int, file: str) -> None:
    """Have it alone. The device of a jail that has just gone is waited for: udevd(8) looks at each when it goes."""
    for other in registry.jails():
        if of(other) == file:
            raise JailError(f'ng.quota: {visible(file)}: in use by jail "{visible(other.name)}"')
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(image, fcntl.LOCK_EX | fcntl.LOCK_NB)
            device = loop.over(image)
        except BlockingIOError:
            device = "whoever has a file in it open"
        if not device:
            return
        if time.monotonic() > until:
            raise JailError(f"ng.quota: {visible(file)}: in use by {device}")
        time.sleep(0.02)


def _looked_at(image: int, file: str) -> bool:
    """Whether the file system lacks a group of blocks or more to the size of the file; growing it has failed before.

    Where the kernel has found errors in it e2fsck(8) looks at it; its journal the kernel plays by itself.
    """
    block = posix.pread(image, 1024, _SUPERBLOCK)
    if len(block) < 1024 or unpack_from("<H", block, _MAGIC)[0] != 0xEF53:
        raise JailError(f"ng.quota: {visible(file)}: no ext4 file system")
    if unpack_from("<H", block, _STATE)[0] & _ERRORS:
        try:
            _run(["e2fsck", "-p", f"/proc/self/fd/{_FILE}"], [(image, _FILE)], most=1)
        except JailError as error:
            raise JailError(f"ng.quota: {visible(file)}: {error}: run e2fsck -f {visible(file)}") from None
    blocks = unpack_from("<I", block, _BLOCKS_LOW)[0] | unpack_from("<I", block, _BLOCKS_HIGH)[0] << 32
    return bool(posix.fstat(image).st_size // _BLOCK - blocks >= 8 * _BLOCK)


def _has_to_grow(image: int, size: int, file: str) -> bool:
    held = posix.fstat(image).st_size
    if held > size:
        raise JailError(f"ng.quota: {visible(file)}: has {held} bytes, and does not shrink")
    return held < size


# How it is made, mounted and made larger


def _make(root: int, file: str, quota: Quota, base: int, count: int) -> None:
    """An image of what a directory contains, itself and no mount below it; it has its name when it is complete.

    mkfs.ext4 reads names that an enemy has made (1.47.2 writes a byte beyond its memory for a path of 2040 bytes). So
    it runs in a user namespace of its own, in which it is nobody but the jail's ``count`` users from ``base`` on, whose
    tree and image these are meanwhile; on a file system that cannot map uids as the host's root.
    """
    above, _, name = file.rpartition("/")
    directory = posix.open(above or "/", m.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    image = source = tree = userns = -1
    try:
        image = posix.open(".", posix.O_RDWR | posix.O_TMPFILE | posix.O_CLOEXEC, 0o600, dir_fd=directory)
        posix.ftruncate(image, quota.bytes)
        source = mountfd.open_tree(root)
        mountfd.mount_setattr(source, m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOATIME, clear=m.MOUNT_ATTR__ATIME)
        userns = _mapped(source, base, count)
        if userns >= 0:
            posix.fchown(image, base, base)
        inodes = ["-N", str(quota.inodes)] if quota.inodes else []
        argv = ["mkfs.ext4", "-q", "-F", "-b", str(_BLOCK), "-m", "0", "-E", "nodiscard", *inodes]
        argv += ["-d", f"/proc/self/fd/{_TREE}", f"/proc/self/fd/{_FILE}"]
        try:
            _run(argv, [(image, _FILE), (source, _TREE)], userns=userns)
        except JailError as error:
            raise JailError(f"ng.quota: {visible(file)}: {error}") from None
        posix.fchown(image, 0, 0)
        tree = _mounted(image, file)
        status, new = posix.fstat(root), posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY, dir_fd=tree)
        posix.fchown(new, status.st_uid, status.st_gid)
        posix.fchmod(new, status.st_mode & 0o7777)
        posix.fsync(new)
        posix.close(new)
        posix.close(tree)  # which unmounts it
        tree = -1
        posix.link(f"/proc/self/fd/{image}", name, dst_dir_fd=directory, follow_symlinks=True)
    except OSError as error:
        raise JailError(f"ng.quota: {visible(file)}: {error.strerror}") from None
    finally:
        for fd in (tree, source, image, directory, userns):
            if fd >= 0:
                posix.close(fd)


def _mapped(tree: int, base: int, count: int) -> int:
    """Have a detached mount be that of the jail's users; their user namespace, or -1 where its file system cannot."""
    from jailng.core.overlay import user_namespace

    userns = user_namespace(base, count)
    try:
        mountfd.mount_setattr(tree, m.MOUNT_ATTR_IDMAP, userns)
    except OSError as error:
        posix.close(userns)
        if error.errno != EINVAL:
            raise
        return -1
    return userns


def _mounted(image: int, file: str) -> int:
    """The file system in the image, as a detached mount. Raises JailError."""
    try:
        path, device = loop.attach(image, file)
    except OSError as error:
        none = error.errno in (ENOENT, ENODEV, _ENXIO)
        why = "this kernel has no loop devices (CONFIG_BLK_DEV_LOOP, modprobe loop)" if none else error.strerror
        raise JailError(f"ng.quota: {visible(file)}: {error.filename}: {why}") from None
    options = [(b"source", path.encode()), (b"errors", b"remount-ro"), (b"discard", None)]
    try:
        tree = mountfd.new_file_system(b"ext4", options, m.MOUNT_ATTR_NODEV)
    except OSError as error:
        posix.close(device)
        raise JailError(f"ng.quota: {visible(file)}: mount: {error.strerror}") from None
    loop.go_direct(device)
    posix.close(device)
    return tree


def _grow(image: int, root: int, size: int, file: str) -> None:
    """Make the file, the device over it and the file system as large.

    EPERM comes before anything is done. What failed later may have come half the way, and is left for the next start.
    """
    before = posix.fstat(image).st_size
    device = posix.fstat(root).st_dev
    name = posix.readlink(f"/sys/dev/block/{posix.major(device)}:{posix.minor(device)}").rpartition("/")[2]
    top = posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=root)
    over = posix.open(f"/dev/{name}", posix.O_RDWR | posix.O_CLOEXEC)
    try:
        posix.ftruncate(image, size)
        loop.grown(over)
        loop.resize_ext4(top, size // _BLOCK)
    except OSError as error:
        lacks = ""
        if error.errno == EPERM:
            posix.ftruncate(image, before)
            loop.grown(over)
            lacks = " (it takes CAP_SYS_RESOURCE)"
        raise JailError(f"ng.quota: {visible(file)}: cannot grow: {error.strerror}{lacks}") from None
    finally:
        posix.close(over)
        posix.close(top)


def _check_inodes(tree: int, wanted: int, file: str) -> None:
    """Refuse another number of inodes than the image was made with, or has grown to. Raises JailError."""
    has = posix.fstatvfs(tree)
    groups = has.f_blocks * has.f_frsize // (_BLOCK * 8 * _BLOCK) + 1
    if wanted and not wanted <= has.f_files <= wanted + 2048 * groups:
        raise JailError(f"ng.quota: {visible(file)}: has {has.f_files} inodes, which is settled when an image is made")


def _run(argv: list[str], given: list[tuple[int, int]], most: int = 0, userns: int = -1) -> None:
    """Run a program of e2fsprogs with descriptors by number. Raises JailError with what it complains of.

    With ``userns`` as root of that user namespace, who is nobody to the host, and in a network without interfaces.
    """
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    told, tell = posix.pipe2(posix.O_CLOEXEC)
    streams = [(null, 0), (null, 1), (tell, 2), *given]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    said = b""
    try:
        try:
            if userns >= 0:
                pid = _as_root_of(userns, argv, environment, streams)
            else:
                actions = [(posix.POSIX_SPAWN_DUP2, fd, to) for fd, to in streams]
                pid = posix.posix_spawnp(argv[0], argv, environment, file_actions=actions)
        except FileNotFoundError:
            raise JailError(f"{argv[0]} is not installed (package e2fsprogs)") from None
        posix.close(tell)
        tell = -1
        while part := posix.read(told, 65536):
            said = (said + part)[-65536:]
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    finally:
        for fd in (null, told, tell):
            if fd >= 0:
                posix.close(fd)
    if not 0 <= status <= most:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        raise JailError(f"{argv[0]}: {visible(lines[-1]) if lines else f'status {status}'}")


def _as_root_of(userns: int, argv: list[str], environment: dict[str, str], streams: list[tuple[int, int]]) -> int:
    """The pid of a child that runs a program there. Raises FileNotFoundError."""
    places = [f"{directory}/{argv[0]}" for directory in environment["PATH"].split(":")]
    path = next((place for place in places if posix.access(place, posix.X_OK)), "")
    if not path:
        raise FileNotFoundError
    pid, pidfd = child.clone3()
    if pid:
        posix.close(pidfd)
        return pid
    try:
        registry.forked()
        for fd, to in streams:
            posix.dup2(fd, to)
        ns.setns(userns, ns.CLONE_NEWUSER)
        child.set_ids(0, 0, [])
        ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWIPC)
        posix.execve(path, argv, environment)
    except BaseException as error:
        posix.write(2, explain(error).encode("utf-8", "replace"))
    finally:
        posix._exit(127)
