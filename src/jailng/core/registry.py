"""The registry: which jails there are. Plain text below /run/jailng.

``jails/JID``  one append-only file a jail. Its flock is the jail's lock, of whoever makes or stops it.
``index``      one line a jail (jid, uid slots, name, addresses), derived from the above; rewritten under ``lock``.
``last``       the last jid given out, so that jids are not reused at once.
``pidns``      the PID namespace (its inode) that the pids in all this are of.

A reader takes no lock: a line that is there is whole, and a torn last line is as if it were not there.
"""

from __future__ import annotations

import fcntl
import posix

from jailng.errors import JailError
from jailng.linux.libc import ENOENT
from jailng.linux.ns import ends_within, is_jailed, pidfd_open
from jailng.params.values import JAIL_MAX, unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = "/run/jailng"
FIRST_UID = 0x70000000
UIDS_PER_JAIL = 65536
SLOTS = range(0x8FFD)  # the last range ends below 0xFFFE0000: ids 0xFFFF and 0xFFFFFFFF have meanings of their own
_STRUCK = "#"
_COMPACTED = 64
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of include/linux/proc_ns.h
_CREATE = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC
_APPEND = posix.O_RDWR | posix.O_APPEND | posix.O_CLOEXEC


_boot: list[str] = []


def boot_id() -> str:
    """The kernel's name for this boot."""
    if not _boot:
        fd = posix.open("/proc/sys/kernel/random/boot_id", posix.O_RDONLY | posix.O_CLOEXEC)
        _boot.append(posix.read(fd, 64).decode().strip())
        posix.close(fd)
    return _boot[0]


_known: list[int] = []  # this process's PID namespace, once it is known to be the registry's


