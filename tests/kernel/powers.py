"""A program for the inside of a jail: what root there is able to do, tried one by one, as a line of JSON.

It stands alone: a jail gets it on standard input. Each power is a name, and what came of it the word "ok" or the errno.
Whatever is changed is the jail's own, and small.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable

Power = Callable[[], object]
POWERS: dict[str, Power] = {}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_KEY = int(sys.argv[1]) if len(sys.argv) > 1 else 0  # of System V objects that the host has
_NETLINK_AUDIT, _NETLINK_UEVENT = 9, 15


def power(name: str) -> Callable[[Power], Power]:
    def register(function: Power) -> Power:
        POWERS[name] = function
        return function

    return register


def call(name: str, *arguments: int | bytes | object) -> int:
    """A function of the C library. Raises OSError."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = getattr(_libc, name)(*words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def as_user(action: Power) -> object:
    """The action as uid 1001, in a process of its own. Raises OSError with the errno that it met."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(1001, 1001, 1001)
            call("prctl", 4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: changing the uid has switched it off, for children too
            action()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, "as a user")
    return None


def child() -> int:
    """A process of the same user that waits to be ended."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


def with_child(action: Callable[[int], object]) -> object:
    pid = child()
    try:
        return action(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def a_file() -> str:
    path = "/dev/shm/powers"
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o644))
    return path


def open_socket(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def bind(port: int) -> None:
    with socket.socket() as made:
        made.bind(("0.0.0.0", port))


@power("host name")
def _hostname() -> object:
    return call("sethostname", b"inside", 6)


@power("domain name")
def _domainname() -> object:
    return call("setdomainname", b"inside", 6)


POWERS["raw socket"] = lambda: open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
POWERS["ping socket"] = lambda: open_socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
POWERS["socket of inet"] = lambda: open_socket(socket.AF_INET, socket.SOCK_STREAM)
POWERS["socket of route"] = lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
POWERS["socket of uevent"] = lambda: open_socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_UEVENT)
POWERS["socket of packet"] = lambda: open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
POWERS["port 80"] = lambda: bind(80)
POWERS["port 8080"] = lambda: bind(8080)


@power("route")
def _route() -> None:
    """RTM_NEWROUTE of a route to nowhere: struct nlmsghdr, struct rtmsg, RTA_DST."""
    body = struct.pack("BBBBBBBBI", 2, 32, 0, 0, 254, 4, 0, 6, 0) + struct.pack("HH4s", 8, 1, bytes([203, 0, 113, 1]))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as route:
        route.send(struct.pack("IHHII", 16 + len(body), 24, 0x605, 1, 0) + body)
        error = struct.unpack_from("i", route.recv(4096), 16)[0]
    if error:
        raise OSError(-error, "RTM_NEWROUTE")


@power("locked memory")
def _mlock() -> None:
    memory = ctypes.create_string_buffer(4096)
    call("mlock", ctypes.byref(memory), 4096)
    call("munlock", ctypes.byref(memory), 4096)


for kind, arguments, end in (
    ("msg", (0o600,), (0, None)),
    ("sem", (1, 0o600), (0, 0)),
    ("shm", (4096, 0o600), (0, None)),
):

    def make(kind: str = kind, arguments: tuple[int, ...] = arguments, end: tuple[int | None, ...] = end) -> None:
        call(f"{kind}ctl", call(f"{kind}get", 0, *arguments), *end)

    def of_the_host(kind: str = kind, arguments: tuple[int, ...] = arguments) -> None:
        call(f"{kind}get", _KEY, *[0 for _ in arguments])

    POWERS[f"own {kind}"] = make
    POWERS[f"the host's {kind}"] = of_the_host


@power("trace as root")
def _trace() -> object:
    return with_child(lambda pid: call("ptrace", 0x4206, pid, 0, 0))  # PTRACE_SEIZE


@power("trace as a user")
def _trace_as_user() -> object:
    return as_user(_trace)


@power("trace another user's")
def _trace_other() -> None:
    def action(pid: int) -> None:
        call("ptrace", 0x4206, pid, 0, 0)

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(1001, 1001, 1001)
            call("prctl", 4, 1, 0, 0, 0)
            os.write(write, b".")
        except OSError as error:
            os.write(write, str(error.errno).encode())
        signal.pause()
    try:
        said = os.read(read, 8)
        if said != b".":
            raise OSError(int(said), "another user")
        action(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@power("read memory")
def _read_memory() -> object:
    def action(pid: int) -> int:
        word = ctypes.create_string_buffer(8)
        local = (ctypes.c_void_p * 2)(ctypes.addressof(word), 8)
        return call("process_vm_readv", pid, local, 1, local, 1, 0)

    return with_child(action)


@power("file's owner")
def _chown() -> None:
    os.chown(a_file(), 1001, 1001)
    os.chown(a_file(), 0, 0)


@power("another user's file")
def _read_other() -> None:
    """DAC_OVERRIDE: a file that gives nothing to anybody."""
    path = a_file()
    os.chmod(path, 0)
    try:
        os.close(os.open(path, os.O_RDWR))
    finally:
        os.chmod(path, 0o644)


POWERS["another uid"] = lambda: as_user(lambda: None)
POWERS["chroot"] = lambda: os.chroot("/")


@power("file flags")
def _chattr() -> None:
    with open(a_file()) as file:
        fcntl.ioctl(file, 0x40086602, struct.pack("l", 0x10))  # FS_IOC_SETFLAGS, FS_IMMUTABLE_FL


@power("system attributes")
def _trusted() -> None:
    os.setxattr(a_file(), "trusted.powers", b"x")


@power("quotas")
def _quotactl() -> object:
    return call("quotactl", 0x80000200, b"/dev/sda", 0, None)  # QCMD(Q_QUOTAON, USRQUOTA)


@power("kernel messages")
def _syslog() -> object:
    return call("klogctl", 3, ctypes.create_string_buffer(64), 64)


@power("clock's speed")
def _adjtime() -> object:
    """struct timex with ADJ_TICK of what it is: nothing would change."""
    timex = ctypes.create_string_buffer(256)
    struct.pack_into("I", timex, 0, 0x4000)
    struct.pack_into("l", timex, 88, 10000)
    return call("adjtimex", timex)


@power("clock")
def _settime() -> object:
    return call("clock_settime", 0, struct.pack("ll", -1, 0))  # EINVAL where it is looked at


@power("audit session")
def _audit() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_AUDIT) as audit:
        audit.send(struct.pack("IHHII", 16, 1000, 5, 1, 0))  # AUDIT_GET
        error = struct.unpack_from("i", audit.recv(4096), 16)[0]
        if error < 0:
            raise OSError(-error, "audit")


@power("mount")
def _mount() -> object:
    return call("mount", b"none", b"/tmp", b"tmpfs", 0, None)


@power("nfsd")
def _nfsd() -> object:
    return call("mount", b"nfsd", b"/tmp", b"nfsd", 0, None)


@power("virtual machines")
def _kvm() -> None:
    os.close(os.open("/dev/kvm", os.O_RDWR))


@power("PCI devices")
def _vfio() -> None:
    os.close(os.open("/dev/vfio/vfio", os.O_RDWR))


def attempt(action: Power) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "ok"


print(json.dumps({name: attempt(action) for name, action in POWERS.items()}))
