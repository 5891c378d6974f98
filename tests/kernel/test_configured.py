"""jail(8) with a configuration: which jails, in which order, side by side, and what is said of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.conftest import Command

Configured = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def conf(tmp_path: Path, small_root: Path) -> Callable[[str], Path]:
    """Write a configuration of jails in a small root that persist."""

    def write(text: str) -> Path:
        path = tmp_path / "jail.conf"
        path.write_text(f'path = "{small_root}"; persist;\n{text}\n')
        return path

    return write


@pytest.fixture
def configured(jail: Command, conf: Callable[[str], Path]) -> Configured:
    """Run jail(8) on a configuration of that text."""

    def run(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return jail("-f", str(conf(text)), *arguments)

    return run


def _said(done: subprocess.CompletedProcess[str]) -> tuple[str, str, int]:
    return done.stdout, done.stderr, done.returncode


def _lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


CHAIN = "a { depend = b; } b { depend = c; } c { }"


def test_started_after_what_they_depend_on(configured: Configured) -> None:
    assert _lines(configured(CHAIN, "-c")) == ["c: created", "b: created", "a: created"]
    assert _lines(configured(CHAIN, "-r", "*")) == ["a: removed", "b: removed", "c: removed"]


def test_standard_input_that_the_caller_has_closed(checkout: Path) -> None:
    """It was taken for an empty configuration, whose jails are all there."""
    done = subprocess.run(["/bin/sh", "-c", f"exec {checkout}/bin/jail -f - -c <&-"], capture_output=True, text=True)
    assert _said(done) == ("", "jail: -: Bad file descriptor\n", 1)


def test_one_jail_brings_what_it_depends_on(configured: Configured, jls: Command) -> None:
    assert _lines(configured(CHAIN, "-c", "b")) == ["c: created", "b: created"]
    assert jls("name").stdout == "c\nb\n"
    assert _lines(configured(CHAIN, "-r", "c")) == ["b: removed", "c: removed"]


def test_all_are_passed_over_that_run(configured: Configured) -> None:
    assert _lines(configured(CHAIN, "-c", "c")) == ["c: created"]
    assert _lines(configured(CHAIN, "-c")) == ["b: created", "a: created"]
    assert _lines(configured(CHAIN, "-c")) == []
    assert _said(configured(CHAIN, "-c", "a")) == ("", 'jail: "a" already exists\n', 1)
    configured(CHAIN, "-qr", "*")


def test_what_depends_on_one_that_fails_is_skipped_and_nothing_else(configured: Configured, jls: Command) -> None:
    text = 'a { depend = b; } b { exec.start = "/bin/false"; depend = c; } c { } d { }'
    done = configured(text, "-c")
    assert sorted(done.stdout.splitlines()) == ["b: created", "b: removed", "c: created", "d: created"]
    assert sorted(done.stderr.splitlines()) == ["jail: a: skipped", "jail: b: /bin/false: failed"]
    assert done.returncode == 1
    assert sorted(jls("name").stdout.split()) == ["c", "d"]
    assert sorted(_lines(configured(text, "-r", "*"))) == ["c: removed", "d: removed"]


def test_dependencies_that_cannot_be(configured: Configured, jls: Command) -> None:
    text = "a { depend = b; } b { depend = a; } c { depend = nosuch; } d { }"
    done = configured(text, "-c")
    assert done.stdout == "d: created\n"
    assert sorted(done.stderr.splitlines()) == [
        "jail: a: dependency loop",
        "jail: b: skipped",
        'jail: c: depends on undefined jail "nosuch"',
    ]
    assert done.returncode == 1
    assert jls("name").stdout == "d\n"
    configured(text, "-qr", "*")


# Whoever is at it waits until as many have begun as may be at it together, then gives one more the time to come.
_STEP = """touch {here}/at/$1 {here}/begun/$1
while [ $(ls {here}/begun | wc -l) -lt $2 ]; do sleep 0.01; done
sleep 0.2
ls {here}/at | wc -l >>{here}/seen
rm {here}/at/$1
"""


@pytest.mark.parametrize("which", ["exec.poststart", "exec.start"])
def test_commands_run_side_by_side_up_to_the_limit(
    configured: Configured, tmp_path: Path, small_root: Path, which: str
) -> None:
    """How many are at it together is counted by the commands themselves, so no clock has to be trusted."""
    inside = which == "exec.start"
    place, here = (small_root / "srv", "/srv") if inside else (tmp_path / "place", f"{tmp_path}/place")
    (place / "at").mkdir(parents=True)
    (place / "step").write_text(_STEP.format(here=here))

    def most(count: int, *limit: str) -> int:
        shutil.rmtree(place / "begun", ignore_errors=True)
        (place / "begun").mkdir()
        (place / "seen").write_text("")
        jails = " ".join(f"j{number} {{ }}" for number in range(6))
        text = f'{which} = "/bin/sh {here}/step $name {count}"; {jails}'
        _lines(configured(text, *limit, "-qc"))
        _lines(configured(text, "-qr", "*"))
        return max(int(line) for line in (place / "seen").read_text().split())

    assert (most(1, "-p", "1"), most(3, "-p", "3"), most(6)) == (1, 3, 6)


def test_with_a_limit_of_one_a_jail_is_done_after_the_other(configured: Configured) -> None:
    """Whose command has ended goes on, and who has to wait is not created either (next_command in command.c)."""
    steps = ("prestart", "created", "start", "poststart", "prestop", "stop", "poststop")
    text = " ".join(f'exec.{step} = "echo {step} $name";' for step in steps) + " a { } b { } c { }"
    started = "prestart {0}; {0}: created; created {0}; start {0}; poststart {0}"
    assert _lines(configured(text, "-p", "1", "-c")) == "; ".join(started.format(name) for name in "abc").split("; ")
    stopped = "prestop {0}; stop {0}; {0}: removed; poststop {0}"
    lines = _lines(configured(text, "-p", "1", "-r", "*"))
    assert lines == "; ".join(stopped.format(name) for name in "cba").split("; ")


def test_with_a_limit_of_one_the_next_jail_is_not_created_before_a_command_has_ended(configured: Configured) -> None:
    text = 'exec.poststart = "sleep 0.2; echo $name"; a { } b { } c { }'
    assert _lines(configured(text, "-p", "1", "-c")) == ["a: created", "a", "b: created", "b", "c: created", "c"]
    _lines(configured(text, "-qr", "*"))


def test_restart(configured: Configured, jls: Command) -> None:
    text = 'a { exec.prestop = "echo stop"; exec.prestart = "echo start"; }'
    assert _lines(configured(text, "-c", "a")) == ["start", "a: created"]
    assert _lines(configured(text, "-rc", "a")) == ["stop", "start", "a: created"]
    assert _said(configured("b { }", "-rc", "b")) == ("", 'jail: "b" not found\n', 1)
    assert _lines(configured(text, "-r", "a")) == ["stop", "a: removed"]


def test_restart_with_dependencies(configured: Configured, jls: Command) -> None:
    _lines(configured(CHAIN, "-qc"))
    before = {name: jls("-j", name, "jid").stdout for name in "abc"}
    assert _lines(configured(CHAIN, "-vrc", "a"))[0] == "a: removed"
    assert jls("-j", "c", "jid").stdout == before["c"]
    assert jls("-j", "a", "jid").stdout != before["a"]
    assert [line for line in _lines(configured(CHAIN, "-rc")) if "created" in line] == [
        "c: created",
        "b: created",
        "a: created",
    ]
    _lines(configured(CHAIN, "-qr", "*"))


def test_a_change_that_takes_a_restart_among_jails_that_depend_on_it(configured: Configured, jls: Command) -> None:
    text = "e { vnet; } l { depend = e; } m { depend = l; } n { }"
    _lines(configured(text.replace("vnet;", ""), "-qc"))
    assert _lines(configured(text, "-mr")) == ["n: updated", "e: created", "l: created", "m: created"]
    _lines(configured(text, "-qr", "e"))
    text = text.replace("depend = e", "depend = e; vnet")
    _lines(configured("l { } m { }", "-qc"))
    assert sorted(_lines(configured(text, "-cmr"))) == ["e: created", "l: created", "m: created", "n: updated"]
    assert jls("vnet").stdout.split() == ["inherit", "new", "new", "inherit"]
    _lines(configured(text, "-qr", "*"))


def test_a_jail_in_one_that_takes_a_restart_is_there_afterwards(configured: Configured, jls: Command) -> None:
    text = "a { children.max = 5; VNET b { children.max = 2; c { } } d { VNET } } z { }"
    _lines(configured(text.replace("VNET", ""), "-qc"))
    _lines(configured(text.replace("VNET", "vnet = inherit;"), "-qcmr"))
    _lines(configured(text.replace("VNET", "vnet;"), "-qcmr"))
    assert sorted(jls("name").stdout.split()) == ["a", "a.b", "a.b.c", "a.d", "z"]
    _lines(configured(text.replace("VNET", ""), "-qr", "*"))


def test_a_wildcard_with_what_depends_on_its_jails_by_way_of_others(configured: Configured, jls: Command) -> None:
    text = "a { children.max = 5; b { children.max = 1; c { } } d { depend = x; } } x { depend = a.b; }"
    _lines(configured(text, "-qc", "a.b.c"))
    assert _lines(configured(text, "-r", "a.*")) == ["a.b.c: removed", "a.b: removed"]
    assert _lines(configured(text, "-r", "*")) == ["a: removed"]


def test_a_failure_is_told_before_what_undoes_it(checkout: Path, conf: Callable[[str], Path], small_root: Path) -> None:
    path = conf('a { mount = "tmpfs $path/var tmpfs rw"; exec.start = false; }')
    (small_root / "var").mkdir(exist_ok=True)
    argv = [str(checkout / "bin/jail"), "-f", str(path), "-vc"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-4:] == [
        "a: run command in jail: false",
        "jail: a: false: failed",
        "a: removed",
        f"a: run command: /sbin/umount -t tmpfs {small_root}/var",
    ]


def test_create_or_modify_or_restart(configured: Configured, jls: Command) -> None:
    assert _lines(configured("a { host.hostname = one; }", "-cm")) == ["a: created"]
    assert _lines(configured("a { host.hostname = two; }", "-cm")) == ["a: updated"]
    assert jls("-j", "a", "host.hostname").stdout == "two\n"
    assert _lines(configured("a { host.hostname = three; }", "-m", "a")) == ["a: updated"]
    jid = jls("-j", "a", "jid").stdout
    assert _lines(configured("a { host.hostname = four; }", "-mr", "a")) == ["a: updated"]
    assert jls("-j", "a", "jid").stdout == jid
    assert _said(configured("a { ip4 = inherit; }", "-m", "a")) == (
        "",
        "jail: a: ip4 cannot be changed after creation\n",
        1,
    )
    assert _lines(configured("a { ip4 = inherit; }", "-cmr", "a")) == ["a: created"]
    assert jls("-j", "a", "ip4").stdout == "inherit\n"
    assert _said(configured("b { }", "-m", "b")) == ("", 'jail: "b" not found\n', 1)
    assert _lines(configured("a { }", "-r", "a")) == ["a: removed"]


def test_wildcards_of_the_command_line(configured: Configured, jls: Command) -> None:
    text = "web { } db { } dbx { }"
    assert _lines(configured(text, "-c", "*")) == ["web: created", "db: created", "dbx: created"]
    assert _said(configured(text, "-r", "d*")) == ("", 'jail: "d*" not found\n', 1)
    assert _lines(configured(text, "-r", "*")) == ["dbx: removed", "db: removed", "web: removed"]


def test_removing_what_is_not_configured(configured: Configured, jail: Command, small_root: Path) -> None:
    assert jail("-c", "name=other", f"path={small_root}", "persist").returncode == 0
    assert _lines(configured("a { }", "-c", "a")) == ["a: created"]
    assert sorted(_lines(configured("a { }", "-r", "*"))) == ["a: removed", "other: removed"]


def test_removing_by_jid_goes_by_the_configuration(configured: Configured, jls: Command) -> None:
    text = 'a { exec.prestop = "echo stop"; exec.poststop = "echo $JID $JNAME"; }'.replace("$", "\\$")
    _lines(configured(text, "-qc"))
    jid = jls("-j", "a", "jid").stdout.strip()
    assert _lines(configured(text, "-r", jid)) == ["stop", "a: removed", f"{jid} a"]


def test_a_block_named_by_a_jid(configured: Configured, jls: Command) -> None:
    assert _lines(configured("5309 { name = base; }", "-c", "5309")) == ["5309: created"]
    assert jls("jid", "name").stdout == "5309 base\n"
    assert _lines(configured("5309 { name = base; }", "-r", "5309")) == ["5309: removed"]
    assert _lines(configured("base { jid = 5309; }", "-c", "base")) == ["base: created"]
    assert jls("jid", "name").stdout == "5309 base\n"
    assert _lines(configured("base { jid = 5309; }", "-r", "base")) == ["base: removed"]


def test_a_failing_exec_stop_leaves_the_jail(configured: Configured, jls: Command) -> None:
    assert _lines(configured("a { }", "-c")) == ["a: created"]
    text = 'a { exec.stop = "/bin/false"; exec.poststop = "echo after"; }'
    assert _said(configured(text, "-r", "a")) == ("", "jail: a: /bin/false: failed\n", 1)
    assert jls("name").stdout == "a\n"
    assert _lines(configured(text, "-R", "a")) == []
    assert jls("name").stdout == ""


def test_clean_up_after_a_jail(configured: Configured) -> None:
    subprocess.run(["ip", "link", "add", "ep7", "type", "veth", "peer", "name", "ep7x"], check=True)
    hooks = 'exec.poststop = "echo after"; exec.release = "echo last";'
    alone = f"interface = ep7; ip4.addr = 198.51.100.9; a {{ {hooks} }}"
    text = f'mount = "tmpfs $path/tmp tmpfs rw"; {alone}'
    try:
        assert _said(configured(text, "-C", "nosuch")) == ("", 'jail: "nosuch" not found\n', 1)
        _lines(configured(text, "-qc"))
        assert "198.51.100.9" in _addresses()
        assert _said(configured(text, "-C", "a")) == ("", "jail: a: still running\n", 1)
        assert _lines(configured(text, "-R", "a")) == []
        assert "198.51.100.9" in _addresses()
        assert _lines(configured(text, "-C", "a")) == ["after", "last"]
        assert "198.51.100.9" not in _addresses()
        _lines(configured(alone, "-qc"))
        assert _lines(configured(alone, "-R", "a")) == []
        assert "198.51.100.9" not in _addresses()
    finally:
        subprocess.run(["ip", "link", "delete", "ep7"], check=True)


def _addresses() -> str:
    return subprocess.run(["ip", "addr"], capture_output=True, text=True, check=True).stdout


def test_jid_file_and_jids(configured: Configured, jls: Command, tmp_path: Path, small_root: Path) -> None:
    output = tmp_path / "jids"
    done = configured('a { host.hostname = "x y"; } b { }', "-i", "-J", str(output), "-c")
    jids = jls("jid").stdout
    assert done.stdout == jids
    one, two = jids.split()
    first, second = output.read_text().splitlines()
    assert first.split("\t") == [f"jid={one}", "name=a", f"path={small_root}", "persist", 'host.hostname="x y"']
    assert second.split("\t") == [f"jid={two}", "name=b", f"path={small_root}", "persist"]
    configured("a { } b { }", "-qr", "*")


def test_killed_half_way_and_once_more(
    checkout: Path, conf: Callable[[str], Path], configured: Configured, jls: Command, tmp_path: Path
) -> None:
    """What a disturbed run leaves, an undisturbed one makes whole."""
    mark = tmp_path / "mark"
    os.mkfifo(mark)
    names = [f"j{number}" for number in range(6)]
    text = " ".join(f"{name} {{ }}" for name in names)
    stops = f'j3 {{ exec.prestart = "echo here > {mark}; sleep 1000"; }}'
    path = conf(f"{stops} {text.replace('j3 { }', '')}")
    with subprocess.Popen([checkout / "bin/jail", "-f", path, "-qc", "-p", "1"], start_new_session=True) as running:
        mark.read_text()
        os.killpg(running.pid, signal.SIGKILL)
    _lines(configured(text, "-qc"))
    assert sorted(jls("name").stdout.split()) == names
    _lines(configured(text, "-qr", "*"))
    assert jls("name").stdout == ""


def test_a_command_that_has_had_its_time_is_left_to_itself(
    checkout: Path, conf: Callable[[str], Path], configured: Configured, jexec: Command, tmp_path: Path
) -> None:
    assert _lines(configured("a { }", "-c")) == ["a: created"]
    path = conf('a { exec.timeout = 1; exec.stop = "sleep 1000"; }')
    said = tmp_path / "said"  # not a pipe, which the command would hold
    with said.open("w") as file:
        argv = [str(checkout / "bin/jail"), "-f", str(path), "-r", "a"]
        done = subprocess.run(argv, stdout=file, stderr=file, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert (said.read_text(), done.returncode) == ("jail: a: sleep 1000: timed out\n", 1)
    until = time.monotonic() + 60
    while "sleep 1000" not in jexec("a", "ps").stdout:  # on a busy machine it may be on its way in still
        assert time.monotonic() < until
    assert _lines(configured("a { }", "-R", "a")) == []


def test_hundreds_of_jails(configured: Configured, jls: Command, tmp_path: Path) -> None:
    extra = tmp_path / "more.d"
    extra.mkdir()
    for number in range(100, 200):
        (extra / f"{number}.conf").write_text(f"j{number} {{ depend = j{number - 1}; }}\n")
    text = f'.include "{extra}/*.conf";\n* {{ host.hostname = "$name.example"; }}\n'
    text += "\n".join(f"j{number} {{ }}" for number in range(100))
    assert len(_lines(configured(text, "-c"))) == 200
    hosts = jls("name", "host.hostname").stdout.splitlines()
    assert len(hosts) == 200
    assert all(line.split() == [line.split()[0], f"{line.split()[0]}.example"] for line in hosts)
    assert len(_lines(configured(text, "-r", "*"))) == 200
    assert jls("name").stdout == ""


def test_what_goes_wrong_is_one_line(configured: Configured, jail: Command, tmp_path: Path) -> None:
    assert _said(jail("-f", str(tmp_path / "none"), "-c")) == (
        "",
        f"jail: {tmp_path}/none: No such file or directory\n",
        1,
    )
    assert _said(configured("a { }", "-c", "nosuch")) == ("", 'jail: "nosuch" not found\n', 1)
    assert _said(configured("a { bogus = 1; }", "-c")) == ("", "jail: a: unknown parameter: bogus\n", 1)
    assert _said(configured("a { path = relative; }", "-c")) == (
        "",
        "jail: a: path relative: not an absolute pathname\n",
        1,
    )
    done = configured("a { ", "-c")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_what_would_not_be_made_has_no_plan(configured: Configured, jail: Command, small_root: Path) -> None:
    done = configured('a { mount = "tmpfs /tmp tmpfs rw"; }', "--plan", "-c", "a")
    assert _said(done) == ("", f"jail: a: mount: /tmp: not below the jail's path {small_root}\n", 1)
    done = jail("--plan", "-c", f"path={small_root}")
    assert _said(done) == ("", "jail: new jail must persist or attach\n", 1)


def test_the_plan_of_what_is_left_of_a_jail(configured: Configured) -> None:
    text = "a { exec.prestop = one; exec.stop = two; exec.poststop = three; exec.release = four; }"
    for options in ("-C", "-rC"):
        assert _lines(configured(text, "--plan", options, "a")) == ["a: exec.poststop: three", "a: exec.release: four"]


def test_the_plan_of_a_removal_is_in_the_order_of_one(configured: Configured, jail: Command) -> None:
    text = """a {
        mount = "tmpfs $path/tmp tmpfs rw";
        exec.prestop = "true 1"; exec.stop = "true 2"; exec.poststop = "true 3"; exec.release = "true 4";
    }"""
    _lines(configured(text, "-qc"))

    def planned(*words: str) -> list[str]:
        found = [line.removeprefix("a: ").split(" ") for line in _lines(configured(text, "--plan", *words))]
        return [" ".join(words[:3] if words[0].startswith("exec") else words[:2]) for words in found]

    after = ["exec.poststop: true 3", "undo: mount", "exec.release: true 4"]
    assert planned("-r", "a") == ["exec.prestop: true 1", "exec.stop: true 2", "undo: cgroup", *after]
    # -R runs no command, and leaves what is mounted to -C.
    assert planned("-R", "a") == ["undo: cgroup"]
    assert planned("-R", "*") == ["undo: cgroup"]
    assert _lines(configured(text, "-qR", "a")) == []
    assert planned("-C", "a") == after
    assert _lines(configured(text, "-qC", "a")) == []


def test_a_plan_is_only_told(configured: Configured, jls: Command, tmp_path: Path) -> None:
    text = f'a {{ exec.prestart = "touch {tmp_path}/done"; depend = b; mount = "tmpfs $path/tmp tmpfs rw"; }} b {{ }}'
    lines = _lines(configured(text, "--plan", "-c", "a"))
    assert [line for line in lines if line.startswith("b: ")][-1:]
    assert f"a: exec.prestart: touch {tmp_path}/done" in lines
    assert any(line.startswith("a: mount tmpfs on ") for line in lines)
    assert (jls("name").stdout, (tmp_path / "done").exists()) == ("", False)
    _lines(configured(text.replace("mount =", "env.x ="), "-qc"))
    assert any(line.startswith("a: undo: cgroup ") for line in _lines(configured(text, "--plan", "-r", "*")))
    assert _lines(configured("b { host.hostname = x; }", "--plan", "-m", "b")) == ["b: set host.hostname"]
    assert any("undo" in line for line in _lines(configured("b { }", "--plan", "-rc", "b")))
    assert jls("name").stdout == "b\na\n"
    _lines(configured(text, "-qr", "*"))


def test_lenient(configured: Configured, jls: Command) -> None:
    text = "a { ng.lenient; allow.mount.zfs; }"
    warning = "jail: a: allow.mount.zfs: not honoured on Linux: stock Linux has no ZFS\n"
    assert _said(configured(text, "-c")) == ("a: created\n", warning, 0)
    assert jls("-j", "a", "allow.mount.zfs").stdout == "false\n"
    before = jls("-j", "a", "jid").stdout
    for operation in ("-m", "-mr", "-cmr"):  # nothing is changed, so nothing takes a restart
        assert _said(configured(text, operation, "a")) == ("a: updated\n", warning, 0)
    assert jls("-j", "a", "jid").stdout == before
    assert _lines(configured(text, "-r", "a")) == ["a: removed"]
