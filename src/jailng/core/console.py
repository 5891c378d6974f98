"""A guest's console, kept outside: in exec.consolelog, or in /var/log/jailng/NAME/console.log.

The guest writes to a pty of its own, or to a pipe. A process of the host's, jailinit with two pages of memory, copies
that to the file, which it begins anew at 4 MB: what there was by then is beside it, with .1 after its name. It ends
with the jail. Where it is killed the guest writes into nothing.
"""

from __future__ import annotations

import posix

from jailng.core import beside, jailinit, process, program
from jailng.errors import JailError
from jailng.linux import cgroup, filekind, mount, ns, processid, pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record
    from jailng.params.model import Parameters

NAME = "console.log"
_CONSOLE = posix.makedev(136, 0)  # pts/0, the first of an instance
_APPEND = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC | posix.O_NOCTTY | posix.O_NONBLOCK


def begin(record: Record, params: Parameters, init: int) -> None:
    """Have the console of a jail that nobody is in yet, /dev/console, kept outside. Raises JailError."""
    root = posix.open(f"/proc/{init}/root", mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        master, slave = pty.open_pair(root, record.owner, named=True)
    except OSError as error:
        raise JailError(f"ng.init: /dev/console: {error.strerror}") from None
    finally:
        posix.close(root)
    try:
        if posix.fstat(slave).st_rdev != _CONSOLE:
            raise JailError("ng.init: /dev/console: the jail's root has no /dev")
        _start(record, params, [master, slave])
    finally:
        posix.close(master)
        posix.close(slave)


def pipe(record: Record, params: Parameters) -> int:
    """The end of a pipe, for commands of the guest's start: what is written there is kept outside. Raises JailError."""
    reading, writing = posix.pipe2(posix.O_CLOEXEC)
    try:
        posix.set_blocking(reading, False)
        _start(record, params, [reading])
    except BaseException:
        posix.close(writing)
        raise
    finally:
        posix.close(reading)
    return writing


def _start(record: Record, params: Parameters, ends: list[int]) -> None:
    init = home = -1
    directory, name = _place(record, params)
    file = -1
    started = ""
    try:
        file = _open(directory, name, params.text("exec.consolelog") or name)
        init = ns.pidfd_open(record.init_pid)
        cgroup.make(beside.HOME)
        home = cgroup.open_directory(beside.HOME)
        given = [ends[0], file, directory, init, *ends[1:]]
        record.append(["console "])  # which ends with PID 1, and may live before anybody can tell which process it is
        running = program.start(_laid_down(home, given, name), jailinit.path())
        started = processid.of(running.forked())
        complaint = running.complaint()
        if not complaint and processid.is_ending(started):  # of one that dies we hear as of one that executes
            complaint = f"process {started.partition(' ')[0]} has ended"
        if complaint:
            raise JailError(f"ng.init: console: {complaint}")
        record.append([f"console {started}"])
    except BaseException as error:
        beside.end(started)  # the record does not name it
        if isinstance(error, OSError):
            raise JailError(f"ng.init: console: {error.strerror}") from None
        raise
    finally:
        for fd in (directory, file, init, home):
            if fd >= 0:
                posix.close(fd)


def _place(record: Record, params: Parameters) -> tuple[int, str]:
    """The directory of the file, as a descriptor, and its name in there. Raises JailError."""
    path = params.text("exec.consolelog")
    if not path:
        from jailng.observe import store

        return posix.open(store.directory(record.name), posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC), NAME
    if not path.startswith("/"):
        raise JailError(f"exec.consolelog: {path}: not an absolute pathname")
    above, _, name = path.rpartition("/")
    from jailng.core import hostpath, rootfs
    from jailng.linux import mountfd

    own = record.params.get("path", "/")
    root = rootfs.open_root(own)
    try:
        rest = hostpath.beneath(root, above or "/") if own != "/" else None
        flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
        if rest is None:
            return hostpath.opened(above or "/", flags), name
        return mountfd.openat2(root, (rest or ".").encode("utf-8", "surrogateescape"), flags, mount.BENEATH), name
    except OSError as error:
        raise JailError(f"open {path}: {error.strerror}") from None
    finally:
        posix.close(root)


def _open(directory: int, name: str, path: str) -> int:
    """The file: none that somebody else might read or hear it by. Raises OSError, JailError."""
    try:
        file = posix.open(name, _APPEND | posix.O_NOFOLLOW, 0o600, dir_fd=directory)
    except OSError as error:
        raise JailError(f"open {path}: {error.strerror}") from None
    if filekind.of(posix.fstat(file)) != filekind.REGULAR:
        posix.close(file)
        raise JailError(f"open {path}: not a regular file")
    return file


def _laid_down(home: int, given: list[int], name: str) -> program.Program:
    way = program.Program()
    process.orphan(way, home, given, "console: clone3")
    process.bound(way, 0)
    way.execute([jailinit.path(), "console", name, f"{name}.1"], {"PATH": ""}, last=len(given) - 1)
    return way
