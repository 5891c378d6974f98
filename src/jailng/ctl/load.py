"""What jails, and the processes of one, use between two looks: processors, memory, disks, network.

Of a jail by its cgroup, where the kernel counts (cgroup2, or the controllers of v1), and else by its processes; with
the jails in it. Its network is what its own interfaces have counted, so that one with the host's has none of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from jailng.core import consumption, halt, registry
from jailng.core.registry import Record
from jailng.errors import JailError
from jailng.linux import content
from jailng.params.values import visible
from jailng.procs.jails import Jails, membership
from jailng.procs.process import Process, read

_DISKS = ("readbps", "writebps")
_LARGEST = 1 << 16  # bytes of a list of interfaces that are looked at
Sample = tuple[float, dict[str, int]]


@dataclass
class Rates:
    """What has been counted of each, by a key that is never another's, and how much that was in a second."""

    _before: dict[str, Sample] = field(default_factory=dict)
    _now: dict[str, Sample] = field(default_factory=dict)

    def of(self, key: str, counters: dict[str, int]) -> dict[str, float | None]:
        """In a second, since the look before; None where there was none."""
        now = time.monotonic()
        self._now[key] = now, counters
        before = self._before.get(key)
        if before is None or now <= before[0]:
            return dict.fromkeys(counters)
        then, old = before
        return {name: max(value - old.get(name, value), 0) / (now - then) for name, value in counters.items()}

    def turn(self) -> None:
        """A look is over; what was not seen in it is forgotten."""
        self._before, self._now = self._now, {}


class OfJails:
    """The running jails, looked at again and again."""

    def __init__(self) -> None:
        self._rates = Rates()

    def look(self) -> list[dict[str, Any]]:
        """A row for each: cpu in percent of one processor, memory in bytes, the rest in counts and bytes a second."""
        rows = [row for record in registry.jails() if (row := self._row(record)) is not None]
        self._rates.turn()
        return rows

    def _row(self, record: Record) -> dict[str, Any] | None:
        try:
            counted = consumption.counters(record, True)
            processes = len(halt.members(record))
            used = _try(lambda: consumption.memory(record)) or {}
            if "memoryuse" not in used:
                used = consumption.of(record, ("memoryuse",))
            age = consumption.age(record)
        except (JailError, OSError):
            return None  # it has ended
        counters = {"cpu": counted["pcpu"], **{name: counted[name] for name in _DISKS}, **_network(record)}
        rates = self._rates.of(record.init, counters)
        cpu = rates["cpu"]
        return {
            "jid": record.jid,
            "name": record.name,
            "cpu": round(cpu / 10_000, 1) if cpu is not None else None,
            "memory": used["memoryuse"],
            "processes": processes,
            **{name: _whole(rates.get(key)) for name, key in _COUNTERS.items()},
            "age": age,
        }


_COUNTERS = {"read": "readbps", "write": "writebps", "receive": "receive", "transmit": "transmit"}


def _whole(rate: float | None) -> int | None:
    return round(rate) if rate is not None else None


def _try(ask: Callable[[], dict[str, int]]) -> dict[str, int] | None:
    try:
        return ask()
    except OSError:
        return None


def _network(record: Record) -> dict[str, int]:
    """Bytes that the jail's own interfaces have received and sent; nothing, where it has none of its own."""
    if record.shares_network or record.sockets or record.joined:
        return {}
    try:
        lines = content.text(f"/proc/{record.init_pid}/net/dev")[:_LARGEST].split("\n")[2:]
    except OSError:
        return {}
    found = {"receive": 0, "transmit": 0}
    for line in lines:
        name, _, counted = line.rpartition(":")
        words = counted.split()
        if name.strip() not in ("", "lo") and len(words) > 8:
            found["receive"] += int(words[0])
            found["transmit"] += int(words[8])
    return found


class OfProcesses:
    """The processes of one jail, and of those in it, looked at again and again."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._jails = Jails()
        self._rates = Rates()

    def look(self) -> list[dict[str, Any]]:
        """A row for each. Raises JailError: the jail has ended."""
        try:
            pids = halt.members(self.record)
        except OSError:
            pids = []
        if not self.record.alive():
            raise JailError(f'jail "{visible(self.record.name)}" has ended')
        rows = [self._row(process) for process in _read(pids)]
        self._rates.turn()
        return rows

    def _row(self, process: Process) -> dict[str, Any]:
        spent = round((process.user + process.system) * 1000)
        rate = self._rates.of(f"{process.pid} {process.birth}", {"cpu": spent})["cpu"]
        jid = membership(process.cgroup)[0]
        return {
            "jid": jid,
            "pid": process.pid,
            "user": self._jails.inside_user(jid, process.uid),
            "cpu": round(rate / 10, 1) if rate is not None else None,
            "memory": process.resident,
            "threads": process.threads,
            "state": process.state,
            "time": round(process.user + process.system, 2),
            "age": round(process.elapsed),
            "command": process.command,
        }


def _read(pids: Iterable[int]) -> list[Process]:
    return [process for pid in pids if (process := read(pid)) is not None]
