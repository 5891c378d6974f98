"""A jail's life: tables of steps that are walked: engine/beginning.py has those that start it, engine/ending.py others.

That is how usr.sbin/jail/jail.c has it; here is what they have in common. A step is a generator: it yields what it
waits for (``command.Wait``), so that whoever carries the steps out can do other jails' steps meanwhile; ``drive`` is
for who has only one.
"""

from __future__ import annotations

import posix

from jailng.core import registry, tunable
from jailng.engine import command
from jailng.errors import JailError, Mistakes, explain, messages
from jailng.linux.mount import O_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from jailng.core.passwd import User
    from jailng.core.registry import Record
    from jailng.core.trees import Trees
    from jailng.engine.hostcommand import HostCommand
    from jailng.engine.ready import Ready
    from jailng.params.model import Parameters

    Walk = Generator[command.Wait, bool, None]
    Steps = tuple[tuple[str, Callable[["Life", str], Iterable[command.Wait]]], ...]


_DEFAULTS = "/etc/jailng.conf"


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
            tell_of_refusal(voice, creation(params), error)
        raise


def spell_path(params: Parameters, record: Record) -> None:
    """Have ``path`` be spelled as the record of a jail that runs has it, where both are one directory's."""
    path, there = params.text("path"), record.params.get("path", "/")
    if path == there or not params.given("path") or not path.startswith("/"):
        return
    try:
        root = posix.open(path, O_PATH | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        if posix.readlink(f"/proc/self/fd/{root}") == there:
            params.set("path", there)
    finally:
        posix.close(root)


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

    def fail(self, error: JailError) -> None:
        """Why it is not started, before what it has come to is undone. Who tells that marks the error as told."""


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

    until = time.monotonic() + wait.seconds if wait.seconds else float("inf")
    for pidfd in wait.pidfds:
        while not ns.ends_within(pidfd, until - time.monotonic()):
            if time.monotonic() >= until:
                return False
    return True


def walk(life: Life, steps: Steps) -> Walk:
    """Each step of a table in turn."""
    for name, step in steps:
        yield from step(life, name)


def host_commands(life: Life, step: str, to_the_last: bool = False) -> Walk:
    """The commands of a parameter, one after the other, on the host: up to one that fails, or ``to_the_last``.

    What has failed then is told at once, and raised at the end.
    """
    texts = life.params.strings(step)
    if not texts:
        return
    from jailng.engine import hostcommand, hostprogram

    user = hostcommand.user_of(life.params)
    enemies = hostprogram.trees_of(life.names.get("JNAME", ""), life.running.text("path"), life.params)
    failed: list[JailError] = []
    for text in texts:
        task = hostcommand.HostCommand(text)
        if not task.argv:
            continue
        try:
            yield from _host_command(life, step, task, user, enemies)
        except (JailError, OSError) as error:
            if not to_the_last:
                raise
            failed.append(tell_of_failure(life, error))
    raise_all(failed)


def _host_command(life: Life, step: str, task: HostCommand, user: User | None, enemies: Trees) -> Walk:
    from jailng.engine import hostcommand

    yield command.TURN
    life.voice.say(f"run command{_as(life.params.text('exec.system_user'))}: {task.line}")
    environment = hostcommand.environment_of(life.params, life.names)
    at_home = life.params.flag("exec.clean")
    refusal = task.check(environment, user, at_home, enemies)
    if refusal:
        if not life.params.flag("ng.lenient"):
            raise JailError(f"{step}: {refusal}")
        life.voice.warn(f"{step}: {refusal}")
    wait = task.begin(environment, user, life.params.number("exec.timeout"), at_home, life.record)
    if wait is not None:
        task.end((yield wait))


def tell_of_failure(life: Life, error: JailError | OSError) -> JailError:
    """Tell what has failed while there is more to be done; what is to be raised in the end."""
    failed = error if isinstance(error, JailError) else JailError(explain(error))
    if not failed.told:
        life.voice.fail(failed)
    return failed


def raise_all(failed: list[JailError]) -> None:
    """Raise these as one, with the lines of those of which nobody has been told; none: nothing. Raises JailError."""
    if not failed:
        return
    together = Mistakes([text for error in failed for text in messages(error)])
    together.told = not together.messages
    raise together if len(failed) > 1 else failed[0]


def _as(user: str) -> str:
    return f" as {user}" if user else ""


def jail_commands(life: Life, step: str) -> Walk:
    """The commands of a parameter, one after the other, in the jail."""
    for text in life.params.strings(step):
        argv, background = command.split(text)
        if argv:
            yield from run_inside(life, argv, background)


def run_inside(life: Life, argv: list[str], background: bool) -> Walk:
    """One command in the jail, in the jail's turn. Raises JailError."""
    yield command.TURN
    life.voice.say(f"run command in jail{_as(life.params.text('exec.jail_user'))}: {' '.join(argv)}")
    if life.ready is not None:
        ready, life.ready = life.ready, None
        command.judge(" ".join(argv), ready.run())
        return
    _look_again(life)
    from jailng.engine import inside

    if background or not (life.crowded or life.params.number("exec.timeout")):
        inside.run(life.params, life.running, life.there, life.names, argv, background)
        return
    task = inside.Attended()
    task.end((yield task.begin(life.params, life.running, life.there, life.names, argv)))


def _look_again(life: Life) -> None:
    """Of a jail whose lock was let go of, others may have changed what whoever enters has to keep to: rctl(8)."""
    record = life.there
    if record.remote or record.locked:
        return
    found = registry.load(record.jid)
    if found is not None and found.init == record.init:
        life.record = found


def creation(params: Parameters) -> str:
    """What jail(8) says with -v of the system call that makes a jail."""
    given = params.words(pseudo=False)
    if runs_something(params) and not params.flag("persist"):
        given = ["persist", *[word for word in given if word.partition("=")[0] not in ("persist", "nopersist")]]
    return " ".join(["jail_set(JAIL_CREATE)", *given])


def tell_of_refusal(voice: Voice, line: str, error: JailError) -> None:
    """With -v, of a system call that was refused; ``line`` is what jail(8) says of it."""
    from jailng.engine import shown

    voice.say(shown.refused(line, error))


def tell_of_unmounting(life: Life, name: str) -> None:
    """Of mount.devfs and the like, where FreeBSD would unmount it."""
    from jailng.engine import shown

    life.voice.say(f"run command: {shown.own_unmount(name, life.params)}")


def teller(life: Life) -> Callable[[str], None]:
    """What tells, with -v, of each undo line of what was made around the jail."""

    def tell(line: str) -> None:
        from jailng.engine import shown

        path = life.there.params.get("path", life.params.text("path"))
        life.voice.say(f"run command: {shown.undoing(line, life.there.undo, life.params, path)}")

    return tell


def runs_something(params: Parameters) -> bool:
    """Whether there are commands for which the jail has to persist until they have ended."""
    commands = any(params.strings(name) for name in ("command", "exec.start", "exec.poststart"))
    return commands or params.text("ng.init") != "none"
