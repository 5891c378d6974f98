"""jailctl rdr: the redirects of jails (ng.rdr), with what they have counted; adding some and taking some away."""

from __future__ import annotations

from jailng.core import tally
from jailng.ctl import rulelist
from jailng.engine import modify
from jailng.errors import JailError, UsageError
from jailng.params import redirect
from jailng.params.model import Parameters

USAGE = """usage: jailctl rdr list [--json] [jail]
       jailctl rdr add jail rule ...
       jailctl rdr del jail rule ...
       jailctl rdr clear jail"""
_COLUMNS = {"first": "CONNECTIONS", "packets": "PACKETS", "bytes": "BYTES"}


def main(argv: list[str]) -> int:
    """Run; the exit status. Raises JailError, UsageError, OSError."""
    verb, words = "".join(argv[:1]), argv[1:]
    if verb == "list":
        return rulelist.show(rulelist.Kind("rdr", USAGE, _COLUMNS, tally.redirects), words)
    if verb not in ("add", "del", "clear") or not words or (verb == "clear") is not (len(words) == 1):
        raise UsageError(USAGE)
    record = rulelist.found(words[0])
    rules = [rule.text for rule in redirect.read([record.params.get("ng.rdr", "")])]
    given = [rule.text for rule in redirect.read(words[1:])]
    for rule in given:
        if (verb == "add") is (rule in rules):
            raise JailError(f'ng.rdr: "{rule}": {"is there already" if verb == "add" else "there is no such rule"}')
    kept = [] if verb == "clear" else [rule for rule in rules if rule not in given]
    changes = Parameters()
    changes.set("ng.rdr", [*kept, *given] if verb == "add" else kept)
    modify.modify(record, changes)
    return 0
