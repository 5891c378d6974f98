"""A registry of jails that are not there, for tests of what is said about jails."""

from __future__ import annotations


class Jail:
    """A record as core/get.py wants it."""

    def __init__(self, jid: int, name: str = "", dying: bool = False, parent: int = 0, **params: str) -> None:
        self.jid = jid
        self.name = name or str(jid)
        self.parent = parent
        self.dying = dying
        self.up = True
        self.params = {key.replace("__", "."): text for key, text in params.items()}


class Jails:
    """A registry."""

    def __init__(self, *records: Jail) -> None:
        self.records = list(records)

    def jails(self) -> list[Jail]:
        return self.records

    def find(self, text: str) -> Jail | None:
        for record in self.records:
            if text in (record.name, str(record.jid)):
                return record
        return None
