"""What there is to know of one jail: facts, as JSON has them. Nothing in the jail is asked, or waited for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from jailng.core import consumption, halt, registry
from jailng.core.index import UIDS_PER_JAIL
from jailng.core.registry import Record
from jailng.ctl import jails as listed
from jailng.ctl.state import Known
from jailng.errors import JailError
from jailng.limits import standing
from jailng.linux import cgroup, controller, processid
from jailng.observe import posts, store
from jailng.params.limit import RESOURCES
from jailng.procs.jails import Jails, membership
from jailng.procs.process import Process, read

# Of what is counted in the jail's own file systems a jailed root could keep whoever asks waiting.
_COUNTED = tuple(name for name in RESOURCES if name not in consumption.OWN)
_HELPERS = ("broker", "keeper", "sockets", "warden", "starter")
_MOUNTED = ("image", "mount")  # undo lines of core/mounting.py


def facts(one: Known) -> dict[str, Any]:
    """All of a jail; what it does not have, or only another user may know, is null or empty."""
    found: dict[str, Any] = listed.row(one, time.time())
    record = one.record
    found["parameters"] = dict(one.params)
    found["kept"] = f"{store.BASE}/{one.name}" if one.name in _kept() else None
    if record is None or record.remote:
        return found
    found["uids"] = {
        "kind": one.params.get("ng.uids", "private"),
        "first": record.owner,
        "count": UIDS_PER_JAIL if record.owner else None,
    }
    found["cgroups"] = _cgroups(record)
    found["guest"] = record.guest or None  # what ng.init has found
    found["jails"] = [name for jid in registry.jids_below(record.name) if (name := _name(jid))]
    found["mounts"] = [line for line in record.undo if line.split(" ")[0] in _MOUNTED]
    found["undo"] = record.undo  # what the next stop takes away, from the last on
    found["watched"] = _watched(record)
    found["helpers"] = [
        {"what": what, **_process(identity)}
        for what, identity in [*[(name, getattr(record, name)) for name in _HELPERS], *_consoles(record)]
        if identity and (what != "starter" or not record.up)
    ]
    if one.lives:
        found |= _alive(record)
    return found


def _kept() -> list[str]:
    try:
        return store.jails()
    except OSError:
        return []  # root's alone


def _alive(record: Record) -> dict[str, Any]:
    known = Jails()
    members = []
    for pid in _pids(record):
        process = read(pid)
        if process is not None and membership(process.cgroup) == (record.jid, False):
            members.append(_member(process, known, record.jid))
    return {"members": members, "use": _use(record), "limits": _limits(record)}


def _pids(record: Record) -> list[int]:
    try:
        return halt.members(record)
    except (JailError, OSError):
        return []


def _member(process: Process, known: Jails, jid: int) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "user": known.inside_user(jid, process.uid),
        "uid": known.inside_uid(jid, process.uid),
        "state": process.state,
        "since": round(process.started, 2),
        "command": process.command,
    }


def _use(record: Record) -> dict[str, int] | None:
    """By rctl(8)'s names; bytes, seconds, percent of one processor, and counts."""
    try:
        used = consumption.of(record, _COUNTED)
    except (JailError, OSError):
        return None
    return {name: used[name] for name in _COUNTED if name in used}


def _limits(record: Record) -> list[str] | None:
    """Rules of rctl(8) that count for it, its own last."""
    try:
        return [rule.shown() for rule in standing.rules(record)]
    except (JailError, OSError):
        return None


def _cgroups(record: Record) -> dict[str, str]:
    """Its directory in cgroup2, by "", and in each hierarchy of v1 where it has one."""
    found = {}
    try:
        found[""] = f"{os.readlink(f'/proc/self/fd/{cgroup.unified_root()}')}/{record.cgroup}"
    except OSError:
        pass
    for name in record.controllers.split():
        place = controller.existing(name, record.cgroup)
        if place:
            found[name] = place
    return {name: place for name, place in found.items() if Path(place).is_dir()}


def _watched(record: Record) -> list[dict[str, Any]]:
    """Each kind of post that it has, or is to have, with its process and whether that lives."""
    try:
        wanted = posts.wanted(record)
    except JailError:
        wanted = []
    return [
        {"what": kind, "wanted": kind in wanted, **_process(record.posts.get(kind, ""))}
        for kind in dict.fromkeys([*wanted, *record.posts])
    ]


def _consoles(record: Record) -> list[tuple[str, str]]:
    return [("console", identity) for identity in record.consoles]


def _process(identity: str) -> dict[str, Any]:
    pid = identity.partition(" ")[0]
    return {"pid": int(pid) if pid else None, "lives": processid.is_alive(identity)}


def _name(jid: int) -> str:
    record = registry.load(jid)
    return record.name if record is not None and record.alive() else ""
