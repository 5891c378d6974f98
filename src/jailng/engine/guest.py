"""Start and shutdown of a guest in the style of init(8), ``ng.init``. Loaded for jails that have it."""

from __future__ import annotations

import posix

from jailng.core import attach
from jailng.engine import command, inside
from jailng.engine.life import run_inside
from jailng.errors import JailError
from jailng.linux import mount, mountfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.engine.life import Life, Walk

_RESOLVE_IN_ROOT = 0x10

# By the word of ng.init: the commands that start the guest, and those that shut it down.
COMMANDS: dict[str, tuple[list[list[str]], list[list[str]]]] = {
    "rc": ([["/bin/sh", "/etc/rc"]], [["/bin/sh", "/etc/rc.shutdown"]]),
}


def start(life: Life) -> Walk:
    """Run the guest's start, each command as one of exec.start. Raises JailError."""
    for argv in COMMANDS[life.params.text("ng.init")][0]:
        yield from run_inside(life, argv, False)


def shut_down(life: Life) -> Walk:
    """Run the guest's shutdown, which has exec.timeout seconds, or without that stop.timeout; of 0 it is left out.

    What goes wrong is told, and keeps nobody from removing the jail.
    """
    seconds = life.params.number("exec.timeout") or life.params.number("stop.timeout")
    if not seconds:
        return
    for argv in COMMANDS[life.running.text("ng.init")][1]:
        if not _is_there(life.there, argv[-1]):
            continue
        yield command.TURN
        life.voice.say(f"run command in jail: {' '.join(argv)}")
        task = inside.Attended()
        try:
            wait = task.begin(life.params, life.running, life.there, life.names, argv)
            task.end((yield command.Wait(wait.pidfds, seconds)))
        except JailError as error:
            life.voice.warn(f"ng.init: {error}")


def _is_there(record: Record, path: str) -> bool:
    """Whether the guest has that file; its links lead nowhere but below its root."""
    if record.remote:
        return True
    try:
        root = attach.open_tree_of(record)
    except OSError:
        return False
    try:
        posix.close(mountfd.openat2(root, path.encode(), mount.O_PATH | posix.O_CLOEXEC, _RESOLVE_IN_ROOT))
    except OSError:
        return False
    finally:
        posix.close(root)
    return True
