"""Start and shutdown of a guest in the style of init(8), ``ng.init``. Loaded for jails that have it."""

from __future__ import annotations

import posix

from jailng.core import attach, guest
from jailng.engine import command, inside
from jailng.engine.life import run_inside
from jailng.errors import JailError
from jailng.linux import ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.engine.life import Life, Walk


def start(life: Life) -> Walk:
    """Have PID 1 become the guest's init, or run its start, each command as one of exec.start. Raises JailError."""
    kind, _, init = life.there.guest.partition(" ")
    if init:
        life.voice.say(f"run init in jail: {init}")
        try:
            guest.waiting.pop(life.there.jid).open()
        except JailError as error:
            raise JailError(f"ng.init={kind}: {init}: {error}") from None
        return
    for line in guest.KINDS[kind].start:
        yield from run_inside(life, line.split(), False)


def shut_down(life: Life) -> Walk:
    """Have the guest shut down, for which it has exec.timeout seconds, or without that stop.timeout; not if that is 0.

    What goes wrong is told, and keeps nobody from removing the jail.
    """
    record = life.there
    seconds = life.params.number("exec.timeout") or life.params.number("stop.timeout")
    if not seconds or not record.guest:
        return
    left: float = seconds
    name, _, init = record.guest.partition(" ")
    kind = guest.KINDS[name]
    try:
        pidfd = attach.open_init(record)
    except JailError:
        return  # it has ended meanwhile
    try:
        if kind.signal:
            life.voice.say(f"sent SIGRTMIN+{kind.signal - guest.SIGRTMIN} to: {record.init_pid}")
            ns.pidfd_send_signal(pidfd, kind.signal)
        else:
            import time

            until = time.monotonic() + seconds
            yield from _run(life, _command(record, kind), seconds)
            left = max(until - time.monotonic(), 1)
        if init and (yield command.Wait([pidfd], left, counts=False)):
            life.voice.warn(f"ng.init={name}: {init}: timed out")
    except OSError:
        pass  # it was faster
    finally:
        posix.close(pidfd)


def _command(record: Record, kind: guest.Kind) -> str:
    """The first of those that the guest has, or ""."""
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


def _run(life: Life, line: str, seconds: float) -> Walk:
    if not line:
        return
    yield command.TURN
    life.voice.say(f"run command in jail: {line}")
    task = inside.Attended()
    try:
        wait = task.begin(life.params, life.running, life.there, life.names, line.split())
        task.end((yield command.Wait(wait.pidfds, seconds)))
    except JailError as error:
        if life.there.alive():
            life.voice.warn(f"ng.init: {error}")
