"""PID 1, and the namespaces that it holds.

The mount and time namespaces are made by a process of the host's, so they belong to the host and nothing inside can
change them. (Where root inside may mount, PID 1 leaves for a copy of the mount namespace that is the jail's, in which
all that was there is locked.) PID 1 is cloned into all others while that process's effective uid is the jail's first
uid: the kernel charges what the jail uses to the creator of its user namespace, and root must not be the one to pay.
"""

from __future__ import annotations

import posix

from jailng import start
from jailng.core import builder, jailinit, namespaces, process, program
from jailng.core.operation import Operation
from jailng.errors import JailError
from jailng.linux import cgroup, mount, ns
from jailng.linux.libc import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jailng.core.confinement import Confinement
    from jailng.core.devfs import Link
    from jailng.core.guest import Gate
    from jailng.core.operation import Slots
    from jailng.core.program import Program, Running
    from jailng.core.registry import Record

_WRITE = posix.O_WRONLY | posix.O_CLOEXEC
_SIGCHLD = 17
_PR_SET_SECUREBITS = 28
_NO_SETUID_FIXUP = 4
_NAMESPACES = ns.CLONE_NEWUSER | ns.CLONE_NEWPID
_ABOVE = ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS
_LINGERING = 256
# Besides user namespaces; one for cgroups is made by whoever enters.
_NO_MORE = [b"max_%s_namespaces" % name for name in b"mnt pid net ipc uts time".split()]
_CODE = 3


class Layout:
    """What of a jail depends on who is its PID 1: of jailinit's as here; core/guest.py has that of a guest's own.

    ``home`` is the leaf of its cgroup for whoever enters, ``leaf`` that of a PID 1 which is a member, or ""; ``links``
    are more of its /dev; ``before`` and ``after`` what is done before and after PID 1 is started. ``gate`` makes what
    PID 1 waits at before it becomes the guest's.
    """

    __slots__ = ("after", "before", "gate", "home", "leaf", "links")

    def __init__(self, home: str) -> None:
        self.home = home
        self.leaf = ""
        self.links: list[Link] = []
        self.before: list[Operation] = []
        self.after: list[Operation] = []
        self.gate: Callable[[], Gate] | None = None

    def tree(self, below: set[bytes], has_sys: bool) -> list[Operation]:
        """What its tree has besides; ``below`` are the places on which the host has mounted something."""
        return []


