"""Start and shutdown of a guest in the style of init(8), ``ng.init``. Loaded for jails that have it."""

from __future__ import annotations

import posix

from jailng.core import attach, guest
from jailng.engine import command, inside
from jailng.errors import JailError
from jailng.linux import ns, processid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from jailng.core.registry import Record
    from jailng.engine.life import Life, Walk

_MOMENT = 0.1  # seconds: 0 would be no end


def start(life: Life) -> Walk:
    """Have PID 1 become the guest's init, or run its start, each command as one of exec.start. Raises JailError."""
    kind, _, init = _found(life).partition(" ")
    if init:
        for console in life.there.consoles:  # whose end nobody waits for once the guest runs
            if processid.is_ending(console):
                raise JailError(f"ng.init: console: process {console.partition(' ')[0]} has ended")
        life.voice.say(f"run init in jail: {init}")
        try:
            guest.waiting.pop(life.there.jid).open()
        except JailError as error:
            raise JailError(f"ng.init={kind}: {init}: {str(error).removeprefix('ng.init: ')}") from None
        return
    for line in guest.KINDS[kind].start:
        yield from _run(life, line, life.params.number("exec.timeout"))


def _found(life: Life) -> str:
    """What the record says of the guest; of a jail in this one the broker does not tell, and it has no init."""
    record = life.there
    return guest.decide(life.running).name if record.remote else record.guest


def shut_down(life: Life) -> Walk:
    """Have the guest shut down, for which it has exec.timeout seconds, or without that stop.timeout; not if that is 0.

    What goes wrong is told, and keeps nobody from removing the jail.
    """
    record = life.there
    seconds = life.params.number("exec.timeout") or life.params.number("stop.timeout")
    if not seconds or not _found(life):
        return
    name, _, init = _found(life).partition(" ")
    kind = guest.KINDS[name]
    if init:
        yield from _end(life, f"ng.init={name}: {init}", kind, seconds)
    else:
        complaint = yield from _run_to_stop(life, _command(record, kind), seconds)
        if complaint:
            life.voice.warn(complaint)


def _end(life: Life, what: str, kind: guest.Kind, seconds: int) -> Walk:
    """Have PID 1 end, which is the guest's."""
    import time

    try:
        pidfd = processid.open_process(life.there.init)
    except OSError as error:
        life.voice.warn(f"{what}: {error.strerror}")
        return
    if pidfd < 0:
        return  # it has ended meanwhile
    try:
        until = time.monotonic() + seconds
        complaint = ""
        if kind.signal:
            life.voice.say(f"sent SIGRTMIN+{kind.signal - guest.SIGRTMIN} to: {life.there.init_pid}")
            ns.pidfd_send_signal(pidfd, kind.signal)
        else:
            complaint = yield from _run_to_stop(life, _command(life.there, kind), seconds)
        if (yield command.Wait([pidfd], max(until - time.monotonic(), _MOMENT), counts=False)):
            if complaint:  # else the end of PID 1 may have been the command's, too
                life.voice.warn(complaint)
            life.voice.warn(f"{what}: timed out")
    except OSError:
        pass  # it was faster
    finally:
        posix.close(pidfd)


def _command(record: Record, kind: guest.Kind) -> str:
    """The first of those that the guest has, or ""."""
    if record.remote:
        return kind.stop[0]
    try:
        root = attach.open_tree_of(record)
    except OSError:
        return ""
    try:
        return next((line for line in kind.stop if _has(root, line.split())), "")
    finally:
        posix.close(root)


def _has(root: int, argv: list[str]) -> bool:
    script = argv[1] if argv[0] == "/bin/sh" else argv[0]
    return guest.has(root, script)


def _run_to_stop(life: Life, line: str, seconds: int) -> Generator[command.Wait, bool, str]:
    """What there is to complain of a command of the shutdown, or ""."""
    try:
        if line:
            yield from _run(life, line, seconds)
    except JailError as error:
        return f"ng.init: {str(error).removeprefix('ng.init: ')}"
    return ""


def _run(life: Life, line: str, seconds: int) -> Walk:
    """A command of the guest's start or shutdown, as its root and on its console, which has so many seconds, 0: no end.

    Raises JailError.
    """
    yield command.TURN
    life.voice.say(f"run command in jail: {line}")
    environment = command.inside_environment(life.params, life.names)
    wanted = attach.Command(line.split(), environment, cwd="/", label="exec {}")
    fds = _on_console(life)
    task = inside.Attended()
    try:
        wait = task.attend(line, lambda: inside.attached(life.running, life.there, wanted, fds), seconds)
    finally:
        if fds[0] > 2:
            posix.close(fds[0])
            posix.close(fds[1])
    task.end((yield wait))


def _on_console(life: Life) -> tuple[int, int, int]:
    record = life.there
    if record.remote:  # /var/log is the jail's above, as is what may run beside
        return 0, 1, 2
    from jailng.core import console

    if not record.locked and not record.lock_again():
        raise JailError(f"jail {record.jid} not found")
    try:
        writing = console.pipe(record, life.params)
    finally:
        record.unlock()
    return posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC), writing, writing
