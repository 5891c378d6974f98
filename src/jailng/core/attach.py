"""jail_attach(2): bring a process into a jail. A pid namespace takes only newborn ones, so there is one fork.

What enters is a program of jailinit's, born outside with the host's privileges: it is not dumpable before anybody can
see it, it holds none of the host's descriptors, it runs and loads nothing of the jail's, and it looks nothing up there.
"""

from __future__ import annotations

import posix

from jailng import start
from jailng.core import jailinit, process, program, registry
from jailng.errors import UNREACHED, JailError
from jailng.linux import cgroup, controller, ns, processid
from jailng.linux.libc import EAGAIN, ENOENT, exists, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.confinement import Confinement
    from jailng.core.passwd import User
    from jailng.core.program import Program, Running
    from jailng.core.registry import Record
    from jailng.core.stdio import Streams
    from jailng.core.view import View

# Also those that the jail shares with the host, which need not be the caller's.
JOINED = ns.CLONE_NEWUSER | ns.CLONE_NEWNS | ns.CLONE_NEWUTS | ns.CLONE_NEWTIME | ns.CLONE_NEWNET | ns.CLONE_NEWIPC
# What is to be known before anybody inside can name the process: of what is in its mount and network namespace
# /proc/PID/mountinfo and /proc/PID/net tell whoever can read them, dumpable or not.
BORN = ns.CLONE_NEWPID | ns.CLONE_NEWNS | ns.CLONE_NEWNET
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where the program of a clean environment is looked for, whose own PATH is as the manual has it (engine/command.py):
# FreeBSD's has a login class's (setusercontext(3)), with /sbin, where ifconfig(8) is. The first is jailng's.
CLEAN_PATH = "/bin:/usr/bin"
_LOGIN_PATH = f"/usr/lib/jailng/shims:{CLEAN_PATH}:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
# How long a jailed file system may keep us waiting for its passwd or a directory, in seconds.
_PATIENCE = 10
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


class Command:
    """What to run: argv, environment, user and directory, all as the jail sees them.

    ``user`` is a name or number of the jail's passwd, a ``User`` that was looked up on the host, or None for root
    without any look-up; no argv at all is the user's shell. ``cwd`` of None is the user's home with ``login`` and the
    jail's root without. One in the ``background`` does not end with this process. ``label`` says that it
    cannot be executed, for which jexec(8) and jail(8) have different words. ``added`` are variables that count more
    than what is known of the user. ``instead`` is a file that is the program, where the jail has it.
    """

    __slots__ = ("added", "argv", "background", "cwd", "env", "instead", "label", "login", "user")

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        user: str | User | None = None,
        cwd: str | None = None,
        login: bool = False,
        background: bool = False,
        label: str = "execvp: {}",
        added: dict[str, str] | None = None,
        instead: str = "",
    ) -> None:
        self.added = added or {}
        self.instead = instead
        self.argv = argv
        self.background = background
        self.env = env
        self.user = user
        self.cwd = cwd
        self.login = login
        self.label = label


class Entry:
    """A jail that is about to be entered: its PID 1, which is verified to be the record's, and what it confines to."""

    __slots__ = ("base", "cgroup", "confinement", "init", "privileged", "record", "shared_uids", "view")

    def __init__(self, record: Record, confinement: Confinement, root: str = "") -> None:
        """``root`` is a directory of the host's that is to be the root, instead of the jail's.

        Raises JailError where the jail has ended meanwhile, or for a directory that it cannot have.
        """
        params = record.params
        self.record = record
        self.confinement = confinement
        self.cgroup = record.members
        self.shared_uids = params.get("ng.uids") == "shared"
        self.base = record.owner
        self.privileged = params.get("allow.suser", "true") == "true"
        self.init = open_init(record)
        self.view: View | None = None  # the root to enter it with, if it is not the jail's own
        if root or params.get("ng.root") == "none":
            from jailng.core import view

            try:
                self.view = view.View(record, root or params["path"])
            except BaseException:
                posix.close(self.init)
                raise
        if is_limited(record):
            from jailng.core import limit

            confinement.limits = limit.entering(record)

    def close(self) -> None:
        """Let go of PID 1."""
        posix.close(self.init)
        if self.view is not None:
            self.view.close()


def is_limited(record: Record) -> bool:
    """Whether it has ng.limits, or a jail has that it is in."""
    return any(one.params.get("ng.limits") or one.rules for one in registry.upwards(record))


def slice_of(record: Record) -> int:
    """Nanoseconds that a process of the jail's runs before others: its own, or that of the jail it is in; or 0."""
    lengths = [int(one.params.get("ng.slice") or 0) for one in registry.upwards(record)]
    return next((length for length in lengths if length), 0) * 1_000_000


