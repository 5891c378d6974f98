"""ipnat(8): rules that translate addresses, put into the kernel, taken out and shown; and the sessions they make."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterable

from jailng.cli import printing
from jailng.cli.getopt import getopt
from jailng.core import firewall
from jailng.errors import JailError, UsageError
from jailng.linux import conntrack
from jailng.nat import session
from jailng.nat.condition import Family
from jailng.nat.lex import predefined
from jailng.nat.loaded import Table, numbered
from jailng.nat.older import older
from jailng.nat.parse import parse
from jailng.nat.printed import printed
from jailng.nat.rule import No, Rdr, Rule, Rules
from jailng.nat.ruleset import compile_rules
from jailng.nat.session import Session
from jailng.nat.target import loopback
from jailng.nat.translation import Loaded

USAGE = "Usage: ipnat [-CFhlnrRsv] [-f filename]"
_LETTERS = "CdFf:hlm:M:N:nO:prRsv"
_MOST = 16 << 20  # bytes of rules; some 200,000 of them, and no device that never ends
_NEVER = {"m": "an expression", "M": "a core file", "N": "a kernel", "O": "fields"}


class Call:
    """The options of a command line. Raises UsageError, JailError."""

    def __init__(self, argv: list[str]) -> None:
        options, words = getopt(argv, _LETTERS, USAGE)
        if words:
            raise UsageError(USAGE)
        self._letters = {letter for letter, _ in options}
        self.file = next((argument for letter, argument in reversed(options) if letter == "f"), None)
        for letter, what in _NEVER.items():
            if letter in self._letters:
                raise JailError(f"-{letter}: Linux has no use for {what} here")
        if self.has("p") and not self.has("r"):
            raise JailError("-p must be used with -r")

    def has(self, letter: str) -> bool:
        """Whether an option was given."""
        return letter in self._letters

    def printed(self, rule: Rule) -> str:
        """A rule as it is to be shown."""
        return printed(rule, resolve=not self.has("R"))


def main(argv: list[str]) -> int:
    """Run the command, and return the exit status: 0, or 1 after a line on standard error."""
    try:
        call = Call(argv)
        if call.has("n"):
            _check(call)
        elif call.file is not None or call.has("C") or call.has("F"):
            _change(call)
        if call.file is None and not call.has("n") and (call.has("l") or call.has("s")):
            _show(call)
    except UsageError as error:
        return printing.complain(str(error), error.status, lines=True)
    except JailError as error:
        return printing.complain(f"ipnat: {error}", error.status)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return printing.complain(f"ipnat: {where}{error.strerror}")
    return 0


def _read(call: Call) -> Rules:
    """The rules of the file. Raises JailError, OSError."""
    if call.file is None:
        return Rules("", ())
    if call.file == "-":
        name, content = "<stdin>", sys.stdin.buffer.read(_MOST + 1)
    else:
        name = call.file
        with open(name, "rb") as file:
            content = file.read(_MOST + 1)
    if len(content) > _MOST:
        raise JailError(f"{name}: larger than {_MOST >> 20} MB")
    rules = parse(name, content, predefined(os.environ.get("IPNAT_PREDEFINED", "")))
    for line in rules.warnings:
        printing.complain(line)
    if not call.has("r"):
        _warn_of_loopback(rules)
    for config in rules.proxies:
        raise JailError(f"{name}:{config.line}: proxy {config.label}: Linux has none")
    return rules


def _tell(call: Call, rules: Rules) -> None:
    """What -v says of the rules."""
    if call.has("v"):
        for rule in rules.rules:
            printing.say(call.printed(rule))


def _warn_of_loopback(rules: Rules) -> None:
    """The kernel leads nothing from the network to 127.0.0.1, unless the interface's administrator has it do so."""
    for rule in rules.rules:
        address, interface = loopback(rule), rule.interfaces[0]
        if address is None or address.version == 6:
            continue
        if firewall.read_switch(f"ipv4/conf/{interface}/route_localnet") != 1:
            name = f"net.ipv4.conf.{interface}.route_localnet"
            printing.complain(f"{rules.name}:{rule.line}: {address}: Linux leads nothing there unless {name} is 1")


def _check(call: Call) -> None:
    """Read and compile the file, and do nothing."""
    rules = _read(call)
    _tell(call, rules)
    text = compile_rules(rules.name, [(Loaded(at, rule), call.printed(rule)) for at, rule in enumerate(rules.rules)])
    if call.has("d"):
        printing.answer(text.rstrip())


