"""The index of the registry (core/registry.py): one line a jail, and which uids, jids and names are taken.

It is derived from the records, and is there so that a jail is found, and made, in the same time however many there are.
"""

from __future__ import annotations

import fcntl
import posix

from jailng.errors import JailError
from jailng.linux.libc import EEXIST, ENOSPC, words
from jailng.params.values import JAIL_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = "/run/jailng"
RULES = f"{DIRECTORY}/rules"  # of rctl(8), if there are any (limits/database.py)
FIRST_UID = 0x70000000
UIDS_PER_JAIL = 65536
SLOTS = range(0x8FFD)  # the last range ends below 0xFFFE0000: ids 0xFFFF and 0xFFFFFFFF have meanings of their own
FULL = (27, 28, 122)  # EFBIG (RLIMIT_FSIZE), ENOSPC, EDQUOT: there is no room for more
_STRUCK = "#"
_COMPACTED = 64
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of include/linux/proc_ns.h
_CREATE = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC
FIREWALL = 0  # what ``hold`` takes besides the numbers of jails
NETWORKS = 1 << 32  # and network namespaces, by their inodes from here on
MOUNTS = 2 << 32  # which mount of a jail's lies on which (core/covered.py)


# Whether the registry says that it is of this process's PID namespace, once that has been looked at.
_known: list[bool] = []


