"""A log that shows tampering: whatever is done to it is found, and where; whenever its writer is killed it goes on."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jailng.ctl import log as ctl_log
from jailng.errors import JailError
from jailng.observe import entry, ratchet, seal, store, verification
from jailng.observe.chain import Chain
from jailng.observe.logger import FOLDER, SEALS
from jailng.observe.logreader import Reader
from jailng.observe.report import ALTERED, INSERTED, LOST, MISSING, REMOVED, SEAL, Report
from jailng.observe.seal import Head, Key, Seal, State

SIZE, KEEP = 4096, 4
_ENTRIES = 60


class Log:
    """A log in a directory of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path / "log"
        self.key = Key("", b"")

    def seal(self) -> Seal:
        return Seal(self.path / "seal", "web", self.path / "heads")

    def writer(self, keep_key: bool = True) -> Chain:
        chain = Chain(self.folder, self.seal(), {"jail": "web", "jid": 7}, SIZE, KEEP, keep_key)
        if chain.key is not None:
            self.key = chain.key
        return chain

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def verify(self, *anchors: Head, key: Key | None = None) -> Report:
        return verification.verify(self.folder, self.seal(), key or self.key, list(anchors))

    def copied(self, path: Path) -> Log:
        shutil.copytree(self.path, path)
        made = Log(path)
        made.key = self.key
        return made


def fill(chain: Chain, count: int = _ENTRIES) -> None:
    for number in range(count):
        chain.append("syslog", {"message": f"line {number} \x1b[31m\n \udcff \u2603", "pid": number})
        chain.flush()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Log:
    log = Log(tmp_path_factory.mktemp("log"))
    chain = log.writer()
    fill(chain)
    chain.close()
    assert len(log.files()) == KEEP
    return log


@pytest.fixture
def log(written: Log, tmp_path: Path) -> Log:
    return written.copied(tmp_path / "copy")


def contents(log: Log) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in log.files()}


def restore(log: Log, before: dict[Path, bytes]) -> None:
    for path in log.files():
        if path not in before:
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def test_a_whole_log_is_whole(log: Log) -> None:
    report = log.verify()
    assert (report.problems, report.status) == ([], 0)
    state = log.seal().state()
    assert state is not None
    assert report.entries == state.seq > _ENTRIES
    assert report.first > 0
    assert [path.name for path in log.files()] == report.files


def test_an_entry_is_a_line_of_json_that_no_terminal_minds(log: Log) -> None:
    lines = [line for path in log.files() for line in path.read_text("ascii").splitlines()]
    assert all(line.isprintable() for line in lines)
    said = [json.loads(line) for line in lines]
    one = next(each for each in said if each["kind"] == "syslog")
    assert one["message"].endswith("\x1b[31m\n \\xff \u2603")
    assert (one["jail"], one["jid"]) == ("web", 7)


def test_every_entry_has_a_key_of_its_own_and_none_can_be_had_from_a_later_one(log: Log) -> None:
    """What is on the disk once all is written makes none of the MACs that are there."""
    state = log.seal().state()
    assert state is not None
    lines = [entry.Line(line) for path in log.files() for line in path.read_bytes().splitlines()]
    ahead = [ratchet.after(state.key, count) for count in range(100)]
    ahead += [ratchet.after(ratchet.first_of(ratchet.later_epoch(state.later, count)), count) for count in range(20)]
    assert not any(line.is_by(key) for line in lines for key in ahead)
    assert len({line.mac for line in lines}) == len(lines)


@pytest.fixture(scope="module")
def victim(written: Log, tmp_path_factory: pytest.TempPathFactory) -> Log:
    return written.copied(tmp_path_factory.mktemp("victim") / "log")


