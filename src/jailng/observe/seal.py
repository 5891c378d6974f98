"""What a log is authenticated by: the writer's state and, unless it was taken away, the verification key.

    DIRECTORY/state      how far the log goes, and the keys of the next entry and file: 0600, in place, 512 bytes
    DIRECTORY/key        the verification key: 0600
    DIRECTORY/forward-*  how far a collector has it (``forward``)
    HEADS/NAME           the number and the hash of the last entry: for as long as the machine is up

The keys that were used are overwritten: the state is one write(2) to one block. Where a file system does not write in
place (btrfs, a snapshot), or a disk keeps what is overwritten, older ones may be had from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from jailng.errors import JailError
from jailng.observe import entry, ratchet

HEADS = Path("/run/jailng/logs")
FORWARDED = "forward-"
_MAGIC = "jailng-log-1"
_BYTES = 512
_ID_BYTES = 8
_DIGITS = 20  # of 2 to the 64th
_LONGEST = 4096  # bytes of any of these files
_PATIENCE = 1.0  # seconds
_STATE, _KEY = "state", "key"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class State:
    """Where the writer is. ``seq`` is the number of the next entry, ``key`` its key, ``prev`` the hash of the last.

    ``offset`` is how many bytes of the file of ``epoch`` that are, ``later`` the key of the next epoch, ``first`` the
    oldest file that has to be there, ``synced`` the number of the first entry that may not be on the disk yet, ``boot``
    the boot in which that was, and ``inode`` the file's.
    """

    chain: str
    epoch: int
    seq: int
    offset: int
    first: int
    synced: int
    inode: int
    boot: str
    prev: str
    key: bytes
    later: bytes

    @classmethod
    def initial(cls, chain: str, key: bytes) -> State:
        """Before anything is written; ``key`` is the verification key."""
        start = entry.digest(chain.encode())
        return cls(chain, 0, 0, 0, 0, 0, 0, current_boot(), start, ratchet.first_of(key), ratchet.later_epoch(key, 1))

    @property
    def unsynced(self) -> bool:
        """Whether entries may be missing though nobody has removed any: the machine has been down since."""
        return self.synced < self.seq and self.boot != current_boot()

    def packed(self) -> bytes:
        """As it is stored."""
        numbers = f"{self.epoch} {self.seq} {self.offset} {self.first} {self.synced} {self.inode}"
        text = f"{_MAGIC} {self.chain} {numbers} {self.boot} {self.prev} {self.key.hex()} {self.later.hex()}"
        return f"{text} {_sum(text)}".ljust(_BYTES - 1).encode() + b"\n"

    @classmethod
    def unpacked(cls, data: bytes) -> State | None:
        """What ``packed`` wrote; None if something else did."""
        words = data.decode("latin-1").split()
        if len(words) != 13 or words[0] != _MAGIC or _sum(" ".join(words[:-1])) != words[-1]:
            return None
        if not all(map(_is_number, words[2:8])):
            return None
        epoch, seq, offset, first, synced, inode = [int(word) for word in words[2:8]]
        try:
            key, later = [bytes.fromhex(word) for word in words[10:12]]
        except ValueError:
            return None
        return cls(words[1], epoch, seq, offset, first, synced, inode, words[8], words[9], key, later)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode("latin-1")).hexdigest()[:16]


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= _DIGITS


def current_boot() -> str:
    """What the kernel calls the time since the machine was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _content(path: Path) -> bytes:
    """What is in a file; nothing where something else has its name. Raises FileNotFoundError, OSError."""
    try:
        fd = entry.opened(path)
    except entry.NoFile:
        return b""
    try:
        return os.read(fd, _LONGEST)
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Key:
    """A verification key: ``chain`` is what it is of, ``secret`` the key of the chain's first epoch.

    ``entries`` is how many the log had when the key was shown: it can have no fewer since.
    """

    chain: str
    secret: bytes
    entries: int = 0

    @property
    def text(self) -> str:
        """As it is shown, stored, and given: one word."""
        return f"{_MAGIC}:{self.chain}:{self.entries}:{self.secret.hex()}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Raises JailError: it is no key."""
        parts = text.strip().split(":")
        if len(parts) == 4 and parts[0] == _MAGIC and _is_number(parts[2]):
            try:
                secret = bytes.fromhex(parts[3])
            except ValueError:
                secret = b""
            if len(secret) == ratchet.BYTES:
                return cls(parts[1], secret, int(parts[2]))
        raise JailError("not a verification key, as `jailctl log key` prints them")


