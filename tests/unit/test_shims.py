"""The command lines of the shims that know jails, and what a cgroup tells: no process and no jail is needed."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from jailng.ctl import clone, killall, pgrep, service, shim, top
from jailng.errors import JailError, UsageError
from jailng.procs import process, signals
from jailng.procs.jails import membership


@pytest.mark.parametrize(
    ("cgroup", "jid", "is_init"),
    [
        ("/", 0, False),
        ("/system.slice/cron.service", 0, False),
        ("/jailng/7/members", 7, False),
        ("/jailng/7/members/below", 7, False),
        ("/jailng/7/init", 7, True),
        ("/jailng/7/members (deleted)", 7, False),
        ("/jailng/7/members/12/members", 12, False),
        ("/jailng/7/members/12/init", 12, True),
        ("/jailng/7/members/12/members/40/members/x", 40, False),
        ("/jailng/7/broker", 0, False),
        ("/jailng/7/members/12/broker", 0, False),
        ("/elsewhere/jailng/7/members", 0, False),
        ("/jailng/7/membership", 0, False),
    ],
)
def test_membership(cgroup: str, jid: int, is_init: bool) -> None:
    assert membership(cgroup) == (jid, is_init)


@pytest.mark.parametrize(
    ("word", "number"),
    [("9", 9), ("0", 0), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("64", 64), ("65", None), ("NONE", None),
     ("", None), ("SIG", None), ("-9", None), ("٩", None), ("RTMIN+3", 37), ("sigrtmax-1", 63), ("RTMIN+31", None),
     ("RTMIN+30", 64), ("RTMAX-30", 34), ("RTMAX-31", None), ("0009", None), ("RTMIN+٣", None),
     ("RTMIN+", None), ("RTMIN+-1", None), ("9" * 5000, None), ("RTMIN+" + "9" * 5000, None)],
)  # fmt: skip
def test_signals(word: str, number: int | None) -> None:
    assert signals.number(word) == number
    if number:
        assert signals.number(signals.name(number)) == number


def test_pgreps_options_are_told_apart() -> None:
    options = pgrep.parse(["-u", "root", "-fj", "a,b", "-d:", "pattern", "-l", "--cgroup", "/x", "--", "-j"], "pgrep")
    assert options.jails == ["a", "b"]
    assert options.passed == ["-u", "root", "-f", "--cgroup", "/x"]
    assert options.patterns == ["pattern", "-j"]
    assert options.delimiter == ":"
    assert options.has("l")
    assert pgrep.parse(["--full", "--pidfile=x", "-j", "1"], "pgrep").passed == ["-f", "-F", "x"]


@pytest.mark.parametrize(
    ("words", "number", "patterns"),
    [
        (["-9", "-j", "any", "x"], signal.SIGKILL, ["x"]),
        (["-j", "any", "-HUP", "x"], signal.SIGHUP, ["x"]),
        (["--signal", "USR1", "-j", "any", "x"], signal.SIGUSR1, ["x"]),
        (["-j", "any", "x"], signal.SIGTERM, ["x"]),
        (["-j", "any", "--", "-9"], signal.SIGTERM, ["-9"]),
    ],
)
def test_pkills_signal(words: list[str], number: int, patterns: list[str]) -> None:
    options = pgrep.parse(words, "pkill")
    assert (options.signal, options.patterns) == (number, patterns)
    assert options.passed == []


@pytest.mark.parametrize("words", [[], ["x"], ["-d", "-j", "x"], ["--", "-j"], ["-Z", "x"], ["-u", "-j", "x"]])
def test_without_j_pgrep_is_the_hosts_own(words: list[str]) -> None:
    with pytest.raises(UsageError):
        pgrep.parse(words, "pgrep")


def test_which_jails() -> None:
    assert pgrep.chosen(["any"]) == pgrep.chosen(["0"]) == {pgrep.ANY}
    assert pgrep.chosen(["none", "7", "7"]) == {0, 7}
    for word in ("", "-1"):
        with pytest.raises(JailError) as caught:
            pgrep.chosen([word])
        assert caught.value.status == 2


def test_killalls_options_are_told_apart() -> None:
    options = killall.parse(["-jcell", "-u", "www", "-s", "-v", "-9", "one", "-two"])
    assert options.values == {"j": "cell", "u": "www"}
    assert (options.flags, options.signal, options.names) == ({"s", "v"}, 9, ["one", "-two"])
    assert killall.parse(["-STOP", "-j", "1"]).signal == signal.SIGSTOP  # no -S
    for words in ([], ["x"], ["x", "-j", "y"], ["-l", "-j", "x"], ["--version"], ["-9", "x"]):
        with pytest.raises(UsageError):
            killall.parse(words)


def test_killall_lists_signals_of_a_jails_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert killall.shim(["-j", "cell", "-l"]) == 0
    assert capfd.readouterr().out.split()[:9] == "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL".split()


def test_service_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("alpha", "beta", "gamma", "README"):
        (tmp_path / "init.d").mkdir(exist_ok=True)
        (tmp_path / "init.d" / name).write_text("")
        (tmp_path / "init.d" / name).chmod(0o644 if name == "README" else 0o755)
    (tmp_path / "rc2.d").mkdir()
    (tmp_path / "rc2.d/S02beta").symlink_to("../init.d/beta")
    monkeypatch.setattr(service, "_ETC", tmp_path)
    for words, expected in (
        ("-l", ["alpha", "beta", "gamma"]),
        ("-lv", [f"From {tmp_path}/init.d:", "alpha", "beta", "gamma"]),
        ("-r", [f"{tmp_path}/init.d/{name}" for name in ("beta", "alpha", "gamma")]),
        ("-e", [f"{tmp_path}/init.d/beta"]),
    ):
        assert service.shim([words]) == 0
        assert capfd.readouterr().out.splitlines() == expected
    with pytest.raises(JailError, match="-R: not honoured"):
        service.shim(["-R"])


def test_command_lines_are_listed_as_freebsds_pgrep_does() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    try:
        known = process.read(child.pid)
        while known is not None and known.arguments != ("sleep", "1000"):
            known = process.read(child.pid)
        assert known is not None
        for words, line in (("-l", "sleep"), ("-lf", "sleep 1000"), ("-a", "sleep 1000")):
            assert pgrep._line(known, pgrep.parse([words, "-j", "1"], "pgrep")) == f"{child.pid} {line}"
    finally:
        child.kill()
        child.wait()


def test_top_of_a_jail(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def main(argv: list[str]) -> int:
        called.append(argv)
        return 0

    monkeypatch.setattr(top, "main", main)
    assert top.shim(["-J", "www"]) == top.shim("-b -d 3 -s 1 -o res -Jwww".split()) == 0
    assert called == [["-s", "cpu", "--", "www"], "-b -n 3 -d 1 -s memory -- www".split()]
    for words in ([], ["-b", "-n", "1"], ["-d1", "-p", "1"]):
        with pytest.raises(UsageError):
            top.shim(words)
    for words, why in (
        (["-HJ", "www"], "-H: not"),
        (["-J", "www", "-o", "pri"], "-o pri: not"),
        (["-Jwww", "5"], "5: not"),
    ):
        with pytest.raises(JailError, match=why):
            top.shim(words)


def test_without_j_service_is_the_hosts_own() -> None:
    for words in ([], ["ssh", "-j", "x"], ["-j"], ["-j", "", "ssh"], ["--status-all"]):
        with pytest.raises(UsageError):
            service.shim(words)


def test_terminals_are_root_s_to_watch(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert shim.main([str(Path(__file__).resolve().parents[2] / "shims/watch"), "pts/0"]) == 69
    assert capfd.readouterr().err == "watch: fatal: Operation not permitted\n"


def test_what_of_path_cannot_be_looked_into_is_passed_over(tmp_path: Path) -> None:
    """As root's own directories are where somebody else has root's PATH; a name that is too long fails for all."""
    (tmp_path / "shims").mkdir()
    (tmp_path / "bin").mkdir()
    for directory in ("shims", "bin"):
        (tmp_path / directory / "ps").write_text("#!/bin/sh\n")
        (tmp_path / directory / "ps").chmod(0o755)
    path = f"{tmp_path}/shims:{tmp_path}/{'x' * 300}:{tmp_path}/bin"
    assert shim.behind(f"{tmp_path}/shims/ps", path) == f"{tmp_path}/bin/ps"


def test_what_is_created_by_a_word() -> None:
    for name in ("tun", "bridge0a", "epair0a", "epair01", "epair-1", "xepair", "epair9999999"):
        with pytest.raises(UsageError):
            clone.create(name)


def test_a_pid_that_is_anothers_is_not_signalled() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    try:
        known = process.read(child.pid)
        assert known is not None
        assert signals.send(known, 0)
        assert not signals.send(replace(known, birth=known.birth - 1), signal.SIGKILL)  # it had the pid before
        assert not signals.send(replace(known, cgroup="/jailng/7/members"), signal.SIGKILL)  # it was in a jail
        assert child.poll() is None
        assert signals.send(known, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert not signals.send(known, 0)
    assert signals.same(known) is None
