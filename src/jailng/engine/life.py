"""A jail's life: tables of steps, walked forwards, one to start it; engine/ending.py has those that end it.

That is how usr.sbin/jail/jail.c has it. A step is a generator: it yields what it waits for (``command.Wait``), so that
whoever carries the steps out can do other jails' steps meanwhile; ``drive`` is for who has only one.
"""

from __future__ import annotations

import posix

from jailng import start as loading
from jailng.core import create, tunable
from jailng.engine import command
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from jailng.core.confinement import Confinement
    from jailng.core.registry import Record
    from jailng.engine.ready import Ready
    from jailng.params.address import Address
    from jailng.params.model import Parameters

    Walk = Generator[command.Wait, bool, None]
    Steps = tuple[tuple[str, Callable[["Life", str], Iterable[command.Wait]]], ...]


_DEFAULTS = "/etc/jailng.conf"
_LONG = 10**6  # seconds


def assume(params: Parameters, old_form: bool = False) -> None:
    """Let a new jail have the host's defaults where it has any: jailng.conf(5), for the old form sysctl(8) before it.

    Raises JailError, or OSError where a file cannot be read.
    """
    held = tunable.load()
    if held and old_form:
        from jailng.engine import defaults

        defaults.of_old(params, held)
    try:  # without O_NONBLOCK a fifo would be waited for
        file = posix.open(_DEFAULTS, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except FileNotFoundError:
        pass
    else:
        from jailng.engine import defaults

        defaults.apply(params, file, _DEFAULTS)


def settle(params: Parameters, voice: Voice | None = None, old_form: bool = False) -> None:
    """Make the parameters of a new jail whole, with the host's defaults and the addresses of its host name.

    ``voice`` is told of what FreeBSD's kernel would refuse. Raises JailError, OSError.
    """
    assume(params, old_form)
    if params.flag("ip_hostname"):
        from jailng.engine import resolve

        resolve.add_addresses(params)
    try:
        params.settle()
    except JailError as error:
        if voice is not None:
            tell_of_refusal(voice, _creation(params), error)
        raise


class Voice:
    """Whom to tell of what happens to a jail; this one tells nobody.

    ``verbose``: above 0 what ``say`` is told of is heard, and worth composing.
    """

    __slots__ = ()
    verbose = 0

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
    work beside it, so that no step may keep the process waiting. ``killed``: its processes have been, and it is only to
    be taken apart. ``strings``: ``command`` is a list of command strings, as in jail.conf(5), and not one command's
    words.
    """

    __slots__ = (
        "created",
        "crowded",
        "killed",
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
        self.killed = False
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


def walk(life: Life, steps: Steps) -> Walk:
    """Each step of a table in turn."""
    for name, step in steps:
        yield from step(life, name)


# Steps


def host_commands(life: Life, step: str) -> Walk:
    """The commands of a parameter, one after the other, on the host."""
    texts = life.params.strings(step)
    if not texts:
        return
    from jailng.engine import hostcommand, hostprogram

    user = hostcommand.user_of(life.params)
    at_home = life.params.flag("exec.clean")
    enemies = hostprogram.trees_of(life.names.get("JNAME", ""), life.running.text("path"))
    for text in texts:
        task = hostcommand.HostCommand(text)
        if not task.argv:
            continue
        yield command.TURN
        life.voice.say(f"run command{_as(life.params.text('exec.system_user'))}: {task.line}")
        environment = hostcommand.environment_of(life.params, life.names)
        refusal = task.check(environment, user, at_home, enemies)
        if refusal:
            if not life.params.flag("ng.lenient"):
                raise JailError(f"{step}: {refusal}")
            life.voice.warn(f"{step}: {refusal}")
        wait = task.begin(environment, user, life.params.number("exec.timeout"), at_home, life.record)
        if wait is not None:
            task.end((yield wait))


def _as(user: str) -> str:
    return f" as {user}" if user else ""


def jail_commands(life: Life, step: str) -> Walk:
    """The commands of a parameter, one after the other, in the jail."""
    for text in life.params.strings(step):
        argv, background = command.split(text)
        if argv:
            yield from run_inside(life, argv, background)


def _the_command(life: Life, step: str) -> Walk:
    if life.strings:
        yield from jail_commands(life, step)
        return
    argv = list(life.params.strings(step))
    if argv:
        yield from run_inside(life, argv, False)


def run_inside(life: Life, argv: list[str], background: bool) -> Walk:
    """One command in the jail, in the jail's turn. Raises JailError."""
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
    if life.params.text("ng.init") != "none" or life.params.text("ng.root") == "none":
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
        notes = create.jail_set(life.params, life.there, _get_ready(life), life.voice.warn)
    except JailError as error:
        tell_of_refusal(life.voice, _creation(life.params), error)
        raise
    if life.params.number("children.max") and not life.there.remote:
        from jailng.engine import broker

        broker.ensure(life.there)
    if life.there.params.get("ng.watch") or life.there.params.get("ng.log"):
        from jailng.observe import posts

        posts.settle(life.there)
    if life.voice.verbose > 0:
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


def tell_of_refusal(voice: Voice, line: str, error: JailError) -> None:
    """With -v, of a system call that was refused; ``line`` is what jail(8) says of it."""
    from jailng.engine import shown

    voice.say(shown.refused(line, error))


def _guest(life: Life, _: str) -> Walk:
    if life.params.text("ng.init") != "none":
        from jailng.engine import guest

        yield from guest.start(life)


def _interfaces(life: Life, _: str) -> Iterable[command.Wait]:
    names = [name for name in life.params.strings("vnet.interface") if name]
    if names:
        record = life.there
        if not record.lock_again():
            raise JailError(f"jail {record.jid} not found")
        try:
            for name in names:
                life.voice.say(f"run command: /sbin/ifconfig {name} vnet {record.jid}")
                _lend(record, name)
        finally:
            record.unlock()
    return ()


def _lend(record: Record, name: str) -> None:
    if record.remote:
        from jailng.core import nested

        nested.lend(record, name)
        return
    from jailng.core import vnet

    try:
        vnet.lend(record, name)
    except OSError as error:  # in FreeBSD's words, without what this kernel has to say beyond them
        raise JailError(f"interface {name}: SIOCSIFVNET: {posix.strerror(error.errno or 0)}") from None


def _settle(life: Life, _: str) -> Iterable[command.Wait]:
    record = life.there
    if not record.lock_again():
        raise JailError(f"jail {record.jid} not found")
    record.append(["up"])
    if record.keeper:
        from jailng.core import keeper

        keeper.settle(record)
    if not life.params.flag("persist"):
        if _runs_something(life.params):
            life.voice.say(f"jail_set(JAIL_UPDATE) jid={record.jid} nopersist")
        from jailng.core import remove

        remove.set_persist(record, False)
    return ()


def tell_of_unmounting(life: Life, name: str) -> None:
    """Of mount.devfs and the like, where FreeBSD would unmount it."""
    from jailng.engine import shown

    life.voice.say(f"run command: {shown.own_unmount(name, life.params)}")


def teller(life: Life) -> Callable[[str], None]:
    """What tells, with -v, of each undo line of what was made around the jail."""

    def tell(line: str) -> None:
        from jailng.engine import shown

        life.voice.say(f"run command: {shown.undoing(line, life.params)}")

    return tell


def _quota(life: Life, _: str) -> Iterable[command.Wait]:
    limits = [*life.params.strings("ng.limits"), life.there.rules]
    if life.params["ng.quota"] or any("disk:" in limit for limit in limits):
        from jailng.core import quota

        warning = quota.begin(life.there, life.params)
        if warning:
            life.voice.warn(warning)
    return ()


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
    ("exec.prepare", host_commands),
    ("interface", _aliases),
    ("ng.quota", _quota),
    ("mount", _mounts),
    ("mount.devfs", _own_mounts),
    ("mount.fdescfs", _own_mounts),
    ("mount.procfs", _own_mounts),
    ("exec.prestart", host_commands),
    ("jail_set", _create),
    ("exec.created", host_commands),
    ("vnet.interface", _interfaces),
    ("ng.init", _guest),
    ("exec.start", jail_commands),
    ("command", _the_command),
    ("exec.poststart", host_commands),
    ("nopersist", _settle),
)

