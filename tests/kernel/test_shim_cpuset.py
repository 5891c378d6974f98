"""cpuset -j: the processors of a jail, which what is in it cannot leave."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.ctl import cpuset
from jailng.errors import JailError
from tests.kernel.conftest import Command, Shim
from tests.kernel.stage import Stage

V1 = Path("/sys/fs/cgroup/cpuset")
REPORT = "sed -n 's/Cpus_allowed_list:.//p' /proc/self/status"


@pytest.fixture(autouse=True)
def room(stage: Stage) -> Iterator[None]:
    """With cgroup v2 alone the stage has to have the controller."""
    if not V1.exists() and "cpuset" not in (stage.cgroup2 / "cgroup.controllers").read_text().split():
        pytest.skip("the stage has not the controller cpuset: this machine's root of cgroup v2 hands it to nobody")
    yield


@pytest.fixture
def cell(room: None, jail: Command, small_root: Path) -> Iterator[str]:
    """A jail with busybox; its jid."""
    made = jail("-i", "-c", "name=cell", f"path={small_root}", "persist", "children.max=1")
    assert (made.returncode, made.stderr) == (0, "")
    yield made.stdout.strip()
    assert jail("-r", "cell").returncode == 0


def processors() -> list[int]:
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        pytest.skip("this machine has one processor")
    return found


def allowed(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:"))


def inside(jexec: Command) -> str:
    return jexec("cell", "sh", "-c", REPORT).stdout.strip()


def test_what_is_in_a_jail_and_what_enters_it(shim: Shim, cell: str, jexec: Command, checkout: Path) -> None:
    first, last = processors()[0], processors()[-1]
    every = ", ".join(map(str, processors()))
    shown = shim("cpuset", "-g", "-j", "cell")
    assert (shown.stderr, shown.returncode) == ("", 0)
    assert shown.stdout.splitlines()[0] == f"jail {cell} mask: {every}"
    assert shown.stdout.splitlines()[1].startswith(f"jail {cell} domain policy: first-touch mask: 0")
    script = "(echo up; exec sleep 1000) & read word; kill $!; exit 0"
    running = subprocess.Popen(
        [checkout / "bin/jexec", "cell", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert running.stdout is not None
    running.stdout.readline()
    done = shim("cpuset", "-l", str(last), "-j", cell)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    try:
        pids = [int(pid) for pid in shim("pgrep", "-j", "cell").stdout.split()]
        assert len(pids) == 2
        assert [allowed(pid) for pid in pids] == [str(last)] * 2
        assert inside(jexec) == str(last)
        assert shim("cpuset", "-g", "-j", "cell").stdout.startswith(f"jail {cell} mask: {last}\n")
        assert shim("cpuset", "-gr", "-j", "cell").stdout.startswith(f"jail {cell} root mask: {last}\n")
        told = jexec("cell", "sh", "-c", "grep ^cpu[0-9] /proc/stat; grep ^processor /proc/cpuinfo").stdout
        assert [line.split()[0] + line.split()[-1] for line in told.splitlines()] == [f"cpu{last}0", f"processor{last}"]
        # It asks for more, and has no more.
        more = f"taskset -p {(1 << last) | (1 << first):x} $$ >/dev/null; {REPORT}"
        assert jexec("cell", "sh", "-c", more).stdout.strip() == str(last)
        other = jexec("cell", "sh", "-c", f"taskset -p {1 << first:x} $$")
        assert other.returncode != 0
        assert "Invalid argument" in other.stderr
        assert allowed(os.getpid()) != str(last)
        assert shim("cpuset", "-c", "-l", "all", "-j", "cell").returncode == 0
        assert shim("cpuset", "-g", "-j", "cell").stdout.splitlines()[0] == f"jail {cell} mask: {every}"
        assert sorted(os.sched_getaffinity(pids[0])) == processors()
    finally:
        running.communicate(b"\n")


def test_from_a_configuration(shim: Shim, room: None, jail: Command, small_root: Path, checkout: Path) -> None:
    """As administrators have it: in exec.created and exec.poststart, before and after the command has started."""
    last = processors()[-1]
    words = ("-c", "name=cell", f"path={small_root}", "persist")
    command = f"{checkout}/shims/cpuset -c -l {last} -j cell"
    for hook in ("exec.created", "exec.poststart"):
        made = jail(*words, f"{hook}={command}", f"exec.start={REPORT}")
        assert (made.returncode, made.stderr) == (0, "")
        if hook == "exec.created":
            assert made.stdout.split()[-1] == str(last)
        assert shim("cpuset", "-g", "-j", "cell").stdout.split("\n")[0].endswith(f" mask: {last}")
        assert jail("-r", "cell").returncode == 0
    for _ in range(5):
        made = jail(
            *words[:-1], f"exec.created={command}", "command=sed", "-n", "s/Cpus_allowed_list:.//p", "/proc/self/status"
        )
        assert made.stdout.split()[-1] == str(last)
    assert jail("-r", "*").returncode == 0
    assert not (V1 / "jailng").exists()


def test_a_jail_in_it_has_no_more(shim: Shim, cell: str, jail: Command, jexec: Command, small_root: Path) -> None:
    last = processors()[-1]
    assert shim("cpuset", "-l", str(last), "-j", "cell").returncode == 0
    made = jail("-c", "name=cell.inner", f"path={small_root}", "persist")
    assert (made.returncode, made.stderr) == (0, "")
    seen = jexec("cell.inner", "sh", "-c", REPORT)
    assert seen.stdout.strip() == str(last)
    assert shim("cpuset", "-g", "-j", "cell.inner").stdout.split("\n")[0].endswith(f" mask: {last}")
    refused = shim("cpuset", "-l", "0", "-j", "cell.inner")
    assert refused.stderr == "cpuset: setaffinity: a jail in a jail has the processors of that one\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("-g -j nowhere", 'jail "nowhere" not found'),
        ("-g -j 999999", "getaffinity: No such process"),
        ("-l 0 -j 999999", "setaffinity: No such process"),
        ("-l 1000 -j cell", "setaffinity: Invalid argument"),
        ("-l 1024 -j cell", "List entry 1024 exceeds maximum of 1023"),
        ("-l 0- -j cell", "Malformed list 0-"),
        ("-l x\x1b -j cell", "Malformed list x\\x1b"),
        ("-l , -j cell", "setaffinity: Resource deadlock avoided"),
        ("-n rr:0 -j cell", "-n: not honoured, memory is taken where its process runs"),
    ],
)
def test_complaints(shim: Shim, cell: str, words: str, complaint: str) -> None:
    done = shim("cpuset", *words.split(" "))
    assert (done.stdout, done.stderr, done.returncode) == ("", f"cpuset: {complaint}\n", 1)


def test_what_is_not_about_jails(shim: Shim, cell: str, tmp_path: Path, checkout: Path) -> None:
    assert shim("cpuset", "-gi", "-j", "cell").stdout == f"jail {cell} cpuset id: {cell}\n"
    none = shim("cpuset", "-l", "0", "true", path=f"{checkout}/shims:/usr/bin:/bin")
    assert (none.stdout, none.returncode) == ("", 127)
    assert none.stderr.startswith("usage: cpuset ")
    other = tmp_path / "cpuset"
    other.write_text('#!/bin/sh\necho other "$@"\n')
    other.chmod(0o755)
    assert (
        shim("cpuset", "-g", "-p", "1", path=f"{checkout}/shims:{tmp_path}:/usr/bin:/bin").stdout == "other -g -p 1\n"
    )


def test_which_processors_there_are(shim: Shim) -> None:
    """BastilleBSD's limits asks by -l whether there is one, quBSD by -g which there are."""
    found = sorted(os.sched_getaffinity(0))
    for words in (f"-l {found[-1]}", f"-l {','.join(map(str, found))}", "-c -l all"):
        done = shim("cpuset", *words.split())
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    none = shim("cpuset", "-l", "1000")
    assert (none.stdout, none.stderr, none.returncode) == ("", "cpuset: setaffinity: Invalid argument\n", 1)
    shown = shim("cpuset", "-g")
    assert (shown.stderr, shown.returncode) == ("", 0)
    mask, memory = shown.stdout.splitlines()
    assert mask == f"pid -1 mask: {', '.join(map(str, found))}"
    assert memory.startswith("pid -1 domain policy: first-touch mask: 0")


def test_a_jail_that_is_removed_before_it_has_them_leaves_nothing(jail: Command, small_root: Path) -> None:
    assert jail("-c", "name=cell", "jid=71", f"path={small_root}", "persist").returncode == 0
    record = registry.find("cell")
    assert record is not None
    assert jail("-r", "cell").returncode == 0
    with pytest.raises(JailError, match="setaffinity: No such process"):
        cpuset._limit(record, processors()[:1])
    assert not (V1 / "jailng/71").exists()
