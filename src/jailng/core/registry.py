"""The registry: which jails there are. Plain text below /run/jailng.

``jails/JID``  one append-only file a jail.
``lock``       of root alone; flock(2) of it is the index's lock, byte JID the jail's, of whoever makes or stops it, and
               further bytes are for what else is locked (core/index.py, ``hold``).
``index``      one line a jail (core/index.py), derived from the records; rewritten under its lock.
``beneath``    which jail's mount another jail's lies on, after the first has ended (core/covered.py).
``last``       the last jid given out, so that jids are not reused at once.
``pidns``      the PID namespace (its inode) that the pids in all this are of.

A reader takes no lock: a line that is there is whole, and a torn last line is as if it were not there.
"""

from __future__ import annotations

import posix

from jailng.core import index
from jailng.errors import JailError
from jailng.linux import processid
from jailng.linux.libc import EEXIST, ENOENT, exists
from jailng.linux.ns import is_jailed
from jailng.params.values import unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from jailng.core.index import Index

_TEXTS = frozenset(
    "init starter boot broker cgroup controllers devices emptied guest halted home keeper rules sockets warden".split()
)
_APPEND = posix.O_RDWR | posix.O_APPEND | posix.O_CLOEXEC


_boot: list[str] = []


def boot_id() -> str:
    """The kernel's name for this boot."""
    if not _boot:
        fd = posix.open("/proc/sys/kernel/random/boot_id", posix.O_RDONLY | posix.O_CLOEXEC)
        _boot.append(posix.read(fd, 64).decode().strip())
        posix.close(fd)
    return _boot[0]