@dataclass(frozen=True)
class Head:
    """How many entries a chain had at some time, and the hash of the last."""

    chain: str
    entries: int
    prev: str


class Seal:
    """What authenticates the log ``name``, in ``directory``; ``heads`` is the directory of what this boot has seen."""

    def __init__(self, directory: Path, name: str, heads: Path = HEADS) -> None:
        self.directory = directory
        self.name = name
        self._heads = heads
        self._fd = -1
        self._head = -1

    # The writer

    def open(self) -> State | None:
        """The state, or None where there is none yet. It is locked for as long as this is open.

        Raises JailError: another process writes to the log, or the state is not one; OSError.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._heads.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self.directory / _STATE, _CREATE, 0o600)
        self._lock()
        self._head = os.open(self._heads / self.name, _CREATE, 0o600)
        data = os.pread(self._fd, _BYTES, 0)
        state = State.unpacked(data)
        if data and state is None:
            raise JailError(f"{self.directory / _STATE}: not the state of a log")
        return state

    def _lock(self) -> None:
        """A writer that was killed may take a moment to go."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise JailError(f"{self.directory}: another process writes to this log") from None
            time.sleep(_PATIENCE / 100)

    def create(self, keep_key: bool = True) -> tuple[State, Key]:
        """Begin a chain, whose key is kept here unless it is to be kept elsewhere. After ``open``."""
        for left in self.directory.glob(f"{FORWARDED}*"):  # of a chain of the past
            left.unlink()
        key = Key(secrets.token_hex(_ID_BYTES), secrets.token_bytes(ratchet.BYTES))
        if keep_key:
            fd = os.open(self.directory / _KEY, _CREATE | os.O_TRUNC, 0o600)
            os.write(fd, f"{key.text}\n".encode())
            os.fsync(fd)
            os.close(fd)
        state = State.initial(key.chain, key.secret)
        self.store(state)
        os.fsync(self._fd)
        return state, key

    def store(self, state: State) -> None:
        """Write the state, over the keys of what has been written."""
        os.pwrite(self._fd, state.packed(), 0)
        os.pwrite(self._head, f"{state.chain} {state.seq:020d} {state.prev}\n".encode(), 0)

    def close(self) -> None:
        """Let go of it."""
        for fd in (self._fd, self._head):
            if fd >= 0:
                os.close(fd)
        self._fd = self._head = -1

    # Others

    def state(self) -> State | None:
        """The state as it is now; None where there is none, or something else."""
        try:
            for _ in range(3):  # it may be being written
                found = State.unpacked(_content(self.directory / _STATE)[:_BYTES])
                if found is not None:
                    return found
        except FileNotFoundError:
            pass
        return None

    def key(self) -> Key | None:
        """The verification key, if it is here. Raises JailError: it is none."""
        try:
            text = _content(self.directory / _KEY)
        except FileNotFoundError:
            return None
        return Key.parse(text.decode("latin-1"))

    def take_key(self) -> None:
        """Take the verification key off this host: overwrite and remove it."""
        path = self.directory / _KEY
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(fd, b"\0" * os.fstat(fd).st_size, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        path.unlink()

    def discard(self) -> None:
        """Forget a chain that was just begun."""
        for path in (self.directory / _STATE, self._heads / self.name):
            path.unlink()

    def head(self) -> Head | None:
        """How far the chain has been since the machine was started, as far as is known."""
        try:
            words = _content(self._heads / self.name).decode("latin-1").split()
        except FileNotFoundError:
            return None
        return Head(words[0], int(words[1]), words[2]) if len(words) == 3 and _is_number(words[1]) else None
