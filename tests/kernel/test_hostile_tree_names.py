"""Names that a hostile root chooses, files of its that the host's commands read, and what it runs at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.stage import Stage

_ESCAPES = "\x1b]0;owned\x07\x1b[2J"


@pytest.fixture
def running(jail: Command, small_root: Path) -> Iterator[Path]:
    """The root of a running jail, ``x``, that may change its host name and have a jail in it."""
    made = jail("-c", "name=x", "persist", f"path={small_root}", "allow.set_hostname", "children.max=1")
    assert made.returncode == 0, made.stderr
    yield small_root
    jail("-R", "x")


@pytest.mark.parametrize(
    "name", ["../x", "/x", ".", "..", "a/../../b", "$(touch /tmp/jailng-was-here)", f"a{_ESCAPES}", "a\nb", "-r", "7"]
)
def test_a_name_is_a_name(jail: Command, jls: Command, small_root: Path, stage: Stage, name: str) -> None:
    """Nothing on the host is called by it: a jail of such a name is refused, or its name is shown with escapes."""
    before = set(os.listdir("/run/jailng/jails")) if Path("/run/jailng/jails").exists() else set()
    made = jail("-i", "-c", f"name={name}", "persist", f"path={small_root}")
    assert "Traceback" not in made.stderr
    assert not set(made.stdout + made.stderr) & {"\x1b", "\x07"}
    if made.returncode:
        assert made.stderr.count("\n") == 1
        return
    jid = made.stdout.strip()
    try:
        assert set(os.listdir("/run/jailng/jails")) - before == {jid}
        assert jid in os.listdir(stage.cgroup2 / "jailng")
        listed = jls("-j", jid, "name", "path")
        assert not set(listed.stdout) & {"\x1b", "\x07"} and listed.stdout.count("\n") == 1
    finally:
        assert jail("-R", jid).returncode == 0
    assert not Path("/tmp/jailng-was-here").exists()


def test_a_host_name_steers_no_terminal(
    jls: Command, jexec: Command, jailctl: Command, jail: Command, running: Path
) -> None:
    """Neither that of the jail, nor a program's name, nor what the host is told of a file."""
    (running / "tmp" / _ESCAPES.replace("/", "")).write_bytes(b"#!/bin/nothing\n")
    jexec("x", "/bin/sh", "-c", f"hostname '{_ESCAPES}'; cp /bin/busybox '/bin/{_ESCAPES}'")
    for done in (
        jls(), jls("-s"), jls("-n"), jls("-v"), jls("host.hostname"),
        jexec("x", f"/bin/{_ESCAPES}x"), jexec("-d", f"/{_ESCAPES}", "x", "true"), jexec("-U", _ESCAPES, "x", "true"),
        jailctl("cp", f"x:/{_ESCAPES}", "/tmp"), jailctl("cp", f"{_ESCAPES}:/a", "/tmp"), jailctl("ps", "-J", "x"),
    ):  # fmt: skip
        assert not set(done.stdout + done.stderr) & {"\x1b", "\x07"}, done


@pytest.mark.parametrize("what", ["fifo", "sparse", "noise", "device", "directory", "link", "long line"])
def test_passwd_is_whatever_it_is(jexec: Command, jailctl: Command, running: Path, tmp_path: Path, what: str) -> None:
    """A look-up, which only a process of the jail makes, and a copy end, whatever lies there."""
    path = running / "etc/passwd"
    path.unlink(missing_ok=True)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "sparse":
        path.touch()
        os.truncate(path, 10 << 30)
    elif what == "noise":
        path.write_bytes(os.urandom(100_000))
    elif what == "device":
        os.mknod(path, 0o020666, os.makedev(1, 5))
    elif what == "directory":
        path.mkdir()
    elif what == "link":
        path.symlink_to("/proc/self/fd/0")
    else:
        path.write_text("root:" + "x" * 1_000_000)
    done = jexec("-U", "root", "x", "/bin/true", timeout=60)
    assert (done.returncode, done.stderr) == (1, "jexec: root: no such user\n"), done
    copied = jailctl("cp", "-r", "x:/etc", str(tmp_path / "etc"), timeout=60)
    assert copied.returncode in (0, 1) and "Traceback" not in copied.stderr
    there = tmp_path / "etc/passwd"
    assert (there.exists() and not there.is_symlink()) is (what in ("sparse", "noise", "directory", "long line"))
    if what == "sparse":
        assert there.stat().st_blocks == 0


def test_a_shell_that_was_replaced(jexec: Command, jailctl: Command, running: Path, tmp_path: Path) -> None:
    """What the host runs is in the jail, and is the jail's: it has nothing of the host's to take, and cp runs none."""
    mark = tmp_path / "mark"
    for name in ("sh", "cat", "tar", "cp"):
        (running / "bin" / name).unlink(missing_ok=True)
        (running / "bin" / name).write_text(f"#!/bin/busybox sh\necho run > {mark}; echo run > /run-inside\n")
        (running / "bin" / name).chmod(0o755)
    (running / "etc/f").write_text("f")
    assert jailctl("cp", "x:/etc/f", str(tmp_path)).returncode == 0
    assert jailctl("cp", str(tmp_path / "f"), "x:/etc/g").returncode == 0
    assert not (running / "run-inside").exists()
    jexec("x", "/bin/sh")
    assert (running / "run-inside").exists() and not mark.exists()