class Record:
    """One jail as its file tells of it. ``params`` maps kernel parameters to their text.

    One that is ``remote`` is told of by the broker of the jail that this process is in (core/nested.py).
    """

    remote = False

    __slots__ = (
        "_fd",
        "_held",
        "base",
        "boot",
        "broker",
        "cgroup",
        "consoles",
        "controllers",
        "cookie",
        "created",
        "devices",
        "emptied",
        "given",
        "guest",
        "halted",
        "home",
        "init",
        "jid",
        "keeper",
        "limiting",
        "mntns",
        "name",
        "netns",
        "params",
        "parent",
        "posts",
        "rules",
        "sockets",
        "starter",
        "undo",
        "up",
        "warden",
    )

    def __init__(self, jid: int) -> None:
        self.jid = jid
        self.name = str(jid)
        self.parent = 0
        self.base = 0
        self.boot = ""
        self.cgroup = f"jailng/{jid}"  # its cgroup2 directory, relative to the hierarchy's root
        self.controllers = ""  # of v1, in whose hierarchies it has a directory from its start (core/share.py)
        self.devices = ""  # the numbers of its own file systems, where its root may mount others on them
        self.home = ""
        self.guest = ""  # what ng.init has found (core/guest.py), and where it is PID 1 the path of its init
        self.emptied = ""  # where in the guest's tree a tmpfs of its own is
        self.consoles: list[str] = []  # who keeps what it writes on its console (core/console.py)
        self.halted = ""  # by whom its members are kept from running (core/halt.py)
        self.starter = ""
        self.init = ""
        self.broker = ""
        self.keeper = ""  # of the interfaces that are lent to it (core/keeper.py)
        self.sockets = ""  # the broker of its sockets (core/stack.py)
        self.rules = ""  # of rctl(8), about its name, as they were when they were last carried out (limits/standing.py)
        self.warden = ""  # who watches what it uses (limits/watch.py)
        self.posts: dict[str, str] = {}  # who watches or logs what happens in it, by kind (observe/posts.py)
        self.netns = self.mntns = self.cookie = 0  # where on the host it was made (core/origin.py)
        self.up = False
        self.created = False
        self.limiting = False  # a change of ng.limits has begun, and was not settled if nobody has the lock
        self.params: dict[str, str] = {}
        self.undo: list[str] = []
        self.given: list[str] = []  # what of the host's it was mounted to write in: device, inode (core/mounting.py)
        self._fd = self._held = -1

    @property
    def members(self) -> str:
        """The leaf of its cgroup for its own members; those of the jails in it are beside it, below ``members``."""
        return self.home or f"{self.cgroup}/members"

    @property
    def aside(self) -> str:
        """The cgroup in which a process can be born where there may be no more members: that of the outermost PID 1.

        What limits the members of a jail, that of this one or of one that it is in, does not hold there.
        """
        return f"{self.cgroup.partition('/members/')[0]}/init"

    def holds(self, place: str) -> bool:
        """Whether the cgroup ``place`` of a process is that of a member, and not of a jail in this one.

        What lies in a ``guest`` a jailed root has named.
        """
        head, found, rest = f"{place}/".partition(f"/{self.cgroup}/members/")
        return bool(found) and "guest" not in head.split("/") and rest.partition("/")[0] in ("", "own", "guest")

    @property
    def init_pid(self) -> int:
        """PID 1's pid on the host."""
        return int(self.init.partition(" ")[0])

    @property
    def owner(self) -> int:
        """The host's uid and gid of the jail's root."""
        return 0 if self.params.get("ng.uids") == "shared" else self.base

    @property
    def dying(self) -> bool:
        """Always no: a jail that has been removed is gone (FreeBSD 15 hides dying jails as well)."""
        return False

    def alive(self) -> bool:
        """Whether this is a jail: its PID 1 lives, and it is started, or being started by a process that lives."""
        if not self.init or not self.current:
            return False
        # A dead PID 1 ends when all that came from outside are reaped: PID 1 of a jail in it, or what was begun in the
        # background. That is for the host's PID 1 to do, which in a container may reap nobody.
        lasts = self.params.get("persist") == "true" and not (self.broker or self.guest)
        if not processid.is_alive(self.init) if lasts else processid.is_ending(self.init):
            return False
        return self.up or (self.created and processid.is_alive(self.starter))

    @property
    def places(self) -> list[tuple[int, int]]:
        """Device and inode of what else of the host's its root writes in, beside its tree: links there are its own."""
        return [(int(device), int(inode)) for device, _, inode in [line.partition(" ") for line in self.given]]

    @property
    def shares_network(self) -> bool:
        """Whether the jail is in the host's network namespace (core/privileges.py decides it for a new one)."""
        inherited = "inherit" in (self.params.get("ip4"), self.params.get("ip6"))
        return inherited and self.params.get("vnet") != "new" and not self.sockets

    @property
    def joined(self) -> bool:
        """Whether the jail is in the network namespace of another, which has the same address (core/joining.py)."""
        return any(line.startswith("joined ") for line in self.undo)

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
            elif word in ("undo", "given"):
                getattr(self, word).append(rest)
            elif word == "undone":
                self.undo.pop()
            elif word == "console":
                if "" in self.consoles:  # one that was about to be started, and this is it
                    self.consoles.remove("")
                self.consoles.append(rest)
            elif word in _TEXTS:
                setattr(self, word, rest)
            elif word in ("base", "cookie", "mntns", "netns", "parent"):
                setattr(self, word, int(rest))
            elif word in ("up", "created", "limiting"):
                setattr(self, word, True)
            elif word == "post":
                kind, _, self.posts[kind] = rest.partition(" ")
            elif word == "limited":
                self.limiting = False
        self.name = self.params.get("name", self.name)

    def append(self, lines: list[str]) -> None:
        """Write lines to the record, in one write, and take them over. Needs the jail's lock. Raises OSError."""
        text = "".join([line + "\n" for line in lines])
        index.write(self._fd, text, f"{index.DIRECTORY}/jails/{self.jid}")
        self.read(text)

    def lock(self, wait: bool = True) -> bool:
        """Take the jail's lock and read the record afresh; False if it was gone by then, or (not waiting) taken."""
        try:
            fd = posix.open(f"{index.DIRECTORY}/jails/{self.jid}", _APPEND)
        except FileNotFoundError:
            return False
        held = -1
        try:
            held = index.hold(self.jid, wait)
            gone = posix.fstat(fd).st_nlink == 0
            fresh = _read(self.jid, fd, mend=not gone)
        except BaseException as error:  # this process would wait for its own lock
            _close(fd, held)
            if isinstance(error, BlockingIOError):
                return False
            raise
        if gone:
            _close(fd, held)
            return False
        self.unlock()
        self._fd, self._held = fd, held
        _locks.update((fd, held))
        for slot in self.__slots__:
            if slot not in ("_fd", "_held"):
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
        _close(self._fd, self._held)
        self._fd = self._held = -1

    @property
    def locked(self) -> bool:
        """Whether this process holds the jail's lock."""
        return self._fd >= 0


_locks: set[int] = set()  # descriptors by which this process holds jails' locks, and of their records


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            _locks.discard(fd)
            posix.close(fd)


def forked() -> None:
    """To be called in a child that goes on without exec: else it holds its parent's locks for as long as it lives."""
    while _locks:
        posix.close(_locks.pop())


def _read(jid: int, fd: int, mend: bool = False) -> Record:
    """The record in that file. ``mend``, which needs its lock: what is appended next is a line of its own."""
    record = Record(jid)
    size = posix.fstat(fd).st_size
    content = posix.pread(fd, size, 0)
    if mend and content[-1:] not in (b"", b"\n"):  # whoever wrote the last line was killed in the middle of it
        posix.ftruncate(fd, content.rfind(b"\n") + 1)
    try:
        record.read(content.decode("utf-8", "surrogateescape"))
    except (IndexError, ValueError):
        raise JailError(f"{index.DIRECTORY}/jails/{jid}: not the record of a jail") from None
    return record