# Walks


def starting(life: Life) -> Walk:
    """Walk START. A step that fails ends it: what the record tells of is undone, and no command is run for that.

    Raises JailError.
    """
    if not life.params.flag("persist") and not _runs_something(life.params):
        error = JailError("new jail must persist or attach")
        tell_of_refusal(life.voice, _creation(life.params), error)
        raise error
    for sentence in life.params.left_out:
        life.voice.warn(sentence)
    if not any(life.params.strings(step) for step in ("exec.prepare", "exec.prestart")):
        # Else these may be what makes the directory; jail_set looks at it in any case.
        check_path(life.params, life.voice)
    try:
        life.record = create.reserve(life.params)
    except JailError as error:
        tell_of_refusal(life.voice, _creation(life.params), error)
        raise
    try:
        yield from walk(life, START)
    except BaseException:
        if life.ready is not None:
            life.ready.close()
        _walk_back(life)
        raise
    life.record.unlock()


def _walk_back(life: Life) -> None:
    """Undo what a jail that could not be started has come to. That is told as it goes on FreeBSD: the jail first."""
    while loading.load_rest():  # from where it is open: this may be for want of descriptors
        pass
    from jailng.core import undo

    record = life.there
    if record.guest or record.params.get("ng.init", "none") != "none":
        from jailng.core import guest

        guest.let_go(record.jid)
    told = not record.created
    tell = teller(life)

    def tell_first(line: str = "") -> None:
        nonlocal told
        if not told:
            told = True
            life.voice.note("removed")
        while life.mounted:
            tell_of_unmounting(life, life.mounted.pop())
        if line:
            tell(line)

    for line in reversed(record.undo):
        if line.startswith("vnet "):
            life.voice.say(f"run command: /sbin/ifconfig {line.split(' ')[4]} -vnet {record.jid}")
    if record.locked or record.lock_again():
        undo.walk(record, tell=tell_first)
    tell_first()


def _runs_something(params: Parameters) -> bool:
    """Whether there are commands for which the jail has to persist until they have ended."""
    commands = any(params.strings(name) for name in ("command", "exec.start", "exec.poststart"))
    return commands or params.text("ng.init") != "none"


def start(life: Life) -> None:
    """Start one jail. Raises JailError."""
    drive(starting(life))


def check_path(params: Parameters, voice: Voice) -> None:
    """What jail(8) says of a path before it begins. Raises JailError."""
    path = params.text("path")
    if not path.startswith("/"):
        raise JailError(f"path {path}: not an absolute pathname")
    root, warning = create.open_path(params)
    posix.close(root)
    if warning:
        voice.warn(warning)
