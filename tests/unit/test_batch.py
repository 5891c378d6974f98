"""Many jails at once, in any order, state and mood: all that is asked for is done, or it is said of each why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jailng.engine import ahead, batch, beginning, command, dependency, ending, life, modify
from jailng.engine.dependency import SET, START, STOP
from jailng.errors import JailError
from jailng.params.model import Parameters

EVERYTHING = (START, SET, STOP, START | STOP, START | SET, SET | STOP, START | SET | STOP)


class Host:
    """Jails of which each may run, have changes that take a restart, and not start or not stop."""

    def __init__(self, depends: dict[str, list[str]], order: Iterable[str]) -> None:
        self.depends = depends
        self.running: set[str] = set()
        self.changed: set[str] = set()
        self.broken: set[str] = set()  # these do not start
        self.failing: set[str] = set()  # nor these, which is found out when they are there
        self.stubborn: set[str] = set()  # these do not stop
        self.sound = True  # whether what runs has what it depends on
        self.done: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.jails = {name: self._jail(name) for name in order}
        dependency.connect(self.jails, lambda jail: depends[jail.name], lambda jail, text: self.told.append(("", text)))

    def _jail(self, name: str) -> dependency.Jail:
        params = Parameters()
        params.add("name", name)
        return dependency.Jail(name, lambda stops: params)

    def run(self, monkeypatch: pytest.MonkeyPatch, chosen: Iterable[str] | None, work: int) -> batch.Batch:
        """Have this done to those chosen, or to all."""
        made = batch.Batch(self.jails, lambda jail: None, 0, lambda jail, text: self.told.append((jail.name, text)))  # type: ignore[arg-type,return-value]
        with monkeypatch.context() as patch:
            patch.setattr(batch.Batch, "_running_jail", lambda _, params: self._record(params.text("name")))
            patch.setattr(batch.Batch, "_running_with", lambda _, record, known=False: record)
            patch.setattr(life, "settle", lambda *_: None)
            patch.setattr(beginning, "starting", self._starting)
            patch.setattr(ending, "stopping", self._stopping)
            patch.setattr(ending, "clear_away", lambda name: None)
            patch.setattr(ahead, "kill", lambda *_: None)
            patch.setattr(modify, "update", lambda record, *_: self.done.append(f"={record.name}"))
            wanted = [self.jails[name] for name in (self.jails if chosen is None else chosen)]
            made.want(wanted, work, wild=len(wanted) > 1, everything=chosen is None)
            made.run()
        return made

    def _record(self, name: str) -> Any:
        if name not in self.running:
            return None
        return SimpleNamespace(
            name=name, undo=[], params={}, alive=lambda: name in self.running, restarts=lambda _: name in self.changed
        )

    def _starting(self, way: Any) -> Iterator[Any]:
        name = way.params.text("name")
        outer = name.rpartition(".")[0]
        yield command.TURN
        if name in self.broken or (outer and outer not in self.running):
            raise JailError("it does not start")
        if self.sound:
            assert self.running.issuperset(self.depends[name]), "started before what it depends on"
        self.running.add(name)
        self.done.append(f"+{name}")
        way.created(self._record(name))
        yield command.TURN
        if name in self.failing:
            self.running = {other for other in self.running if other != name and not other.startswith(f"{name}.")}
            raise JailError("a command fails")

    def _stopping(self, way: Any) -> Iterator[Any]:
        name = way.params.text("name")
        inner = [other for other in self.running if other.startswith(f"{name}.")]
        left = [other for other in self.running if name in self.depends[other]]
        assert not inner + left, "stopped before what depends on it"
        yield command.TURN
        if name in self.stubborn:
            raise JailError("it does not stop")
        self.running.remove(name)
        self.done.append(f"-{name}")
        way.removed()
        yield command.TURN


@pytest.fixture
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        yield made


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    names: list[str] = []
    for name in "abcdef"[: draw(st.integers(2, 6))]:
        outer = draw(st.none() | st.sampled_from(names)) if names else None
        names.append(f"{outer}.{name}" if outer else name)
    depends = {name: [other for other in names[:at] if draw(st.booleans())] for at, name in enumerate(names)}
    host = Host(depends, draw(st.permutations(names)))
    some = st.sets(st.sampled_from(names))
    host.running, host.changed = draw(some), draw(some)
    for name in sorted(host.running):  # no jail runs without those that it is in
        host.running.update(name.rsplit(".", count)[0] for count in range(name.count(".") + 1))
    host.sound = all(host.running.issuperset(depends[name]) for name in host.running)
    if draw(st.booleans()):
        host.broken, host.failing, host.stubborn = draw(some), draw(some), draw(some)
    return host


@settings(max_examples=1000, deadline=None)
@given(hosts(), st.sampled_from(EVERYTHING), st.data())
def test_nothing_that_was_asked_for_is_left_undone_in_silence(host: Host, work: int, data: st.DataObject) -> None:
    chosen = data.draw(st.none() | st.lists(st.sampled_from([*host.jails]), unique=True, min_size=1))
    before = set(host.running)
    with pytest.MonkeyPatch.context() as patched:
        made = host.run(patched, chosen, work)
    assert [jail.name for jail in host.jails.values() if jail.waiting] == []
    failed = {jail.name for jail in host.jails.values() if jail.failed}
    assert made.failed == any(host.jails[name].work for name in failed)
    for name in set(chosen if chosen is not None else host.jails) - failed:
        if work & START:
            assert name in host.running
        if work == STOP:
            assert name not in host.running
        if work & SET and name in before and f"-{name}" not in host.done:
            assert f"={name}" in host.done and not (work & STOP and name in host.changed)


def test_a_pattern_stops_also_those_that_what_does_not_run_depends_on(patched: pytest.MonkeyPatch) -> None:
    host = Host({"b": [], "c": ["b"], "x": ["b"], "d": ["x"]}, "bcdx")
    host.running = {"b", "c"}
    host.run(patched, ["b", "c", "d"], STOP)
    assert (host.running, host.done) == (set(), ["-c", "-b"])


@pytest.mark.parametrize("work", [SET | STOP, START | SET | STOP])
def test_a_change_that_takes_a_restart_restarts_what_depends_on_it(patched: pytest.MonkeyPatch, work: int) -> None:
    host = Host({"e": [], "l": ["e"], "m": ["l"], "n": []}, "elmn")
    host.running, host.changed = {"e", "l", "m", "n"}, {"l"}
    host.run(patched, None, work)
    assert sorted(host.done) == ["+l", "+m", "-l", "-m", "=e", "=n"]
    assert [word for word in host.done if word[1] in "lm"] == ["-m", "-l", "+l", "+m"]


def test_a_jail_in_one_that_is_to_restart_does_not_come_back_before_it(patched: pytest.MonkeyPatch) -> None:
    host = Host({"a": [], "a.b": [], "a.d": ["x"], "x": ["a.b"]}, ["x", "a.d", "a.b", "a"])
    host.running, host.changed = {"a", "a.b", "a.d", "x"}, {"a", "a.d"}
    assert not host.run(patched, None, SET | STOP).failed
    assert host.running == {"a", "a.b", "a.d", "x"}


def test_where_one_does_not_stop_what_was_to_restart_after_it_is_skipped(patched: pytest.MonkeyPatch) -> None:
    host = Host({"e": [], "l": ["e"]}, "el")
    host.running, host.stubborn = {"e", "l"}, {"e"}
    assert host.run(patched, None, START | STOP).failed
    assert host.told == [("e", "it does not stop"), ("l", "skipped")]
