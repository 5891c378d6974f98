"""jailctl start, stop and restart: what they say and do, and that they can be killed anywhere and said again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.kernel import faults
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.faults import STRIDE


@pytest.fixture
def conf(tmp_path: Path, small_root: Path) -> Path:
    file = tmp_path / "jail.conf"
    file.write_text(
        f"""
        path = "{small_root}";
        persist;
        exec.prestart = "echo $name prestart >> {tmp_path}/said";
        exec.poststop = "echo $name poststop >> {tmp_path}/said";
        a {{ jid = 71; exec.start = "/bin/busybox true"; exec.stop = "/bin/busybox true"; }}
        b {{ depend = a; }}
        bad {{ exec.start = "/bin/busybox false"; }}
        """
    )
    return file


class Host:
    def __init__(self, jailctl: Command, conf: Path) -> None:
        self.jailctl = jailctl
        self.conf = conf

    def __call__(self, verb: str, *words: str) -> tuple[int, str, str]:
        done = self.jailctl(verb, "-f", str(self.conf), *words)
        return done.returncode, done.stdout, done.stderr

    def states(self) -> dict[str, str]:
        status, out, err = self("list", "--json")
        assert (status, err) == (0, "")
        return {one["name"]: one["state"] for one in json.loads(out)["jails"]}


@pytest.fixture
def host(jailctl: Command, conf: Path) -> Host:
    return Host(jailctl, conf)


def test_they_say_what_shall_be(host: Host, jail: Command, small_root: Path, tmp_path: Path) -> None:
    assert host("start", "b") == (0, "a: created\na: started\nb: created\nb: started\n", "")
    assert host("start", "a", "b") == (0, "a: is running already\nb: is running already\n", "")
    assert host.states() == {"a": "running", "b": "running", "bad": "stopped"}
    assert host("start", "71") == (0, "a: is running already\n", "")
    assert host("restart", "b") == (0, "b: removed\nb: created\nb: started\n", "")
    status, out, err = host("restart", "71")  # a
    assert (status, err) == (0, "")
    steps = ["b: removed", "a: removed", "a: created", "a: started", "b: created", "b: started"]
    assert out.splitlines() == steps
    assert host.states() == {"a": "running", "b": "running", "bad": "stopped"}
    assert host("stop", "-q", "b") == (0, "", "")
    assert host("stop", "b", "71") == (0, "a: removed\nb: is not running\n", "")
    assert host("restart", "a") == (0, "a: created\na: started\n", "")
    status, out, err = host("start", "b", "bad", "none")
    assert (status, sorted(out.splitlines())) == (1, ["b: created", "b: started", "bad: created", "bad: removed"])
    assert err == 'jailctl: "none" not found\njailctl: bad: /bin/busybox false: failed\n'
    assert jail("-c", "name=other", f"path={small_root}", "persist").returncode == 0
    assert host("restart", "other") == (1, "", 'jailctl: "other": is not in the configuration\n')
    assert host("start", "other") == (0, "other: is running already\n", "")
    status, out, err = host("stop", "-a")
    assert (status, err, sorted(out.splitlines())) == (0, "", ["a: removed", "b: removed", "other: removed"])
    assert set(host.states().values()) == {"stopped"}
    said = (tmp_path / "said").read_text().splitlines()
    assert said[:3] == ["a prestart", "b prestart", "b poststop"] and said.count("a poststop") == 3


def test_why_a_jail_fails_is_told_once_and_before_it_is_undone(conf: Path, checkout: Path) -> None:
    argv = [str(checkout / "bin/jailctl"), "start", "-f", str(conf), "bad"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
    assert done.stdout == "bad: created\njailctl: bad: /bin/busybox false: failed\nbad: removed\n"
    assert done.returncode == 1


def test_arguments(host: Host, jailctl: Command, tmp_path: Path) -> None:
    for words in ([], ["-a", "a"], ["-x", "a"], ["--json", "a"]):
        status, out, err = host("start", *words)
        assert (status, out) == (1, "") and err.startswith("usage: jailctl start [-qv] [-f file] jail ...\n"), words
    none = str(tmp_path / "none")
    assert jailctl("stop", "-f", none, "a").stderr == f"jailctl: {none}: No such file or directory\n"
    assert jailctl("stop", "a\x1b[31m").stderr == 'jailctl: "a\\x1b[31m" not found\n'


def test_who_is_interrupted_undoes_what_was_begun(host: Host, conf: Path, checkout: Path) -> None:
    conf.write_text(conf.read_text().replace("/bin/busybox false", "/bin/busybox sleep 1000"))
    words = [str(checkout / "bin/jailctl"), "start", "-f", str(conf), "bad"]
    started = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert started.stdout is not None
    assert started.stdout.readline() == "bad: created\n"
    started.send_signal(signal.SIGTERM)
    started.communicate(timeout=60)
    assert started.returncode != 0
    assert host.states()["bad"] == "stopped"
    assert not list(Path("/run/jailng/jails").iterdir())


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_killed_anywhere(verb: str, host: Host, jls: Command, jexec: Command, checkout: Path, tmp_path: Path) -> None:
    """The next list tells the truth, and the same verb again does what it is for, with b, which depends on it, too."""
    words = [str(checkout / "bin/jailctl"), verb, "-f", str(host.conf), "a"]
    before, after = {"start": ("stop", "running"), "stop": ("start", "stopped"), "restart": ("start", "running")}[verb]
    first = "a" if verb == "start" else "b"
    assert host(before, first)[0] == 0
    steps = faults.steps(tmp_path / "trace", *words)
    every = max(len(steps) // 6, 1) if STRIDE > 1 else 1
    wrong = []
    for step in steps[os.getpid() % every :: every]:
        assert host(before, first)[0] == 0
        done = faults.run(step, "signal=SIGKILL", *words)
        until = time.monotonic() + 20
        while True:  # what was killed may have left a process of its own that ends of it meanwhile
            state = host.states()["a"]
            lives = jls("-j", "a", "jid").returncode == 0
            shut = state == "running" and jexec("a", "/bin/busybox", "true").returncode != 0
            if ((state in ("running", "starting")) is lives and not shut) or time.monotonic() > until:
                break
        if (state in ("running", "starting")) is not lives or "Traceback" in done.stderr:
            wrong.append(f"{step}: {state}, and jls says {lives} {done.stderr}")
        if shut:
            wrong.append(f"{step}: {state}, and jexec does not get in")
        status, out, err = host(verb, "a")
        now = host.states()
        if status or err or now["a"] != after or (verb != "start" and now["b"] != after):
            wrong.append(f"{step}: {state}; again: {status} {out} {err}; then {now}")
    assert host("stop", "a")[0] == 0
    assert not wrong, "\n".join(wrong)


def test_killed_when_a_jail_is_struck_out(host: Host, checkout: Path, tmp_path: Path) -> None:
    """It is out of the index, and its record is there: the same again clears that away, and so does a start."""
    words = [str(checkout / "bin/jailctl"), "stop", "-f", str(host.conf), "a"]
    for verb, said in (("stop", "a: is not running\n"), ("start", "a: created\na: started\n")):
        assert host("start", "a")[0] == 0
        steps = faults.steps(tmp_path / "trace", *words)
        (step,) = [one for one in steps if one.name == "unlink" and "/run/jailng/jails/71" in one.text]
        assert host("start", "a")[0] == 0
        faults.run(step, "signal=SIGKILL", *words)
        assert host.states()["a"] == "half-removed"
        assert host(verb, "a") == (0, said, "")
        assert host.states()["a"] == ("running" if verb == "start" else "stopped")
    assert host("stop", "a")[0] == 0
    assert not list(Path("/run/jailng/jails").iterdir())
    assert not [*Path("/run/jailng").glob("restart/*")]


def test_what_a_restart_has_left_is_not_started_once_it_was_stopped(host: Host) -> None:
    place = Path("/run/jailng/restart")
    place.mkdir(parents=True, exist_ok=True)
    (place / "1 1").write_bytes(b"a\nb\n")
    assert host("stop", "b")[0] == 0
    assert (place / "1 1").read_bytes() == b"a\n"
    assert host("restart", "a") == (0, "a: created\na: started\n", "")
    assert not [*place.iterdir()]
    (place / "1 1").write_bytes(b"a\nb\nbro")  # that one was killed while it wrote
    assert host("restart", "a") == (0, "a: removed\na: created\na: started\nb: created\nb: started\n", "")
    assert not [*place.iterdir()]
    assert host("stop", "-a")[0] == 0


@pytest.mark.parametrize("verb", ["create", "destroy"])
def test_killed_verbs_of_2001(verb: str, jailctl: Command, checkout: Path, tmp_path: Path) -> None:
    """jailctl create and destroy: what list says then is so, and the same again is done, or was done already."""
    words = [str(checkout / "bin/jailctl"), verb, "test"]

    def state() -> str:
        done = jailctl("list", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return "".join([one["state"] for one in json.loads(done.stdout)["jails"]])

    def begin() -> None:
        if (state() == "running") is not (verb == "destroy"):
            assert jailctl("create" if verb == "destroy" else "stop", "test").returncode == 0

    begin()
    steps = faults.steps(tmp_path / "trace", *words)
    every = max(len(steps) // 6, 1) if STRIDE > 1 else 1
    wrong = []
    for step in steps[os.getpid() % every :: every]:
        begin()
        faults.run(step, "signal=SIGKILL", *words)
        found = state()
        again = jailctl(verb, "test")
        done = found == ("running" if verb == "create" else "")
        if again.returncode and not done:
            wrong.append(f"{step}: {found}; again: {again.stderr}")
        if state() != ("running" if verb == "create" else ""):
            wrong.append(f"{step}: {found}; then {state()}")
    if state():
        assert jailctl("stop", "test").returncode == 0
    assert not wrong, "\n".join(wrong)
