"""A guest with an init of its own, ``ng.init``: which it is, what it needs, and how it becomes PID 1 of its jail.

Loaded for jails that have one. docs/decisions/0028-init.md says why PID 1 becomes the guest's init, instead of another
pid namespace below jailinit's.
"""

from __future__ import annotations

import posix

from jailng.core import boot, privileges, process, program, rootfs
from jailng.core.attach import is_limited
from jailng.core.guesttree import Delegate, MountCgroup, MountRun
from jailng.core.operation import Operation
from jailng.core.program import kept
from jailng.errors import JailError
from jailng.linux import mount as m
from jailng.linux import mountfd
from jailng.linux.libc import ENOENT, SHORTAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.operation import Slots
    from jailng.core.program import Program
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

SIGRTMIN = 34  # as the C library counts
_GATE = 9
_CONSOLE = 0  # its pty: the first
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_UUID = "00000000-0000-0000-0000-000000000000"
# Below the root: what is to be empty when the guest starts, its mode, size and files, by whether it is systemd, which
# would mount a tmpfs on each.
_RUN_DIRECTORIES = [(b"run", b"755", b"20%", b"800k"), (b"run/lock", b"1777", b"5m", b"1k")]
_EMPTY = {False: _RUN_DIRECTORIES, True: [*_RUN_DIRECTORIES, (b"tmp", b"1777", b"50%", b"1m")]}


class Kind:
    """A word of ``ng.init``.

    ``inits``: where a PID 1 of that kind is in a root, the first that is there; none: jailinit stays PID 1, and
    ``start`` are the commands that start the guest. ``stop`` are those that shut it down, the first that the root has;
    or ``signal`` is what tells PID 1 to. ``needs`` are the parameters without which it does not run.
    """

    __slots__ = ("inits", "needs", "signal", "start", "stop")

    def __init__(
        self,
        inits: tuple[str, ...] = (),
        start: tuple[str, ...] = (),
        stop: tuple[str, ...] = (),
        signal: int = 0,
        needs: tuple[str, ...] = (),
    ) -> None:
        self.inits = inits
        self.start = start
        self.stop = stop
        self.signal = signal
        self.needs = needs


KINDS = {
    "rc": Kind(start=("/bin/sh /etc/rc",), stop=("/bin/sh /etc/rc.shutdown",)),
    "sysv": Kind(("/sbin/init",), stop=("/sbin/telinit 0", "/sbin/poweroff")),
    "openrc": Kind(
        ("/sbin/init", "/sbin/openrc-init"),
        stop=("/sbin/telinit 0", "/sbin/openrc-shutdown --poweroff now", "/sbin/poweroff"),
    ),
    "systemd": Kind(
        ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"), signal=SIGRTMIN + 3, needs=("allow.cgroup",)
    ),
}


class Guest:
    """What was decided for one jail: the ``name`` of its kind, the path of its PID 1 or "", whether it has a cgroup."""

    __slots__ = ("init", "name", "parts")

    def __init__(self, name: str, init: str, parts: bool = False) -> None:
        self.name = name
        self.init = init
        self.parts = parts


def _open_in(root: int, path: str) -> int:
    """What a path leads to in the tree below ``root``, which may be an enemy's, as O_PATH. Raises OSError."""
    return mountfd.openat2(root, path.encode("utf-8", "surrogateescape"), m.O_PATH | posix.O_CLOEXEC, m.IN_ROOT)


def has(root: int, path: str) -> bool:
    """Whether there is such a thing in that tree. Raises OSError where there is no telling."""
    try:
        posix.close(_open_in(root, path))
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        return False
    return True


def decide(params: Parameters) -> Guest:
    """Which guest a root has, and where its init is. Raises JailError naming what is missing."""
    name, path = params.text("ng.init"), params.text("path")
    root = rootfs.open_root(path)
    try:
        if posix.stat("/")[1:3] == posix.fstat(root)[1:3]:  # st_ino, st_dev
            raise JailError(f"ng.init={name}: not with path={path}: it would start the host's own system once more")
        return _decide(name, root, params)
    finally:
        posix.close(root)