def open_init(record: Record) -> int:
    """A pidfd of the jail's PID 1, verified to be the record's. Raises JailError where the jail has ended meanwhile."""
    try:
        init = processid.open_process(record.init)
    except OSError as error:
        raise JailError(f'jail "{record.name}": {error.strerror}') from None
    if init < 0:
        raise JailError(f'jail "{record.name}" not found', errno=ENOENT)
    return init


def open_tree_of(record: Record) -> int:
    """The jail's root as an O_PATH descriptor, by way of its PID 1. Raises OSError (ENOENT: it has ended)."""
    return processid.opened(record.init, ns.open_root)


def jail_attach(entry: Entry, command: Command, streams: Streams) -> tuple[int, int]:
    """Start ``command`` in the jail; returns (pid, pidfd) once it has been executed.

    Raises JailError saying what failed in there: ``execvp: CMD: strerror``, ``USER: no such user`` and the like.
    """
    user = _look_up(entry, command.user) if isinstance(command.user, str) else command.user
    running = launch(entry, command, user, streams)
    if entry.record.up:  # while it is on its way, so that it costs nobody's time
        start.load_rest()
        from jailng.core import fresh

        fresh.freshen(entry.record)
    running = _forked(running, entry, command, user, streams)
    running.arrived()
    return running.pid, ns.pidfd_open(running.pid)


def begin(entry: Entry, command: Command, user: User | None, streams: Streams) -> Running:
    """The first half of ``jail_attach``: the process is born, and nothing that a jailed root does can keep us waiting.

    ``user`` is the one of the command. Raises JailError.
    """
    running = launch(entry, command, user, streams)
    # Where root inside, or of a jail around it, may mount what does not answer, nobody looks for its /proc.
    if entry.record.up and not any(one.params.get("allow.mount") == "true" for one in registry.upwards(entry.record)):
        from jailng.core import fresh

        fresh.freshen(entry.record)
    return _forked(running, entry, command, user, streams)


def _forked(running: Running, entry: Entry, command: Command, user: User | None, streams: Streams) -> Running:
    """Wait until it has forked; where the jail has no room for a process, another way is taken. Raises JailError."""
    try:
        running.forked()
    except JailError as error:
        if error.errno != EAGAIN:
            raise
    else:
        return running
    try:
        running = launch(entry, command, user, streams, aside=entry.record.aside)
        running.forked()
    except JailError as error:  # there it is as crowded: by others who enter, or by whoever has PID 1 fork
        if error.errno != EAGAIN:
            raise
        running = launch(entry, command, user, streams, aside="")
        running.forked()
    return running


def launch(
    entry: Entry, command: Command, user: User | None, streams: Streams, gate: int = -1, aside: str | None = None
) -> Running:
    """The first half of ``begin``. Where ``gate`` is a pipe, the process enters once it can read a byte from it.

    It ends without a word if the other end is closed instead. ``aside``: the jail has as many processes as it may
    have, and so none is born among its members (cgroup2 refuses that with EAGAIN), but in this cgroup, "" for this
    process's own; one that is there may be moved to them, which takes an RCU grace period. Raises JailError.
    """
    moving = -1
    try:
        members = cgroup.open_directory(aside or entry.cgroup)
        if aside is not None:
            moving = cgroup.open_file(f"{entry.cgroup}/cgroup.procs", posix.O_WRONLY)
    except FileNotFoundError:
        raise JailError(f"jail_attach: cgroup {entry.cgroup} cannot be seen from here", kind=UNREACHED) from None
    except OSError as error:
        raise JailError(f"jail_attach: {error.strerror}", kind=UNREACHED) from None
    channel = -1
    try:
        if entry.confinement.asks:
            from jailng.core import stack

            channel = stack.channel(entry.record)
        home = -1 if aside == "" else members
        way = _way_in(entry, command, user, streams, (members, home, moving), gate, channel)
        return program.start(way, jailinit.detached())
    except OSError as error:
        raise JailError(f"jail_attach: {error.strerror}", kind=UNREACHED) from None
    finally:
        for fd in (members, channel, moving):
            if fd >= 0:
                posix.close(fd)


def _look_up(entry: Entry, name: str) -> User:
    from jailng.core import lookup

    return lookup.find(entry, name)


