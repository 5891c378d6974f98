"""``jailctl doctor``: whether this host gives jails what they need, and what to do where it does not.

A check is a row of CHECKS: its name, what it is about, and a function that yields what it finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from jailng.ctl import (
    corekernel,
    diagnosis,
    forwarding,
    hardening,
    hostnetwork,
    lent,
    limitable,
    listing,
    needed,
    netkernel,
    reached,
    redirected,
    room,
)
from jailng.ctl import path as commands
from jailng.ctl.diagnosis import Finding, Jails
from jailng.errors import JailError, UsageError
from jailng.linux import ns
from jailng.params.values import visible
from jailng.procs import printed

if TYPE_CHECKING:
    from rich.table import Table

USAGE = "usage: jailctl doctor [--json] [check ...]"

CHECKS: dict[str, tuple[str, Callable[[Jails], Iterable[Finding]]]] = {
    "path": ("jail, jls and jexec are jailng's wherever PATH looks first", commands.check),
    "packages": ("what jailng takes of Debian's packages is there", needed.check),
    "confinement": ("the kernel has what confines a jail, and what its parameters take", corekernel.check),
    "limits": ("what jails use can be limited, by ng.limits and rctl(8)", limitable.check),
    "hardening": ("no setting of the host's weakens what stands around jails", hardening.check),
    "roots": ("no other user of the host reaches the root of a jail", reached.check),
    "kernel": ("the kernel has what networks of jails take", netkernel.check),
    "forward": ("the host's firewall lets jails' packets through", forwarding.check),
    "table": ("table inet jailng stands, and guards what was switched on for jails", hostnetwork.table),
    "switches": ("forwarding is on where jails need it, and nowhere is it left on", hostnetwork.switches),
    "rp_filter": ("reverse path filtering stands behind the table", hostnetwork.rp_filter),
    "accept_ra": ("jails may have IPv6 addresses without harm to the host's", hostnetwork.accept_ra),
    "addresses": ("the addresses of jails lead to them", lent.check),
    "rules": ("ng.rdr and ng.egress are carried out, and who may come is for them to say", redirected.check),
    "quota": ("what jails take of the disk can be limited, by ng.quota", room.check),
    "leftovers": ("of jails that are gone nothing is left", hostnetwork.leftovers),
}
_STATES = ("ok", "note", "wrong")
_COLOURS = {"ok": "green", "note": "yellow", "wrong": "bold red"}


def main(argv: list[str]) -> int:
    """Run the checks; 1 if anything is wrong. Raises UsageError and JailError."""
    given, names = listing.options(argv, USAGE)
    for name in names:
        if name not in CHECKS:
            raise UsageError(f"jailctl: doctor: no check of that name: {visible(name)}\n{USAGE}\n{_list()}")
    if os.geteuid() != 0 or ns.is_jailed():
        raise JailError("doctor: only the host's root can look at all of it")
    found = _examine(names)
    if "--json" in given:
        written = listing.document({"checks": [_as_json(name, findings) for name, findings in found.items()]})
    elif (console := listing.terminal()) is not None:
        written = listing.draw(console, [_table(found)])
    else:
        written = printed.say([line for name, findings in found.items() for line in _plain(name, findings)])
    return written or int(any(finding.wrong for findings in found.values() for finding in findings))


def _examine(names: Iterable[str] = ()) -> dict[str, list[Finding]]:
    """What each check finds, of those of these names, or of all; root only. Raises JailError."""
    jails = diagnosis.jails()
    return {name: _findings(name, jails) for name in CHECKS if name in (names or CHECKS)}


def _findings(name: str, jails: Jails) -> list[Finding]:
    """One that cannot be made keeps none of the others from being made."""
    found: list[Finding] = []
    try:
        found += CHECKS[name][1](jails)
    except JailError as error:
        found.append(Finding(f"it cannot be told: {error}"))
    return found


def _list() -> str:
    return "checks: " + ", ".join(CHECKS)


def _state(findings: list[Finding]) -> str:
    return _STATES[max([0, *[1 + finding.wrong for finding in findings]])]


def _as_json(name: str, findings: list[Finding]) -> dict[str, object]:
    shown = [{"wrong": one.wrong, "what": one.what, "remedy": list(one.remedy)} for one in findings]
    return {"check": name, "about": CHECKS[name][0], "state": _state(findings), "findings": shown}


def _plain(name: str, findings: list[Finding]) -> list[str]:
    lines = [f"{_state(findings):<7}{name:<13}{CHECKS[name][0]}"]
    for finding in findings:
        lines.append(f"       {visible(finding.what)}")
        lines += [f"         {visible(line)}" for line in finding.remedy]
    return lines


def _table(found: dict[str, list[Finding]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "", box=None, pad_edge=False)
    for name, findings in found.items():
        state = _state(findings)
        text = Text(CHECKS[name][0])
        for finding in findings:
            text.append(f"\n{visible(finding.what)}", style=_COLOURS["wrong" if finding.wrong else "note"])
            for line in finding.remedy:
                text.append(f"\n  {visible(line)}", style="bold")
        table.add_row(Text(state, style=_COLOURS[state]), Text(name), text)
    return table