_EDITS = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def edited(log: Log, edit: Callable[[], tuple[str, int] | None]) -> None:
    """Do that to the log; it is found where it was said to be, and all is as it was afterwards."""
    before = contents(log)
    try:
        expected = edit()
        if expected is None:
            return
        report = log.verify()
        assert report.status == 1
        first = report.problems[0]
        assert (first.file, first.line) == expected, report.problems
    finally:
        restore(log, before)


@_EDITS
@given(st.data())
def test_a_byte(victim: Log, data: st.DataObject) -> None:
    def flip() -> tuple[str, int]:
        path = data.draw(st.sampled_from(victim.files()))
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        line = content[:at].count(b"\n") + 1
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        return path.name, line

    edited(victim, flip)


@_EDITS
@given(st.data())
def test_a_line_removed(victim: Log, data: st.DataObject) -> None:
    def remove() -> tuple[str, int]:
        path = data.draw(st.sampled_from(victim.files()))
        lines = path.read_bytes().splitlines(keepends=True)
        at = data.draw(st.integers(0, len(lines) - 1))
        count = data.draw(st.integers(1, len(lines) - at))
        path.write_bytes(b"".join(lines[:at] + lines[at + count :]))
        return path.name, at + 1

    edited(victim, remove)


@_EDITS
@given(st.data())
def test_a_line_inserted(victim: Log, data: st.DataObject) -> None:
    def insert() -> tuple[str, int] | None:
        path = data.draw(st.sampled_from(victim.files()))
        lines = path.read_bytes().splitlines(keepends=True)
        every = [line for each in victim.files() for line in each.read_bytes().splitlines(keepends=True)]
        at = data.draw(st.integers(0, len(lines)))
        forged = entry.made(at, "syslog", {"message": "x"}, "0" * 64, b"k" * 32)
        line = data.draw(st.sampled_from([*every, forged, b"\n", b"x\n", b"{}\n"]))
        path.write_bytes(b"".join([*lines[:at], line, *lines[at:]]))
        return path.name, at + 1 + (at < len(lines) and line == lines[at])

    edited(victim, insert)


@_EDITS
@given(st.data())
def test_two_lines_swapped(victim: Log, data: st.DataObject) -> None:
    def swap() -> tuple[str, int]:
        path = data.draw(st.sampled_from(victim.files()))
        lines = path.read_bytes().splitlines(keepends=True)
        first = data.draw(st.integers(0, len(lines) - 2))
        second = data.draw(st.integers(first + 1, len(lines) - 1))
        lines[first], lines[second] = lines[second], lines[first]
        path.write_bytes(b"".join(lines))
        return path.name, first + 1

    edited(victim, swap)


@_EDITS
@given(st.data())
def test_a_file_cut(victim: Log, data: st.DataObject) -> None:
    def cut() -> tuple[str, int]:
        path = data.draw(st.sampled_from(victim.files()))
        content = path.read_bytes()
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:at])
        return path.name, content[:at].count(b"\n") + 1

    edited(victim, cut)


def test_a_file_removed(log: Log) -> None:
    for number, path in enumerate(log.files()):
        before = contents(log)
        path.unlink()
        report = log.verify()
        assert (report.problems[0].what, report.problems[0].file) == (MISSING, path.name), number
        restore(log, before)
    shutil.rmtree(log.folder)
    assert log.verify().status == 1


def test_an_entry_changed_and_all_chained_anew_without_the_key(log: Log) -> None:
    path = log.files()[-2]
    prev, changed = "", False
    for each in log.files()[-2:]:
        made = []
        for line in each.read_bytes().splitlines():
            said = entry.fields(line)
            if prev and said["kind"] == "syslog" and not changed:
                said["message"], changed = "nothing happened", True
            if changed:
                number, kind = said.pop("seq"), str(said.pop("kind"))
                assert isinstance(number, int)
                for name in ("time", "prev", "mac"):
                    said.pop(name)
                line = entry.made(number, kind, said, prev, b"k" * 32)[:-1]
            prev = entry.digest(line)
            made.append(line + b"\n")
        each.write_bytes(b"".join(made))
    report = log.verify()
    assert (report.problems[0].what, report.problems[0].file, report.problems[0].line) == (ALTERED, path.name, 2)
    # Without the key nobody can tell, and it is said that nobody can.
    blind = verification.verify(log.folder, log.seal(), None, [])
    assert (blind.authentic, blind.status) == (False, 2) or blind.status == 1


