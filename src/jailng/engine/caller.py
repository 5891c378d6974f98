"""Whose call the broker answers, and what is called how inside that jail and outside of it."""

from __future__ import annotations

import posix

from jailng.core import attach, hierarchy, index, registry
from jailng.errors import JailError, NotFound
from jailng.linux import mount, mountfd
from jailng.linux.libc import ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jailng.core.registry import Record


class Caller:
    """Whose call it is: a member of the jail ``record``, whose root is the host's uid ``owner``."""

    __slots__ = ("is_root", "owner", "record")

    def __init__(self, record: Record, owner: int, is_root: bool) -> None:
        self.record = record
        self.owner = owner
        self.is_root = is_root

    # What is called how, inside and outside

    def sees(self, record: Record) -> bool:
        """Whether a jail is in the caller's."""
        return record.name.startswith(self.record.name + ".")

    def inside(self, name: str) -> str:
        """What a jail in the caller's is called there."""
        return name[len(self.record.name) + 1 :]

    def outside(self, name: str) -> str:
        """What it is called on the host."""
        return f"{self.record.name}.{name}"

    def find(self, text: str) -> Record:
        """The living jail of that jid or name in the caller's. Raises JailError: not found."""
        record = registry.find(text) if index.is_number(text) else registry.find(self.outside(text))
        if record is None or not self.sees(record):
            raise NotFound(f'"{text}" not found', errno=ENOENT)
        return record

    def told(self, text: str) -> str:
        """What went wrong, as it may be told inside: without names of the host's but those of the jails in there."""
        own = self.record.name
        head, *parts = text.split('jail "')
        for part in parts:
            name, _, rest = part.partition('"')
            if name.startswith(own + "."):
                head += f'jail "{self.inside(name)}"{rest}'
            else:
                head += f"{'this' if name == own else 'another'} jail{rest}"
        text = head.replace(f'"{own}.', '"').replace(f"rules for {own}.", "rules for ")
        root = self.record.params.get("path", "/")
        return text if root == "/" else text.replace(f"{root}/", "/")

    def shown_path(self, path: str) -> str:
        """A path of the host's as it is inside."""
        root = self.record.params.get("path", "/").rstrip("/")
        return path[len(root) :] or "/" if f"{path}/".startswith(root + "/") else path

    def open_path(self, path: str) -> int:
        """A directory of the jail's, as the host has it. Raises JailError.

        The caller can change the way there at any moment, so it is gone once on each side, and both have to lead to the
        same directory: what only the jail sees cannot be mounted from outside, and what only the host sees must not.
        """
        flags = mount.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
        found: list[int] = []
        try:
            for open_top in (self._tree_of_the_host, self._tree_inside):
                top = open_top()
                try:
                    found.append(mountfd.openat2(top, path.encode("utf-8", "surrogateescape"), flags, mount.IN_ROOT))
                finally:
                    posix.close(top)
            one, other = [posix.fstat(fd) for fd in found]
        except OSError as error:
            for fd in found:
                posix.close(fd)
            raise JailError(f"path {path}: {error.strerror}") from None
        posix.close(found[1])
        if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino):
            posix.close(found[0])
            raise JailError(f"path {path}: on a file system of the jail's own, or below a mount that it does not see")
        return found[0]

    def _tree_of_the_host(self) -> int:
        """The way to the jail's own root is its own to change where that lies in the tree of a jail above."""
        above = registry.load(self.record.parent) if self.record.parent else None
        return hierarchy.open_root(above, self.record.params.get("path", "/"))

    def _tree_inside(self) -> int:
        return attach.open_tree_of(self.record)