class Boot(Operation):
    """Start PID 1 in new namespaces, and have the builder carry out ``build`` in them with the host's privileges.

    ``meanwhile`` is called when PID 1 is there, while the builder is at work unless that keeps PID 1 waiting too.
    """

    __slots__ = (
        "beside",
        "build",
        "cgroup",
        "confinement",
        "creator",
        "domainname",
        "gate",
        "hostname",
        "ids",
        "host",
        "joined",
        "kept",
        "make_gate",
        "meanwhile",
        "new_ipc",
        "new_net",
        "new_uts",
        "noted",
        "own_mounts",
        "parent",
        "slice_of",
    )

    def __init__(
        self,
        *,
        cgroup: str,
        beside: list[str],
        creator: int,
        ids: int,
        hostname: str,
        domainname: str,
        new_net: bool,
        new_ipc: bool,
        new_uts: bool,
        own_mounts: bool,
        parent: Record | None,
        confinement: Confinement,
        kept: int,
        slice_of: int,
        host: list[Operation],
        build: list[Operation],
        joined: str,
        gate: Callable[[], Gate] | None = None,
    ) -> None:
        """``beside`` are the controllers of v1 in whose hierarchies the jail has a directory (``core.share``).

        ``joined`` are the namespaces that the builder enters, as /proc/PID/ns has them.

        ``kept`` is how many ranges of uids there are for the jails to be made in this one, ``parent`` that in which it
        is made itself, ``slice_of`` as ``attach.slice_of`` has it. ``gate`` makes what PID 1 waits at before it becomes
        the guest's.
        """
        self.cgroup = cgroup
        self.beside = beside
        self.creator = creator
        self.ids = ids
        self.hostname = hostname
        self.domainname = domainname
        self.new_net = new_net
        self.new_ipc = new_ipc
        self.new_uts = new_uts
        self.own_mounts = own_mounts
        self.parent = parent
        self.confinement = confinement
        self.host = host
        self.build = build
        self.joined = joined
        self.kept = kept
        self.slice_of = slice_of
        self.make_gate = gate
        self.gate: Gate | None = None
        self.meanwhile: Callable[[], None] | None = None
        self.noted: list[int] = []

    def undo_lines(self) -> list[str]:
        """Namespaces and processes go with the cgroup; what is left is what the host's side of the network made."""
        return [line for operation in self.host for line in operation.undo_lines()]

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        last = self._count - 1
        return f"start PID 1 in namespaces of its own, uids {self.ids}-{self.ids + last} of the host as 0-{last}"

    @property
    def _count(self) -> int:
        """How many uids it has."""
        return 65536 * (self.kept + 1 if self.ids else 1)

    def inner(self) -> Iterable[Operation]:
        """First what this process does for the new namespaces, then the builder's work."""
        return [*self.host, *self.build]

    def notes(self, noted: list[int]) -> list[str]:
        """What the builder left out."""
        return [note for operation in self.build for note in operation.notes(self.noted)]

    def warnings(self, noted: list[int]) -> list[str]:
        """What the builder could not do."""
        return [warning for operation in self.build for warning in operation.warnings(self.noted)]

    def apply(self, slots: Slots) -> None:
        """Raises JailError with what PID 1 or the builder said, or OSError."""
        events = cgroup.open_file(f"{self.cgroup}/members/cgroup.events", posix.O_RDONLY)
        cgroup.set_persist(events, True)
        sysctls = posix.open("/proc/sys/user", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        go, mapped = posix.pipe2(posix.O_CLOEXEC)
        built, done = posix.pipe2(posix.O_CLOEXEC) if self.own_mounts else (-1, -1)
        copy = outer = -1
        tree = None
        try:
            if not self.ids:
                copy = jailinit.copy(process.NOBODYS)
            outer = self._open_parent()

            def begin(home: int) -> Running:
                return self._start_init(slots, home, (go, events, sysctls), copy, built, outer)

            init = begin(slots["init.home"])
            tree = builder.Builder(self.build, slots, self.joined, slots["init.home"] if outer < 0 else -1)
            if outer < 0:
                init.forked()
            else:
                from jailng.core import below

                init = below.born(init, begin, outer, f"{self.cgroup}/init")
            slots["init.pid"] = pid = init.pid
            slots["init"] = ns.pidfd_open(pid)
            self._map_ids(pid, outer)
            if not self.ids:
                from jailng.core import formats

                formats.have_none(slots["init"])
            posix.close(mapped)  # PID 1 goes on, before the builder does: it has less left to do
            mapped = -1
            tree.begin(pid)
        except BaseException:
            if done >= 0:
                posix.close(done)
            raise
        finally:
            self._let_go((go, mapped, events, sysctls, copy, built, outer), tree)
        try:
            self._do_meanwhile(init, tree, done, slots)
            init.arrived()
            jailinit.keep()
        except JailError:
            if complaint := init.complaint():  # what PID 1 died of the builder has not got over
                raise JailError(complaint) from None
            raise
        finally:
            jailinit.take(None)
        self.noted = tree.noted
        if self.meanwhile is not None and self.own_mounts:  # PID 1 had to wait for the builder
            self.meanwhile()

    def _let_go(self, fds: tuple[int, ...], tree: builder.Builder | None) -> None:
        """Of what those that were started have by now, or of all if they were not."""
        for fd in fds:
            if fd >= 0:
                posix.close(fd)
        if tree is not None:
            tree.close()
        if self.gate is not None:
            self.gate.born()

    def _do_meanwhile(self, init: Running, tree: builder.Builder, done: int, slots: Slots) -> None:
        """While the builder is at work: load the rest, give the network its host's end, and then wait."""
        try:
            start.load_rest()
            jailinit.take(init)
            for operation in self.host:
                operation.apply(slots)
            if self.meanwhile is not None and not self.own_mounts:
                self.meanwhile()
        finally:
            _wait_for(tree, done)

    def _flags(self) -> int:
        asked = ((self.new_net, ns.CLONE_NEWNET), (self.new_ipc, ns.CLONE_NEWIPC), (self.new_uts, ns.CLONE_NEWUTS))
        return _NAMESPACES | sum([flag for wanted, flag in asked if wanted])

    def _open_parent(self) -> int:
        """A pidfd of the PID 1 of the jail in which this one is made, which is verified to be it; -1 for the host.

        Raises JailError.
        """
        if self.parent is None:
            return -1
        from jailng.core import attach

        return attach.open_init(self.parent)

    def _map_ids(self, pid: int, outer: int) -> None:
        """Only a process of the namespace above may do that (map_write() in kernel/user_namespace.c)."""
        text = b"0 %d %d" % (self._seen_from_above(self.ids), self._count)
        maps = [f"/proc/{pid}/{name}" for name in ("uid_map", "gid_map", "projid_map")]
        if outer < 0:
            for path in maps:
                _write(path, text)
            return
        way = program.Program()
        way.fds.append(outer)
        process.not_dumpable(way)
        way.must("setns", outer, ns.CLONE_NEWUSER, label="jail_set: setns")
        for path in maps:
            way.must("openat", mount.AT_FDCWD, way.text(path), _WRITE, 0, keep=1, label=f"jail_set: open {path}")
            way.must("write", program.kept(1), way.text(text), len(text), label=f"jail_set: {path}")
        way.end()
        program.start(way, jailinit.path()).finished()

    def _seen_from_above(self, uid: int) -> int:
        """What a uid of the host's is in the user namespace of the jail above."""
        return uid - self.parent.base if self.parent is not None and self.ids else uid

    def _start_init(
        self, slots: Slots, home: int, told: tuple[int, int, int], copy: int, built: int, outer: int
    ) -> Running:
        """``home`` is the cgroup that it is born into, -1 for that of this process."""
        if self.make_gate is not None:
            self.gate = self.make_gate()
        try:
            way = self._of_init(home, slots.get("joined", -1), told, copy, built, outer)
            return program.start(way, jailinit.path())
        except FileNotFoundError:
            raise jailinit.not_built() from None

    def _creator(self) -> int:
        """Whose the user namespace is to be, as a process calls it that is to make it."""
        if self.parent is None:
            return self.creator
        return self._seen_from_above(self.creator) if self.ids else 0

    def _go_below(self, way: Program, home: int, outer: int, above: int) -> None:
        """Have it be in the jail above: what it makes then is that jail's, and seen, signalled and entered from there.

        A pid namespace is made below that which a process is in, so it is born into the one of the jail above; and into
        its cgroup, since from there nobody may put a process into one. From then on /proc/PID tells whoever is above of
        the mount and the network namespace that it is in, so it has left the host's.
        """
        namespaces.leave_the_mounts(way)
        way.fds.append(outer)
        way.must("setns", outer, ns.CLONE_NEWPID | above, label="jail_set: setns")
        way.fork(0, home, label="jail_set: clone3")
        way.must("setns", outer, ns.CLONE_NEWUSER, label="jail_set: setns")

    def _of_init(
        self, home: int, joined: int, told: tuple[int, int, int], copy: int, built: int, outer: int
    ) -> Program:
        go, events, sysctls = told
        init = program.Program()
        init.fds += [go, events, sysctls]
        process.not_dumpable(init)
        process.usual_priority(init, self.slice_of)
        beside = process.open_cgroups(init, self.beside, self.cgroup, bool(self.kept))
        process.leave_keys(init)
        if copy < 0:
            jailinit.lay_open(init, _CODE)
        namespaces.new_mount_and_time(init)
        if copy < 0:
            namespaces.attach(init, _CODE, jailinit.path())
        namespaces.renew(init, sysctls)
        if joined >= 0:  # the network namespace of another jail; for those below that is none to enter
            init.fds.append(joined)
            init.must("setns", joined, ns.CLONE_NEWNET, label="jail_set: setns")
        if outer >= 0:
            self._go_below(init, home, outer, _ABOVE if joined < 0 else _ABOVE & ~ns.CLONE_NEWNET)
        # The kernel charges what the jail uses to the creator of its user namespace: not to root, then.
        # What it may do is kept over that; in a new user namespace the securebits are what they are by default.
        init.must("prctl", _PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0)
        creator = self._creator()
        if outer >= 0:  # whose ids have to be known there
            init.must("setresgid", -1, creator, -1)
        init.must("setresuid", -1, creator, -1)
        init.fork(self._flags(), home if outer < 0 else -1)
        init.must("read", go, init.data(bytes(8)), 1)  # returns when the id maps are written
        process.join_cgroups(init, beside)
        process.become(init, 0, 0, [])
        process.leave_the_caller(init, self.confinement)
        # A second line behind the filter: no user namespace can be made inside, where nobody can raise it again.
        init.must("openat", sysctls, init.text("max_user_namespaces"), posix.O_WRONLY, 0, keep=1)
        # But for those that the broker makes; of one that has ended the kernel takes its time to let go.
        most = b"%d" % (self.kept + _LINGERING if self.kept else 0)
        init.must("write", program.kept(1), init.text(most), len(most), label="max_user_namespaces")
        init.must("unshare", ns.CLONE_NEWCGROUP)  # its root is the leaf that PID 1 was born into
        if built >= 0:
            namespaces.take_own_mounts(init, built)
        if not self.kept:  # nor of another kind: with allow.mount root inside holds the CAP_SYS_ADMIN that those take
            init.must("openat", sysctls, init.text(b""), posix.O_WRONLY, 0, keep=1)
            init.must("write", program.kept(1), init.text("0"), 1)
            init.rows(2, (1,), [(name,) for name in _NO_MORE])
        names = (("sethostname", self.hostname), ("setdomainname", self.domainname)) if self.new_uts else ()
        for name, text in names:
            init.must(name, init.text(text), len(text.encode("utf-8", "surrogateescape")))
        if self.gate is not None:
            self.gate.install(init)
        else:
            init.must("dup3", events, 0, 0)
            init.may("close", 1)
            init.may("close", 2)
        # struct kernel_sigaction with SIG_IGN: the kernel reaps, jailinit need not
        init.must("rt_sigaction", _SIGCHLD, init.data(words(1, 0, 0, 0)), 0, 8)
        process.give_up(init, self.confinement)
        argv = ["init", program.RUN, "0"] if self.gate is not None else ["init"]
        init.execute_fd(program.kept(_CODE) if copy < 0 else copy, argv)
        return init


def _wait_for(tree: builder.Builder, done: int) -> None:
    """Wait for the builder, and tell whoever waits for it at the other end of ``done``, if that is a descriptor."""
    try:
        tree.wait()
        if done >= 0:
            posix.write(done, b".")
    except BrokenPipeError:
        pass  # it has died, and what it said of that is still to be read
    finally:
        if done >= 0:
            posix.close(done)


def _write(path: str, text: bytes) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, text)
    finally:
        posix.close(fd)