def test_without_the_key_the_hashes_tell_of_whoever_did_not_know_better(log: Log) -> None:
    assert verification.verify(log.folder, log.seal(), None, []).status == 2
    path = log.files()[-1]
    path.write_bytes(path.read_bytes().replace(b"line 5", b"line 6", 1))
    report = verification.verify(log.folder, log.seal(), None, [])
    assert report.status == 1
    assert report.problems[0].file == path.name


def test_an_old_state_of_all_of_it_put_back(log: Log, tmp_path: Path) -> None:
    """Log and seal as they were: what this boot has seen of it, or what was known before, tells."""
    old = tmp_path / "old"
    shutil.copytree(log.path, old)
    chain = log.writer()
    fill(chain, 3)
    entries, prev = chain.head
    chain.close()
    later = Key(log.key.chain, log.key.secret, entries)
    for name in ("log", "seal"):
        shutil.rmtree(log.path / name)
        shutil.copytree(old / name, log.path / name)
    report = log.verify()
    assert (report.problems[0].what, report.problems[0].count) == (REMOVED, entries - report.entries)
    shutil.rmtree(log.path / "heads")  # another boot
    assert log.verify().status == 0
    assert any("is a copy" in note for note in log.verify().notes)
    assert log.verify(Head(log.key.chain, entries, prev)).status == 1
    assert log.verify(key=later).status == 1
    # Going on from there makes another history.
    chain = log.writer()
    fill(chain, 5)
    chain.close()
    assert log.verify().status == 0
    report = log.verify(Head(log.key.chain, entries, prev))
    assert (report.problems[0].what, report.problems[0].entry) == (ALTERED, entries - 1)


def test_the_seal_taken_away_changed_or_of_another_log(log: Log, tmp_path: Path) -> None:
    state = log.seal().directory / "state"
    content = state.read_bytes()
    state.unlink()
    assert [problem.what for problem in log.verify().problems] == [SEAL]
    state.write_bytes(b"x" + content[1:])
    assert [problem.what for problem in log.verify().problems] == [SEAL]
    with pytest.raises(JailError, match="not the state of a log"):
        log.writer()
    other = Log(tmp_path / "other")
    other.writer().close()
    state.write_bytes((other.path / "seal" / "state").read_bytes())
    assert log.verify().status == 1
    state.write_bytes(content)
    assert log.verify().status == 0
    assert log.verify(key=other.key).status == 1


def test_a_log_whose_seal_is_lost_is_left_as_it_is(log: Log) -> None:
    """It can be verified by its key still, but for its end."""
    before, key = contents(log), (log.path / "seal/key").read_bytes()
    (log.path / "seal/state").unlink()
    for _ in range(2):
        with pytest.raises(JailError, match="the log that is there has lost its seal"):
            log.writer()
        _unlocked(log)
    assert (contents(log), (log.path / "seal/key").read_bytes()) == (before, key)
    assert [problem.what for problem in log.verify().problems] == [SEAL]
    (log.path / "seal/forward-0123").write_text("7 4096\n")  # how far a collector has it
    log.folder.rename(log.path / "old")
    log.writer().close()
    assert not (log.path / "seal/forward-0123").exists()


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_something_else_has_the_name_of_a_file(log: Log, tmp_path: Path, kind: str) -> None:
    """It is told where, and nobody waits for it: not who verifies, reads, or goes on writing."""
    path = log.files()[1]
    path.rename(tmp_path / "away")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "away")
    report = log.verify()
    assert (report.problems[0].what, report.problems[0].file, report.status) == (ALTERED, path.name, 1)
    assert report.problems[1].what == REMOVED
    last = log.files()[-1]
    last.unlink()
    os.mkfifo(last)
    with contextlib.closing(log.writer()) as chain:
        chain.flush()
        assert chain.recent("resumed")[-1]["damage"] == f"{last.name} is no file"
    assert log.verify().problems[0] == report.problems[0]


