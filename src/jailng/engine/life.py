"""A jail's life: one table of steps, walked forwards to start it, and another to stop it (usr.sbin/jail/jail.c)."""

from __future__ import annotations

import posix

from jailng.core import create, registry, remove, undo
from jailng.engine import command
from jailng.errors import JailError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jailng.core.confinement import Confinement
    from jailng.core.passwd import User
    from jailng.core.registry import Record
    from jailng.engine.inside import Ready
    from jailng.params.model import Parameters
    from jailng.params.values import Address

    Say = Callable[[str], None]


_DEFAULTS = "/etc/jailng.conf"


def settle(params: Parameters) -> None:
    """Make the parameters of a new jail whole, with the host's defaults where it has any (jailng.conf(5)).

    Raises JailError, or OSError where the file cannot be read.
    """
    try:  # without O_NONBLOCK a fifo would be waited for
        file = posix.open(_DEFAULTS, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except FileNotFoundError:
        pass
    else:
        from jailng.engine import defaults

        defaults.apply(params, file, _DEFAULTS)
    params.settle()


class Life:
    """One jail on its way: its parameters, its record once it has one, and whom to tell of each step (-v).

    ``params`` say what to run; ``running``, where they are not the same, what the jail that runs was made with.
    ``created`` is told of the jail as soon as it exists (-i). ``ready`` is the command, where it waits for its jail.
    """

    __slots__ = ("created", "params", "ready", "record", "running", "say")

    def __init__(self, params: Parameters, record: Record | None, say: Say, running: Parameters | None = None) -> None:
        self.params = params
        self.record = record
        self.say = say
        self.running = params if running is None else running
        self.created: Callable[[Record], None] | None = None
        self.ready: Ready | None = None

    @property
    def there(self) -> Record:
        """The record, which every step after the first has."""
        assert self.record is not None
        return self.record


def _host_commands(life: Life, step: str) -> None:
    user = _system_user(life.params) if life.params.strings(step) else None
    for text in life.params.strings(step):
        if text.strip():
            life.say(f"run command{_as(life.params.text('exec.system_user'))}: {text}")
            environment = command.host_environment(life.params, life.there)
            command.run_on_host(text, environment, user, life.params.number("exec.timeout"))


def _system_user(params: Parameters) -> User | None:
    name = params.text("exec.system_user")
    if not name:
        return None
    from jailng.core.passwd import of_the_host

    return of_the_host(name)


def _as(user: str) -> str:
    return f" as {user}" if user else ""


def _jail_commands(life: Life, step: str) -> None:
    for text in life.params.strings(step):
        argv, background = command.split(text)
        if argv:
            _run_inside(life, argv, text, background)


def _the_command(life: Life, step: str) -> None:
    argv = list(life.params.strings(step))
    if argv:
        _run_inside(life, argv, " ".join(argv), False)


def _run_inside(life: Life, argv: list[str], text: str, background: bool) -> None:
    from jailng.engine import inside

    life.say(f"run command in jail{_as(life.params.text('exec.jail_user'))}: {text}")
    ready, life.ready = life.ready, None
    inside.run(life.params, life.running, life.there, argv, text, background, ready)


def _get_ready(life: Life) -> Callable[[Confinement], None] | None:
    """What to do while the jail is built: where ``command`` is all that happens in it, that comes as far as it can."""
    argv = list(life.params.strings("command"))
    if not argv or life.params.strings("exec.created") or life.params.strings("exec.start"):
        return None

    def prepare(confinement: Confinement) -> None:
        from jailng.engine import inside

        life.ready = inside.prepare(life.params, life.there, argv, confinement)

    return prepare


def aliases(params: Parameters) -> list[tuple[str, Address]]:
    """The host interface and the address of each alias that the parameters ask for."""
    interface = params.text("interface")
    addresses = [*params.addresses("ip4.addr"), *params.addresses("ip6.addr")]
    return [(where, address) for address in addresses if (where := address.interface or interface)]


def _aliases(life: Life, _: str) -> None:
    wanted = aliases(life.params)
    if not wanted:
        return
    from jailng.core import alias

    for where, address in wanted:
        if not alias.exists(where, address):
            life.there.append([f"undo alias {where} {address.bare}/{address.prefix}"])
            life.say(f"add alias {address.bare} on {where}")
            alias.add(where, address)


def _create(life: Life, _: str) -> None:
    given = [word for word in life.params.words(pseudo=False) if word not in ("persist", "nopersist")]
    shown = life.params.words(pseudo=False) if life.params.flag("persist") else ["persist", *given]
    life.say(" ".join(["jail_set(JAIL_CREATE)", *shown]))
    for note in create.jail_set(life.params, life.there, _get_ready(life)):
        life.say(note)
    life.say("created")
    if life.created is not None:
        life.created(life.there)
    # A jail that is there can be removed, whatever it runs and however long that takes.
    life.there.unlock()


def _settle(life: Life, _: str) -> None:
    record = life.there
    if not record.lock_again():
        raise JailError(f"jail {record.jid} not found")
    record.append(["up"])
    if not life.params.flag("persist"):
        if _runs_something(life.params):
            life.say(f"jail_set(JAIL_UPDATE) jid={record.jid} nopersist")
        remove.set_persist(record, False)


START: tuple[tuple[str, Callable[[Life, str], None]], ...] = (
    ("exec.prepare", _host_commands),
    ("interface", _aliases),
    ("exec.prestart", _host_commands),
    ("jail_set", _create),
    ("exec.created", _host_commands),
    ("exec.start", _jail_commands),
    ("command", _the_command),
    ("exec.poststart", _host_commands),
    ("nopersist", _settle),
)


def start(life: Life) -> None:
    """Walk START. A step that fails ends it: what the record tells of is undone, and no command is run for that.

    Raises JailError.
    """
    if not life.params.flag("persist") and not _runs_something(life.params):
        raise JailError("new jail must persist or attach")
    life.record = create.reserve(life.params)
    try:
        for name, step in START:
            step(life, name)
    except BaseException:
        if life.ready is not None:
            life.ready.close()
        if life.record.locked or life.record.lock_again():
            undo.walk(life.record)
        raise
    life.record.unlock()


def _runs_something(params: Parameters) -> bool:
    """Whether there are commands for which the jail has to persist until they have ended."""
    return any(params.strings(name) for name in ("command", "exec.start", "exec.poststart"))


def _terminate(life: Life, _: str) -> None:
    timeout = life.params.number("stop.timeout")
    record = life.there
    if timeout == 0 or not record.init:
        return
    from jailng.engine import inside

    signalled = inside.terminate(record, timeout)
    if signalled:
        life.say(f"sent SIGTERM to: {' '.join(map(str, signalled))}")


def _remove(life: Life, _: str) -> None:
    remove.jail_remove(life.there)
    life.say("removed")


STOP: tuple[tuple[str, Callable[[Life, str], None]], ...] = (
    ("exec.prestop", _host_commands),
    ("exec.stop", _jail_commands),
    ("stop.timeout", _terminate),
    ("jail_remove", _remove),
    ("exec.poststop", _host_commands),
    ("exec.release", _host_commands),
)


def stop(life: Life, forced: bool = False) -> None:
    """Walk STOP; with ``forced`` (-R) remove the jail at once. Raises JailError (not found; a command failed)."""
    record = life.there
    if posix.geteuid() != 0:
        raise JailError("jail_remove: Operation not permitted")
    if not record.lock() or not record.alive():
        raise JailError(f'"{record.name}" not found')
    for name, step in STOP:
        if not forced or name == "jail_remove":
            step(life, name)


def clear_away(text: str) -> None:
    """Undo what is left of a jail of that name or jid that is no more. Raises JailError where it cannot be."""
    record = registry.remains(text)
    if record is not None and posix.geteuid() == 0:
        undo.recover(record)


def check_path(params: Parameters) -> str:
    """What jail(8) says of a path before it begins; a warning, or "". Raises JailError."""
    path = params.text("path")
    if not path.startswith("/"):
        raise JailError(f"path {path}: not an absolute pathname")
    root, warning = create.open_path(params)
    posix.close(root)
    return warning
