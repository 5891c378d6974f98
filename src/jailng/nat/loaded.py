"""The rules that the kernel has, read from its tables and put there; and the lock against another ipnat(8)."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Container, Iterable
from dataclasses import replace
from typing import Any

from jailng.core import index
from jailng.errors import JailError
from jailng.linux import module, nftables, ns
from jailng.linux.libnftables import Library
from jailng.linux.netlink import NETLINK_NETFILTER, Netlink
from jailng.nat import label
from jailng.nat.condition import Family
from jailng.nat.parse import parse
from jailng.nat.printed import printed
from jailng.nat.rule import Rule
from jailng.nat.ruleset import FAMILIES, LISTED, TABLE, compile_rules
from jailng.nat.translation import Loaded

_PIECE = re.compile(r"(\d{1,7}) (\d{1,9}) (.*)", re.DOTALL)
_NUMBERS = {4: nftables.NFPROTO_IPV4, 6: nftables.NFPROTO_IPV6}
_NAMESPACE = "/proc/self/ns/net"


def _lock() -> int:
    """That of this network namespace.

    Of root of the host not its file in /proc, which a jail with ip4=inherit has, too: who can open it can lock it.
    """
    if not (ns.is_jailed() or os.geteuid()):
        return index.hold(index.NETWORKS + os.stat(_NAMESPACE).st_ino)
    lock = os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


class Table:
    """The rules of this network namespace. While it is entered no other ipnat(8) changes them.

    ``texts`` are the rules as they are kept, by number, in their order; ``standing`` are the families, ``ip`` or
    ``ip6``, that have a table.
    """

    def __init__(self) -> None:
        self._library = Library()
        self._lock = -1
        self.standing: list[str] = []
        self.texts: dict[int, str] = {}

    def __enter__(self) -> Table:
        self._lock = _lock()
        try:
            self._read()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def _read(self) -> None:
        with Netlink(NETLINK_NETFILTER) as netlink:  # which tells who may not, where the library speaks up for itself
            present = [nftables.named(body) for _, body in netlink.ask(nftables.get_tables())]
        self.standing = [family.word for family in FAMILIES if (_NUMBERS[family.number], TABLE) in present]
        found: dict[int, tuple[int, str]] = {}
        for word in self.standing:
            for item in self._listed(word):
                if piece := _PIECE.match(item.get("rule", {}).get("comment", "")):
                    number, place, part = int(piece[1]), int(piece[2]), piece[3]
                    found[number] = place, found.get(number, (0, ""))[1] + part
        ordered = sorted(found.items(), key=lambda pair: pair[1][0])
        self.texts = {number: text.replace("%22", '"').replace("%25", "%") for number, (_, text) in ordered}

    def _listed(self, word: str) -> list[dict[str, Any]]:
        try:
            return self._library.ask(f"list chain {word} {TABLE} {LISTED}")
        except JailError:  # somebody has taken the chain away, or made a table of this name
            return []

    def rules(self) -> list[Loaded]:
        """All of them, with what they have counted. Raises JailError."""
        counted: dict[int, tuple[int, int]] = {}
        for word in self.standing:
            for item in self._library.ask(f"list table {word} {TABLE}"):
                comment = item.get("rule", {}).get("comment", "")
                if comment.isdecimal():
                    before = counted.get(int(comment), (0, 0))
                    packets, octets = _counter(item["rule"]["expr"])
                    counted[int(comment)] = before[0] + packets, before[1] + octets
        return [Loaded(number, _rule(text), *counted.get(number, (0, 0))) for number, text in self.texts.items()]

    def purging(self) -> set[int]:
        """The numbers of rules whose sessions go with them."""
        return {number for number, text in self.texts.items() if text.rstrip(";").endswith(" purge")}

    def replace(self, name: str, rules: list[Loaded], held: Container[str] = ()) -> None:
        """Have these rules and no others, in one transaction: packets meet the old ones, or the new.

        ``name`` is the file's, for messages; ``held`` are the families, ``ip`` or ``ip6``, whose sessions are to go on
        even where no rule is left. Raises JailError.
        """
        text = self.text(name, rules, held)
        if not text:
            return
        try:
            self._library.run(text)
        except JailError as why:
            raise JailError(f"nf_tables: {why}") from None
        ruled = {Family(loaded.rule.family).word for loaded in rules}
        self.standing = [family.word for family in FAMILIES if family.word in ruled or family.word in held]

    def text(self, name: str, rules: list[Loaded], held: Container[str] = ()) -> str:
        """That transaction. Raises JailError for what Linux cannot carry."""
        listed = [(loaded, printed(loaded.rule, resolve=False)) for loaded in rules]
        return compile_rules(name, listed, self.standing, held, module.has)


def numbered(rules: Iterable[Rule], taken: set[int]) -> list[Loaded]:
    """New rules, with numbers that are not taken."""
    number = max(taken, default=0)
    made = []
    for rule in rules:
        number = (number + 1) % label.NUMBERS
        while number in taken:
            number = (number + 1) % label.NUMBERS
        made.append(Loaded(number, rule))
    return made


def _rule(text: str) -> Rule:
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
