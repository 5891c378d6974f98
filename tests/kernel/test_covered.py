"""Jails that mount on one directory: each is removed whenever it is, in whatever order, and nothing remains."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from jailng.core import filesystem, registry
from jailng.core import undo as undoing
from tests.kernel.conftest import Command
from tests.kernel.stage import mount, unmount
from tests.kernel.test_killed import Trial
from tests.kernel.test_killed import remains as remains
from tests.kernel.test_killed import trial as trial
from tests.kernel.test_mounting import Made, at

_BENEATH = Path("/run/jailng/beneath")


class Jails:
    """Jails of one root, each with a tmpfs on the same directory of it: by number, which is jid and the file's name."""

    def __init__(self, jail: Command, root: Path) -> None:
        self.jail = jail
        self.root = root
        self.target = root / "mnt"

    def make(self, *jids: int) -> None:
        for jid in jids:
            done = self.jail(*self.creation(jid))
            assert (done.stderr, done.returncode) == ("", 0)
            (self.target / str(jid)).touch()

    def creation(self, jid: int) -> list[str]:
        return ["-c", f"jid={jid}", f"name=j{jid}", f"path={self.root}", f"mount=t {self.target} tmpfs", "persist"]

    def remove(self, word: str) -> None:
        done = self.jail("-q", "-r", word)
        assert (done.stderr, done.returncode) == ("", 0)

    def kill(self, *jids: int) -> None:
        """PID 1 of each, and wait for its end."""
        for jid in jids:
            record = registry.load(jid)
            assert record is not None
            pidfd = os.pidfd_open(record.init_pid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert select.select([pidfd], [], [], 60)[0]
            os.close(pidfd)

    @property
    def seen(self) -> list[str]:
        """What is on top."""
        return os.listdir(self.target)

    def nothing_remains(self) -> None:
        assert (at(self.target), registry.jids(), _BENEATH.exists()) == ([], [], False)


@pytest.fixture
def jails(jail: Command, small_root: Path) -> Jails:
    (small_root / "mnt").mkdir()
    return Jails(jail, small_root)


def test_the_dead(jails: Jails) -> None:
    """In the order of their jids the lowest is the first."""
    jails.make(71, 72, 73)
    jails.kill(71, 72, 73)
    jails.remove("*")
    jails.nothing_remains()


@pytest.mark.parametrize("dead", [(71,), (72,), (73,), (71, 73), (72, 73)])
def test_the_dead_among_the_living(jails: Jails, dead: tuple[int, ...]) -> None:
    jails.make(71, 72, 73)
    jails.kill(*dead)
    jails.remove("*")
    jails.nothing_remains()


@pytest.mark.parametrize("order", [(71, 72, 73), (71, 73, 72), (72, 71, 73), (72, 73, 71), (73, 71, 72)])
def test_the_living(jails: Jails, order: tuple[int, ...]) -> None:
    """Who remains has what it had before, on the host too."""
    jails.make(71, 72, 73)
    there = {71, 72, 73}
    for jid in order:
        jails.remove(f"j{jid}")
        there.remove(jid)
        if there:
            assert jails.seen == [str(max(there))]
    jails.nothing_remains()


def test_what_another_boot_has_left_beneath(jails: Jails) -> None:
    """By then the numbers are those of other mounts."""
    jails.make(71, 72)
    jails.remove("j71")
    _BENEATH.write_text("another boot\n" + _BENEATH.read_text().partition("\n")[2])
    jails.remove("j72")
    assert len(at(jails.target)) == 1
    unmount(jails.target)
    _BENEATH.unlink()
    jails.nothing_remains()


def test_one_that_is_made_again(jails: Jails) -> None:
    jails.make(71, 72)
    jails.kill(71)
    jails.make(71)
    assert jails.seen == ["71"]
    jails.remove("j72")
    jails.remove("j71")
    jails.nothing_remains()


def test_below_one_that_lives(jails: Jails, jail: Command) -> None:
    """What is mounted in another's mount is in the way, for as long as that one lives."""
    jails.make(71)
    (jails.target / "sub").mkdir()
    made = jail("-c", "jid=72", "name=j72", f"path={jails.root}", f"mount=t {jails.target}/sub tmpfs", "persist")
    assert (made.stderr, made.returncode) == ("", 0)
    done = jail("-r", "j71")
    assert (done.stderr, done.returncode) == (f"jail: j71: mount: {jails.target}: Device or resource busy\n", 1)
    jails.kill(72)
    jails.remove("*")
    jails.nothing_remains()


def test_what_cannot_be_cleared_away_keeps_nobody(jails: Jails, jail: Command) -> None:
    jails.make(71)
    other = jails.root / "tmp"
    made = jail("-c", "jid=72", "name=j72", f"path={jails.root}", f"mount=t {other} tmpfs", "persist")
    assert made.returncode == 0
    mount("own", jails.target, "tmpfs")
    try:
        jails.kill(71, 72)
        for jid in (73, 74):  # each looks at some of those that may be dead
            made = jail("-c", f"jid={jid}", f"path={jails.root}", "persist")
            assert (made.stderr, made.returncode) == ("", 0)
        done = jail("-q", "-r", "*")
        assert (done.stderr, done.returncode) == (f"jail: mount: {jails.target}: Device or resource busy\n", 1)
        assert registry.jids() == [71] and not at(other)
    finally:
        unmount(jails.target)
    jails.remove("*")
    jails.nothing_remains()


def test_what_was_mounted_on_goes_meanwhile(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the walk to the point and the mount."""
    (small_root / "mnt").mkdir()
    one = Made(small_root, "t ROOT/mnt tmpfs", name="one")
    detached = filesystem.detached

    def undone(*arguments: object) -> object:
        if at(small_root / "mnt"):
            undoing.walk(one.record)
        return detached(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(filesystem, "detached", undone)
    two = Made(small_root, "t ROOT/mnt tmpfs", name="two")
    assert len(at(small_root / "mnt")) == 1
    undoing.walk(two.record)
    assert not at(small_root / "mnt")


def test_killed(trial: Trial, jails: Jails) -> None:
    """Who removes the lower one, at each of its steps; then who removes the upper one."""
    jails.make(71, 72)
    steps = trial.steps("jail", "-r", "j71")
    jails.remove("*")
    jails.nothing_remains()
    for step in steps:
        jails.make(71, 72)
        trial.kill(step, "jail", "-r", "j71")
        if jails.seen != ["72"]:
            trial.note(step, f"seen: {jails.seen}")
        jails.remove("j72")
        jails.remove("*")
        jails.nothing_remains()
    jails.make(71, 72)
    jails.remove("j71")
    steps = trial.steps("jail", "-r", "j72")
    for step in steps:
        jails.make(71, 72)
        jails.remove("j71")
        trial.kill(step, "jail", "-r", "j72")
        jails.remove("*")
        jails.nothing_remains()
    trial.verdict()


def test_one_that_ends_before_its_turn(jail: Command, checkout: Path, small_root: Path, tmp_path: Path) -> None:
    """Of all that were to be removed it is one that is."""
    conf = tmp_path / "jail.conf"
    hook = f"kill -9 $(cat {tmp_path}/pid); while {checkout}/bin/jls -j j71 jid 2>/dev/null; do :; done"
    text = f'path = "{small_root}"; persist; j71 {{}} j72 {{ depend = j71; exec.poststop = "{hook}"; }}\n'
    conf.write_text(text)
    assert jail("-f", str(conf), "-c").returncode == 0
    record = registry.find("j71")
    assert record is not None
    (tmp_path / "pid").write_text(str(record.init_pid))
    done = jail("-q", "-f", str(conf), "-r", "*")
    assert (done.stderr, done.returncode) == ("", 0)
    assert not registry.jids()
