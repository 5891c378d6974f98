"""PID 1 and the builder: the two processes that make a jail's namespaces and its tree.

The mount and time namespaces are made by this process, so they belong to the host and nothing inside can change them.
PID 1 is cloned into all others while this process's effective uid is the jail's first uid: the kernel charges what the
jail uses to the creator of its user namespace, and root must not be the one to pay. The builder keeps the host's
privileges and enters the jail's pid, ipc and network namespaces, because a procfs, an mqueue and an interface belong to
the namespace of the process that makes them.
"""

from __future__ import annotations

import _signal
import posix
import time

from jailng.core import jailinit, process
from jailng.core.operation import Operation
from jailng.errors import JailError, explain
from jailng.linux import caps, cgroup, mount, ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jailng.core.confinement import Confinement
    from jailng.core.operation import Slots

_DONE = b"\0"
_OPEN = posix.O_RDONLY | posix.O_CLOEXEC
_NAMESPACES = ns.CLONE_NEWUSER | ns.CLONE_NEWPID | ns.CLONE_NEWUTS


class MakeCgroup(Operation):
    """The jail's cgroup2 directory, with a leaf for its members and one for PID 1.

    Every process is born into its leaf: moving one costs an RCU grace period, 12 ms and more.
    """

    __slots__ = ("path",)
    makes = ("init.home",)

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
    """Make the namespaces, start PID 1, have the builder carry out ``build``, and come back."""

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
    needs = ("init.home", "tree")
    makes = ("init", "init.pid")

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
            _new_mount_and_time(outside)
            self._start_init(slots)
            for operation in self.host:
                operation.apply(slots)
            builder, said = self._start_builder(slots)
        finally:
            outside.come_back()
        slots["builder.said"], slots["builder.pid"] = said, builder

    def _flags(self) -> int:
        return _NAMESPACES | (ns.CLONE_NEWNET if self.new_net else 0) | (ns.CLONE_NEWIPC if self.new_ipc else 0)

    def _start_init(self, slots: Slots) -> None:
        events = cgroup.open_file(f"{self.cgroup}/members/cgroup.events", posix.O_RDONLY)
        cgroup.set_persist(f"{self.cgroup}/members/cgroup.events", True)
        program = jailinit.open_program()
        go, start = posix.pipe2(posix.O_CLOEXEC)
        slots["init.ready"], ready = posix.pipe2(posix.O_CLOEXEC)
        ns.set_effective_uid(self.creator)
        try:
            _, permitted = caps.effective()
            caps.capset(permitted)
            pid, pidfd = ns.clone3(self._flags(), slots["init.home"])
        except OSError:
            ns.set_effective_uid(0)
            raise
        if pid == 0:
            posix.close(start)
            self._be_init(go, ready, events, program)
        ns.set_effective_uid(0)
        slots["init"], slots["init.pid"] = pidfd, pid
        for fd in (go, ready, events, program):
            posix.close(fd)
        for name in ("uid_map", "gid_map"):
            _write(f"/proc/{pid}/{name}", b"0 %d 65536" % self.ids)
        slots["userns"] = posix.open(f"/proc/{pid}/ns/user", _OPEN)
        posix.close(start)

    def _be_init(self, go: int, ready: int, events: int, program: int) -> None:
        try:
            posix.read(go, 1)  # returns when the id maps are written
            ns.set_ids(0, 0, [])
            process.leave_the_caller(self.confinement)
            # A second line behind the filter: no user namespace can be made inside (root inside cannot raise it again).
            _write("/proc/sys/user/max_user_namespaces", b"0")
            ns.unshare(ns.CLONE_NEWCGROUP)  # its root is the leaf that PID 1 was born into
            ns.sethostname(self.hostname.encode())
            ns.setdomainname(self.domainname.encode())
            posix.dup2(events, 0)
            for fd in (1, 2):
                try:
                    posix.close(fd)
                except OSError:
                    pass
            process.close_all_on_exec()
            _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps, jailinit need not
            process.give_up(self.confinement)
            posix.execve(program, ["init"], {})
        except BaseException as error:
            posix.write(ready, f"PID 1: {explain(error)}".encode())
        finally:
            posix._exit(127)

    def _start_builder(self, slots: Slots) -> tuple[int, int]:
        said, say = posix.pipe2(posix.O_CLOEXEC)
        ns.setns(slots["init"], ns.CLONE_NEWPID)  # for the child only: it is born in the jail's pid namespace
        pid, pidfd = ns.clone3(0, slots["init.home"])
        if pid == 0:
            try:
                posix.umask(0)
                ns.setns(slots["init"], self._flags() & (ns.CLONE_NEWIPC | ns.CLONE_NEWNET))
                for operation in self.build:
                    operation.apply(slots)
                posix.write(say, _DONE)
            except BaseException as error:
                posix.write(say, explain(error).encode("utf-8", "surrogateescape"))
            finally:
                posix._exit(0)
        for fd in (pidfd, say, slots.pop("init.home"), slots.pop("init.ready")):
            posix.close(fd)
        return pid, said


class AwaitBuilder(Operation):
    """Hear from the builder. Its exit takes as long as its work, so it is reaped later."""

    __slots__ = ()
    needs = ("builder.said",)

    def apply(self, slots: Slots) -> None:
        """Raises JailError with what PID 1 or the builder said."""
        # While the builder works on the other processor, load what is needed next.
        from jailng.core import attach, stdio, waiting  # noqa: F401

        said = slots.pop("builder.said")
        heard = posix.read(said, 4096)
        posix.close(said)
        if heard != _DONE:
            raise JailError(heard.decode("utf-8", "replace") or "the builder died")

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "wait until the tree stands"


class _Outside:
    """The way back to the namespaces, directory and root that this process had before."""

    __slots__ = ("cwd", "fds", "root")

    def __init__(self) -> None:
        self.fds = [
            (posix.open("/proc/self/ns/mnt", _OPEN), ns.CLONE_NEWNS),
            (posix.open("/proc/self/ns/time", _OPEN), ns.CLONE_NEWTIME),
            (posix.open("/proc/self/ns/pid", _OPEN), ns.CLONE_NEWPID),
        ]
        self.root = posix.open("/", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            self.cwd = posix.open(".", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError:  # it was removed, or may not be searched
            self.cwd = posix.dup(self.root)

    def come_back(self) -> None:
        """Restore everything; a process that was in a chroot is in it again. Raises OSError."""
        for fd, kind in self.fds:
            ns.setns(fd, kind)
            posix.close(fd)
        posix.fchdir(self.root)
        posix.chroot(".")
        posix.fchdir(self.cwd)
        posix.close(self.root)
        posix.close(self.cwd)


def _new_mount_and_time(outside: _Outside) -> None:
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