def _check_pids() -> None:
    """See to it that the pids in the registry are those that this process sees. Raises JailError.

    The PID namespace of a container may have died with all that was in it, but not the machine's first one.
    """
    if _known:
        return
    here = posix.stat("/proc/self/ns/pid").st_ino
    try:
        fd = posix.open(f"{DIRECTORY}/pidns", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    there = int(posix.read(fd, 16).strip() or 0)
    posix.close(fd)
    if there not in (0, here):
        from jailng.linux import cgroup

        if there == _FIRST_PID_NAMESPACE or cgroup.populated("jailng"):
            raise JailError(f"{DIRECTORY}: the jails are of another PID namespace, from which alone they can be seen")
    _known.append(here)


def process_id(pid: int) -> str:
    """What tells a process from every other that ever had its pid: ``PID INODE`` of its pidfd.

    pidfds have an inode of their own since Linux 6.9, unique while the machine runs. Raises OSError (ESRCH).
    """
    fd = pidfd_open(pid)
    try:
        return f"{pid} {posix.fstat(fd).st_ino}"
    finally:
        posix.close(fd)


def is_alive(identity: str) -> bool:
    """Whether the process of that ``process_id`` lives, which "" is not."""
    pid, _, inode = identity.partition(" ")
    try:
        fd = pidfd_open(int(pid or 0))
    except OSError:
        return False
    try:
        if str(posix.fstat(fd).st_ino) != inode:
            return False
        # A zombie has a pidfd too, but one that is readable: it is no longer alive.
        return not ends_within(fd, 0)
    finally:
        posix.close(fd)


class Record:
    """One jail as its file tells of it. ``params`` maps kernel parameters to their text.

    One that is ``remote`` is told of by the broker of the jail that this process is in (core/nested.py).
    """

    remote = False

    __slots__ = (
        "_fd",
        "base",
        "boot",
        "broker",
        "cgroup",
        "cookie",
        "created",
        "init",
        "jid",
        "mntns",
        "name",
        "netns",
        "params",
        "parent",
        "starter",
        "undo",
        "up",
    )

    def __init__(self, jid: int) -> None:
        self.jid = jid
        self.name = str(jid)
        self.parent = 0
        self.base = 0
        self.boot = ""
        self.cgroup = f"jailng/{jid}"  # its cgroup2 directory, relative to the hierarchy's root
        self.starter = ""
        self.init = ""
        self.broker = ""
        self.netns = self.mntns = self.cookie = 0  # where on the host it was made (core/origin.py)
        self.up = False
        self.created = False
        self.params: dict[str, str] = {}
        self.undo: list[str] = []
        self._fd = -1

    @property
    def init_pid(self) -> int:
        """PID 1's pid on the host."""
        return int(self.init.partition(" ")[0])

    @property
    def dying(self) -> bool:
        """Always no: a jail that has been removed is gone (FreeBSD 15 hides dying jails as well)."""
        return False

    def alive(self) -> bool:
        """Whether this is a jail: its PID 1 lives, and it is started, or being started by a process that lives."""
        if not self.init or not self.current or not is_alive(self.init):
            return False
        return self.up or (self.created and is_alive(self.starter))

    @property
    def shares_network(self) -> bool:
        """Whether the jail is in the host's network namespace (core/privileges.py decides it for a new one)."""
        return "inherit" in (self.params.get("ip4"), self.params.get("ip6"))

    @property
    def current(self) -> bool:
        """Whether the record is of this boot; one that is not tells of nothing that the kernel still has."""
        return self.boot == boot_id()

    def read(self, text: str) -> None:
        """Take over what the lines of a record say; later lines win."""
        for line in text.split("\n")[:-1]:
            word, _, rest = line.partition(" ")
            if word == "param":
                key, _, value = rest.partition("=")
                self.params[key] = unescape(value)
            elif word == "undo":
                self.undo.append(rest)
            elif word == "undone":
                self.undo.pop()
            elif word in ("init", "starter", "boot", "broker", "cgroup"):
                setattr(self, word, rest)
            elif word in ("base", "cookie", "mntns", "netns", "parent"):
                setattr(self, word, int(rest))
            elif word in ("up", "created"):
                setattr(self, word, True)
        self.name = self.params.get("name", self.name)

    def append(self, lines: list[str]) -> None:
        """Write lines to the record, in one write, and take them over. Needs the jail's lock. Raises OSError."""
        text = "".join([line + "\n" for line in lines])
        posix.write(self._fd, text.encode("utf-8", "surrogateescape"))
        self.read(text)

    def lock(self, wait: bool = True) -> bool:
        """Take the jail's lock and read the record afresh; False if it was gone by then, or (not waiting) taken."""
        try:
            fd = posix.open(f"{DIRECTORY}/jails/{self.jid}", _APPEND)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            posix.close(fd)
            return False
        if posix.fstat(fd).st_nlink == 0:
            posix.close(fd)
            return False
        self.unlock()
        self._fd = fd
        _locks.add(fd)
        fresh = _read(self.jid, fd)
        for slot in self.__slots__:
            if slot != "_fd":
                setattr(self, slot, getattr(fresh, slot))
        return True

    def lock_again(self) -> bool:
        """Wait for the lock that was let go of; False if the jail is no more, even if another has its jid by now."""
        init = self.init
        if self.lock() and self.init == init:
            return True
        self.unlock()
        return False

    def unlock(self) -> None:
        """Let go of the jail's lock."""
        if self._fd >= 0:
            _locks.discard(self._fd)
            posix.close(self._fd)
            self._fd = -1

    @property
    def locked(self) -> bool:
        """Whether this process holds the jail's lock."""
        return self._fd >= 0


_locks: set[int] = set()  # descriptors by which this process holds jails' locks


def forked() -> None:
    """To be called in a child that goes on without exec: else it holds its parent's locks for as long as it lives."""
    while _locks:
        posix.close(_locks.pop())


def _read(jid: int, fd: int) -> Record:
    record = Record(jid)
    size = posix.fstat(fd).st_size
    record.read(posix.pread(fd, size, 0).decode("utf-8", "surrogateescape"))
    return record


def load(jid: int) -> Record | None:
    """The record of that jid, whatever its state."""
    if is_jailed():
        return find(str(jid))
    _check_pids()
    try:
        fd = posix.open(f"{DIRECTORY}/jails/{jid}", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _read(jid, fd)
    finally:
        posix.close(fd)


def jids() -> list[int]:
    """The jid of every record, living or not, in ascending order."""
    if is_jailed():
        return [record.jid for record in jails()]
    _check_pids()
    try:
        return sorted([int(name) for name in posix.listdir(f"{DIRECTORY}/jails") if _is_number(name)])
    except FileNotFoundError:
        return []


def records() -> Iterator[Record]:
    """Every record, living or not, by ascending jid."""
    if is_jailed():
        yield from jails()
        return
    for jid in jids():
        record = load(jid)
        if record is not None:
            yield record


def jails() -> list[Record]:
    """The living jails, by ascending jid: those in the jail that this process is in."""
    if is_jailed():
        from jailng.core import nested

        return nested.jails()
    return [record for record in records() if record.alive()]


def find(text: str) -> Record | None:
    """The living jail of that jid or name. Costs the same however many there are."""
    if is_jailed():
        from jailng.core import nested

        return nested.find(text)
    record = remains(text)
    if record is None or not record.alive():
        return None
    return record if _is_number(text) or record.name == text else None


def remains(text: str) -> Record | None:
    """The record of that jid or name whether or not the jail still lives; none in a jail."""
    if is_jailed():
        return None
    jid = int(text) if _is_number(text) and len(text) < 7 else _jid_of(text)
    return load(jid) if jid is not None else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _jid_of(name: str) -> int | None:
    index = _read_index()
    at = index.find(f"\t{name}\t")
    while at >= 0:
        jid = index[index.rfind("\n", 0, at) + 1 : at].partition("\t")[0]
        if not jid.startswith(_STRUCK):
            return int(jid)
        at = index.find(f"\t{name}\t", at + 1)
    return None


def jids_below(name: str) -> list[int]:
    """The jids in the index of the jails in the jail of that name, to any depth."""
    if is_jailed():
        return [record.jid for record in jails() if record.name.startswith(name + ".")]
    text = _read_index()
    if f"\t{name}." not in text:
        return []
    rows = [line.split("\t") for line in text.split("\n")[:-1] if not line.startswith(_STRUCK)]
    return sorted({int(row[0]) for row in rows if row[2].startswith(name + ".")})


def addressed() -> Iterator[int]:
    """The jids in the index of the jails with addresses."""
    for line in _read_index().split("\n")[:-1]:
        if not line.startswith(_STRUCK) and not line.endswith("\t"):
            yield int(line.partition("\t")[0])


def _read_index() -> str:
    try:
        fd = posix.open(f"{DIRECTORY}/index", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return posix.read(fd, posix.fstat(fd).st_size + 1).decode("utf-8", "surrogateescape")
    finally:
        posix.close(fd)


def _claim() -> None:
    """Have the registry be this PID namespace's, if it is not another's. Needs its lock. Raises JailError."""
    _check_pids()
    here = posix.stat("/proc/self/ns/pid").st_ino
    fd = posix.open(f"{DIRECTORY}/pidns", _CREATE, 0o644)
    try:
        if posix.read(fd, 16).strip() != b"%d" % here:
            posix.pwrite(fd, b"%-10d\n" % here, 0)
    finally:
        posix.close(fd)


def has_one_address(address: str) -> bool:
    """Whether no more than one jail in the index has that address."""
    text = _read_index()
    at, found = text.find(address), 0
    while at >= 0:
        line = text[text.rfind("\n", 0, at) + 1 : text.find("\n", at)]
        found += not line.startswith(_STRUCK) and address in line.rpartition("\t")[2].split(",")
        at = text.find(address, at + 1)
    return found < 2


class Index:
    """The index under its lock: ``with Index() as index:``. One line a jail: jid, uid slots, name, addresses.

    The slots are "FIRST" or, with those kept for the jails to be made in it, "FIRST+MORE".

    A jail is added by appending a line and struck out by writing over its first character, so that neither costs more
    the more jails there are; the file is written anew when much of it is struck out.
    """

    __slots__ = ("_fd", "_text")

    def __enter__(self) -> Index:
        try:
            self._fd = posix.open(f"{DIRECTORY}/lock", _CREATE, 0o600)
        except FileNotFoundError:
            for path in (DIRECTORY, f"{DIRECTORY}/jails"):
                try:
                    posix.mkdir(path, 0o755)
                except FileExistsError:
                    pass
            self._fd = posix.open(f"{DIRECTORY}/lock", _CREATE, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        _claim()
        self._text = _read_index()
        if self._text[-1:] not in ("", "\n"):  # whoever wrote the last line died in the middle of it
            self._rewrite(self.rows())
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self._fd)

    def rows(self) -> list[list[str]]:
        """The columns of every line that is whole and not struck out."""
        lines = self._text.split("\n")[:-1]
        return [line.split("\t") for line in lines if not line.startswith(_STRUCK)]

    def rows_with(self, *texts: str) -> list[list[str]]:
        """Those of ``rows`` in which one of these texts stands. A jid stands behind a newline, all else behind a tab.

        Costs next to nothing where there are few, however many others there are.
        """
        text = "\n" + self._text
        found = set()
        for part in texts:
            at = text.find(part)
            while at >= 0:
                found.add(text.rfind("\n", 0, at + 1) + 1)
                at = text.find(part, text.find("\n", at + 1))
        lines = [text[at : text.find("\n", at)] for at in sorted(found)]
        return [line.split("\t") for line in lines if not line.startswith(_STRUCK)]

    def free_slot(self, more: int = 0, among: range = SLOTS) -> int:
        """One of ``among`` where a range of uids, and ``more`` behind it, are no jail's. Raises JailError: none left.

        It is the first, or where jails have one each and no more, the one after as many as there are, if that is free.
        """
        if not more and among == SLOTS and "+" not in self._text:
            slot = self._text.count("\n") - ("\n" + self._text).count("\n" + _STRUCK)
            if slot in among and not any(row[1] == str(slot) for row in self.rows_with(f"\t{slot}\t")):
                return slot
        slot = among.start
        for taken in sorted([known for row in self.rows() if (known := slots(row[1])).start in among], key=_start):
            if taken.start - slot > more:
                break
            slot = max(slot, taken.stop)
        if slot + more < among.stop:
            return slot
        if more:
            raise JailError(f"children.max: no {more + 1} uid ranges in one piece are left")
        raise JailError("no uid range is left for another jail")

    def slots_of(self, jid: int) -> range:
        """The slots of a jail that is in the index, its own first."""
        return slots(self.rows_with(f"\n{jid}\t")[0][1])

    def next_jid(self) -> int:
        """The next free jid after the last one given out (FreeBSD's rule: the lowest free one is not reused)."""
        fd = posix.open(f"{DIRECTORY}/last", _CREATE, 0o644)
        try:
            text = posix.read(fd, 16).strip()
            last = int(text) if _is_number(text.decode("ascii", "replace")) else 0
            for step in range(JAIL_MAX):
                jid = (last + step) % JAIL_MAX + 1
                if not self.rows_with(f"\n{jid}\t"):
                    posix.pwrite(fd, b"%-6d\n" % jid, 0)
                    return jid
        finally:
            posix.close(fd)
        raise JailError("no available jail IDs")

    def add(self, jid: int, slots: str, name: str, addresses: list[str]) -> None:
        """Enter a jail."""
        line = f"{jid}\t{slots}\t{name}\t{','.join(addresses)}\n"
        fd = posix.open(f"{DIRECTORY}/index", _CREATE | posix.O_APPEND, 0o644)
        try:
            posix.write(fd, line.encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
        self._text += line

    def drop(self, jid: int) -> None:
        """Strike a jail out."""
        if self._text.count("\n" + _STRUCK) > _COMPACTED:
            self._rewrite([row for row in self.rows() if row[0] != str(jid)])
            return
        while True:
            first = self._text.startswith(f"{jid}\t")
            at = 0 if first else self._text.find(f"\n{jid}\t") + 1
            if not first and at == 0:
                return
            self._strike(at)

    def _strike(self, at: int) -> None:
        fd = posix.open(f"{DIRECTORY}/index", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.pwrite(fd, _STRUCK.encode(), len(self._text[:at].encode("utf-8", "surrogateescape")))
        finally:
            posix.close(fd)
        self._text = self._text[:at] + _STRUCK + self._text[at + 1 :]

    def add_name(self, jid: int, name: str) -> None:
        """Enter a jail under another name as well. Raises JailError where another jail has it."""
        if any(row[2] == name and row[0] != str(jid) for row in self.rows_with(f"\t{name}\t")):
            raise JailError(f'jail "{name}" already exists')
        for row in self.rows_with(f"\n{jid}\t")[:1]:
            self.add(jid, row[1], name, row[3].split(","))

    def give_up(self, jid: int, address: str) -> list[int]:
        """Have an address no longer be the jail's; the jids of those that have it still."""
        found = []
        for row in self.rows_with(f"\t{address}", f",{address}"):
            addresses = row[3].split(",")
            if row[0] != str(jid) and address in addresses:
                found.append(int(row[0]))
            elif address in addresses:
                addresses.remove(address)
                self._rewrite([[*row[:3], ",".join(addresses)] if old == row else old for old in self.rows()])
        return found

    def keep_name(self, jid: int, name: str) -> None:
        """Strike a jail out under every name but this."""
        self._rewrite([row for row in self.rows() if row[0] != str(jid) or row[2] == name])

    def _rewrite(self, rows: list[list[str]]) -> None:
        self._text = "".join(["\t".join(row) + "\n" for row in rows])
        fd = posix.open(f"{DIRECTORY}/index.new", _CREATE | posix.O_TRUNC, 0o644)
        try:
            posix.write(fd, self._text.encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
        posix.rename(f"{DIRECTORY}/index.new", f"{DIRECTORY}/index")


def enter(index: Index, jid: int, held: range, name: str, addresses: list[str], lines: list[str]) -> Record:
    """Make the record of a new jail, locked by this process, and enter it in the index, with the slots ``held``.

    Raises OSError.
    """
    record = Record(jid)
    path = f"{DIRECTORY}/jails/{jid}"
    # Locked before it can be seen: else a command that sweeps could lock it first, and then wait for the index, which
    # is ours. The name is no jid, and whoever holds the index has it to itself.
    new = f"{DIRECTORY}/jails/.new"
    flags = _APPEND | posix.O_CREAT | posix.O_EXCL
    try:
        record._fd = posix.open(new, flags, 0o644)
    except FileExistsError:  # of a process that died here
        posix.unlink(new)
        record._fd = posix.open(new, flags, 0o644)
    _locks.add(record._fd)
    try:
        fcntl.flock(record._fd, fcntl.LOCK_EX)
        record.append(
            [f"boot {boot_id()}", f"starter {process_id(posix.getpid())}", f"base {uid_base(held.start)}", *lines]
        )
        posix.link(new, path)
    except OSError:
        record.unlock()
        raise
    finally:
        posix.unlink(new)
    try:
        more = len(held) - 1
        index.add(jid, f"{held.start}+{more}" if more else str(held.start), name, addresses)
    except OSError:
        posix.unlink(path)
        record.unlock()
        raise
    return record


def forget(record: Record) -> None:
    """Strike a jail out of the registry. Needs its lock; idempotent."""
    with Index() as index:
        index.drop(record.jid)
        try:
            posix.unlink(f"{DIRECTORY}/jails/{record.jid}")
        except OSError as error:
            if error.errno != ENOENT:
                raise
    record.unlock()


def slots(text: str) -> range:
    """The slots that a line of the index tells of."""
    first, _, more = text.partition("+")
    return range(int(first), int(first) + int(more or 0) + 1)


def _start(held: range) -> int:
    return held.start


def uid_base(slot: int) -> int:
    """The first uid of a slot's range of 65,536.

    Above what systemd-nspawn takes (to 0x6FFF0000) and shadow-utils gives to users by default (to 600,100,000).
    """
    return FIRST_UID + slot * UIDS_PER_JAIL
