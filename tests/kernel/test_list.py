"""jailctl list: every jail, in whatever state it is, and whatever was killed on the way there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jailng.core import index, registry
from jailng.linux import cgroup, ns
from tests.kernel.conftest import ENVIRONMENT, Command

Listed = Callable[..., dict[str, str]]


@pytest.fixture
def conf(tmp_path: Path, small_root: Path) -> Path:
    """Jails in all ways; ``included`` is in a file that the first includes."""
    (tmp_path / "jail.conf.d").mkdir()
    (tmp_path / "jail.conf.d" / "more.conf").write_text('included { host.hostname = "more.example"; }\n')
    file = tmp_path / "jail.conf"
    file.write_text(
        f"""
        path = "{small_root}";
        persist;
        .include "{tmp_path}/jail.conf.d/*.conf";
        web {{ ip4.addr = "198.51.100.10/24", "198.51.100.11"; ip6.addr = "2001:db8:1::10"; }}
        slow {{ exec.start = "/bin/busybox sleep 1000"; }}
        mounted {{ mount += "tmpfs {small_root}/tmp tmpfs rw 0 0"; }}
        "web.inner" {{ }}
        """
    )
    return file


@pytest.fixture
def listed(jailctl: Command, conf: Path) -> Listed:
    """State by name."""

    def look(*words: str) -> dict[str, str]:
        done = jailctl("list", "-f", str(conf), "--json", *words)
        assert (done.returncode, done.stderr) == (0, "")
        return {one["name"]: one["state"] for one in json.loads(done.stdout)["jails"]}

    return look


def _until(told: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not told():
        assert time.monotonic() < until


def _record(name: str) -> registry.Record:
    record = registry.remains(name)
    assert record is not None
    return record


def _kill_init(name: str) -> None:
    pidfd = os.pidfd_open(_record(name).init_pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert ns.ends_within(pidfd, 60)
    os.close(pidfd)


def test_every_state(jail: Command, jailctl: Command, listed: Listed, conf: Path, small_root: Path) -> None:
    file = str(conf)
    (small_root / "tmp").mkdir(exist_ok=True)
    assert listed() == dict.fromkeys(("included", "web", "slow", "mounted", "web.inner"), "stopped")
    for name in ("included", "mounted"):
        assert jail("-f", file, "-c", name).returncode == 0
    assert (
        jail("-c", "name=other", "jid=77", f"path={small_root}", "persist", "host.hostname=o.example").returncode == 0
    )
    starter = subprocess.Popen(
        [str(Path(__file__).parents[2] / "bin/jail"), "-f", file, "-c", "slow"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT,
    )  # fmt: skip
    _until(lambda: listed()["slow"] == "starting")
    assert listed()["other"] == listed()["mounted"] == listed("77")["other"] == "running"
    for word, state in ((b"1", "frozen"), (b"0", "running")):
        cgroup.write(f"{_record('other').cgroup}/members/cgroup.freeze", word)
        assert listed()["other"] == state
    starter.kill()
    starter.wait()
    _until(lambda: listed()["slow"] == "half-made")  # its PID 1 hears of it by a signal
    _kill_init("other")
    assert listed()["other"] == "ended"
    lock = index.hold(_record("other").jid)
    assert listed()["other"] == "dying"
    os.close(lock)
    assert jail("-R", "mounted").returncode == 0
    assert listed("mounted")["mounted"] == "half-removed"
    # What it shows of them, to who reads, and that it has changed nothing.
    done = jailctl("list", "-f", file)
    lines = {line.split()[1]: line.split() for line in done.stdout.splitlines()}
    assert lines["NAME"] == ["JID", "NAME", "STATE", "IP", "AGE", "PATH", "HOSTNAME"]
    assert lines["other"] == ["77", "other", "ended", "-", "-", str(small_root), "o.example"]
    assert lines["included"][2:4] == ["running", "-"] and lines["included"][6] == "more.example"
    assert lines["web"][:4] == ["-", "web", "stopped", "198.51.100.10,198.51.100.11,2001:db8:1::10"]
    only = jailctl("list", "-r", "--json")
    assert [one["name"] for one in json.loads(only.stdout)["jails"]] == ["included"]
    (one,) = json.loads(only.stdout)["jails"]
    assert one["init"] == _record("included").init_pid and abs(time.time() - one["since"]) < 600
    assert listed() == {
        "included": "running", "web": "stopped", "slow": "half-made", "mounted": "half-removed", "other": "ended",
        "web.inner": "stopped",
    }  # fmt: skip
    # The same commands again.
    conf.write_text(conf.read_text().replace("sleep 1000", "true"))
    for name in ("slow", "mounted"):
        assert jail("-f", file, "-c", name).returncode == 0
    assert listed()["slow"] == listed()["mounted"] == "running"
    assert jail("-f", file, "-r", "*").returncode == 0
    assert set(listed().values()) == {"stopped"} and "other" not in listed()


def test_what_is_wrong(jailctl: Command, tmp_path: Path) -> None:
    done = jailctl("list", "nope")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", 'jailctl: jail "nope" not found\n')
    assert jailctl("list", "77").stderr == "jailctl: jail 77 not found\n"
    done = jailctl("list", "-f", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (1, f"jailctl: {tmp_path}/none: No such file or directory\n")
    assert done.stdout.split() == ["JID", "NAME", "STATE", "IP", "AGE", "PATH", "HOSTNAME"]
    file = tmp_path / "jail.conf"
    file.write_text('a { path = "$nothing"; } b { host.hostname = "\x1b[31m"; }\n')
    done = jailctl("list", "-f", str(file))
    assert done.returncode == 1 and "\x1b" not in done.stdout + done.stderr
    assert done.stderr.startswith("jailctl: a: ") and len(done.stderr.splitlines()) == 1
    assert [line.split()[1:3] for line in done.stdout.splitlines()[1:]] == [["a", "stopped"], ["b", "stopped"]]
    file.write_text("a {")
    done = jailctl("list", "-f", str(file))
    assert done.returncode == 1 and done.stderr.startswith(f"jailctl: {file}:")
    assert jailctl("list", "-x").stderr.startswith("usage: jailctl list")


def test_names_that_are_not_utf_8(jail: Command, jailctl: Command, jexec: Command, small_root: Path) -> None:
    odd = "n\udcff\udce9"
    done = jail("-c", f"name={odd}", "jid=77", f"path={small_root}", "persist", "host.hostname=h\udcff")
    assert (done.returncode, done.stderr) == (0, "")
    assert jailctl("list", odd).stdout.split()[8:10] == ["n\\xff\\xe9", "running"]
    (one,) = json.loads(jailctl("list", "--json").stdout)["jails"]
    assert (one["name"], one["hostname"]) == ("n\\xff\\xe9", "h\\xff")
    for verb in ("info", "top", "drops"):
        assert jailctl(verb, odd).returncode == 0
    assert "n\\xff\\xe9" in jailctl("info", "77").stdout
    assert jail("-m", "jid=77", "host.hostname=g\udcfe", "host.domainname=d\udcfd").stderr == ""
    names = jexec("77", "sh", "-c", "cd /proc/sys/kernel; cat hostname domainname | od -An -tx1").stdout
    assert bytes.fromhex(names) == b"g\xfe\nd\xfd\n"
    assert jailctl("stop", odd).stdout == "n\\xff\\xe9: removed\n"


def test_closed_streams(checkout: Path) -> None:
    """What cannot be written is told of in a line, and nothing is opened where a stream should be."""
    verbs = ("list", "list --json", "top", "drops", "sysctl security.jail.jailed", "rdr list", "doctor", "help")
    for verb in verbs:
        for where in (">&-", ">/dev/full"):
            line = f"exec {checkout}/bin/jailctl {verb} {where}"
            done = subprocess.run(["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            assert done.returncode in (1, 0 if verb == "help" else 1), (verb, where)
            assert len(done.stderr.splitlines()) <= 1 and "Traceback" not in done.stderr, (verb, where, done.stderr)
    closed = subprocess.run(["sh", "-c", f"exec {checkout}/bin/jailctl list <&- 2>&-"], stdout=subprocess.PIPE)
    assert closed.returncode == 0 and closed.stdout.startswith(b"  JID NAME")