def _change(call: Call) -> None:
    """Have the kernel translate as it is said, by one transaction; then let sessions go that are to be forgotten."""
    rules = _read(call)
    flushes = call.has("C") or call.has("F")
    if not flushes:
        _tell(call, rules)
    with Table() as table:
        kept = [] if call.has("C") else table.rules()
        after = _without(rules, kept) if call.has("r") else [*kept, *_new(call, table, rules, kept)]
        if call.has("d"):
            printing.say(table.text(rules.name, after).rstrip())
        # Of families that lose their last rule: conntrack can be large, and is asked only where it matters.
        losing = set(table.standing) - {Family(loaded.rule.family).word for loaded in after}
        table.replace(rules.name, after, _families() if losing else ())
        removed = table.texts.keys() - {loaded.number for loaded in after}
        gone = removed if call.has("p") else removed & table.purging()
        if call.has("F"):
            print(f"{_forget(None)} entries flushed from NAT table", flush=True)
        elif gone:
            _forget(gone)
        if not call.has("r") and len(after) > len(kept):
            _begin_anew([loaded.rule for loaded in after[len(kept) :]])
        if losing.intersection(table.standing):
            table.replace(rules.name, after, _families())
        if call.has("C"):
            print(f"{len(table.texts)} entries flushed from NAT list", flush=True)
    if flushes:
        _tell(call, rules)  # as they come: behind what went


def _new(call: Call, table: Table, rules: Rules, kept: list[Loaded]) -> list[Loaded]:
    """The rules of a file, none of which may be there already. Raises JailError."""
    present = {loaded.rule for loaded in kept}
    for rule in rules.rules:
        if rule in present:
            raise JailError(f"{rules.name}:{rule.line}: File exists: {printed(rule, resolve=False)}")
        present.add(rule)
    # A session that lives on keeps its rule's number, though the rule be gone.
    taken = set(table.texts) | (set() if call.has("F") else {known.mark.number for known in _sessions()})
    return numbered(rules.rules, taken)


def _without(rules: Rules, kept: list[Loaded]) -> list[Loaded]:
    """What is left without the rules of a file, each of which must be there. Raises JailError."""
    left = {loaded.rule: loaded for loaded in kept}
    for rule in rules.rules:
        if left.pop(rule, None) is None:
            raise JailError(f"{rules.name}:{rule.line}: No such rule: {printed(rule, resolve=False)}")
    return list(left.values())


def _families() -> set[str]:
    """Those that have sessions of ours."""
    return {Family(4 if known.connection.original.source.version == 4 else 6).word for known in _sessions()}


def _sessions() -> list[Session]:
    with conntrack.open_conntrack() as netlink:
        return list(session.sessions(conntrack.connections(netlink)))


def _forget(numbers: set[int] | None) -> int:
    """Delete our sessions, or those that rules of these numbers have made; how many."""
    with conntrack.open_conntrack() as netlink:
        found = [
            known
            for known in session.sessions(conntrack.connections(netlink))
            if numbers is None or known.mark.number in numbers
        ]
        conntrack.forget(netlink, list(dict.fromkeys([known.connection for known in found])))
    return len(found)


def _begin_anew(rules: list[Rule]) -> None:
    """Have rules asked that are new, with the next packet, by who has sent since before there were these."""
    with conntrack.open_conntrack() as netlink:
        conntrack.forget(netlink, list(older(conntrack.connections(netlink), rules)))


def _show(call: Call) -> None:
    with Table() as table:
        rules = table.rules()
    found = _sessions()
    lines: list[str] = []
    if call.has("s"):
        lines += _statistics(rules, found)
    if call.has("l"):
        lines.append("List of active MAP/Redirect filters:")
        for loaded in rules:
            hits = f"{loaded.packets} " if call.has("h") else ""
            lines.append(f"{hits}{call.printed(loaded.rule)}")
        lines += ["", "List of active sessions:", *[session.printed(known, call.has("v")) for known in found]]
    printing.answer("\n".join(lines))


def _statistics(rules: list[Loaded], found: list[Session]) -> Iterable[str]:
    """What Linux counts of what FreeBSD does, in FreeBSD's order and words: dostats() of ipnat.c."""
    redirecting = [loaded for loaded in rules if isinstance(loaded.rule, Rdr)]
    inward = sum(loaded.packets for loaded in redirecting)
    total = sum(loaded.packets for loaded in rules if not isinstance(loaded.rule, No))
    yield f"{sum(known.side == 'destination' for known in found)}\tinuse in"
    yield f"{sum(known.side == 'source' for known in found)}\tinuse out"
    yield f"{inward}\tadded in"
    yield f"{total - inward}\tadded out"
    yield f"{len(found)}\tactive"
    yield f"{len(rules)}\trule count"
    yield f"{len(rules) - len(redirecting)}\tmap rules"
    yield f"{len(redirecting)}\trdr rules"


def run() -> None:
    """The command: what the script calls."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, no child could be waited for
    gc.disable()  # a thousand rules are some ten thousand objects, and all of them are needed to the end
    sys.exit(main(sys.argv[1:]))
