"""``jailctl info``: all of one jail: its state, parameters, members, limits, who watches it, what is left of it."""

from __future__ import annotations

import time
from typing import Any

from jailng.ctl import about, listing, state
from jailng.ctl.listing import Column
from jailng.errors import JailError, UsageError
from jailng.limits.rule import humanized
from jailng.params.limit import RESOURCES
from jailng.params.values import visible
from jailng.procs import printed

USAGE = "usage: jailctl info [-a] [-f file] [--json] jail"
_MOST = 20  # members that are shown
_COLUMNS = [Column("what", shown=str, style=lambda _: "bold"), Column("value")]
_PLAIN = ("state", "jid", "parent", "path", "hostname", "ip4", "ip6", "kept")


def main(argv: list[str]) -> int:
    """Run. Raises UsageError and JailError."""
    given, words = listing.options(argv, USAGE, "af:")
    if len(words) != 1:
        raise UsageError(USAGE)
    known = state.everything(given.get("-f"))
    if "-f" in given and known.wrong:
        raise JailError(visible(known.wrong[0]))
    found = known.named(words[0])
    facts = about.facts(next((one for one in found if one.lives), found[0]))
    if "--json" in given:
        return listing.document(facts)
    rows = [{"what": what, "value": value} for what, value in _rows(facts, "-a" in given)]
    console = listing.terminal()
    if console is not None:
        return listing.draw(console, [listing.table(_COLUMNS, rows, titles=False)])
    return printed.say(listing.lines(_COLUMNS, rows, titles=False, width=listing.shown_width(), folded=True))


def _rows(facts: dict[str, Any], everything: bool) -> list[tuple[str, str]]:
    rows = [("name", str(facts["name"]))]
    rows += [(key, listing.plain(facts[key])) for key in _PLAIN if facts.get(key) not in (None, [], "", 0)]
    if facts["since"] is not None:
        began = time.strftime("%F %T", time.localtime(facts["since"]))
        rows.insert(2, ("since", f"{began} ({facts['age']})"))
    if facts["init"] is not None:
        rows.append(("init", f"pid {facts['init']}"))
    rows.append(("configured", listing.plain(facts["configured"])))
    uids = facts.get("uids")
    if uids is not None:
        rows.append(("uids", f"{uids['kind']}, from {uids['first']}" if uids["count"] else uids["kind"]))
    if facts.get("guest"):
        rows.append(("guest", facts["guest"]))
    rows += _several("jails", facts.get("jails", []))
    rows += _several("watched", [_post(one, facts["init"] is not None) for one in facts.get("watched", [])])
    rows += _several("helpers", [f"{one['what']}: {_process(one)}" for one in facts.get("helpers", [])])
    rows += _several("limits", facts.get("limits") or [])
    rows += _several("use", _use(facts.get("use") or {}, everything))
    rows += _several("members", _members(facts.get("members", []), everything))
    rows += _several("cgroups", [f"{name or 'cgroup2'}: {place}" for name, place in facts.get("cgroups", {}).items()])
    rows += _several("mounts", facts.get("mounts", []))
    if everything or facts["state"] in state.LEFT:
        rows += _several("to undo", facts.get("undo", []))
    rows += _several(
        "parameters", [f"{name}={value}" if value else name for name, value in facts["parameters"].items()]
    )
    return rows


def _several(what: str, values: list[str]) -> list[tuple[str, str]]:
    return [(what if number == 0 else "", value) for number, value in enumerate(values)]


def _process(one: dict[str, Any]) -> str:
    return f"pid {one['pid']}{'' if one['lives'] else ', dead'}" if one["pid"] is not None else "none"


def _post(one: dict[str, Any], running: bool) -> str:
    lacking = running and one["wanted"] and not one["lives"]
    return f"{one['what']}: {_process(one)}{', until the next command that touches the jail' if lacking else ''}"


def _use(used: dict[str, int], everything: bool) -> list[str]:
    shown = []
    for name, amount in used.items():
        if amount or everything:
            in_bytes = RESOURCES[name][0] == "bytes"
            shown.append(f"{name}={humanized(amount) if in_bytes else amount}")
    return shown


def _members(members: list[dict[str, Any]], everything: bool) -> list[str]:
    shown = members if everything else members[:_MOST]
    lines = [f"{one['pid']} {one['user']} {one['command']}" for one in shown]
    return [*lines, f"and {len(members) - _MOST} more"] if len(members) > len(shown) else lines
