"""``jailctl list``: the jails that run, those of the configuration that do not, and what is left of others."""

from __future__ import annotations

import sys
import time

from jailng.ctl import listing, state
from jailng.ctl.listing import Column
from jailng.ctl.state import Known
from jailng.errors import UsageError
from jailng.params.values import visible
from jailng.procs.columns import elapsed

USAGE = "usage: jailctl list [-r] [-f file] [--json] [jail ...]"
_STYLES = {state.RUNNING: "green", state.STARTING: "cyan", state.STOPPED: "dim"}  # all else is to be looked at


def style(of: str) -> str:
    """How a terminal shows a state."""
    return _STYLES.get(of, "yellow")


COLUMNS = [
    Column("jid", left=False, least=5),
    Column("name", least=8),
    Column("state", style=style),
    Column("ip"),
    Column("age", left=False),
    Column("path"),
    Column("hostname"),
]


def main(argv: list[str]) -> int:
    """Run; 1 if something is wrong with the configuration. Raises UsageError and JailError."""
    given, words = listing.options(argv, USAGE, "f:r")
    if "-r" in given and "-f" in given:
        raise UsageError(USAGE)
    known = state.All(list(state.recorded()), []) if "-r" in given else state.everything(given.get("-f"))
    chosen = [one for word in words for one in known.named(word)] if words else known.jails
    if "-r" in given:
        chosen = [one for one in chosen if one.state in (state.RUNNING, state.FROZEN, state.STARTING)]
    now = time.time()
    status = listing.show("jails", COLUMNS, [row(one, now) for one in chosen], "--json" in given)
    return complain(known.wrong) or status


def complain(wrong: list[str]) -> int:
    """Tell of what is wrong with a configuration; the exit status."""
    for text in wrong:
        print(f"jailctl: {visible(text)}", file=sys.stderr)
    return int(bool(wrong))


def row(one: Known, now: float) -> dict[str, object]:
    """What a listing has of a jail; ``now`` in seconds since the epoch."""
    ip4, ip6 = one.addresses("ip4.addr"), one.addresses("ip6.addr")
    since = one.since()
    return {
        "jid": one.jid,
        "name": one.name,
        "state": one.state,
        "ip": [*ip4, *ip6],
        "ip4": ip4,
        "ip6": ip6,
        "path": one.path,
        "hostname": one.hostname,
        "parent": one.record.parent if one.record is not None else None,
        "init": one.record.init_pid if one.record is not None and one.lives and not one.record.remote else None,
        "since": round(since, 2) if since is not None else None,
        "age": elapsed(now - since) if since is not None else None,
        "configured": one.defined is not None,
    }
