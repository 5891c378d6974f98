"""What of a jail's terminals is not recorded, all sessions together, in a file that is never larger or smaller.

It is overwritten in its place, which a full disk does not prevent, so that what is counted outlives whoever counts.
"""

from __future__ import annotations

import json
import os
import time

from jailng.observe import entry

FILE = "counts"
_SIZE = 4096


class Tally:
    """The counts of one directory. ``written``: when, in nanoseconds of CLOCK_BOOTTIME."""

    def __init__(self, directory: int) -> None:
        """Go on from what is there. Raises OSError."""
        self.written = 0
        self._changed = False
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(FILE, flags, 0o600, dir_fd=directory)
        self.counts = _read(self._fd)
        if os.fstat(self._fd).st_size < _SIZE:
            self._changed = True
            self.write(0)

    def unrecorded(self, why: str, size: int) -> None:
        """So many bytes more were not recorded."""
        self._add("unrecorded", why, size)

    def session(self, why: str) -> None:
        """One session more has no file."""
        self._add("sessions", why, 1)

    def dropped(self, count: int) -> None:
        """The kernel had no room for so many events."""
        self._add("events", "dropped", count)

    def removed(self, count: int) -> None:
        """So many files had to give way to newer ones."""
        if count:
            self._add("files", "removed", count)

    def _add(self, what: str, why: str, number: int) -> None:
        counts = self.counts.setdefault(what, {})
        # Reasons are ours, but what moved bytes unseen is told by others.
        if why not in counts and len(counts) > 20:
            why = "other"
        counts[why[:40]] = counts.get(why[:40], 0) + number
        last = self.counts.setdefault("time", {})
        last["last"] = int(time.time())
        last.setdefault("first", last["last"])
        self._changed = True

    def write(self, now: int) -> None:
        """Bring it to the disk, if there is anything new. ``now`` in nanoseconds."""
        self.written = now
        if self._changed:
            content = json.dumps(self.counts).encode()[: _SIZE - 1]
            try:
                os.pwrite(self._fd, content.ljust(_SIZE - 1) + b"\n", 0)
            except OSError:
                return  # a disk that is full, for a new file, or broken; it is tried again
            self._changed = False

    def close(self) -> None:
        """Nothing more is counted."""
        os.close(self._fd)


def _read(fd: int) -> dict[str, dict[str, int]]:
    try:
        found = json.loads(os.pread(fd, _SIZE, 0))
        return {str(what): {str(why): int(number) for why, number in of.items()} for what, of in found.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):  # whatever a broken disk says
        return {}


def read(directory: int) -> dict[str, dict[str, int]]:
    """The counts of a directory; none if there are none. Raises OSError."""
    try:
        fd = entry.opened(FILE, directory)
    except (FileNotFoundError, entry.NoFile):
        return {}
    try:
        return _read(fd)
    finally:
        os.close(fd)
