"""The keeper of a jail that interfaces are lent to: a process of the host's that gives them back when the jail ends.

It waits for the end of PID 1, or of whoever starts the jail, and then undoes this very jail but for what was made
around it, as FreeBSD's kernel does. While it waits it is jailinit, with pidfds and no interpreter, in the jail's
cgroup: what removes the jail kills it. Nothing depends on it; what it does not do the next command does (core/undo.py).
Loaded for jails that have such interfaces (docs/decisions/0017-vnet.md).
"""

from __future__ import annotations

import posix

from jailng.core import attach, beside, interpreter, jailinit, process, program, registry, undo
from jailng.errors import JailError
from jailng.linux import cgroup, mount, ns, processid
from jailng.linux.libc import ENODATA, ENOENT, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record

_POLLIN = 1
_ALL = 0xFFFFFFFF
_UP = b"user.jailng.up"
_PATIENCE = 5  # seconds that it waits for a lock: whoever has that longer runs commands, and undoes the jail himself
_SECONDS = 15.0  # that others wait for it: as long, and as undoing takes where processes are slow to die


def ensure(record: Record) -> None:
    """See to it that the jail has a keeper, if it can have one. Needs the jail's lock."""
    if processid.is_alive(record.keeper):
        return
    try:
        _start(record)
    except (JailError, OSError):
        pass  # the jail has ended, or the host has no process left


def _start(record: Record) -> None:
    given = [attach.open_init(record)]
    home = -1
    try:
        given.append(_way_out())
        cgroup.make(_cgroup(record))
        home = cgroup.open_directory(_cgroup(record))
        given.append(_events(record))
        if record.up:
            settle(record)
        else:
            given.append(ns.pidfd_open(int(record.starter.partition(" ")[0])))
        running = program.start(_laid_down(record, home, given), jailinit.path())
        pid = running.forked()
        if not running.complaint():
            record.append([f"keeper {processid.of(pid)}"])
    finally:
        for fd in (home, *given):
            if fd >= 0:
                posix.close(fd)


def _way_out() -> int:
    """The processes of the cgroup that it goes to when the jail ends: the root, or the starter's.

    A container's root, which unlike the machine's has a cgroup.events, takes none once it has controllers below it.
    """
    if cgroup.exists("cgroup.events"):
        try:
            return cgroup.open_file(f"{beside.own_cgroup()}/cgroup.procs".lstrip("/"), posix.O_WRONLY)
        except OSError:
            pass  # it lies outside of what can be seen here
    return cgroup.open_file("cgroup.procs", posix.O_WRONLY)


def _laid_down(record: Record, home: int, given: list[int]) -> program.Program:
    way = program.Program()
    process.orphan(way, home, given)
    # None of the caller's, nor that by which it would hear what has failed: who waits for its end hears that all went
    # well.
    way.must("close_range", len(given), _ALL, 0)
    init, starter = (words(fd, size=4) + words(_POLLIN, 0, size=2) for fd in (0, 3))
    if not record.up:
        way.must("ppoll", way.data(init + starter), 2, 0, 0, 0)
    up = way.here()
    way.must("fgetxattr", 2, way.text(_UP), 0, 0, unless=ENODATA)
    way.must("ppoll", way.data(init), 1, 0, 0, 0)
    way.skip(up)
    way.may("write", 1, way.text("0"), 1)  # out of the cgroup, in which everything is about to be killed
    way.must("close_range", 0, _ALL, 0)
    for _ in range(3):
        way.must("openat", mount.AT_FDCWD, way.text("/dev/null"), posix.O_RDWR, 0)
    pid, _, inode = record.init.partition(" ")
    way.execute(interpreter.command("jailng.core.keeper", record.jid, int(pid), int(inode)), {})
    return way


def _cgroup(record: Record) -> str:
    return f"{record.cgroup}/broker"  # the leaf for processes of the host's


def _events(record: Record) -> int:
    return cgroup.open_file(f"{_cgroup(record)}/cgroup.events", posix.O_RDONLY)


def settle(record: Record) -> None:
    """Tell the keeper that the jail is up, and no longer ends with whoever has started it."""
    try:
        events = _events(record)
    except OSError:
        return
    try:
        posix.setxattr(events, _UP, b"1")  # type: ignore[attr-defined, unused-ignore]
    finally:
        posix.close(events)


def wait_for(record: Record) -> None:
    """Wait until the keeper of a jail that has ended is done with it, or has left it to others."""
    processid.ends(record.keeper, _SECONDS)


def main(jid: int, pid: int, inode: int) -> None:
    """Undo the jail of that jid if it still is the one whose PID 1 this was, and that has died. Does not return."""
    import _signal

    try:
        record = registry.load(jid)
        # One that the record does not name, since whoever started it was killed, nobody would wait for.
        if record is not None and record.init == f"{pid} {inode}" and processid.is_own(record.keeper):
            _signal.alarm(_PATIENCE)  # ends this process
            # Under the locks of those that it is in, which by that live until it is done: what one of them has lent it
            # goes back there. Where one has died, all go when that is undone, in the right order.
            if all(above.lock_again() and above.alive() for above in _outer(record)) and record.lock_again():
                _signal.alarm(0)
                if not record.alive():
                    undo.walk(record, undo.AROUND)
    except (JailError, OSError):
        pass  # the next command tells of it
    posix._exit(0)


def _outer(record: Record) -> list[Record]:
    """The jails that it is in, the outermost first. Raises JailError where one is gone."""
    found: list[Record] = []
    while record.parent:
        above = registry.load(record.parent)
        if above is None:
            raise JailError(f"jail {record.parent} not found", errno=ENOENT)
        found.insert(0, above)
        record = above
    return found
