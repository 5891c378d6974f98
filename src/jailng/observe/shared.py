"""What the posts of all jails have in common to see terminals: the programs that do, and their maps.

Where the kernel allows it these are observe/functionexit.py's, else it is observe/sysexit.py's.

Every process of the machine may pay for a program at the end of each of its system calls, so there is one, however many
jails are watched. Each post holds it; the kernel lets go of it with the last. Whoever comes next finds it by the
numbers in a file that only root can read.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress

from jailng.core import index, registry
from jailng.errors import JailError, explain
from jailng.linux import bpf, bpfmap, cgroup, content, ringbuffer, tracing
from jailng.observe import functionexit, ringrecord, sysexit
from jailng.observe.offsets import Offsets

DIRECTORY = f"{index.DIRECTORY}/posts"
SOCKET = ".tty"  # after a jid: where those who watch that jail ask
_FORM = 1  # of the maps and of what is in them: the name of the file says it
_FILE = f"{DIRECTORY}/terminals.{_FORM}"
_ALL = "jailng"  # the cgroup of all jails
_MOST = 8192  # watched jails, and their devpts
_MOST_PIDS = 4096
_ID = struct.Struct("=Q")
_PAIR = struct.Struct("=QQ")

# name: kind, size of key and value, most entries, flags
_MAPS = {
    "config": (bpfmap.ARRAY, 4, 16, 1, 0),
    "rings": (bpfmap.HASH_OF_MAPS, 8, 4, _MOST, bpfmap.NO_PREALLOC),
    "devs": (bpfmap.HASH, 8, 8, _MOST, bpfmap.NO_PREALLOC),
    "counts": (bpfmap.HASH, 8, 16, _MOST, bpfmap.NO_PREALLOC),
    "pids": (bpfmap.HASH, 8, 8, _MOST_PIDS, 0),
    "scratch": (bpfmap.PERCPU_ARRAY, 4, ringrecord.SCRATCH, 1, 0),
}


class Shared:
    """The program, attached, and its maps."""

    def __init__(self, maps: dict[str, bpfmap.Map], links: list[int]) -> None:
        self.maps = maps
        self.links = links

    def watch(self, jail: int, ring: int) -> None:
        """What the cgroup of that id and those in it do goes to that ring. Raises OSError."""
        self.maps["counts"].put(_ID.pack(jail), _PAIR.pack(0, 0))
        self.maps["rings"].put(_ID.pack(jail), ring.to_bytes(4, "little"))

    def claim(self, dev: int, jail: int, own: bool) -> None:
        """The terminals of a devpts (st_dev) are that jail's; if it is not its ``own``, unless they are another's."""
        with suppress(OSError):
            flags = bpfmap.ANY if own else bpfmap.NOEXIST
            self.maps["devs"].put(_ID.pack(kernel_device(dev)), _ID.pack(jail), flags)

    def release(self, dev: int, jail: int) -> None:
        """A devpts is no jail's any more, if it was that one's."""
        key = _ID.pack(kernel_device(dev))
        if self.maps["devs"].get(key) == _ID.pack(jail):
            self.maps["devs"].drop(key)

    def follow(self, pid: int) -> None:
        """A process of the host's holds a master of a watched jail's."""
        with suppress(OSError):
            self.maps["pids"].put(_ID.pack(pid), _ID.pack(pid))

    def forget(self, pid: int) -> None:
        """It has ended."""
        self.maps["pids"].drop(_ID.pack(pid))

    def lost(self, jail: int) -> tuple[int, int]:
        """How many records there was no room for, and how many bytes they had."""
        found = self.maps["counts"].get(_ID.pack(jail))
        return _PAIR.unpack(found) if found else (0, 0)

    def leave(self, jail: int) -> None:
        """The jail is not watched any more. The last one takes the file away."""
        with _Lock():
            self.forget_jail(_ID.pack(jail))
            if not self.maps["rings"].keys():
                with suppress(FileNotFoundError):
                    os.unlink(_FILE)

    def forget_jail(self, jail: bytes) -> None:
        """Have nothing of that jail in the maps any more."""
        self.maps["rings"].drop(jail)
        for key in self.maps["devs"].keys():  # noqa: SIM118
            if self.maps["devs"].get(key) == jail:
                self.maps["devs"].drop(key)
        self.maps["counts"].drop(jail)


class _Lock:
    """Held while somebody looks for the program, or makes it."""

    def __enter__(self) -> None:
        os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
        self.fd = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def attached() -> Shared:
    """The program, loaded if need be. Raises JailError: what the kernel lacks for it."""
    with _Lock():
        found = _taken_over() or _made()
        _configure(found)
        _clear(found)
        return found


def _clear(found: Shared) -> None:
    """Take away what posts that were killed have left of jails that are gone."""
    jids = registry.jids()
    for name in os.listdir(DIRECTORY):
        number = name.removesuffix(SOCKET)
        if number != name and number.isdigit() and int(number) not in jids:
            with suppress(FileNotFoundError):
                os.unlink(f"{DIRECTORY}/{name}")
    known = found.maps["rings"].keys()
    if known:
        current = set()
        for record in registry.records():
            with suppress(OSError):
                current.add(_ID.pack(cgroup.number(record.cgroup)))
        for jail in set(known) - current:
            found.forget_jail(jail)


def kernel_device(dev: int) -> int:
    """A device number (st_dev) as the kernel has it."""
    return os.major(dev) << 20 | os.minor(dev)


def user_device(dev: int) -> int:
    """The other way round."""
    return os.makedev(dev >> 20, dev & 0xFFFFF)


def _taken_over() -> Shared | None:
    try:
        with open(_FILE, encoding="ascii") as file:
            numbers = [int(word) for word in file.read().split()]
    except (FileNotFoundError, ValueError):
        return None
    if len(numbers) <= len(_MAPS):
        return None
    maps = [(number, key, value) for number, (_, key, value, _, _) in zip(numbers, _MAPS.values(), strict=False)]
    found = tracing.taken_over(maps, numbers[len(_MAPS) :])
    return None if found is None else Shared(dict(zip(_MAPS, found[0], strict=True)), found[1])


def _made() -> Shared:
    offsets = Offsets()
    try:
        maps = new_maps()
        descriptors = ringrecord.Maps(**{name: one.fd for name, one in maps.items()})
        try:
            links = _at_functions(offsets, descriptors)
        except OSError:  # this kernel allows no such programs
            links = _at_system_calls(offsets, descriptors)
    except OSError as error:
        raise JailError(f"the kernel does not let terminals be watched: {explain(error)}") from None
    offsets.keep()
    numbers = [one.number() for one in maps.values()] + [bpf.number(link) for link in links]
    content.replace(_FILE, " ".join(map(str, numbers)).encode("ascii") + b"\n", 0o600)
    return Shared(maps, links)


def new_maps() -> dict[str, bpfmap.Map]:
    """By what ``ringrecord.Maps`` calls them. Raises OSError."""
    inner = ringbuffer.create(ringbuffer.page_size())
    try:
        return {
            name: bpfmap.create(kind, key, value, most, inner.fd if kind == bpfmap.HASH_OF_MAPS else 0, flags)
            for name, (kind, key, value, most, flags) in _MAPS.items()
        }
    finally:
        inner.close()


def _at_functions(at: Offsets, maps: ringrecord.Maps) -> list[int]:
    """Look on in the kernel's pty driver; links. Raises OSError where the kernel does not allow that."""
    links: list[int] = []
    try:
        for name, code in functionexit.programs(at, maps):
            function = at.function(name)
            program = tracing.load(tracing.PROG_TYPE_TRACING, code, tracing.FUNCTION_EXIT, function)
            try:
                links.append(tracing.attach(program, None))
            finally:
                os.close(program)
    except OSError:
        for link in links:
            os.close(link)
        raise
    return links


def _at_system_calls(at: Offsets, maps: ringrecord.Maps) -> list[int]:
    """Look on at the end of each system call; links. Raises OSError."""
    program = tracing.load(tracing.PROG_TYPE_RAW_TRACEPOINT, sysexit.program(at, maps))
    try:
        return [tracing.attach(program, b"sys_exit")]
    finally:
        os.close(program)


def _configure(shared: Shared) -> None:
    """Tell the program which cgroup all jails are in."""
    config, key = shared.maps["config"], bytes(4)
    found = cgroup.number(_ALL)
    known, _ = _PAIR.unpack(config.get(key) or bytes(16))
    if known != found:
        config.put(key, _PAIR.pack(found, 63))  # deeper than any is
        depth = ringrecord.depth(config.fd)
        if depth < 0:
            raise JailError("this process is not in the cgroup of jails, so terminals cannot be watched")
        config.put(key, _PAIR.pack(found, depth))
