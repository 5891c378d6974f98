"""The reader's side of a BPF ring buffer (kernel's documentation, bpf/ringbuf.rst): a program writes, a process reads.

What has been read is written down in memory that the kernel and every process which has the buffer share, so that
whoever takes the buffer over goes on where the last one stopped.
"""

from __future__ import annotations

from mmap import MAP_SHARED, PROT_READ, PROT_WRITE, mmap

from jailng.linux import bpfmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEAD = 8


def page_size() -> int:
    """The machine's, which a buffer's size is a multiple of."""
    import posix

    return posix.sysconf("SC_PAGESIZE")


def create(size: int) -> bpfmap.Map:
    """A new buffer of that many bytes, a power of two and a multiple of the page size. Raises OSError."""
    return bpfmap.create(bpfmap.RINGBUF, 0, 0, size)


class Ring:
    """A buffer of ``size`` bytes, mapped. ``fd`` becomes readable for poll(2) when there is something to read."""

    __slots__ = ("_consumed", "_content", "_looked", "_produced", "_shared", "fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        """Map the buffer that is behind a map's descriptor. Raises OSError."""
        page = page_size()
        self.fd = fd
        self.size = size
        own = mmap(fd, page, MAP_SHARED, PROT_READ | PROT_WRITE)
        # The content is mapped twice, one behind the other, so that none of it is torn.
        theirs = mmap(fd, page + 2 * size, MAP_SHARED, PROT_READ, offset=page)
        self._shared = (own, theirs)
        self._consumed = memoryview(own).cast("Q")  # so that a position is read and written in one piece
        self._produced = memoryview(theirs)[:page].cast("Q")
        self._content = memoryview(theirs)[page:]
        self._looked = self._consumed[0]

    @property
    def waiting(self) -> int:
        """Bytes that have been written and not read."""
        return int(self._produced[0] - self._consumed[0])

    @property
    def position(self) -> int:
        """How many bytes have been read since the buffer was made."""
        return int(self._consumed[0])

    def skip(self) -> bool:
        """Forget the next record without looking at it; whether there was one."""
        return bool(list(self.read(1)))

    def read(self, most: int = 1 << 30) -> Iterator[bytes]:
        """As ``look``, but each record is forgotten when the next is asked for."""
        self._looked = self._consumed[0]
        for record in self.look(most):
            yield record
            self.settle()
        self.settle()

    def look(self, most: int = 1 << 30) -> Iterator[bytes]:
        """What has been written, record by record, ``most`` of them; nothing is forgotten before ``settle``."""
        heads = self._content.cast("I")
        while most > 0 and self._looked < self._produced[0]:
            place = self._looked & self.size - 1
            head = heads[place // 4]
            if head & _BUSY:
                return
            length = head & ~(_BUSY | _DISCARDED)
            self._looked += -(-(length + _HEAD) // 8) * 8
            if not head & _DISCARDED:
                most -= 1
                yield bytes(self._content[place + _HEAD : place + _HEAD + length])

    def settle(self) -> None:
        """What has been looked at may be forgotten."""
        self._consumed[0] = self._looked

    def close(self) -> None:
        """Let go of the mapping; the descriptor stays."""
        for view in (self._consumed, self._produced, self._content):
            view.release()
        for memory in self._shared:
            memory.close()
