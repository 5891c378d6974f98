"""The end of a jail's life: tables of steps, one to stop a jail and one to clean up after it, and their walks."""

from __future__ import annotations

import posix

from jailng.core import registry, remove, undo
from jailng.engine import command
from jailng.engine.life import (
    drive,
    host_commands,
    jail_commands,
    raise_all,
    tell_of_failure,
    tell_of_unmounting,
    teller,
    walk,
)
from jailng.errors import JailError, NotFound, not_permitted
from jailng.linux.libc import EBUSY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from jailng.core.registry import Record
    from jailng.engine.life import Life, Steps, Walk

_MOMENT = 1.0  # seconds
_SOON = 0.2


def _guest(life: Life, _: str) -> Walk:
    if life.running.text("ng.init") != "none":
        from jailng.engine import guest

        yield from guest.shut_down(life)


def _terminate(life: Life, _: str) -> Walk:
    seconds = life.params.number("stop.timeout")
    record = life.there
    if seconds == 0 or not record.init:
        return
    from jailng.engine import inside

    deaf = inside.deaf_init(record)
    signalled, pidfds = inside.terminate(record, deaf)
    if signalled:
        life.voice.say(f"sent SIGTERM to: {' '.join(map(str, signalled))}")
    others = [pid for pid in signalled if pid != deaf]
    if (yield from _wait_for(record, others, pidfds, seconds)) and deaf in signalled:
        # It has had its time to shut down; but what has kept it from that may have gone just now.
        yield from _wait_for(record, [deaf], inside.members(record, [deaf]), min(seconds, _MOMENT))


def _wait_for(
    record: Record, pids: list[int], pidfds: list[int], seconds: float
) -> Generator[command.Wait, bool, bool]:
    """Until these members have ended, of the first of which these are pidfds; whether they have in so many seconds."""
    import time

    from jailng.engine import inside

    until = time.monotonic() + seconds
    slow = undo.is_slow(record)
    while pidfds:
        left = until - time.monotonic()
        try:
            late = left <= 0 or (yield command.Wait(pidfds, min(left, _SOON) if slow else left, counts=False))
        finally:
            for pidfd in pidfds:
                posix.close(pidfd)
        if late and time.monotonic() >= until:
            return False
        if late and inside.all_are_dying(record):  # else they would be let do what they like for so long
            undo.let_die(record)
            slow = False
        pidfds = inside.members(record, pids)
    return True


def _remove(life: Life, _: str) -> Iterable[command.Wait]:
    remove.jail_remove(life.there)
    return _is_removed(life)


def _is_removed(life: Life) -> Iterable[command.Wait]:
    life.voice.note("removed")
    if life.removed is not None:
        life.removed()
    return ()


def _take_down(life: Life, _: str) -> Iterable[command.Wait]:
    """What was made around the jail goes as it came, in reverse."""
    for name in ("mount.procfs", "mount.fdescfs", "mount.devfs"):
        if life.params.given(name) and life.params.flag(name):
            tell_of_unmounting(life, name)
    if life.record is not None and life.record.locked:
        undo.walk(life.record, tell=teller(life))
    return ()


def _each_host_command(life: Life, step: str) -> Walk:
    yield from host_commands(life, step, to_the_last=True)


STOP: Steps = (
    ("exec.prestop", host_commands),
    ("exec.stop", jail_commands),
    ("ng.init", _guest),
    ("stop.timeout", _terminate),
    ("jail_remove", _remove),
    ("exec.poststop", _each_host_command),
    ("undo", _take_down),
    ("exec.release", _each_host_command),
)

CLEAN: Steps = STOP[STOP.index(("exec.poststop", _each_host_command)) :]


def _clean(life: Life) -> Walk:
    """Walk CLEAN to its end, whatever fails on the way: what was made around a jail that is gone is to go, too.

    FreeBSD: next_command in usr.sbin/jail/command.c. Raises JailError, of all that has failed.
    """
    failed: list[JailError] = []
    for name, step in CLEAN:
        try:
            yield from step(life, name)
        except (JailError, OSError) as error:
            failed.append(tell_of_failure(life, error))
    raise_all(failed)


def stopping(life: Life) -> Walk:
    """Walk STOP. A command that fails before the jail is removed leaves it running. Raises JailError.

    The jail's lock is not held while commands run in it, which may be jail(8) again.
    """
    _check_there(life)
    try:
        yield from walk(life, STOP[: -len(CLEAN)])
        yield from _clean(life)
    finally:
        life.there.unlock()


def removing(life: Life) -> Walk:
    """Only remove the jail (-R): no command is run, and what was mounted for it stays until -C. Raises JailError.

    FreeBSD leaves the addresses of ``interface``, too; here they stay only beneath mounts, which came after them.
    """
    _check_there(life)
    mounted = any(line.startswith(("image ", "mount ")) for line in life.there.undo)
    try:
        remove.jail_remove(life.there, undo.AROUND if mounted else ())
        yield from _is_removed(life)
    finally:
        life.there.unlock()


def cleaning(life: Life) -> Walk:
    """Walk CLEAN for a jail that has been removed, or has ended by itself (-C). Raises JailError."""
    record = life.record
    # Not waited for: whoever has the lock may be waiting for this very command, which is in its exec.poststop.
    if record is not None and not undo.lock_dead(record):
        if registry.load(record.jid) is not None:
            raise JailError(f"{posix.strerror(EBUSY)}: another command is at work on it")
        record = None  # its keeper has just undone it
    try:
        if record is not None and record.alive():
            raise JailError(f'"{record.name}" already exists')
        if record is not None:  # exec.poststop finds on the host what the jail was lent, as if it had been removed
            undo.walk(record, undo.AROUND)
        yield from _clean(life)
    finally:
        if record is not None:
            record.unlock()


def _check_there(life: Life) -> None:
    if posix.geteuid() != 0:
        raise not_permitted("jail_remove")
    if not life.killed and not life.there.alive():
        raise NotFound(f'"{life.there.name}" not found')


def stop(life: Life, forced: bool = False) -> None:
    """Stop one jail. Raises JailError (not found; a command failed).

    With ``forced`` (-R) it is only removed: no command is run.
    """
    drive(removing(life) if forced else stopping(life))


def clear_away(text: str) -> bool:
    """Undo what is left of a jail of that name or jid that is no more; whether there was something, and now is not.

    Raises JailError where it cannot be.
    """
    record = registry.remains(text)
    return record is not None and posix.geteuid() == 0 and undo.recover(record)