def test_files_that_no_log_comes_to(log: Log) -> None:
    (log.folder / f"{10**14}.jsonl").write_bytes(log.files()[-1].read_bytes())
    (log.folder / "000000001.jsonl").touch()  # a digit more than the first has
    report = log.verify()
    assert [(one.what, one.file) for one in report.problems] == [(INSERTED, f"{10**14}.jsonl")]
    assert len(report.files) == KEEP


@pytest.mark.parametrize("change", [{"epoch": 10**18, "first": 10**19}, {"seq": 10**19}])
def test_a_seal_that_says_more_than_can_be(log: Log, change: dict[str, int]) -> None:
    state = log.seal().state()
    assert state is not None
    for name, value in change.items():
        setattr(state, name, value)
    (log.seal().directory / "state").write_bytes(state.packed())
    assert log.verify().status == 1


@pytest.mark.parametrize("word, other", [(3, "x"), (3, "-1"), (4, "\xb2"), (10, "zz")])
def test_a_seal_that_is_none(log: Log, word: int, other: str) -> None:
    path = log.seal().directory / "state"
    words = path.read_bytes().decode("latin-1").split()[:-1]
    words[word] = other
    text = " ".join(words)
    path.write_bytes(f"{text} {hashlib.sha256(text.encode('latin-1')).hexdigest()[:16]}".encode("latin-1"))
    assert [one.what for one in log.verify().problems] == [SEAL]


def test_what_is_beside_the_log_may_be_anything(log: Log) -> None:
    head = log.path / "heads" / "web"
    head.write_bytes(b"\xff \xb2 1")
    assert log.verify().status == 0
    key = log.seal().directory / "key"
    key.write_bytes(b"\xff\xfe")
    with pytest.raises(JailError, match="not a verification key"):
        log.seal().key()
    for path in (head, key, log.seal().directory / "state"):
        path.unlink()
        os.mkfifo(path)
    assert [one.what for one in log.verify().problems] == [SEAL]
    with pytest.raises(JailError, match="not a verification key"):
        log.seal().key()


@pytest.mark.parametrize("where", ["end", "half"])
def test_a_writer_killed_before_it_had_sealed(log: Log, where: str) -> None:
    """Lines behind the seal are the chain's, or it is said that they are not; half a line only as the very last."""
    state = (log.seal().directory / "state").read_bytes()
    chain = log.writer()  # which has told of itself, and sealed that
    fill(chain, 2)
    chain.close()
    path = log.files()[-1]
    if where == "half":
        path.write_bytes(path.read_bytes()[:-30])
    (log.seal().directory / "state").write_bytes(state)
    shutil.rmtree(log.path / "heads")
    report = log.verify()
    assert report.status == 0
    assert len([note for note in report.notes if "copy" not in note]) == (2 if where == "half" else 1)
    entries = report.entries
    chain = log.writer()
    assert chain.head[0] == entries + 1 if where == "end" else entries + 1
    chain.close()
    last = entry.fields(log.files()[-1].read_bytes().splitlines()[-1])
    assert last["kind"] == "resumed"
    assert last["unsealed"] == (3 if where == "end" else 2)
    assert bool(last["half"]) is (where == "half")
    assert log.verify().status == 0


