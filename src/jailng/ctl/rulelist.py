"""Rules of jails with what they have counted, as a table or as JSON: what jailctl rdr and jailctl egress list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jailng.core import registry
from jailng.core.registry import Record
from jailng.core.tally import Counted
from jailng.ctl import listing
from jailng.ctl.listing import Column
from jailng.errors import UsageError
from jailng.procs.jails import named


@dataclass(frozen=True)
class Kind:
    """``title`` is the verb; ``columns`` are attributes of ``Counted``, with the names that they are shown by."""

    title: str
    usage: str
    columns: dict[str, str]
    counted: Callable[[Record], list[Counted]]


def found(word: str) -> Record:
    """The running jail of that name or jid. Raises JailError."""
    return named(word, lambda jid: f"jail {jid} not found")


def show(kind: Kind, words: list[str]) -> int:
    """List the rules of the jails that are named, or of all; the exit status. Raises JailError, UsageError, OSError."""
    given, names = listing.options(words, kind.usage)
    if len(names) > 1:
        raise UsageError(kind.usage)
    records = [found(names[0])] if names else registry.jails()
    listed = [(record, kind.counted(record)) for record in records]
    if "--json" in given:
        return listing.document({kind.title: [_fact(kind, *one) for one in listed if one[1]]})
    columns = [Column("jid", left=False), Column("name")]
    columns += [Column(column, title, left=False) for column, title in kind.columns.items()]
    rows = [
        {"jid": record.jid, "name": record.name, "rule": rule.text, **{key: getattr(rule, key) for key in kind.columns}}
        for record, rules in listed
        for rule in rules
    ]
    return listing.show(kind.title, [*columns, Column("rule")], rows, as_json=False)


def _fact(kind: Kind, record: Record, rules: list[Counted]) -> dict[str, object]:
    said = [
        {"rule": rule.text, **{title.lower(): getattr(rule, column) for column, title in kind.columns.items()}}
        for rule in rules
    ]
    return {"jid": record.jid, "name": record.name, "rules": said}
