"""PID 1, and the namespaces that it holds.

The mount and time namespaces are made by this process, so they belong to the host and nothing inside can change them.
PID 1 is cloned into all others while this process's effective uid is the jail's first uid: the kernel charges what the
jail uses to the creator of its user namespace, and root must not be the one to pay.
"""

from __future__ import annotations

import posix
import time

from jailng import start
from jailng.core import builder, jailinit, process, program
from jailng.core.operation import Operation
from jailng.linux import caps, cgroup, mount, ns
from jailng.linux.libc import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailng.core.confinement import Confinement
    from jailng.core.operation import Slots
    from jailng.core.program import Program, Running

_OPEN = posix.O_RDONLY | posix.O_CLOEXEC
_SIGCHLD = 17
_NAMESPACES = ns.CLONE_NEWUSER | ns.CLONE_NEWPID | ns.CLONE_NEWUTS


class MakeCgroup(Operation):
    """The jail's cgroup2 directory, with a leaf for its members and one for PID 1.

    Every process is born into its leaf: moving one costs an RCU grace period, 12 ms and more.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def undo_lines(self) -> list[str]:
        """Killing the cgroup is how a jail ends."""
        return [f"cgroup {self.path}"]

    def apply(self, slots: Slots) -> None:
        """Raises OSError."""
        cgroup.make(f"{self.path}/init")
        cgroup.make(f"{self.path}/members")
        slots["init.home"] = cgroup.open_directory(f"{self.path}/init")

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"make cgroup {self.path}"


class Boot(Operation):
    """Make the namespaces, start PID 1, carry out ``build`` in them with the host's privileges, and come back."""

    __slots__ = (
        "build",
        "cgroup",
        "confinement",
        "creator",
        "domainname",
        "hostname",
        "ids",
        "host",
        "new_ipc",
        "new_net",
    )

    def __init__(
        self,
        *,
        cgroup: str,
        creator: int,
        ids: int,
        hostname: str,
        domainname: str,
        new_net: bool,
        new_ipc: bool,
        confinement: Confinement,
        host: list[Operation],
        build: list[Operation],
    ) -> None:
        self.cgroup = cgroup
        self.creator = creator
        self.ids = ids
        self.hostname = hostname
        self.domainname = domainname
        self.new_net = new_net
        self.new_ipc = new_ipc
        self.confinement = confinement
        self.host = host
        self.build = build

    def undo_lines(self) -> list[str]:
        """Namespaces and processes go with the cgroup; what is left is what the host's side of the network made."""
        return [line for operation in self.host for line in operation.undo_lines()]

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"start PID 1 in namespaces of its own, uids {self.ids}-{self.ids + 65535} of the host as 0-65535"

    def inner(self) -> Iterable[Operation]:
        """First what this process does for the new namespaces, then the builder's work."""
        return [*self.host, *self.build]

    def apply(self, slots: Slots) -> None:
        """Raises JailError with what PID 1 or the builder said, or OSError."""
        outside = _Outside()
        try:
            _new_mount_and_time()
            init = self._start_init(slots)
            for operation in self.host:
                operation.apply(slots)
            builder.build(self.build, slots, self._flags() & (ns.CLONE_NEWIPC | ns.CLONE_NEWNET))
            init.arrived()
        finally:
            outside.come_back()

    def _flags(self) -> int:
        return _NAMESPACES | (ns.CLONE_NEWNET if self.new_net else 0) | (ns.CLONE_NEWIPC if self.new_ipc else 0)

    def _start_init(self, slots: Slots) -> Running:
        events = cgroup.open_file(f"{self.cgroup}/members/cgroup.events", posix.O_RDONLY)
        cgroup.set_persist(f"{self.cgroup}/members/cgroup.events", True)
        sysctls = posix.open("/proc/sys/user", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        code = jailinit.open_program() if self.ids else jailinit.open_copy(process.NOBODYS)
        go, begin = posix.pipe2(posix.O_CLOEXEC)
        try:
            with program.Program() as init:
                self._lay_down(init, slots["init.home"], go, events, sysctls, code)
                running = program.start(init)
            for operation in self.build:
                operation.prepare(slots)
            start.load_rest()
            slots["init.pid"] = running.forked()
            slots["init"] = ns.pidfd_open(running.pid)
            for name in ("uid_map", "gid_map", "projid_map"):
                _write(f"/proc/{running.pid}/{name}", b"0 %d 65536" % self.ids)
            slots["userns"] = posix.open(f"/proc/{running.pid}/ns/user", _OPEN)
        finally:
            for fd in (go, events, sysctls, code, begin):
                posix.close(fd)
        return running

    def _lay_down(self, init: Program, home: int, go: int, events: int, sysctls: int, code: int) -> None:
        init.fds += [go, events, sysctls]
        process.not_dumpable(init)
        process.usual_priority(init)
        # The kernel charges what the jail uses to the creator of its user namespace: not to root, then.
        init.must("setresuid", -1, self.creator, -1)
        process.capset(init, caps.effective()[1])
        init.fork(self._flags(), home)
        init.must("read", go, init.data(bytes(8)), 1)  # returns when the id maps are written
        process.become(init, 0, 0, [])
        process.leave_the_caller(init, self.confinement)
        # A second line behind the filter: no user namespace can be made inside (root inside cannot raise it again).
        init.must("openat", sysctls, init.text("max_user_namespaces"), posix.O_WRONLY, 0, keep=1)
        init.must("write", program.Kept(1), init.text("0"), 1, label="max_user_namespaces")
        init.must("unshare", ns.CLONE_NEWCGROUP)  # its root is the leaf that PID 1 was born into
        for name, text in (("sethostname", self.hostname), ("setdomainname", self.domainname)):
            init.must(name, init.text(text), len(text.encode()))
        init.must("dup3", events, 0, 0)
        init.may("close", 1)
        init.may("close", 2)
        # struct kernel_sigaction with SIG_IGN: the kernel reaps, jailinit need not
        init.must("rt_sigaction", _SIGCHLD, init.data(words(1, 0, 0, 0)), 0, 8)
        process.give_up(init, self.confinement)
        init.execute_fd(code, ["init"])


class _Outside:
    """The way back to the namespaces, directory, root and umask that this process had before."""

    __slots__ = ("cwd", "fds", "root", "umask")

    def __init__(self) -> None:
        self.fds = [
            (posix.open("/proc/self/ns/mnt", _OPEN), ns.CLONE_NEWNS),
            (posix.open("/proc/self/ns/time", _OPEN), ns.CLONE_NEWTIME),
            (posix.open("/proc/self/ns/pid", _OPEN), ns.CLONE_NEWPID),
            (posix.open("/proc/self/ns/ipc", _OPEN), ns.CLONE_NEWIPC),
            (posix.open("/proc/self/ns/net", _OPEN), ns.CLONE_NEWNET),
        ]
        self.root = posix.open("/", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            self.cwd = posix.open(".", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError:  # it was removed, or may not be searched
            self.cwd = posix.dup(self.root)
        self.umask = posix.umask(0)  # what is made in a jail has the mode that is asked for

    def come_back(self) -> None:
        """Restore everything; a process that was in a chroot is in it again. Raises OSError."""
        posix.umask(self.umask)
        for fd, kind in self.fds:
            ns.setns(fd, kind)
            posix.close(fd)
        posix.fchdir(self.root)
        posix.chroot(".")
        posix.fchdir(self.cwd)
        posix.close(self.root)
        posix.close(self.cwd)


def _new_mount_and_time() -> None:
    ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWTIME)
    # Joining one's own mount namespace leads out of a chroot, in which no user namespace can be made (EPERM) and which
    # is no mount point to pivot away from.
    fd = posix.open("/proc/self/ns/mnt", _OPEN)
    ns.setns(fd, ns.CLONE_NEWNS)
    posix.close(fd)
    mount.make_private()
    boottime = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    monotonic = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    _write("/proc/self/timens_offsets", b"monotonic -%d 0\nboottime -%d 0\n" % (monotonic, boottime))


def _write(path: str, text: bytes) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, text)
    finally:
        posix.close(fd)
