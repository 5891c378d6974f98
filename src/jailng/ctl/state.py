"""Which jails there are, in whatever state: those of the registry, and those of the configuration that do not run.

The kernel's word counts, not the record's: a jail is there if its PID 1 is, and being made if who makes it lives. What
else a record tells of is what a command that was killed has left, and the next start or stop of that jail clears away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jailng.conf import config
from jailng.core import get, registry, rootfs
from jailng.core.index import DIRECTORY
from jailng.core.registry import Record
from jailng.engine.files import Files
from jailng.errors import JailError, Mistakes
from jailng.linux import cgroup, ns, processid
from jailng.params.values import visible

CONFIGURATION = "/etc/jail.conf"
RUNNING = "running"
FROZEN = "frozen"  # it is there, and its members stand still: the administrator has frozen them, or core/halt.py
STARTING = "starting"  # somebody makes it: its commands may still run
HALF_MADE = "half-made"  # who made it was killed
DYING = "dying"  # its processes are dead, and somebody takes it apart
HALF_REMOVED = "half-removed"  # who took it apart was killed, or `jail -R` has left what was mounted
ENDED = "ended"  # its last process has left, or PID 1 was killed
STOPPED = "stopped"  # it is in the configuration, and nothing of it is here
LEFT = (HALF_MADE, HALF_REMOVED, ENDED)  # something is left of it
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Known:
    """One jail: its state, its record if it has one, and else what the configuration says, in ``params``."""

    name: str
    state: str
    record: Record | None
    params: dict[str, str]
    defined: config.Jail | None = None

    @property
    def jid(self) -> int | None:
        """Its jid, if it has one."""
        return self.record.jid if self.record is not None else None

    @property
    def lives(self) -> bool:
        """Whether it has a PID 1."""
        if self.record is None or not self.record.init:
            return False
        return self.state in (RUNNING, FROZEN) or (self.state == STARTING and self.record.alive())

    @property
    def path(self) -> str | None:
        """Its root; None where nothing says so."""
        return self.params.get("path", None if self.record is None else "/")

    @property
    def hostname(self) -> str | None:
        """Its host name."""
        if self.record is not None:
            return get.hostname(self.record)
        return self.params.get("host.hostname")

    def addresses(self, name: str) -> list[str]:
        """The bare addresses of ip4.addr or ip6.addr."""
        items = [item for item in self.params.get(name, "").split(",") if item]
        return [item[item.find("|") + 1 :].partition(" ")[0].partition("/")[0] for item in items]

    def since(self) -> float | None:
        """Seconds since the epoch at which its PID 1 was born; None where it has none."""
        if self.record is None or not self.record.init or self.record.remote or not self.lives:
            return None
        try:
            text = Path(f"/proc/{self.record.init_pid}/stat").read_bytes()
        except OSError:
            return None
        birth = int(text.rpartition(b") ")[2].split()[19]) / _TICKS
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + birth


@dataclass(frozen=True)
class All:
    """All jails: those with a record by jid, then those of the configuration in its order; and what is wrong there."""

    jails: list[Known]
    wrong: list[str]

    def named(self, word: str) -> list[Known]:
        """Those of that name or jid; there are two of a name where one is in the making and one has left something.

        Raises JailError: there is none; and why the configuration, which may have it, could not be read.
        """
        number = word.isascii() and word.isdigit() and word.strip("0") != ""
        found = [one for one in self.jails if one.name == word or (number and str(one.jid) == word.lstrip("0"))]
        if not found:
            said = f"jail {word.lstrip('0')} not found" if number else f'jail "{visible(word)}" not found'
            unread = [] if any(one.defined for one in self.jails) else [visible(text) for text in self.wrong[:1]]
            raise Mistakes([said, *unread])
        return found


def everything(file: str | None = None) -> All:
    """All jails, of that configuration or the usual one; of the latter it is no error that it is not there."""
    jails = list(recorded())
    wrong: list[str] = []
    names = {one.name for one in jails}
    try:
        defined = configured(file)
    except (JailError, OSError) as error:
        defined = []
        wrong.append(str(error) if isinstance(error, JailError) else f"{error.filename}: {error.strerror}")
    known = {}
    for jail in defined:
        wrong += [f"{jail.key}: {text}" for text in jail.errors()]
        params = {one.name: ",".join(one.values) if one.name.endswith(".addr") else one.values[-1]
                  for one in jail.sound() if one.values}  # fmt: skip
        name = params.get("name", params.get("jid", jail.key))
        known[name] = jail
        if name not in names:
            names.add(name)
            jails.append(Known(name, STOPPED, None, params, jail))
    return All([one if one.defined else _defined(one, known.get(one.name)) for one in jails], wrong)


def _defined(one: Known, jail: config.Jail | None) -> Known:
    return one if jail is None else Known(one.name, one.state, one.record, one.params, jail)


def configured(file: str | None) -> list[config.Jail]:
    """The jails of a configuration. Raises JailError with what is wrong with it as a whole."""
    if file is None and not os.path.lexists(CONFIGURATION):
        return []
    return config.load(file or CONFIGURATION, Files()).jails


def recorded() -> Iterator[Known]:
    """The jails that have a record of this boot, by jid."""
    records: Iterable[Record] = registry.records()
    if ns.is_jailed():  # the broker tells of those that there are
        yield from [Known(one.name, RUNNING, one, one.params) for one in records]
        return
    locks: set[tuple[str, str]] | None = None
    for record in records:
        if record.up and record.alive():
            yield Known(record.name, FROZEN if _stands_still(record) else RUNNING, record, record.params)
        elif record.current:
            locks = _locked() if locks is None else locks
            state = _state(record, locks)
            if state:
                yield Known(record.name, state, record, record.params)


def _stands_still(record: Record) -> bool:
    try:
        return cgroup.read(f"{record.cgroup}/members/cgroup.freeze").startswith(b"1")
    except OSError:
        return False


def _state(record: Record, locks: set[tuple[str, str]]) -> str:
    """The state of a jail that is not simply there; "" if it is gone by now."""
    try:
        file = os.open(f"{DIRECTORY}/jails/{record.jid}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        begun = b"\nundone\n" in b"\n" + os.pread(file, os.fstat(file).st_size, 0)
        locked = (f"{_device(file)}:{os.stat(f'{DIRECTORY}/lock').st_ino}", str(record.jid)) in locks
    finally:
        os.close(file)
    if not record.up and processid.is_alive(record.starter):
        return DYING if begun and not record.alive() else STARTING
    if locked:
        return DYING
    if not record.up:
        return HALF_MADE
    return HALF_REMOVED if begun else ENDED


def _locked() -> set[tuple[str, str]]:
    """What somebody has locked (``index.hold``), DEVICE:INODE and byte; to ask disturbs nobody, as trying would."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    fields = [line.split() for line in lines if "->" not in line]
    return {(words[5], words[6]) for words in fields if len(words) > 6 and words[1] == "OFDLCK"}


def _device(file: int) -> str:
    """The device of a file's file system as /proc/locks has it; what stat(2) says is not that of every one."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{file}").read_text().splitlines())
    for number, _, device, *_ in rootfs.mounts():
        if number == said["mnt_id"].strip().encode():
            major, _, minor = device.decode().partition(":")
            return f"{int(major):02x}:{int(minor):02x}"
    return ""
