"""The rules that the kernel has, read from its tables and put there; and the lock against another ipnat(8)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from jailng.errors import JailError
from jailng.linux import module
from jailng.linux.libnftables import Library
from jailng.nat import label
from jailng.nat.parse import parse
from jailng.nat.printed import printed
from jailng.nat.rule import Rule
from jailng.nat.ruleset import FAMILIES, LISTED, TABLE, compile_rules
from jailng.nat.translation import Loaded

_NAMESPACE = "/proc/self/ns/net"


class Table:
    """The rules of this network namespace. While it is entered no other ipnat(8) changes them.

    The lock is on the namespace itself: there is no file of ours that could be left lying about, or be another's.
    """

    def __init__(self) -> None:
        self._library = Library()
        self._lock = -1
        self.rules: list[Loaded] = []
        self._standing: set[str] = set()

    def __enter__(self) -> Table:
        self._lock = os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.read()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def read(self) -> None:
        """Ask the kernel. Raises JailError."""
        found: list[tuple[int, Loaded]] = []
        tables = [item["table"] for item in self._library.ask("list tables") if "table" in item]
        self._standing = {item["family"] for item in tables if item["name"] == TABLE}
        for word in sorted(self._standing & {family.word for family in FAMILIES}):
            found += _rules(self._library.ask(f"list table {word} {TABLE}"))
        self.rules = [loaded for _, loaded in sorted(found, key=lambda pair: pair[0])]

    def replace(self, name: str, rules: list[Loaded]) -> None:
        """Have these rules and no others, in one transaction: packets meet the old ones, or the new.

        ``name`` is the file's, for messages. Raises JailError.
        """
        text = self.text(name, rules)
        if text:
            self._library.run(text)
        self.rules = rules

    def text(self, name: str, rules: list[Loaded]) -> str:
        """That transaction. Raises JailError for what Linux cannot carry."""
        listed = [(loaded, printed(loaded.rule, resolve=False)) for loaded in rules]
        return compile_rules(name, listed, self._standing, module.has)

    def numbered(self, rules: Iterable[Rule]) -> list[Loaded]:
        """New rules, with numbers that no session bears: of one that is gone, neither, as far as chance goes."""
        last = max([loaded.number for loaded in self.rules], default=-1)
        if last < 0:
            last = int.from_bytes(os.urandom(4), "big") % label.NUMBERS
        taken = {loaded.number for loaded in self.rules}
        numbered = []
        for rule in rules:
            last = (last + 1) % label.NUMBERS
            while last in taken:
                last = (last + 1) % label.NUMBERS
            taken.add(last)
            numbered.append(Loaded(last, rule))
        return numbered


def _rules(objects: list[dict[str, Any]]) -> list[tuple[int, Loaded]]:
    texts: dict[int, tuple[int, str]] = {}
    counted: dict[int, tuple[int, int]] = {}
    for item in objects:
        rule = item.get("rule", {})
        comment = rule.get("comment", "")
        if rule.get("chain") == LISTED:
            number, place, part = comment.split(" ", 2)
            texts[int(number)] = int(place), texts.get(int(number), (0, ""))[1] + part
        elif comment.isdecimal():
            packets, octets = _counter(rule["expr"])
            before = counted.get(int(comment), (0, 0))
            counted[int(comment)] = before[0] + packets, before[1] + octets
    found = []
    for number, (place, text) in texts.items():
        packets, octets = counted.get(number, (0, 0))
        found.append((place, Loaded(number, _parsed(text), packets, octets)))
    return found


def _parsed(text: str) -> Rule:
    text = text.replace("%22", '"').replace("%25", "%")
    rules = parse("the kernel's list", f"{text}\n".encode()).rules
    if len(rules) != 1:
        raise JailError(f"the kernel's list: {text}: not a rule")
    return replace(rules[0], line=0)


def _counter(expressions: list[dict[str, Any]]) -> tuple[int, int]:
    for expression in expressions:
        if "counter" in expression:
            counter = expression["counter"]
            return int(counter["packets"]), int(counter["bytes"])
    return 0, 0