def check_pids() -> None:
    """See to it that the pids in the registry are those that this process sees. Raises JailError.

    The PID namespace of a container may have died with all that was in it, but not the machine's first one.
    """
    if _known:
        return
    try:
        fd = posix.open(f"{DIRECTORY}/pidns", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    text = posix.read(fd, 16).strip()
    there = int(text) if text.isdigit() else 0  # of what was just written a power cut may leave nothing
    posix.close(fd)
    here = _pid_namespace()
    if there not in (0, here):
        from jailng.linux import cgroup

        if there == _FIRST_PID_NAMESPACE or cgroup.populated("jailng"):
            raise JailError(f"{DIRECTORY}: the jails are of another PID namespace, from which alone they can be seen")
    _known.append(there == here)


def _pid_namespace() -> int:
    return posix.stat("/proc/self/ns/pid").st_ino


def is_number(text: str) -> bool:
    """Whether a text is a number and nothing else."""
    return text.isascii() and text.isdigit()


def jid_in(text: str) -> int | None:
    """The jid that a text is to jail_getid(3): strtoul(3) passes over white space and a ``+`` before the digits."""
    digits = text if is_number(text) else text.lstrip(" \t\n\v\f\r").removeprefix("+")
    return int(digits) if is_number(digits) and len(digits) < 10 else None


def jid_of(name: str) -> int | None:
    """The jid in the index of the jail of that name."""
    index = _read()
    at = index.find(f"\t{name}\t")
    while at >= 0:
        jid = index[index.rfind("\n", 0, at) + 1 : at].partition("\t")[0]
        if not jid.startswith(_STRUCK):
            return int(jid)
        at = index.find(f"\t{name}\t", at + 1)
    return None


def names_of(jid: int) -> list[str]:
    """The names in the index of the jail of that jid: one, or several while it is renamed."""
    return [line.split("\t", 2)[1] for line in ("\n" + _read()).split(f"\n{jid}\t")[1:]]


def below(name: str) -> list[int]:
    """The jids in the index of the jails in the jail of that name, to any depth."""
    return _below(_read(), name)


def _below(text: str, name: str) -> list[int]:
    if f"\t{name}." not in text:
        return []
    rows = [line.split("\t") for line in text.split("\n")[:-1] if not line.startswith(_STRUCK)]
    return sorted({int(row[0]) for row in rows if row[2].startswith(name + ".")})


def jids() -> set[int]:
    """The jids in the index."""
    return {int(line.partition("\t")[0]) for line in _read().split("\n")[:-1] if not line.startswith(_STRUCK)}


def addressed() -> Iterator[int]:
    """The jids in the index of the jails with addresses."""
    for line in _read().split("\n")[:-1]:
        if not line.startswith(_STRUCK) and not line.endswith("\t"):
            yield int(line.partition("\t")[0])


def _read() -> str:
    try:
        fd = posix.open(f"{DIRECTORY}/index", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return posix.read(fd, posix.fstat(fd).st_size + 1).decode("utf-8", "surrogateescape")
    finally:
        posix.close(fd)


def write(fd: int, text: str, path: str) -> None:
    """Put the text at the end of a file, all of it or nothing. Raises OSError that names ``path``.

    A file system that is about to be full takes a part of what it is given.
    """
    content = text.encode("utf-8", "surrogateescape")
    try:
        written = posix.write(fd, content)
        if written < len(content):
            posix.ftruncate(fd, posix.fstat(fd).st_size - written)
            raise OSError(ENOSPC, posix.strerror(ENOSPC))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _claim() -> None:
    """Have the registry be this PID namespace's, if it is not another's. Needs its lock. Raises JailError."""
    check_pids()
    if _known == [True]:
        return
    path = f"{DIRECTORY}/pidns"
    fd = posix.open(path, _CREATE, 0o644)
    try:
        posix.fchmod(fd, 0o644)
        posix.pwrite(fd, b"%-10d\n" % _pid_namespace(), 0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        posix.close(fd)
    _known[:] = [True]


def holders(address: str) -> list[int]:
    """The jids of the jails in the index that have that address, in the order in which they were reserved."""
    text = _read()
    at, found = text.find(address), []
    while at >= 0:
        line = text[text.rfind("\n", 0, at) + 1 : text.find("\n", at)]
        if not line.startswith(_STRUCK) and address in line.rpartition("\t")[2].split(","):
            found.append(int(line.partition("\t")[0]))
        at = text.find(address, at + 1)
    return found


def hold(number: int, wait: bool = True) -> int:
    """A descriptor by which this process, and whoever inherits it, holds the lock of that number until it is closed.

    It is a byte of a file that root alone can open: flock(2) takes no more than to be able to read, so whoever can read
    a record, a directory or, with the host's network, /proc/self/ns/net, could keep root waiting for as long as he
    likes. Raises OSError, BlockingIOError if it is another's and this is not to wait.
    """
    fd = lock_file()
    try:
        take(fd, number, wait)
    except BaseException:
        posix.close(fd)
        raise
    return fd


def take(fd: int, number: int, wait: bool = True) -> None:
    """``hold`` by a descriptor of ``lock_file``, which may have been opened where that is not to be found any more."""
    _fcntl(fd, 1, number, wait)


def let_go(fd: int, number: int) -> None:
    """Let others have the lock of that number."""
    _fcntl(fd, 2, number, wait=False)


def _fcntl(fd: int, kind: int, number: int, wait: bool) -> None:
    # struct flock: F_WRLCK or F_UNLCK from SEEK_SET on, start and length, and a pid, which has to be 0
    wanted = words(kind, 0, size=2) + bytes(4) + words(number, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{DIRECTORY}/lock") from None


def lock_file() -> int:
    """A descriptor of the file of all locks, which has none of them yet. Raises OSError."""
    try:
        return posix.open(f"{DIRECTORY}/lock", _CREATE, 0o600)
    except FileNotFoundError:
        for path in (DIRECTORY, f"{DIRECTORY}/jails"):
            try:
                posix.mkdir(path, 0o755)
                posix.chmod(path, 0o755)  # whatever the umask: everybody may ask which jails there are, by jls(8)
            except FileExistsError:
                pass
        return posix.open(f"{DIRECTORY}/lock", _CREATE, 0o600)


class Index:
    """The index under its lock: ``with Index() as index:``. One line a jail: jid, uid slots, name, addresses.

    The slots are "FIRST" or, with those kept for the jails to be made in it, "FIRST+MORE".

    A jail is added by appending a line and struck out by writing over its first character, so that neither costs more
    the more jails there are; the file is written anew when much of it is struck out.
    """

    __slots__ = ("_fd", "_text")

    def __enter__(self) -> Index:
        self._fd = lock_file()
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"{DIRECTORY}/lock") from None
            _claim()
            self._text = _read()
            if self._text[-1:] not in ("", "\n"):  # whoever wrote the last line died in the middle of it
                self._rewrite(self.rows())
        except BaseException:  # nobody leaves what was not entered
            posix.close(self._fd)
            raise
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

    def below(self, name: str) -> list[int]:
        """The jids of the jails in the jail of that name, to any depth."""
        return _below(self._text, name)

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
            last = int(text) if is_number(text.decode("ascii", "replace")) else 0
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
            if not self._text:
                posix.fchmod(fd, 0o644)
            write(fd, line, f"{DIRECTORY}/index")
        finally:
            posix.close(fd)
        self._text += line

    def drop(self, jid: int) -> None:
        """Strike a jail out."""
        if self._text.count("\n" + _STRUCK) > _COMPACTED:
            try:
                self._rewrite([row for row in self.rows() if row[0] != str(jid)])
                return
            except OSError as error:
                if error.errno not in FULL:
                    raise
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
            raise JailError(f'jail "{name}" already exists', errno=EEXIST)
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

    def set_addresses(self, jid: int, addresses: list[str]) -> None:
        """Have a jail have these addresses."""
        text = ",".join(addresses)
        self._rewrite([[*row[:3], text] if row[0] == str(jid) else row for row in self.rows()])

    def keep_name(self, jid: int, name: str) -> None:
        """Strike a jail out under every name but this."""
        text = "\n" + self._text
        kept = False
        at = text.find(f"\n{jid}\t")
        while at >= 0:
            if kept or text[at + 1 :].split("\t", 3)[2] != name:
                self._strike(at)
            else:
                kept = True
            at = text.find(f"\n{jid}\t", at + 1)

    def _rewrite(self, rows: list[list[str]]) -> None:
        text = "".join(["\t".join(row) + "\n" for row in rows])
        fd = posix.open(f"{DIRECTORY}/index.new", _CREATE | posix.O_TRUNC, 0o644)
        try:
            posix.fchmod(fd, 0o644)
            write(fd, text, f"{DIRECTORY}/index")
        finally:
            posix.close(fd)
        posix.rename(f"{DIRECTORY}/index.new", f"{DIRECTORY}/index")
        self._text = text


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
