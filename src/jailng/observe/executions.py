"""What a jail has executed, out of the kernel's records (``execrecord``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jailng.observe import execrecord as record
from jailng.observe.connections import place, shown

if TYPE_CHECKING:
    from jailng.observe.chain import Fields

_MEMFD = b"memfd:"
_MINOR = 20


class Execution:
    """One execve(2) or execveat(2) that was carried out. Times are of CLOCK_BOOTTIME, in nanoseconds.

    ``session`` is when the first program of its session was executed, and ``before`` that of the session which it comes
    from; 0: none, or none that is known. ``new`` is whether this is that first one. ``holder`` is 0 where no connection
    was found, 1 where the process itself has it, more for its parent, its parent's parent, and so on.
    """

    def __init__(self, content: bytes, base: int) -> None:
        (
            self.time, _, flags, self.host_pid, self.pid, self.host_ppid, self.ppid, _, self.sid,
            uid, euid, gid, self.links, self.inode, self.device, self.session, self.before, tty,
            name_size, interpreter_size, path_size, arguments_size, self.arguments_all, self.holder, self.holder_fd,
            family, port, remote_port, remote, local, self.socket, uid_before,
        ) = record.HEAD.unpack_from(content)  # fmt: skip
        self.base = base
        self.host_uid = uid
        self.uid, self.euid, self.gid, self.uid_before = (number - base for number in (uid, euid, gid, uid_before))
        self.entered = bool(flags & record.ENTERED)
        self.new = bool(flags & record.NEW)
        self.unknown = bool(flags & record.UNKNOWN) and not self.entered and self.pid != 1
        self.tty = tty.split(b"\0", 1)[0].decode("ascii", "replace")
        at = record.HEAD.size
        name, at = _cut(content, at, name_size)
        interpreter, at = _cut(content, at, interpreter_size)
        parts, at = _cut(content, at, path_size)
        self.name = _string(name)
        self.script = _first(interpreter) != _first(name)[: record.INTERPRETER_MOST - 1]
        path = parts.split(b"\0")[:-1]
        self.memfd = bool(flags & record.DETACHED) and len(path) == 1 and path[0].startswith(_MEMFD)
        whole = b"/".join(reversed(path))
        if not self.memfd:
            whole = (b".../" if flags & record.CUT else b"/") + whole
        self.path = _text(whole)
        self.deleted = self.links == 0 and not self.memfd
        self.unreadable = bool(flags & record.UNREADABLE)
        arguments = content[at : at + arguments_size]
        self.cut = len(arguments) < self.arguments_all
        self.argv = [_text(word) for word in arguments.removesuffix(b"\0").split(b"\0")] if arguments else []
        self.remote = ""
        if self.holder:
            self.remote = place(shown(remote, family), int.from_bytes(remote_port.to_bytes(2, "little"), "big"))
            self.local = place(shown(local, family), port)

    @property
    def fields(self) -> Fields:
        """What its entry in the log has."""
        found: Fields = {"path": self.path, "argv": self.argv}
        if self.script:
            found["script"] = self.name
        elif self.name != self.path:
            found["name"] = self.name
        if self.cut:
            found["argv_bytes"] = self.arguments_all
        for word in ("memfd", "deleted", "unreadable", "entered"):
            if getattr(self, word):
                found[word] = True
        found |= {
            "pid": self.pid,
            "host_pid": self.host_pid,
            "ppid": 0 if self.entered else self.ppid,
            "host_ppid": self.host_ppid,
        }
        found |= {"uid": self.uid, "host_uid": self.host_uid, "gid": self.gid, "sid": self.sid}
        if self.euid != self.uid:
            found["euid"] = self.euid
        if self.tty:
            found["tty"] = self.tty
        if self.holder == 1 and self.holder_fd == 0:
            found["stdin"] = self.remote
        found |= {"inode": self.inode, "dev": f"{self.device >> _MINOR}:{self.device & (1 << _MINOR) - 1}"}
        found["session"] = f"{self.session:x}"
        if self.unknown:
            found["from"] = "unknown"
        return found


def _cut(content: bytes, at: int, size: int) -> tuple[bytes, int]:
    return content[at : at + size], at + size


def _first(content: bytes) -> bytes:
    return content.split(b"\0", 1)[0]


def _string(content: bytes) -> str:
    return _text(_first(content))


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