def find(root: int) -> str:
    """The kind of init that a tree has, which may be an enemy's, or "".

    Nothing in it is read or executed. systemd is what /sbin/init leads to; an OpenRC may be started by the init of
    sysvinit, so it is looked for first.
    """
    if any(_is_same(root, "/sbin/init", path) for path in KINDS["systemd"].inits[:-1]):
        return "systemd"
    if has(root, "/sbin/openrc") and any(has(root, path) for path in KINDS["openrc"].inits):
        return "openrc"
    if has(root, "/sbin/init") and has(root, "/etc/inittab"):
        return "sysv"
    return "rc" if has(root, "/etc/rc") else ""


def _is_same(root: int, one: str, other: str) -> bool:
    status = []
    for path in (one, other):
        try:
            fd = _open_in(root, path)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            return False
        status.append(posix.fstat(fd))
        posix.close(fd)
    return (status[0].st_ino, status[0].st_dev) == (status[1].st_ino, status[1].st_dev)


def _decide(name: str, root: int, params: Parameters) -> Guest:
    if name == "auto":
        name = find(root)
        if not name:
            raise JailError("ng.init=auto: the root has no init that is known, and no /etc/rc")
    kind = KINDS[name]
    missing = [needed for needed in kind.needs if not params.flag(needed)]
    if missing:
        raise JailError(f"ng.init={name}: needs {', '.join(missing)}")
    if not kind.inits:
        script = kind.start[0].split()[-1]
        if not has(root, script):
            raise JailError(f"ng.init={name}: {script}: {posix.strerror(ENOENT)}")
        return Guest(name, "")
    if "." in params.text("name"):
        raise JailError(f"ng.init={name}: not in a jail in a jail: only the host's jails have a PID 1 of their own")
    if privileges.share_stack(params):
        raise JailError(f"ng.init={name}: not with ng.stack=shared: the guest's PID 1 is nobody who has entered")
    if not params.flag("mount.devfs") or not params.flag("mount.procfs"):
        raise JailError(f"ng.init={name}: needs mount.devfs and mount.procfs")
    if params.flag("allow.cgroup") and not has(root, "/sys"):
        raise JailError(f"allow.cgroup: the root has no /sys: {posix.strerror(ENOENT)}")
    for init in kind.inits:
        if has(root, init):
            return Guest(name, init, params.flag("allow.cgroup"))
    raise JailError(f"ng.init={name}: {kind.inits[-1]}: {posix.strerror(ENOENT)}")


def environment(guest: Guest, params: Parameters) -> dict[str, str]:
    """What PID 1 is told: for systemd by the words of its Container Interface."""
    found = {"PATH": _PATH, "TERM": "dumb"}
    if guest.name == "systemd":
        found["container"] = "jailng"
        if params.text("host.hostuuid") != _NO_UUID:
            found["container_uuid"] = params.text("host.hostuuid")
    return found


# PID 1


class Gate:
    """PID 1 between its birth and the guest's start: it has given up all and waits in a second program of jailinit's.

    Whoever starts the jail holds one end of a socket: when that is closed PID 1 ends.
    """

    __slots__ = ("_far", "_file", "_near")

    def __init__(self, guest: Guest, params: Parameters, record: Record) -> None:
        """Raises OSError."""
        from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair

        near, far = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self._near, self._far = near.detach(), far.detach()
        self._file = -1
        self._file = program.lay_out(_of_guest(guest, params, record), _GATE)

    def install(self, way: Program) -> None:
        """Have PID 1's program leave it what ``execute`` needs."""
        way.fds += [self._file, self._far]
        way.must("dup3", self._file, 0, 0)
        way.must("dup3", self._far, 1, 0)
        way.may("close", 2)

    def keep(self, record: Record) -> None:
        """Have it wait for ``waiting`` to be asked for it."""
        waiting[record.jid] = self

    def born(self) -> None:
        """PID 1 has what it needs."""
        for fd in (self._file, self._far):
            if fd >= 0:
                posix.close(fd)
        self._file = self._far = -1

    def open(self) -> None:
        """Let PID 1 execute the guest's init, and wait until it has. Raises JailError with what failed."""
        try:
            posix.write(self._near, b".")
            said = posix.read(self._near, 16)
        except OSError:
            said = b"."
        finally:
            self.close()
        if said:
            raise JailError(_why(said))

    def close(self) -> None:
        """Let go of PID 1."""
        self.born()
        if self._near >= 0:
            posix.close(self._near)
        self._near = -1


