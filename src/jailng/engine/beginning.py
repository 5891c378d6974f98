"""The beginning of a jail's life: the table of steps that start it, and their walk."""

from __future__ import annotations

import posix

from jailng import start as loading
from jailng.core import create
from jailng.engine import command
from jailng.engine.life import (
    creation,
    drive,
    host_commands,
    jail_commands,
    run_inside,
    runs_something,
    tell_of_refusal,
    tell_of_unmounting,
    teller,
    walk,
)
from jailng.errors import JailError, Mistakes, messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jailng.core.confinement import Confinement
    from jailng.core.registry import Record
    from jailng.engine.life import Life, Steps, Voice, Walk
    from jailng.params.address import Address
    from jailng.params.model import Parameters


def _the_command(life: Life, step: str) -> Walk:
    if life.strings:
        yield from jail_commands(life, step)
        return
    argv = list(life.params.strings(step))
    if argv:
        yield from run_inside(life, argv, False)


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
        check_own_mount(life.params, step, life.rooted)
        from jailng.engine import shown

        life.voice.say(f"run command: {shown.own_mount(step, life.params)}")
        life.mounted.append(step)
    return ()


def check_own_mount(params: Parameters, name: str, rooted: bool) -> None:
    """Refuse a mount that is asked for by name and has no place: FreeBSD's would fail. Raises JailError."""
    if not rooted:
        raise JailError(f"{name}: no jail root path defined")
    place = f"{params.text('path').rstrip('/')}/{'proc' if name == 'mount.procfs' else 'dev'}"
    if params.text("ng.root") == "none":
        return
    try:
        posix.stat(place, follow_symlinks=False)
    except OSError as error:
        raise JailError(f"{name}: {place}: {error.strerror}") from None


def _create(life: Life, _: str) -> Iterable[command.Wait]:
    if life.there.remote and _may_make_root(life.params):
        # jail_set looks at it as the host sees it, and not who can reach it in here.
        check_path(life.params, life.voice)
    try:
        notes = create.jail_set(life.params, life.there, _get_ready(life), life.voice.warn)
    except JailError as error:
        tell_of_refusal(life.voice, creation(life.params), error)
        raise
    if life.params.number("children.max") and not life.there.remote:
        from jailng.engine import broker

        broker.ensure(life.there)
    if life.there.params.get("ng.watch") or life.there.params.get("ng.log"):
        from jailng.observe import posts

        posts.settle(life.there)
    if life.there.parent and not life.there.remote:
        from jailng.observe import posts

        posts.made(life.there)
    # A jail that is there can be removed, whatever it runs, and whoever reads what is said of it.
    life.there.unlock()
    if life.voice.verbose > 0:
        life.voice.say(creation(life.params))
    for note in notes:
        life.voice.say(note)
    if life.created is not None:
        life.created(life.there)
    life.voice.note("created")
    return ()


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
    if life.params.flag("persist"):
        _be_up(life.there)
        return ()
    from jailng.core import remove  # before it is up: where this cannot be loaded it would stay

    _be_up(life.there)
    if runs_something(life.params):
        life.voice.say(f"jail_set(JAIL_UPDATE) jid={life.there.jid} nopersist")
    remove.set_persist(life.there, False)
    return ()


def _be_up(record: Record) -> None:
    """From now on it does not end with its starter. Takes its lock. Raises JailError."""
    if not record.lock_again():
        raise JailError(f"jail {record.jid} not found")
    record.append(["up"])
    if record.keeper:
        from jailng.core import keeper

        keeper.settle(record)


def _quota(life: Life, _: str) -> Iterable[command.Wait]:
    if not life.there.remote:
        create.note_rules(life.there)  # one may be about the disk; jail_set, which asks for all of them, is too late
    limits = [*life.params.strings("ng.limits"), life.there.rules]
    if life.params["ng.quota"] or any("disk:" in limit for limit in limits):
        from jailng.core import quota

        warning = quota.begin(life.there, life.params)
        if warning:
            life.voice.warn(warning)
    return ()


def _mounts(life: Life, _: str) -> Iterable[command.Wait]:
    if life.params.strings("mount") or life.params.strings("mount.fstab"):
        from jailng.core import mounting, trees
        from jailng.engine import files

        found = [entry for _, entry in mounting.entries(life.params)]
        path = life.params.text("path")
        enemies = trees.Trees(life.there.name, path, files.configured_places, mounting.written(found))
        for entry in found:
            life.voice.say(f"run command: {entry.command}")
            warning = mounting.mount(life.there, path, entry, enemies)
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


def starting(life: Life) -> Walk:
    """Walk START. A step that fails ends it: what the record tells of is undone, and no command is run for that.

    Raises JailError.
    """
    if not _may_make_root(life.params):
        check_path(life.params, life.voice)  # else jail_set looks at it
    try:
        check_lasting(life.params)
    except JailError as error:
        tell_of_refusal(life.voice, creation(life.params), error)
        raise
    for sentence in life.params.left_out:
        life.voice.warn(sentence)
    if life.params.text("ng.init") != "none":
        from jailng.core import guest  # noqa: F401  # the way back takes it, and may be for want of modules
    try:
        life.record = create.reserve(life.params)
    except JailError as error:
        tell_of_refusal(life.voice, creation(life.params), error)
        raise
    try:
        yield from walk(life, START)
    except BaseException as error:
        if isinstance(error, JailError):
            life.voice.fail(error)
        if life.ready is not None:
            life.ready.close()
        try:
            _walk_back(life)
        except (JailError, OSError) as other:
            if not isinstance(error, (JailError, OSError)):
                raise
            raise Mistakes([*messages(error), *messages(other)]) from error
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


def start(life: Life) -> None:
    """Start one jail. Raises JailError."""
    drive(starting(life))


def check_lasting(params: Parameters) -> None:
    """Refuse a jail that would end at once. Raises JailError."""
    if not params.flag("persist") and not runs_something(params):
        raise JailError("new jail must persist or attach")


def _may_make_root(params: Parameters) -> bool:
    """Whether there are commands that may be what makes the directory."""
    return any(params.strings(step) for step in ("exec.prepare", "exec.prestart"))


def check_path(params: Parameters, voice: Voice) -> None:
    """What jail(8) says of a path before it begins. Raises JailError."""
    path = params.text("path")
    if not path.startswith("/"):
        raise JailError(f"path {path}: not an absolute pathname")
    root, warning = create.open_path(params)
    posix.close(root)
    for one in (warning, create.check_cores(params)):
        if one:
            voice.warn(one)
