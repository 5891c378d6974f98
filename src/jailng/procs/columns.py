"""The keywords of ps(1): what each column prints, by FreeBSD 15's names, headings and libxo names.

bin/ps/keyword.c has the table and bin/ps/print.c the forms. ``inside``, the user's name in the jail, is ours.
"""

from __future__ import annotations

import grp
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from jailng.errors import JailError
from jailng.params.values import visible
from jailng.procs.jails import Jails, membership, user_name
from jailng.procs.process import Process, terminal_name

_DAY = 24 * 3600
_BLOCK = 512
_WAIT = 8  # characters of a wait channel, as FreeBSD has

Cell = Callable[[Process, Jails], str]


@dataclass(frozen=True)
class Column:
    """A column: its heading, its name in libxo's output, the side it is aligned to, and what it holds."""

    title: str
    field: str
    left: bool
    cell: Cell


def jid(process: Process) -> int:
    """The jail that a process is in; 0 for the host."""
    return membership(process.cgroup)[0]


def state(process: Process) -> str:
    """STAT: Linux's letter, then FreeBSD's flags; J for a process in a jail comes last."""
    flags = [
        (process.nice < 0, "<"),
        (process.nice > 0, "N"),
        (process.status.get("TracerPid", "0") != "0", "X"),
        (process.kernel, "L"),
        (process.session == process.pid, "s"),
        (process.terminal != 0 and process.group == process.terminal_group, "+"),
        (jid(process) != 0, "J"),
    ]
    return process.state.upper() + "".join([letter for holds, letter in flags if holds])


def minutes(seconds: float) -> str:
    """Processor time as FreeBSD has it: ``0:00.14``."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"


def started(when: float, now: float) -> str:
    """STARTED: the time within a day, the weekday within a week, then the date."""
    local = time.localtime(when)
    if now - when < _DAY:
        hour = local.tm_hour % 12 or 12
        return f"{hour:2}:{local.tm_min:02}{'AM' if local.tm_hour < 12 else 'PM'}"
    if now - when < 7 * _DAY:
        hour = local.tm_hour % 12 or 12
        return f"{time.strftime('%a', local)}{hour:02}{'AM' if local.tm_hour < 12 else 'PM'}"
    return time.strftime("%e%b%y", local)


def short_terminal(number: int) -> str:
    """TT: a terminal without the "pts/" or "tty" in front, as FreeBSD has it; the article's ``p9`` was ttyp9."""
    name = terminal_name(number)
    return name.removeprefix("pts/").removeprefix("tty") or name or "??"


def elapsed(seconds: float) -> str:
    """ELAPSED: ``[days-][hours:]minutes:seconds``."""
    rest, second = divmod(int(seconds), 60)
    rest, minute = divmod(rest, 60)
    days, hour = divmod(rest, 24)
    front = f"{days}-{hour:02}:" if days else f"{hour:02}:" if hour else ""
    return f"{front}{minute:02}:{second:02}"


@cache
def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@cache
def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _kilobytes(name: str) -> Cell:
    return lambda process, jails: process.status.get(name, "0").partition(" ")[0]


