"""A log that tells when it was tampered with: JSON lines, each with the hash of the one before and a MAC.

An entry is a line: ``{"seq":N,"time":T,"kind":K,"jail":J,"jid":I,...,"prev":HASH,"mac":MAC}``, ASCII, everything else
escaped. HASH is the SHA-256 of the line before without its newline; MAC is over the line up to ``,"mac"``, with a key
that only this entry has (``ratchet``). The keys of what has been written are gone from the host, but for the
verification key, where that was left there (``seal``). Who reads and checks it all is ``verification``.

A file is an epoch; it begins with an entry of kind ``file``, which names the chain, the epoch, and the oldest file that
has to be there. So what rotation has removed is on record before it goes.

Lines are written first and sealed then: killed between the two, the next writer finds whole lines behind the seal,
which the key in it proves to be the chain's, and perhaps half a line, which it removes and tells of.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from jailng.errors import JailError
from jailng.observe import entry, ratchet
from jailng.observe.recovery import Recovery
from jailng.observe.seal import current_boot

if TYPE_CHECKING:
    from pathlib import Path

    from jailng.observe.seal import Key, Seal

Fields = dict[str, object]

_SIZE = 16 << 20  # bytes of a file
_KEEP = 8  # files
_BUFFER = 1 << 18  # bytes that are written at the latest
_RECENT = 1 << 20  # bytes
_SYNC = 1.0  # seconds, after which what is written is on the disk
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Chain:
    """The writer of one jail's log. There is one at a time: it holds the seal's lock. Raises JailError, OSError.

    ``directory`` has the files, and ``seal`` is what authenticates them. ``common`` is what every entry has: the jail's
    name and jid. ``size`` is in bytes a file, of which ``keep`` stay. Where the chain is begun by this and
    ``keep_key`` is false, ``key`` is the only place that has the verification key.
    """

    def __init__(
        self,
        directory: Path,
        seal: Seal,
        common: Fields,
        size: int = _SIZE,
        keep: int = _KEEP,
        keep_key: bool = True,
    ) -> None:
        self.directory = directory
        self.common = common
        self.size = size
        self.keep = keep
        self.key: Key | None = None
        self._seal = seal
        self._fd = -1
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._synced = time.monotonic()
        self._folder = self._opened()
        state = seal.open()
        if state is None:
            self._check_empty()
            self.state, self.key = seal.create(keep_key)
            self._begin(self.state.epoch)
        else:
            self.state = state
            self._take_up()

    # Writing

    def append(self, kind: str, fields: Fields) -> int:
        """Add an entry; it is on record with the next ``flush``, at the latest. Its number.

        ``fields`` are what json(3) writes; bytes that are not UTF-8 come as surrogates. ``time`` among them is in
        nanoseconds since 1970, now if it is not there. Names of the chain's own (``seq``, ``kind``, ``prev``, ``mac``)
        are not to be used.
        """
        number = self._add(kind, fields)
        if self._buffered >= _BUFFER:
            try:
                self.flush()
            except OSError:
                pass  # the next one tells
        return number

    def flush(self) -> None:
        """Write down what has been added, and seal it. Raises OSError, as when the disk is full; try it again then."""
        if self._buffer:
            self._write()
            self._seal.store(self.state)
            if self.state.offset >= self.size:
                self._rotate()
        self.sync(_SYNC)

    def sync(self, after: float = 0.0) -> None:
        """Have it on the disk, unless that was less than ``after`` seconds ago."""
        now = time.monotonic()
        if self.state.synced != self.state.seq and now >= self._synced + after:
            os.fdatasync(self._fd)
            self.state.synced = self.state.seq
            self._seal.store(self.state)
            self._synced = now
            if os.fstat(self._fd).st_nlink == 0:
                self._go_on_anew()

    def close(self) -> None:
        """Write down what there is, and let go of it."""
        try:
            self.flush()
            self.sync()
        finally:
            os.close(self._fd)
            os.close(self._folder)
            self._seal.close()

    @property
    def synced(self) -> bool:
        """Whether all that is written is on the disk."""
        return self.state.synced == self.state.seq

    def recent(self, kind: str) -> list[Fields]:
        """What the last entries of a kind say, of the last megabyte or so of the last two files."""
        found: list[Fields] = []
        for epoch in entry.epochs(self._folder)[-2:]:
            try:
                fd = entry.opened(entry.file_name(epoch), self._folder)
            except (FileNotFoundError, entry.NoFile):
                continue  # it has been tampered with, which verification tells
            with open(fd, "rb") as file:
                file.seek(max(os.fstat(fd).st_size - _RECENT, 0))
                found += [one for one in map(entry.fields, file.read().split(b"\n")) if one.get("kind") == kind]
        return found

    @property
    def head(self) -> tuple[int, str]:
        """How many entries the chain has, and the hash of the last."""
        return self.state.seq, self.state.prev

    def _add(self, kind: str, fields: Fields) -> int:
        state = self.state
        number = state.seq
        line = entry.made(number, kind, {**self.common, **fields}, state.prev, state.key)
        self._buffer.append(line)
        self._buffered += len(line)
        state.seq += 1
        state.prev = entry.digest(line[:-1])
        state.key = ratchet.after(state.key)
        return number

    def _write(self) -> None:
        """All of it or, where the disk is full, so that the next try goes on where this one has ended."""
        data = b"".join(self._buffer)
        self._buffer, self._buffered = [data], len(data)
        while data:
            done = os.write(self._fd, data)
            self.state.offset += done
            data = data[done:]
            self._buffer, self._buffered = [data], len(data)
        self._buffer = []

    # Files

    def _opened(self) -> int:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _check_empty(self) -> None:
        """A log without a seal cannot be gone on with, and a key made for another would take the place of its own."""
        if entry.epochs(self._folder):
            seal = self._seal.directory
            told = f"the log that is there has lost its seal: move it away, and {seal}, which may have its key"
            raise JailError(f"{self.directory}: {told}")

    def _go_on_anew(self) -> None:
        """Somebody has removed the file, or the directory with it: go on in another, and say so with the next flush."""
        folder, self._folder = self._folder, self._opened()
        os.close(folder)
        missing = entry.file_name(self.state.epoch)
        self._begin(self.state.epoch + 1)
        self.append("resumed", {"unsealed": 0, "half": 0, "damage": f"{missing} is missing"})

    def _begin(self, epoch: int, more: Fields | None = None) -> None:
        """Begin a file, which becomes the last; what is buffered has been written to the one before.

        Where there can be no file all stays as it is. Raises OSError.
        """
        state = self.state
        fd = os.open(entry.file_name(epoch), _NEW, 0o600, dir_fd=self._folder)
        ahead = epoch - state.epoch
        if ahead:
            state.key = ratchet.first_of(ratchet.later_epoch(state.later, ahead - 1))
            state.later = ratchet.later_epoch(state.later, ahead)
        state.epoch, state.offset = epoch, 0
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        state.inode = os.fstat(self._fd).st_ino
        state.first = max(state.first, epoch - self.keep + 1)
        self._add("file", {"chain": state.chain, "epoch": epoch, "first": state.first, **(more or {})})
        self._write()
        self._seal.store(state)
        os.fsync(self._folder)

    def _rotate(self) -> None:
        os.fdatasync(self._fd)
        self.state.synced = self.state.seq
        self._begin(self.state.epoch + 1)
        for epoch in entry.epochs(self._folder):
            if epoch < self.state.first:
                os.unlink(entry.file_name(epoch), dir_fd=self._folder)

    # After another writer

    def _take_up(self) -> None:
        """Go on where the last writer has stopped, or was stopped, and say what it has left with the next ``flush``."""
        found = Recovery(self._folder, self.state)
        found.run()
        told: Fields = {"unsealed": found.unsealed, "half": found.half}
        # What is missing then, verification judges: it may have been lost with the power, or removed.
        lost: Fields = {entry.UNSYNCED: self.state.synced} if self.state.unsynced else {}
        self.state.boot = current_boot()
        name = entry.file_name(self.state.epoch)
        if found.damage:
            told["damage"] = found.damage
            self._begin(max([self.state.epoch, *entry.epochs(self._folder)]) + 1, lost)
        elif self.state.offset:
            self._fd = os.open(name, _OLD, dir_fd=self._folder)
            os.ftruncate(self._fd, self.state.offset)
        else:  # the first writer of all was killed before it had written an entry
            if name in os.listdir(self._folder):
                os.unlink(name, dir_fd=self._folder)
            self._begin(self.state.epoch)
        self.append("resumed", told)