def power_cut(log: Log, monkeypatch: pytest.MonkeyPatch, lost: str, keep: int = 0) -> None:
    """The machine goes down, and three entries are not on the disk; ``keep`` are though nobody had waited for that."""
    chain = log.writer()
    chain.size = 1 << 20
    chain.flush()
    chain.sync()
    monkeypatch.setattr(chain, "sync", lambda *_: None)
    fill(chain, keep)
    path, size = log.files()[-1], log.files()[-1].stat().st_size
    if lost == "file":
        chain._rotate()
    fill(chain, 2 if lost == "file" else 3)
    if lost == "file":
        log.files()[-1].unlink()
    else:
        os.truncate(path, size + (100 if lost == "half" else 0))
    if lost == "zeros":
        path.write_bytes(path.read_bytes() + bytes(700))
    chain._seal.close()
    shutil.rmtree(log.path / "heads")  # it is in /run
    monkeypatch.setattr("jailng.observe.seal.current_boot", lambda: "another")
    monkeypatch.setattr("jailng.observe.chain.current_boot", lambda: "another")


@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize("lost", ["lines", "half", "zeros", "file"])
def test_what_is_lost_with_the_power_is_told_from_what_is_removed(
    log: Log, monkeypatch: pytest.MonkeyPatch, lost: str, keep: int
) -> None:
    """Entries that were not on the disk when the machine went down: they are missing, and named, but not altered."""
    power_cut(log, monkeypatch, lost, keep)
    report = log.verify()
    for _ in range(2):  # before there is another writer, and after
        report = log.verify()
        assert {one.what for one in report.problems} == {LOST}, report.problems
        assert (report.status, report.incomplete) == (1, True)
        assert sum(one.count for one in report.problems if one.entry >= 0) == 3
        chain = log.writer()
        fill(chain, 2)
        chain.close()
    assert len(report.problems) == (1 if lost == "lines" else 2)
    # Whatever else is done to it is what it was.
    path = log.files()[-1]
    path.write_bytes(path.read_bytes().replace(b"line 1", b"line 7"))
    assert ALTERED in {one.what for one in log.verify().problems}
    assert not log.verify().incomplete