def load(jid: int) -> Record | None:
    """The record of that jid, whatever its state. Raises JailError: it is none."""
    if is_jailed():
        return find(str(jid))
    index.check_pids()
    try:
        fd = posix.open(f"{index.DIRECTORY}/jails/{jid}", posix.O_RDONLY | posix.O_CLOEXEC)
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
    index.check_pids()
    try:
        return sorted([int(name) for name in posix.listdir(f"{index.DIRECTORY}/jails") if index.is_number(name)])
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
    record = _indexed(text)
    if record is None or not record.alive():
        return None
    return record if index.is_number(text) or record.name == text else None


def asked(text: str) -> Record | None:
    """``find``, of what jail_getid(3) is asked for, to which ``+7`` is a jid as well: jexec(8)."""
    record = find(text)
    if record is None and not index.is_number(text) and (jid := index.jid_in(text)) is not None:
        record = find(str(jid))
    return record


def remains(text: str) -> Record | None:
    """The record of that jid or name whether or not the jail still lives; none in a jail.

    One that is not in the index counts: who makes a jail or strikes it out may have been killed between the two.
    """
    if is_jailed():
        return None
    record = _indexed(text)
    if record is not None or index.is_number(text):
        return record
    return next((one for jid in _strays() if (one := load(jid)) is not None and one.name == text), None)


_found: list[list[int]] = []


def _strays() -> list[int]:
    """The jids of the records that are in no index, as it was when this process first asked."""
    if not _found:
        listed = index.jids()
        _found.append([jid for jid in jids() if jid not in listed])
    return _found[0]


def _indexed(text: str) -> Record | None:
    jid = int(text) if index.is_number(text) and len(text) < 7 else index.jid_of(text)
    return load(jid) if jid is not None else None


def jids_below(name: str) -> list[int]:
    """The jids in the index of the jails in the jail of that name, to any depth."""
    if is_jailed():
        return [record.jid for record in jails() if record.name.startswith(name + ".")]
    return index.below(name)


def below(name: str) -> list[Record]:
    """The records of all jails in the jail of that name, to any depth, living or not, by ascending jid."""
    return [record for jid in jids_below(name) if (record := load(jid)) is not None]


def upwards(record: Record | None) -> Iterator[Record]:
    """A jail and those that it is in, the outermost last, as far as there are records of them."""
    while record is not None:
        yield record
        record = load(record.parent) if record.parent else None


def enter(rows: Index, jid: int, held: range, name: str, addresses: list[str], lines: list[str]) -> Record:
    """Make the record of a new jail, locked by this process, and enter it in the index, with the slots ``held``.

    Raises OSError.
    """
    record = Record(jid)
    path = f"{index.DIRECTORY}/jails/{jid}"
    # Locked before it can be seen: else a command that sweeps could lock it first, and then wait for the index, which
    # is ours. The name is no jid, and whoever holds the index has it to itself. While there is a record of that jid
    # its lock may be held by one that waits for the index, too; when there is none, by nobody who does.
    if exists(path):
        raise FileExistsError(EEXIST, posix.strerror(EEXIST), path)
    new = f"{index.DIRECTORY}/jails/.new"
    flags = _APPEND | posix.O_CREAT | posix.O_EXCL
    try:
        record._fd = posix.open(new, flags, 0o644)
    except FileExistsError:  # of a process that died here
        posix.unlink(new)
        record._fd = posix.open(new, flags, 0o644)
    except FileNotFoundError:  # who made the directory above has had no jail in mind
        posix.mkdir(f"{index.DIRECTORY}/jails", 0o755)
        record._fd = posix.open(new, flags, 0o644)
    _locks.add(record._fd)
    made = [new]
    try:
        posix.fchmod(record._fd, 0o644)
        record._held = index.hold(jid)
        _locks.add(record._held)
        record.append(
            [
                f"boot {boot_id()}",
                f"starter {processid.of(posix.getpid())}",
                f"base {index.uid_base(held.start)}",
                *lines,
            ]
        )
        posix.link(new, path)
        made.append(path)
        posix.unlink(new)
        made.remove(new)
        more = len(held) - 1
        rows.add(jid, f"{held.start}+{more}" if more else str(held.start), name, addresses)
    except BaseException:
        for name in made:
            posix.unlink(name)
        record.unlock()
        raise
    return record


def forget(record: Record) -> list[int]:
    """Strike a jail out of the registry; the jids of those that are in it. Needs its lock; idempotent."""
    with index.Index() as rows:
        inner = rows.below(record.name)
        rows.drop(record.jid)
        try:
            posix.unlink(f"{index.DIRECTORY}/jails/{record.jid}")
        except OSError as error:
            if error.errno != ENOENT:
                raise
    record.unlock()
    return inner