def _io(name: str) -> Cell:
    def blocks(process: Process, jails: Jails) -> str:
        try:  # root's alone
            with open(f"/proc/{process.pid}/io", "rb") as file:
                known = dict(line.split(b": ") for line in file.read().splitlines())
            return str(int(known[name.encode()]) // _BLOCK)
        except (OSError, ValueError, KeyError):
            return "0"

    return blocks


def _wait_channel(process: Process, jails: Jails) -> str:
    try:  # "0" for one that does not wait, and for whoever may not know
        with open(f"/proc/{process.pid}/wchan", encoding="utf-8", errors="surrogateescape") as file:
            known = file.read().strip()
    except OSError:
        return "-"
    return known[:_WAIT] if known not in ("", "0") else "-"


def _nothing(process: Process, jails: Jails) -> str:
    return "0"


_COLUMNS = {
    "%cpu": Column("%CPU", "percent-cpu", False, lambda p, j: f"{p.percent_cpu:.1f}"),
    "%mem": Column("%MEM", "percent-memory", False, lambda p, j: f"{100 * p.resident / _memory():.1f}"),
    "acflag": Column("ACFLG", "accounting-flag", False, _nothing),
    "args": Column("COMMAND", "arguments", True, lambda p, j: p.command),
    "comm": Column("COMMAND", "command", True, lambda p, j: p.comm),
    "command": Column("COMMAND", "command", True, lambda p, j: p.command),
    "cow": Column("COW", "copy-on-write-faults", False, _nothing),
    "cpu": Column("C", "on-cpu", False, lambda p, j: str(p.processor)),
    "dsiz": Column("DSIZ", "data-size", False, _kilobytes("VmData")),
    "etime": Column("ELAPSED", "elapsed-time", False, lambda p, j: elapsed(p.elapsed)),
    "etimes": Column("ELAPSED", "elapsed-times", False, lambda p, j: str(int(p.elapsed))),
    "gid": Column("GID", "gid", False, lambda p, j: str(p.gids[1])),
    "group": Column("GROUP", "group", True, lambda p, j: _group_name(p.gids[1])),
    "inblk": Column("INBLK", "read-blocks", False, _io("read_bytes")),
    "inside": Column("INSIDE", "inside-user", True, lambda p, j: j.inside_user(jid(p), p.uid)),
    "jail": Column("JAIL", "jail-name", True, lambda p, j: j.name(jid(p))),
    "jid": Column("JID", "jail-id", False, lambda p, j: str(jid(p))),
    "lstart": Column("STARTED", "start-time", True, lambda p, j: time.strftime("%c", time.localtime(p.started))),
    "majflt": Column("MAJFLT", "major-faults", False, lambda p, j: str(p.major_faults)),
    "minflt": Column("MINFLT", "minor-faults", False, lambda p, j: str(p.minor_faults)),
    "msgrcv": Column("MSGRCV", "received-messages", False, _nothing),
    "msgsnd": Column("MSGSND", "sent-messages", False, _nothing),
    "mwchan": Column("MWCHAN", "wait-channel", True, _wait_channel),
    "nice": Column("NI", "nice", False, lambda p, j: str(p.nice)),
    "nivcsw": Column("NIVCSW", "involuntary-context-switches", False, _kilobytes("nonvoluntary_ctxt_switches")),
    "nlwp": Column("NLWP", "threads", False, lambda p, j: str(p.threads)),
    "nsigs": Column("NSIGS", "signals-taken", False, _nothing),
    "nswap": Column("NSWAP", "swaps", False, _nothing),
    "nvcsw": Column("NVCSW", "voluntary-context-switches", False, _kilobytes("voluntary_ctxt_switches")),
    "oublk": Column("OUBLK", "written-blocks", False, _io("write_bytes")),
    "pgid": Column("PGID", "process-group", False, lambda p, j: str(p.group)),
    "pid": Column("PID", "pid", False, lambda p, j: str(p.pid)),
    "ppid": Column("PPID", "ppid", False, lambda p, j: str(p.parent)),
    "pri": Column("PRI", "priority", False, lambda p, j: str(p.priority)),
    "rgid": Column("RGID", "real-gid", False, lambda p, j: str(p.gids[0])),
    "rss": Column("RSS", "rss", False, lambda p, j: str(p.resident // 1024)),
    "ruid": Column("RUID", "real-uid", False, lambda p, j: str(p.uids[0])),
    "ruser": Column("RUSER", "real-user", True, lambda p, j: user_name(p.uids[0])),
    "sid": Column("SID", "sid", False, lambda p, j: str(p.session)),
    "ssiz": Column("SSIZ", "stack-size", False, _kilobytes("VmStk")),
    "start": Column("STARTED", "start-time", True, lambda p, j: started(p.started, time.time())),
    "state": Column("STAT", "state", True, lambda p, j: state(p)),
    "systime": Column("SYSTIME", "system-time", False, lambda p, j: minutes(p.system)),
    "time": Column("TIME", "cpu-time", False, lambda p, j: minutes(p.user + p.system)),
    "tsiz": Column("TSIZ", "text-size", False, _kilobytes("VmExe")),
    "tt": Column("TT ", "terminal-name", False, lambda p, j: short_terminal(p.terminal) + " "),
    "tty": Column("TTY", "tty", True, lambda p, j: terminal_name(p.terminal) or "-"),
    "ucomm": Column("UCOMM", "accounting-name", True, lambda p, j: p.comm),
    "uid": Column("UID", "uid", False, lambda p, j: str(p.uid)),
    "user": Column("USER", "user", True, lambda p, j: user_name(p.uid)),
    "usertime": Column("USERTIME", "user-time", False, lambda p, j: minutes(p.user)),
    "vsz": Column("VSZ", "virtual-size", False, lambda p, j: str(p.virtual // 1024)),
    "wchan": Column("WCHAN", "wait-channel", True, _wait_channel),
}
_ALIASES = {
    "acflg": "acflag", "cputime": "time", "egid": "gid", "egroup": "group", "euid": "uid", "inblock": "inblk",
    "ni": "nice", "nsignals": "nsigs", "oublock": "oublk", "pcpu": "%cpu", "pmem": "%mem", "stat": "state",
    "vsize": "vsz",
}  # fmt: skip


def column(name: str) -> Column:
    """The column of a keyword. Raises JailError: keyword not found."""
    found = _COLUMNS.get(_ALIASES.get(name, name))
    if found is None:
        raise JailError(f"{visible(name)}: keyword not found")
    return found


def keywords() -> list[str]:
    """Every keyword, aliases too, by alphabet."""
    return sorted([*_COLUMNS, *_ALIASES])