def test_what_was_on_the_disk_is_not_lost_with_the_power(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    power_cut(log, monkeypatch, "lines")
    path = log.files()[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    for _ in range(2):
        report = log.verify()
        assert [one.what for one in report.problems] == [REMOVED]
        assert not report.incomplete
        log.writer().close()


def test_nothing_is_lost_while_the_machine_is_up(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        power_cut(log, patched, "lines")
    report = log.verify()
    assert [one.what for one in report.problems] == [REMOVED]
    log.writer().close()
    assert [one.what for one in log.verify().problems] == [REMOVED]


def test_rotated_faster_than_it_is_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest file goes between the look at the directory and the one at the file, each time."""
    there = entry.epochs
    monkeypatch.setattr(entry, "epochs", lambda folder: [there(folder)[0] - 1, *there(folder)])
    with pytest.raises(JailError, match="rotated faster than they can be read"):
        log.verify()
    monkeypatch.setattr(store, "BASE", str(log.path))
    (log.path / SEALS).mkdir()
    log.seal().directory.rename(log.path / SEALS / "web")
    (log.path / "web").mkdir()
    log.folder.rename(log.path / "web" / FOLDER)
    with pytest.raises(JailError) as caught:
        ctl_log.main(["verify", "web"])
    assert caught.value.status == 2


def test_what_is_appended_by_others_is_found(log: Log) -> None:
    path = log.files()[-1]
    content = path.read_bytes()
    for forged in (b"x\n", b'{"seq":0,"x":1}', content.splitlines(keepends=True)[-1]):
        path.write_bytes(content + forged)
        report = log.verify()
        assert report.problems[0].what == INSERTED, forged
        assert report.problems[0].line == content.count(b"\n") + 1


def test_any_number_of_lines_that_are_none(log: Log) -> None:
    """They are told of in a time that grows with their number, and not with its square."""
    path = log.files()[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    many = 60000
    path.write_bytes(b"".join([*lines[:2], b"x\n" * many, *lines[2:]]))
    begun = time.process_time()
    (problem,) = log.verify().problems
    assert time.process_time() - begun < 10
    assert (problem.what, problem.line, problem.count) == (INSERTED, 3, many)


def test_a_file_of_very_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``size`` may be so large that one has ten million."""
    log = Log(tmp_path)
    chain = Chain(log.folder, log.seal(), {}, 1 << 20)
    assert chain.key is not None
    log.key = chain.key
    fill(chain)
    chain.close()
    monkeypatch.setattr(verification, "_FAR", _ENTRIES // 2)
    assert log.verify().problems == []


def test_a_log_of_many_files_is_read_in_a_time_that_grows_with_their_number(tmp_path: Path) -> None:
    """``keep`` may be 100,000."""
    for epoch in range(1000):
        (tmp_path / entry.file_name(epoch)).write_bytes(b"%d\n" % epoch)
    begun = time.process_time()
    assert list(Reader(tmp_path).lines()) == [b"%d" % epoch for epoch in range(1000)]
    assert time.process_time() - begun < 5


def test_a_writer_goes_on_after_damage_and_leaves_it_to_be_seen(log: Log) -> None:
    path = log.files()[-1]
    content = path.read_bytes()
    path.write_bytes(content[:-400])
    problems = log.verify().problems
    chain = log.writer()
    fill(chain, 3)
    chain.close()
    assert path.read_bytes() == content[:-400]
    report = log.verify()
    assert report.problems == problems
    assert any("damage" in entry.fields(line) for line in log.files()[-1].read_bytes().splitlines())


class Killed(Exception):
    """The process ends here."""


@pytest.mark.parametrize("whole", [False, True], ids=["the file", "the directory"])
def test_a_writer_whose_file_is_removed_goes_on_in_another(log: Log, whole: bool) -> None:
    chain = log.writer()
    chain.append("syslog", {"message": "before"})
    chain.flush()
    last = log.files()[-1]
    if whole:
        shutil.rmtree(log.folder)
    else:
        last.unlink()
    chain.append("syslog", {"message": "lost"})
    chain.flush()
    chain.sync()  # as a second later
    chain.append("syslog", {"message": "after"})
    chain.close()
    text = log.files()[-1].read_text()
    assert f"{last.name} is missing" in text
    assert "after" in text
    assert MISSING in [problem.what for problem in log.verify().problems]
    chain = log.writer()
    fill(chain, 3)
    chain.close()
    assert "line 2" in log.files()[-1].read_text()


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_any_write(tmp_path: Path, torn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of its system calls that change something; of a write half may have been done."""
    real = {
        name: getattr(os, name) for name in ("write", "pwrite", "unlink", "fsync", "fdatasync", "ftruncate", "open")
    }
    left = [0]

    def counted(name: str) -> Callable[..., object]:
        def call(*args: object, **more: object) -> object:
            if name == "open" and not (isinstance(args[1], int) and args[1] & os.O_CREAT):
                return real[name](*args, **more)
            left[0] -= 1
            if left[0] < 0:
                if torn and name == "write" and left[0] == -1:
                    data = args[1]
                    assert isinstance(data, bytes)
                    real["write"](args[0], data[: len(data) // 2])
                raise Killed
            return real[name](*args, **more)

        return call

    calls = 0
    while True:
        log = Log(tmp_path / f"{calls}")
        acknowledged = 0
        left[0] = calls
        chain = None
        with monkeypatch.context() as patched:
            for name in real:
                patched.setattr(os, name, counted(name))
            try:
                chain = log.writer()
                for _ in range(10):
                    chain.append("syslog", {"message": "x" * 500})
                    chain.flush()
                    acknowledged = chain.head[0]
            except Killed:
                pass
        if left[0] >= 0:
            break
        calls += 1
        if chain is not None:
            chain._seal.close()
        again = Chain(log.folder, _unlocked(log), {"jail": "web", "jid": 7}, SIZE, KEEP)
        log.key = again.key or log.seal().key() or log.key
        assert again.head[0] >= acknowledged
        fill(again, 2)
        again.close()
        report = log.verify()
        assert report.problems == [], (calls, report.problems)
        shutil.rmtree(log.path)
    assert calls > 30


def _unlocked(log: Log) -> Seal:
    """The seal, whose lock a writer that was killed here still has by a descriptor that nobody closes."""
    state = log.path / "seal" / "state"
    if state.exists():
        content = state.read_bytes()
        state.unlink()
        state.write_bytes(content)
    return log.seal()


def test_there_is_one_writer(log: Log) -> None:
    chain = log.writer()
    with pytest.raises(JailError, match="another process writes to this log"):
        log.writer()
    chain.close()


def test_nobody_else_reads_the_keys(tmp_path: Path) -> None:
    before, held = os.umask(0), os.listdir("/proc/self/fd")
    try:
        made = Seal(tmp_path / "seals/cell", "cell", tmp_path / "heads")
        made.open()
        made.create()
        made.close()
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    del modes["seals"]  # which is in a directory of root's alone (observe/store.py)
    assert modes == {
        "seals/cell": 0o700, "seals/cell/state": 0o600, "seals/cell/key": 0o600, "heads": 0o700, "heads/cell": 0o600,
    }  # fmt: skip
    assert made.key() is not None and made.state() is not None
    assert len(os.listdir("/proc/self/fd")) == len(held)


@pytest.mark.parametrize("at", range(2, 8))
@pytest.mark.parametrize("word", ["x", "-1", "1_0", "9" * 5000])
def test_a_state_of_which_a_number_is_none(at: int, word: str) -> None:
    """Whoever has put it there has made the sum as well."""
    words = State.initial("chain", bytes(32)).packed().decode().split()[:-1]
    assert State.unpacked(f"{' '.join(words)} {seal._sum(' '.join(words))}".encode()) is not None
    words[at] = word
    assert State.unpacked(f"{' '.join(words)} {seal._sum(' '.join(words))}".encode()) is None


def test_the_key_can_be_kept_elsewhere(tmp_path: Path) -> None:
    log = Log(tmp_path)
    chain = log.writer(keep_key=False)
    chain.close()
    assert log.seal().key() is None
    assert log.key.secret
    assert Key.parse(log.key.text) == log.key
    assert log.verify().status == 0
    assert log.verify(key=Key(log.key.chain, b"k" * 32)).status == 1
    kept = Log(tmp_path / "kept")
    kept.writer().close()
    assert kept.seal().key() == kept.key
    kept.seal().take_key()
    assert kept.seal().key() is None


@pytest.mark.parametrize(
    "text", ["", "x", "jailng-log-1:a:0:00", "jailng-log-1:a:x:" + "0" * 64, "\x1b:a:0:" + "0" * 64]
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(JailError, match="not a verification key"):
        Key.parse(text)


def test_no_room_for_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it goes on in the one that there is, until there is room."""
    log = Log(tmp_path)
    chain = log.writer()
    opened = os.open

    def full(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, flags, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        for number in range(_ENTRIES // 2):
            chain.append("syslog", {"message": "x" * 200, "pid": number})
            with contextlib.suppress(OSError):
                chain.flush()
        [file] = log.files()
        assert file.stat().st_size > SIZE
        beside = opened(tmp_path / "beside", os.O_RDWR | os.O_CREAT)  # which must not have the chain's descriptor
        chain.append("syslog", {"message": "last"})
        with pytest.raises(OSError, match="No space"):
            chain.flush()
        assert os.fstat(beside).st_size == 0
        os.close(beside)
    chain.append("syslog", {"message": "room"})
    chain.close()
    assert len(log.files()) == 2
    report = log.verify()
    assert (report.status, report.problems) == (0, [])
    assert report.entries == _ENTRIES // 2 + 4