def _why(said: bytes) -> str:
    """What PID 1 says of an exec that failed; a jailed root may have it say anything."""
    value = int.from_bytes(said[8:16], "little") if len(said) == 16 else 0
    return posix.strerror(value) if 0 < value < 256 else "PID 1 died"


waiting: dict[int, Gate] = {}  # by jid: of the jails that this process is starting


def let_go(jid: int) -> None:
    """Of a jail that is not started after all."""
    if jid in waiting:
        waiting.pop(jid).close()


def _of_guest(guest: Guest, params: Parameters, record: Record) -> Program:
    way = program.Program()
    way.must("dup3", 1, _GATE, posix.O_CLOEXEC)
    for number in range(3):
        way.may("close", number)
    way.expect(1, "read", _GATE, way.data(bytes(8)), 8)
    way.may("openat", m.AT_FDCWD, way.text("/dev/console"), posix.O_RDWR | posix.O_NOCTTY, 0, keep=1)
    for number in range(1, 3):
        way.may("dup3", kept(1), number, 0)
    way.must("chdir", way.text("/"))
    if is_limited(record):  # as whoever enters is, since what it starts has not entered
        from jailng.core import limit

        process.limit_as_member(way, limit.entering(record))
    way.execute([guest.init], environment(guest, params), guest.init)
    return way


# Its start


class Note(Operation):
    """Write down what was decided, for those who come later."""

    __slots__ = ("emptied", "guest", "record")

    def __init__(self, guest: Guest, record: Record) -> None:
        self.guest = guest
        self.record = record
        self.emptied: list[str] = []

    def apply(self, slots: Slots) -> None:
        """Raises OSError."""
        self.record.append([f"guest {self.guest.name} {self.guest.init}".rstrip()])
        if self.emptied:
            self.record.append([f"emptied {' '.join(self.emptied)}"])
        if self.guest.parts:
            self.record.append([f"home {self.record.cgroup}/members/own"])

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return f"start the guest as {self.guest.name}" + (f", PID 1 {self.guest.init}" if self.guest.init else "")

    def notes(self, noted: list[int]) -> list[str]:
        """Which was found."""
        return [f"ng.init: {self.guest.name}"]


class OpenConsole(Operation):
    """The guest's console, the first pty of its own, which is kept outside (core/console.py)."""

    __slots__ = ("params", "record")

    def __init__(self, params: Parameters, record: Record) -> None:
        self.params = params
        self.record = record

    def apply(self, slots: Slots) -> None:
        """Raises JailError."""
        from jailng.core import console

        console.begin(self.record, self.params, slots["init.pid"])

    def describe(self) -> str:
        """As `jail --plan` shows it."""
        return "keep what is written to /dev/console outside"


class Layout(boot.Layout):
    """With ``ng.init``."""

    __slots__ = ("_base", "_guest", "_note")

    def __init__(self, guest: Guest, params: Parameters, record: Record, base: int, home: str) -> None:
        super().__init__(home)
        self._guest = guest
        self._base = base
        self._note = Note(guest, record)
        self.after.append(self._note)
        if not guest.init:
            return
        self.leaf = home
        self.links.append(("console", f"pts/{_CONSOLE}"))
        self.after.append(OpenConsole(params, record))
        self.gate = lambda: Gate(guest, params, record)
        if guest.parts:
            self.home = f"{record.cgroup}/members/own"  # processes are in leaves alone, and the guest makes others
            self.leaf = f"{record.cgroup}/members/guest"
            self.before.append(Delegate(self.leaf, base))

    def tree(self, below: set[bytes], has_sys: bool) -> list[Operation]:
        """A /run that is empty, and what of its cgroup is the guest's."""
        if not self._guest.init:
            return []
        places = [place for place in _EMPTY[self._guest.name == "systemd"] if place[0].partition(b"/")[0] not in below]
        self._note.emptied = [path.decode() for path, *_ in places if b"/" not in path]
        found: list[Operation] = [MountRun(places, self._base)]
        if self._guest.parts:
            found.append(MountCgroup(has_sys))
        return found
