"""The way into the namespaces of the host's in which a jail was made, for a command that is run in others.

A module of its own, since few commands are (``core.origin``).
"""

from __future__ import annotations

import posix

from jailng.core import registry
from jailng.core.origin import inode, is_here
from jailng.errors import JailError, explain
from jailng.linux import ns
from jailng.linux.libc import SHORTAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jailng.core.registry import Record

_OPEN = posix.O_RDONLY | posix.O_CLOEXEC
_DONE = "="  # before what was returned; else it is what went wrong


class Network:
    """``with Network(record) as there:`` in the network namespace that the jail was made in.

    ``there`` is false where that has died, and this process then stays where it is. Raises OSError.
    """

    __slots__ = ("_back", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self._back = -1

    def __enter__(self) -> bool:
        if is_here(self.record):
            return True
        there = find("net", self.record.netns)
        if there < 0:
            return False
        self._back = posix.open("/proc/self/ns/net", _OPEN)
        try:
            ns.setns(there, ns.CLONE_NEWNET)
        finally:
            posix.close(there)
        if is_here(self.record):
            return True
        self.__exit__()
        return False

    def __exit__(self, *_: object) -> None:
        if self._back >= 0:
            ns.setns(self._back, ns.CLONE_NEWNET)
            posix.close(self._back)
            self._back = -1


def among_its_mounts(record: Record, work: Callable[[], str | None]) -> str:
    """Do it in the mount namespace that the jail was made in; not at all where that has died, and all mounts with it.

    What it returns, or "". Raises JailError, OSError.
    """
    if record.mntns in (0, inode("mnt")):
        return work() or ""
    there = find("mnt", record.mntns)
    if there < 0:
        return ""
    from jailng.linux import child

    # In a child: who comes back from there has lost its root and its working directory.
    told, tell = posix.pipe2(posix.O_CLOEXEC)
    pid, pidfd = child.clone3()
    if pid == 0:
        registry.forked()
        try:
            ns.setns(there, ns.CLONE_NEWNS)
            answer = _DONE + (work() or "")
        except BaseException as error:
            answer = explain(error)
        try:
            posix.write(tell, answer.encode("utf-8", "surrogateescape"))
        finally:
            posix._exit(0)
    posix.close(tell)
    posix.close(there)
    text = bytearray()
    while part := posix.read(told, 65536):
        text += part
    for fd in (told, pidfd):
        posix.close(fd)
    posix.waitpid(pid, 0)
    answer = text.decode("utf-8", "surrogateescape")
    if not answer.startswith(_DONE):
        raise JailError(answer or "a process among its mounts was killed")
    return answer.removeprefix(_DONE)


def find(kind: str, inode: int) -> int:
    """A descriptor of the namespace, if a process is in it, it is mounted or somebody has it open; else -1.

    Raises OSError where there is no telling: what -1 says is that nothing is left in there to be undone.
    """
    device = posix.stat(f"/proc/self/ns/{kind}").st_dev
    for path in _places(kind, inode):
        try:
            fd = posix.open(path, _OPEN | posix.O_NONBLOCK)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            continue  # it has ended meanwhile, or is not ours to ask
        found = posix.fstat(fd)
        if (found.st_dev, found.st_ino) == (device, inode):  # no two namespaces, of whichever kinds, have one inode
            return fd
        posix.close(fd)
    return -1


def _places(kind: str, inode: int) -> Iterator[str]:
    name = f"{kind}:[{inode}]"
    pids = [pid for pid in posix.listdir("/proc") if pid.isdigit()]
    for pid in pids:
        if _leads_to(f"/proc/{pid}/ns/{kind}", name):
            yield f"/proc/{pid}/ns/{kind}"
    yield from _mounted(name)
    here = posix.readlink("/proc/self/ns/user")
    for pid in pids:
        if not _leads_to(f"/proc/{pid}/ns/user", here):
            continue  # in a jail nobody has one of the host's, and thousands of processes may share millions of others
        try:
            descriptors = posix.listdir(f"/proc/{pid}/fd")
        except OSError as error:
            if error.errno in SHORTAGES:
                raise
            continue
        for fd in descriptors:
            if _leads_to(f"/proc/{pid}/fd/{fd}", name):
                yield f"/proc/{pid}/fd/{fd}"


def _leads_to(path: str, name: str) -> bool:
    try:
        return posix.readlink(path) == name
    except OSError:
        return False


def _mounted(name: str) -> Iterator[str]:
    """Where a file of nsfs is mounted, as ip-netns(8) does."""
    from jailng.core import rootfs

    for fields in rootfs.mounts():
        if fields[3] == name.encode():
            yield rootfs.unescape(fields[4]).decode("utf-8", "surrogateescape")