def _way_in(
    entry: Entry,
    command: Command,
    user: User | None,
    streams: Streams,
    cgroups: tuple[int, int, int],
    gate: int,
    channel: int,
) -> Program:
    """``cgroups``: a directory of one; that in which the process is born, -1 for this one's own; where to move it."""
    members, home, moving = cgroups
    way = program.Program()
    held = [entry.init] if channel < 0 else [entry.init, channel]
    view = entry.view
    if view is not None:
        held += view.fds
    way.fds += [*held, *streams.descriptors()]
    process.not_dumpable(way)
    process.usual_priority(way, slice_of(entry.record))
    process.leave_keys(way)
    if entry.shared_uids:  # whoever has the real or saved uid of a process may stop it, while it still has descriptors
        way.must("setresuid", process.NOBODYS, 0, process.NOBODYS)
    controllers = entry.record.controllers.split()
    path = entry.record.cgroup
    apart = bool(entry.record.home) and "cpu" in controllers and exists(controller.own(path))
    opened, later = process.open_cgroups(way, controllers, path, apart), process.open_later(way, controllers)
    if view is None:
        way.must("setns", entry.init, BORN, label="jail_attach")  # the pid namespace is for what is forked next
    else:  # it needs the host's mounts for a while; below a cgroup's directory there are none to be told of
        way.fds.append(members)
        way.must("fchdir", members, label="jail_attach")
        way.must("chroot", way.text("."), label="jail_attach")
        way.must("setns", entry.init, BORN & ~ns.CLONE_NEWNS, label="jail_attach")
    way.fork(0, home, label="jail_attach")
    if moving >= 0:
        way.fds.append(moving)
        way.must("write", moving, way.text("0"), 1, label="jail_attach")
    process.hurry(way)
    process.join_cgroups(way, opened)
    process.join_later(way, later, entry.record.cgroup)
    process.leave_the_caller(way, entry.confinement)
    streams.install(way)
    if gate >= 0:
        way.fds.append(gate)
        way.expect(1, "read", gate, way.data(bytes(8)), 1)
    way.close_all_but(*held)  # a jailed root can reach this process from the next call on
    if view is not None:
        view.enter(way, entry.init)
    way.must("setns", entry.init, JOINED if view is None else JOINED & ~ns.CLONE_NEWNS, label="jail_attach")
    # PID 1's cgroup namespace has PID 1's leaf as its root; one of this process's own shows `/` as it should.
    way.must("unshare", ns.CLONE_NEWCGROUP)
    process.become(way, 0, 0, [])
    streams.complete(way)
    way.must("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)  # a jailed root could stop us from here on
    if user is not None:
        streams.give_to(way, user)
    # From here on the worst that the jail's files can do is to keep us waiting, and the clock is set.
    way.must("setitimer", 0, way.data(words(0, 0, _PATIENCE, 0)), 0)
    # The filter needs CAP_SYS_ADMIN in the namespace; CAP_SETUID, which the ids need, is among those that stay.
    # The number of PID 1's descriptor is free again.
    process.give_up(way, entry.confinement, entry.privileged, (channel, entry.init) if channel >= 0 else None)
    if user is not None:
        process.become(way, user.uid, user.gid, user.groups)
    way.arrival = way.here()
    _change_directory(way, command, user)
    way.must("setitimer", 0, way.data(bytes(32)), 0)
    way.must("prctl", _PR_SET_PDEATHSIG, 0 if command.background else _SIGKILL, 0, 0, 0)
    if not command.background:
        way.unless_alone()  # whoever died before it was asked to take us along took nobody
    process.hurry(way, on=False)
    process.limit_as_member(way, entry.confinement.limits)
    argv = command.argv or [user.shell if user is not None else "/bin/sh", "-i"]
    environment = _environment(command, user)
    clean = environment["PATH"] == CLEAN_PATH and "PATH" not in command.added
    way.execute(argv, environment, command.label, path=_LOGIN_PATH if clean else "", instead=command.instead)
    return way


def _change_directory(way: Program, command: Command, user: User | None) -> None:
    if command.cwd is None and command.login and user is None:
        way.may("chdir", way.text("/root"))  # root without a look-up, and no word where it has no home
        return
    cwd = command.cwd
    if cwd is None:
        cwd = user.home if user is not None and command.login else "/"
    mark = ":" if ":" in command.label else ""  # which jexec(8) has, and jail(8) has not
    way.must("chdir", way.text(cwd), label=f"chdir{mark} {cwd}")


def _environment(command: Command, user: User | None) -> dict[str, str]:
    environment = dict(command.env)
    environment.setdefault("PATH", USUAL_PATH)
    if user is not None:
        environment |= {"HOME": user.home, "SHELL": user.shell, "USER": user.name}
    return {"HOME": "/root", "SHELL": "/bin/sh", "USER": "root", **environment, **command.added}
