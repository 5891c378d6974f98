"""What kind of file a status is of: the words of inode(7), as ``stat`` has them at the cost of its import."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from posix import stat_result

FIFO = 0o010000
CHARACTER = 0o020000
DIRECTORY = 0o040000
REGULAR = 0o100000
LINK = 0o120000
SOCKET = 0o140000
_FORMAT = 0o170000


def of(status: stat_result) -> int:
    """One of the kinds above, or a block device's."""
    return status.st_mode & _FORMAT
