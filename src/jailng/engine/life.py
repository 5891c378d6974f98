"""A jail's life: tables of steps, walked forwards, one to start it, one to stop it, one to clean up after it.

That is how usr.sbin/jail/jail.c has it. A step is a generator: it yields what it waits for (``command.Wait``), so that
whoever carries the steps out can do other jails' steps meanwhile; ``drive`` is for who has only one.
"""

from __future__ import annotations

import posix

from jailng.core import create, registry, remove, undo
from jailng.engine import command
from jailng.errors import JailError
from jailng.linux.libc import EBUSY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from jailng.core.confinement import Confinement
    from jailng.core.passwd import User
    from jailng.core.registry import Record
    from jailng.engine.ready import Ready
    from jailng.params.address import Address
    from jailng.params.model import Parameters

    Walk = Generator[command.Wait, bool, None]
    Steps = tuple[tuple[str, Callable[["Life", str], Iterable[command.Wait]]], ...]


_DEFAULTS = "/etc/jailng.conf"
_LONG = 10**6  # seconds


def settle(params: Parameters, voice: Voice | None = None) -> None:
    """Make the parameters of a new jail whole, with the host's defaults where it has any (jailng.conf(5)).

    Addresses of the host name come to it as well. ``voice`` is told of what FreeBSD's kernel would refuse. Raises
    JailError, or OSError where the file cannot be read.
    """
    try:  # without O_NONBLOCK a fifo would be waited for
        file = posix.open(_DEFAULTS, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except FileNotFoundError:
        pass
    else:
        from jailng.engine import defaults

        defaults.apply(params, file, _DEFAULTS)
    if params.flag("ip_hostname"):
        from jailng.engine import resolve

        resolve.add_addresses(params)
    try:
        params.settle()
    except JailError as error:
        if voice is not None:
            _tell_of_refusal(voice, _creation(params), error)
        raise


class Voice:
    """Whom to tell of what happens to a jail; this one tells nobody."""

    __slots__ = ()

    def say(self, text: str) -> None:
        """A step, for who asked with -v."""

    def note(self, text: str) -> None:
        """That it was created, removed or updated, for who has not asked with -q to hear nothing of it."""

    def warn(self, text: str) -> None:
        """What ought to be mended."""


class Life:
    """One jail on its way: its parameters, its record once it has one, and whom to tell.

    ``params`` say what to run; ``running``, where they are not the same, what the jail that runs was made with.
    ``created`` is told of the jail as soon as it exists, ``removed`` once it does not. ``crowded``: other jails are at
    work beside it, so that no step may keep the process waiting. ``strings``: ``command`` is a list of command strings,
    as in jail.conf(5), and not one command's words.
    """

    __slots__ = (
        "created",
        "crowded",
        "mounted",
        "params",
        "ready",
        "record",
        "removed",
        "rooted",
        "running",
        "strings",
        "voice",
    )

    def __init__(
        self, params: Parameters, record: Record | None, voice: Voice, running: Parameters | None = None
    ) -> None:
        self.params = params
        self.record = record
        self.voice = voice
        self.running = params if running is None else running
        self.created: Callable[[Record], None] | None = None
        self.removed: Callable[[], None] | None = None
        self.crowded = False
        self.strings = False
        self.rooted = params.given("path")  # asked now, since jail_set enters the real path
        self.mounted: list[str] = []  # which of mount.devfs and the like have been told of
        self.ready: Ready | None = None

    @property
    def there(self) -> Record:
        """The record, which every step after the first has."""
        assert self.record is not None
        return self.record

    @property
    def names(self) -> dict[str, str]:
        """JID, JNAME and JPATH, for the environment of commands."""
        if self.record is not None:
            path = self.record.params.get("path", "/")
            return {"JID": str(self.record.jid), "JNAME": self.record.name, "JPATH": path}
        jid = self.params.number("jid")
        return {
            **({"JID": str(jid)} if jid else {}),
            "JNAME": self.params.text("name") or str(jid or ""),
            "JPATH": self.params.text("path"),
        }


def drive(walk: Walk) -> None:
    """Carry out a jail's steps, one after the other, to the last. Raises what they raise."""
    try:
        wait = next(walk)
        while True:
            wait = walk.send(bool(wait.pidfds) and not _ended(wait))
    except StopIteration:
        pass
    finally:
        walk.close()


def _ended(wait: command.Wait) -> bool:
    import time

    from jailng.linux import ns

    until = time.monotonic() + (wait.seconds or _LONG)
    for pidfd in wait.pidfds:
        while not ns.ends_within(pidfd, until - time.monotonic()):
            if wait.seconds and time.monotonic() >= until:
                return False
    return True


def _walk(life: Life, steps: Steps) -> Walk:
    for name, step in steps:
        yield from step(life, name)


# Steps


def _host_commands(life: Life, step: str) -> Walk:
    texts = life.params.strings(step)
    if not texts:
        return
    from jailng.engine import hostcommand

    user = _system_user(life.params)
    at_home = life.params.flag("exec.clean")
    for text in texts:
        task = hostcommand.HostCommand(text)
        if not task.argv:
            continue
        yield command.TURN
        life.voice.say(f"run command{_as(life.params.text('exec.system_user'))}: {task.line}")
        environment = hostcommand.environment_of(life.params, life.names)
        wait = task.begin(environment, user, life.params.number("exec.timeout"), at_home)
        if wait is not None:
            task.end((yield wait))


def _system_user(params: Parameters) -> User | None:
    name = params.text("exec.system_user")
    if not name and not params.flag("exec.clean"):
        return None
    from jailng.core.passwd import of_the_host

    return of_the_host(name or "root")


def _as(user: str) -> str:
    return f" as {user}" if user else ""


def _jail_commands(life: Life, step: str) -> Walk:
    for text in life.params.strings(step):
        argv, background = command.split(text)
        if argv:
            yield from _run_inside(life, argv, background)


def _the_command(life: Life, step: str) -> Walk:
    if life.strings:
        yield from _jail_commands(life, step)
        return
    argv = list(life.params.strings(step))
    if argv:
        yield from _run_inside(life, argv, False)


def _run_inside(life: Life, argv: list[str], background: bool) -> Walk:
    yield command.TURN
    life.voice.say(f"run command in jail{_as(life.params.text('exec.jail_user'))}: {' '.join(argv)}")
    if life.ready is not None:
        ready, life.ready = life.ready, None
        command.judge(" ".join(argv), ready.run())
        return
    from jailng.engine import inside

    if background or not (life.crowded or life.params.number("exec.timeout")):
        inside.run(life.params, life.running, life.there, life.names, argv, background)
        return
    task = inside.Attended()
    task.end((yield task.begin(life.params, life.running, life.there, life.names, argv)))


def _get_ready(life: Life) -> Callable[[Confinement], None] | None:
    """What to do while the jail is built: where ``command`` is all that happens in it, that comes as far as it can."""
    argv, background = _words_of_the_command(life)
    if not argv or background or life.crowded or life.params.number("exec.timeout"):
        return None
    if life.params.strings("exec.created") or life.params.strings("exec.start"):
        return None

    def prepare(confinement: Confinement) -> None:
        from jailng.engine import ready

        life.ready = ready.prepare(life.params, life.there, life.names, argv, confinement)

    return prepare


def _words_of_the_command(life: Life) -> tuple[list[str], bool]:
    """Its argv, and whether it is to run in the background; none where there are several."""
    texts = life.params.strings("command")
    if not life.strings:
        return list(texts), False
    return command.split(texts[0]) if len(texts) == 1 else ([], False)


def aliases(params: Parameters) -> list[tuple[str, Address]]:
    """The host interface and the address of each alias that the parameters ask for."""
    interface = params.text("interface")
    addresses = [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]
    return [(where, address) for address in addresses if (where := address.interface or interface)]


def _aliases(life: Life, _: str) -> Iterable[command.Wait]:
    wanted = aliases(life.params)
    if wanted:
        from jailng.core import alias
        from jailng.engine import shown

        for where, address in wanted:
            line = f"alias {where} {address.bare}/{address.prefix}"
            life.voice.say(f"run command: {shown.alias(line, down=False)}")
            if not alias.exists(where, address):
                life.there.append([f"undo {line}"])
                alias.add(where, address)
    return ()


def _own_mounts(life: Life, step: str) -> Iterable[command.Wait]:
    """jail_set mounts these in the jail itself; who asks for them by name is told where FreeBSD would have done it."""
    if life.params.given(step) and life.params.flag(step):
        if not life.rooted:
            raise JailError(f"{step}: no jail root path defined")
        from jailng.engine import shown

        life.voice.say(f"run command: {shown.own_mount(step, life.params)}")
        life.mounted.append(step)
    return ()


def _create(life: Life, _: str) -> Iterable[command.Wait]:
    try:
        notes = create.jail_set(life.params, life.there, _get_ready(life))
    except JailError as error:
        _tell_of_refusal(life.voice, _creation(life.params), error)
        raise
    life.voice.say(_creation(life.params))
    for note in notes:
        life.voice.say(note)
    if life.created is not None:
        life.created(life.there)
    life.voice.note("created")
    # A jail that is there can be removed, whatever it runs and however long that takes.
    life.there.unlock()
    return ()


def _creation(params: Parameters) -> str:
    """What jail(8) says with -v of the system call that makes a jail."""
    given = params.words(pseudo=False)
    if _runs_something(params) and not params.flag("persist"):
        given = ["persist", *[word for word in given if word.partition("=")[0] not in ("persist", "nopersist")]]
    return " ".join(["jail_set(JAIL_CREATE)", *given])


def _tell_of_refusal(voice: Voice, line: str, error: JailError) -> None:
    from jailng.engine import shown

    voice.say(shown.refused(line, error))


def _settle(life: Life, _: str) -> Iterable[command.Wait]:
    record = life.there
    if not record.lock_again():
        raise JailError(f"jail {record.jid} not found")
    record.append(["up"])
    if not life.params.flag("persist"):
        if _runs_something(life.params):
            life.voice.say(f"jail_set(JAIL_UPDATE) jid={record.jid} nopersist")
        remove.set_persist(record, False)
    return ()


def _terminate(life: Life, _: str) -> Walk:
    seconds = life.params.number("stop.timeout")
    record = life.there
    if seconds == 0 or not record.init:
        return
    import time

    from jailng.engine import inside

    signalled, pidfds = inside.terminate(record)
    if signalled:
        life.voice.say(f"sent SIGTERM to: {' '.join(map(str, signalled))}")
    until = time.monotonic() + seconds
    while pidfds:
        left = until - time.monotonic()
        try:
            if left <= 0 or (yield command.Wait(pidfds, left, counts=False)):
                return
        finally:
            for pidfd in pidfds:
                posix.close(pidfd)
        pidfds = inside.members(record, signalled)


def _remove(life: Life, _: str) -> Iterable[command.Wait]:
    remove.jail_remove(life.there)
    life.voice.note("removed")
    if life.removed is not None:
        life.removed()
    return ()


def _take_down(life: Life, _: str) -> Iterable[command.Wait]:
    """What was made around the jail goes as it came, in reverse."""
    for name in ("mount.procfs", "mount.fdescfs", "mount.devfs"):
        if life.params.given(name) and life.params.flag(name):
            _tell_of_unmounting(life, name)
    if life.record is not None and life.record.locked:
        undo.walk(life.record, tell=_teller(life))
    return ()


def _tell_of_unmounting(life: Life, name: str) -> None:
    from jailng.engine import shown

    life.voice.say(f"run command: {shown.own_unmount(name, life.params)}")


def _teller(life: Life) -> Callable[[str], None]:
    def tell(line: str) -> None:
        from jailng.engine import shown

        life.voice.say(f"run command: {shown.undoing(line, life.params)}")

    return tell


def _mounts(life: Life, _: str) -> Iterable[command.Wait]:
    if life.params.strings("mount") or life.params.strings("mount.fstab"):
        from jailng.core import mounting

        for _, entry in mounting.entries(life.params):
            life.voice.say(f"run command: {entry.command}")
            warning = mounting.mount(life.there, life.params.text("path"), entry)
            if warning:
                life.voice.warn(warning)
    return ()


START: Steps = (
    ("exec.prepare", _host_commands),
    ("interface", _aliases),
    ("mount", _mounts),
    ("mount.devfs", _own_mounts),
    ("mount.fdescfs", _own_mounts),
    ("mount.procfs", _own_mounts),
    ("exec.prestart", _host_commands),
    ("jail_set", _create),
    ("exec.created", _host_commands),
    ("exec.start", _jail_commands),
    ("command", _the_command),
    ("exec.poststart", _host_commands),
    ("nopersist", _settle),
)

STOP: Steps = (
    ("exec.prestop", _host_commands),
    ("exec.stop", _jail_commands),
    ("stop.timeout", _terminate),
    ("jail_remove", _remove),
    ("exec.poststop", _host_commands),
    ("undo", _take_down),
    ("exec.release", _host_commands),
)

CLEAN: Steps = STOP[STOP.index(("exec.poststop", _host_commands)) :]

# Walks


def starting(life: Life) -> Walk:
    """Walk START. A step that fails ends it: what the record tells of is undone, and no command is run for that.

    Raises JailError.
    """
    if not life.params.flag("persist") and not _runs_something(life.params):
        error = JailError("new jail must persist or attach")
        _tell_of_refusal(life.voice, _creation(life.params), error)
        raise error
    for sentence in life.params.left_out:
        life.voice.warn(sentence)
    if not any(life.params.strings(step) for step in ("exec.prepare", "exec.prestart")):
        # Else these may be what makes the directory; jail_set looks at it in any case.
        check_path(life.params, life.voice)
    try:
        life.record = create.reserve(life.params)
    except JailError as error:
        _tell_of_refusal(life.voice, _creation(life.params), error)
        raise
    try:
        yield from _walk(life, START)
    except BaseException:
        if life.ready is not None:
            life.ready.close()
        _walk_back(life)
        raise
    life.record.unlock()


def _walk_back(life: Life) -> None:
    """Undo what a jail that could not be started has come to. That is told as it goes on FreeBSD: the jail first."""
    record = life.there
    told = not record.created
    tell = _teller(life)

    def tell_first(line: str = "") -> None:
        nonlocal told
        if not told:
            told = True
            life.voice.note("removed")
        while life.mounted:
            _tell_of_unmounting(life, life.mounted.pop())
        if line:
            tell(line)

    if record.locked or record.lock_again():
        undo.walk(record, tell=tell_first)
    tell_first()


def _runs_something(params: Parameters) -> bool:
    """Whether there are commands for which the jail has to persist until they have ended."""
    return any(params.strings(name) for name in ("command", "exec.start", "exec.poststart"))


def stopping(life: Life) -> Walk:
    """Walk STOP. A command that fails before the jail is removed leaves it running. Raises JailError.

    The jail's lock is not held while commands run in it, which may be jail(8) again.
    """
    _check_there(life)
    try:
        yield from _walk(life, STOP)
    finally:
        life.there.unlock()


def removing(life: Life) -> Walk:
    """Only remove the jail (-R): no command is run, and what was made around it stays until -C. Raises JailError."""
    _check_there(life)
    try:
        yield from _remove(life, "")
    finally:
        life.there.unlock()


def cleaning(life: Life) -> Walk:
    """Walk CLEAN for a jail that has been removed, or has ended by itself (-C). Raises JailError."""
    record = life.record
    # Not waited for: whoever has the lock may be waiting for this very command, which is in its exec.poststop.
    if record is not None and not record.lock(wait=False):
        raise JailError(f"{posix.strerror(EBUSY)}: another command is at work on it")
    try:
        if record is not None and record.alive():
            raise JailError(f'"{record.name}" already exists')
        yield from _walk(life, CLEAN)
    finally:
        if record is not None:
            record.unlock()


def _check_there(life: Life) -> None:
    if posix.geteuid() != 0:
        raise JailError("jail_remove: Operation not permitted")
    if not life.there.alive():
        raise JailError(f'"{life.there.name}" not found')


def start(life: Life) -> None:
    """Start one jail. Raises JailError."""
    drive(starting(life))


def stop(life: Life, forced: bool = False) -> None:
    """Stop one jail. Raises JailError (not found; a command failed).

    With ``forced`` (-R) it is only removed: no command is run.
    """
    drive(removing(life) if forced else stopping(life))


def update(record: Record, changes: Parameters, voice: Voice) -> None:
    """Change a running jail (-m). Raises JailError."""
    from jailng.engine import modify

    given = changes.words(pseudo=False, live=True)
    line = " ".join([f"jail_set(JAIL_UPDATE) jid={record.jid}", *given])
    try:
        modify.modify(record, changes)
    except JailError as error:
        if not str(error).endswith(" after creation"):  # which jail(8) says without having asked
            _tell_of_refusal(voice, line, error)
        raise
    if given:  # else update_jail has nothing to do
        voice.say(line)
    voice.note("updated")


def clear_away(text: str) -> None:
    """Undo what is left of a jail of that name or jid that is no more. Raises JailError where it cannot be."""
    record = registry.remains(text)
    if record is not None and posix.geteuid() == 0:
        undo.recover(record)


def check_path(params: Parameters, voice: Voice) -> None:
    """What jail(8) says of a path before it begins. Raises JailError."""
    path = params.text("path")
    if not path.startswith("/"):
        raise JailError(f"path {path}: not an absolute pathname")
    root, warning = create.open_path(params)
    posix.close(root)
    if warning:
        voice.warn(warning)
