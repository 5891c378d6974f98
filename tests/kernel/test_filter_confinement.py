"""All of a confinement, applied to root of a user namespace with uids of its own: what a jail's root is."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from jailng.core.confinement import Privileges, compute
from jailng.linux import child, libc, ns
from tests.kernel.confined import NAMESPACES, apply, in_namespaces
from tests.kernel.stage import CLONE_NEWNET, CLONE_NEWNS, setns, unshare

_libc = ctypes.CDLL(None, use_errno=True)


def error(action: Callable[[], object]) -> int:
    """The errno with which it fails, or 0."""
    try:
        action()
    except OSError as why:
        return why.errno or -1
    return 0


def confined_by(privileges: Privileges, body: Callable[[], Any]) -> Any:
    """What ``body`` returns as root of a jail of these privileges."""
    confinement = compute(privileges)

    def run() -> Any:
        apply(confinement)
        return body()

    return in_namespaces(run)


def sethostname() -> None:
    if _libc.sethostname(b"inside", 6):
        raise OSError(ctypes.get_errno(), "sethostname")


def mlock() -> None:
    page = mmap.mmap(-1, 4096)
    if _libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(page)), ctypes.c_size_t(4096)):
        raise OSError(ctypes.get_errno(), "mlock")


def bind(port: int) -> None:
    with socket.socket() as made:
        made.bind(("0.0.0.0", port))


def test_what_is_held() -> None:
    def body() -> list[Any]:
        with open("/proc/self/status") as file:
            wanted = ("Seccomp:", "NoNewPrivs", "CapBnd", "CapEff", "CapPrm")
            status = dict(line.split(":\t") for line in file if line.startswith(wanted))
        held = [int(status[name], 16) for name in ("CapBnd", "CapEff", "CapPrm")]
        return [*held, status["Seccomp"].strip(), status["NoNewPrivs"].strip()]

    expected = compute(Privileges()).caps
    assert confined_by(Privileges(), body) == [expected, expected, expected, "2", "0"]
    assert confined_by(Privileges(suser=False), body) == [0, 0, 0, "2", "0"]


def test_host_name() -> None:
    """FreeBSD's errno without the privilege; with it, of the jail's own UTS namespace alone."""
    before = os.uname().nodename
    assert confined_by(Privileges(), lambda: error(sethostname)) == errno.EPERM
    assert confined_by(Privileges(set_hostname=True), lambda: [error(sethostname), os.uname().nodename]) == [
        0,
        "inside",
    ]
    assert os.uname().nodename == before


def test_the_host_name_brings_no_mount_and_no_namespace() -> None:
    def body() -> list[int]:
        mount = _libc.mount(b"none", b"/tmp", b"tmpfs", 0, b"")
        mount_errno = ctypes.get_errno()
        return [
            mount,
            mount_errno,
            error(lambda: unshare(CLONE_NEWNS)),
            error(lambda: child.clone3(ns.CLONE_NEWNS)),
            error(lambda: libc.syscall("fsopen", b"tmpfs", 0)),
        ]

    assert confined_by(Privileges(set_hostname=True), body) == [-1, errno.EPERM, errno.EPERM, errno.ENOSYS, errno.EPERM]


def test_locked_memory() -> None:
    assert confined_by(Privileges(), lambda: error(mlock)) == errno.EPERM
    assert confined_by(Privileges(mlock=True), lambda: error(mlock)) == 0


def test_limits_cannot_be_raised() -> None:
    def body() -> list[Any]:
        found: list[Any] = []
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK):
            try:
                resource.setrlimit(limit, (4096, 4096))
            except ValueError as why:
                found.append(str(why))
            found.append(resource.getrlimit(limit))
        return found

    assert confined_by(Privileges(), body) == ["not allowed to raise maximum limit", [0, 0]] * 2


def test_reserved_ports() -> None:
    assert confined_by(Privileges(inet4=True), lambda: error(lambda: bind(80))) == 0
    assert confined_by(Privileges(inet4=True, reserved_ports=False), lambda: error(lambda: bind(80))) == errno.EACCES
    assert confined_by(Privileges(inet4=True, reserved_ports=False), lambda: error(lambda: bind(8080))) == 0


def test_raw_sockets() -> None:
    def body() -> int:
        return error(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close())

    assert confined_by(Privileges(inet4=True), body) == errno.EPERM
    assert confined_by(Privileges(inet4=True, raw_sockets=True), body) == 0


def test_packet_sockets() -> None:
    def body() -> int:
        return error(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300).close())

    assert confined_by(Privileges(inet4=True, raw_sockets=True), body) == errno.EAFNOSUPPORT
    assert confined_by(Privileges(inet4=True, socket_af=True), body) == errno.EPERM
    assert confined_by(Privileges(inet4=True, socket_af=True, raw_sockets=True), body) == 0


def test_no_family_at_all() -> None:
    def body() -> list[int]:
        return [
            error(lambda: socket.socket(socket.AF_INET).close()),
            error(lambda: socket.socket(socket.AF_INET6).close()),
        ]

    assert confined_by(Privileges(), body) == [errno.EAFNOSUPPORT] * 2
    assert confined_by(Privileges(inet4=True, inet6=True), body) == [0, 0]


def test_devices_and_pipes() -> None:
    def body() -> list[int]:
        directory = f"/dev/shm/{os.getpid()}-devices"
        os.mkdir(directory)
        try:
            disk = error(lambda: os.mknod(f"{directory}/disk", 0o60666, os.makedev(254, 0)))
            null = error(lambda: os.mknod(f"{directory}/null", 0o20666, os.makedev(1, 3)))
            return [disk, null, error(lambda: os.mkfifo(f"{directory}/fifo"))]
        finally:
            for name in os.listdir(directory):
                os.unlink(f"{directory}/{name}")
            os.rmdir(directory)

    assert confined_by(Privileges(), body) == [errno.EPERM, errno.EPERM, 0]


@pytest.mark.parametrize("kind", ["msg", "sem", "shm"])
def test_system_v_ipc(kind: str) -> None:
    arguments = {"msg": (0, 0o600), "sem": (0, 1, 0o600), "shm": (0, 4096, 0o600)}[kind]

    def body() -> int:
        get = getattr(_libc, f"{kind}get")
        return 0 if get(*arguments) >= 0 else ctypes.get_errno()

    assert confined_by(Privileges(), body) == errno.ENOSYS
    others = {f"sysv{other}": True for other in ("msg", "sem", "shm") if other != kind}
    assert confined_by(Privileges(**others), body) == errno.ENOSYS
    assert confined_by(Privileges(**{f"sysv{kind}": True}), body) == 0


# --- tracing: CAP_SYS_PTRACE reaches all that is the jail's, and nothing else

PTRACE_SEIZE = 0x4206


def seize(pid: int) -> int:
    """The errno of ptrace(PTRACE_SEIZE)."""
    if _libc.ptrace(ctypes.c_long(PTRACE_SEIZE), ctypes.c_long(pid), None, None) == 0:
        return 0
    return ctypes.get_errno()


def a_child_of(uid: int) -> int:
    """The pid of a process of that uid, which waits for the signal that ends it."""
    ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(uid, uid, uid)
        child.set_dumpable(True)
        os.write(ready[1], b".")
        signal.pause()
    os.read(ready[0], 1)
    return pid


def test_root_traces_every_user_of_the_jail() -> None:
    """As on FreeBSD; without the privilege nobody does, root neither."""

    def body() -> list[int]:
        return [seize(a_child_of(uid)) for uid in (0, 1001)]

    assert confined_by(Privileges(), body) == [0, 0]
    assert confined_by(Privileges(proc_debug=False), body) == [errno.EPERM, errno.EPERM]


@pytest.mark.parametrize(("dumpable", "expected"), [(True, 0), (False, errno.EPERM)])
def test_a_process_that_enters_is_out_of_reach(dumpable: bool, expected: int) -> None:
    """One that came in by setns(2), with all capabilities over the jail still held, and dumpable off.

    With dumpable on it is traced: so it is that which protects it, and nothing else.
    """
    confinement = compute(Privileges())
    jail, entered = os.pipe(), os.pipe()

    def root_of_the_jail() -> int:
        os.write(jail[1], os.readlink("/proc/self").encode())  # by the host's count: the procfs is the host's
        apply(confinement)
        return seize(int(os.read(entered[0], 10)))

    def enter() -> None:
        child.set_dumpable(False)
        setns(os.pidfd_open(int(os.read(jail[0], 10))), NAMESPACES)
        if os.fork() == 0:
            child.set_ids(0, 0, [])
            child.set_dumpable(dumpable)
            os.write(entered[1], str(os.getpid()).encode())
            signal.pause()
        os.wait()  # the jail's PID 1 cannot end before

    pid = os.fork()
    if pid == 0:
        try:
            enter()
        finally:
            os._exit(1)
    try:
        assert in_namespaces(root_of_the_jail) == expected
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (*jail, *entered):
            os.close(fd)


def test_no_process_of_the_host_is_in_reach() -> None:
    """Not even by a pidfd that someone handed in: its fds are not to be had."""
    pidfd = os.pidfd_open(os.getpid())

    def body() -> list[int]:
        return [
            error(lambda: libc.syscall("pidfd_getfd", pidfd, 0, 0)),
            error(lambda: libc.syscall("pidfd_send_signal", pidfd, 0, None, 0)),
        ]

    try:
        # EINVAL: a pidfd of a process that has no pid here cannot be signalled at all.
        assert confined_by(Privileges(), body) == [errno.EPERM, errno.EINVAL]
    finally:
        os.close(pidfd)


def test_memory_of_another_process() -> None:
    def body() -> list[int]:
        other = a_child_of(1001)
        local, buffer = ctypes.create_string_buffer(8), (ctypes.c_void_p * 2)()
        buffer[0], buffer[1] = ctypes.addressof(local), 8
        remote = (ctypes.c_void_p * 2)(ctypes.addressof(local), 8)
        read = _libc.process_vm_readv(other, buffer, 1, remote, 1, 0)
        return [read, ctypes.get_errno() if read < 0 else 0]

    assert confined_by(Privileges(), body) == [8, 0]
    assert confined_by(Privileges(proc_debug=False), body) == [-1, errno.EPERM]


# --- the host's network


def abstract_socket() -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0jailng-test-abstract")
    listener.listen()
    return listener, "\0jailng-test-abstract"


def test_abstract_sockets_of_the_host() -> None:
    """They belong to the network namespace: a jail that shares it would reach the host's."""
    listener, address = abstract_socket()

    def body() -> list[int]:
        with socket.socket(socket.AF_UNIX) as made:
            outer = error(lambda: made.connect(address))
        own = socket.socket(socket.AF_UNIX)
        own.bind("\0jailng-test-own")
        own.listen()
        with socket.socket(socket.AF_UNIX) as made:
            return [outer, error(lambda: made.connect("\0jailng-test-own"))]

    def run(privileges: Privileges) -> Any:
        confinement = compute(privileges)

        def inside() -> list[int]:
            apply(confinement)
            return body()

        return in_namespaces(inside, NAMESPACES & ~CLONE_NEWNET)

    with listener:
        assert run(Privileges(shared_net=True)) == [errno.EPERM, 0]
        assert run(Privileges()) == [0, 0]
