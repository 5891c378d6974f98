"""A record of an exec, or of a process's end, as the programs on processes lay it down and ``executions`` reads it."""

from __future__ import annotations

import struct

EXEC, EXIT = 1, 2
# What a record is marked with.
ENTERED, NEW, UNKNOWN, CUT, DETACHED, UNREADABLE = 1, 2, 4, 8, 16, 32

# time kind marks | pid, inside ppid, inside sid, inside | uid euid gid links | inode dev | session before | tty |
# sizes of: name given, interpreter, path, arguments | size of all arguments | whose the socket is, and its descriptor |
# family, local port, remote port | remote and local address | where it is | uid before
HEAD = struct.Struct("=QII 6I 4I QI4x QQ 16s 4I Q II HHH2x 16s16s Q I4x")
(
    TIME, KIND, MARKS, PID, PID_IN, PARENT, PARENT_IN, SESSION, SESSION_IN, UID, EUID, GID, LINKS, INODE, DEVICE,
    LINEAGE, BEFORE, TTY, NAME_SIZE, INTERPRETER_SIZE, PATH_SIZE, ARGUMENTS_SIZE, ARGUMENTS_ALL, HELD, HELD_FD, FAMILY,
    PORT, REMOTE_PORT, REMOTE, LOCAL, SOCKET, UID_BEFORE,
) = (
    0, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 64,
    72, 80, 88, 104, 108, 112, 116, 120, 128, 132, 136,
    138, 140, 144, 160, 176, 184,
)  # fmt: skip
EXIT_SIZE = BEFORE + 8  # an end has no more than that
NAME_MOST, INTERPRETER_MOST = 1024, 256  # bytes that are kept of these, the NUL at their end among them
SCRATCH = 16384  # room for a whole one: the head, the names, the path and the arguments
