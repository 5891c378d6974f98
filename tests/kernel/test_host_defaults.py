"""/etc/jailng.conf: every way to create a jail minds it, and nothing else does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Command
from tests.kernel.stage import mount, unmount

Write = Callable[[str], Path]


@pytest.fixture
def conf(tmp_path: Path) -> Iterator[Write]:
    """Write the file, in an /etc that is the host's to look at and nobody's afterwards."""
    layers = tmp_path / "layers"
    layers.mkdir()
    mount("none", layers, "tmpfs")
    for name in ("upper", "work"):
        (layers / name).mkdir()
    mount("none", "/etc", "overlay", 0, f"lowerdir=/etc,upperdir={layers}/upper,workdir={layers}/work")

    def write(text: str) -> Path:
        file = Path("/etc/jailng.conf")
        file.write_text(text)
        return file

    yield write
    unmount("/etc")
    unmount(layers)


def test_both_forms_of_the_command_and_the_module_mind_it(
    conf: Write, jail: Command, small_root: Path, checkout: Path
) -> None:
    program = """if True:
        import sys, jailng
        with jailng.Jail(path=sys.argv[1]) as jail:
            print(jail.run(["cat", "/proc/self/uid_map"], capture_output=True, text=True, check=True).stdout.split()[1])
    """
    ways: dict[str, Callable[[], str]] = {
        "-c": lambda: jail("-c", f"path={small_root}", "command=cat", "/proc/self/uid_map").stdout.split()[1],
        "old": lambda: jail(str(small_root), "cell", "", "cat", "/proc/self/uid_map").stdout.split()[1],
        "import": lambda: subprocess.run(
            [sys.executable, "-c", program, str(small_root)],
            env={"PYTHONPATH": str(checkout / "src"), "PATH": "/usr/sbin:/usr/bin"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip(),
    }
    for way, first_uid in ways.items():
        conf("").unlink()
        assert first_uid() != "0", way
        conf("ng.uids = shared;\n")
        assert first_uid() == "0", way


def test_the_command_line_comes_first(conf: Write, jail: Command, small_root: Path) -> None:
    conf("ng.uids = shared\n")
    told = jail("-c", f"path={small_root}", "ng.uids=private", "command=cat", "/proc/self/uid_map")
    assert told.stdout.split()[1] != "0"


def test_the_articles_switches(conf: Write, jail: Command, small_root: Path) -> None:
    run = ("-c", f"path={small_root}", "host.hostname=cell", "command=sh", "-c", "hostname new; hostname")
    conf("jail.set_hostname_allowed = 0\njail.socket_unixiproute_only = 1\njail.sysvipc_allowed = 0\n")
    refused = jail(*run)
    assert refused.stdout == "cell\n"
    assert "not permitted" in refused.stderr
    conf("jail.set_hostname_allowed = 1\njail.socket_unixiproute_only = 1\njail.sysvipc_allowed = 0\n")
    assert jail(*run).stdout == "new\n"


def test_the_plan_shows_it(conf: Write, jail: Command, small_root: Path) -> None:
    conf("exec.prestart = 'echo a $HOME'\nng.uids = shared\n")
    plan = jail("--plan", "-c", f"path={small_root}", "persist").stdout
    assert "exec.prestart: echo a $HOME\n" in plan
    assert "uids 0-65535 of the host as 0-65535" in plan


def test_a_jail_that_runs_keeps_what_it_has(conf: Write, jail: Command, jls: Command, small_root: Path) -> None:
    assert jail("-c", "name=cell", f"path={small_root}", "persist").returncode == 0
    conf("allow.raw_sockets\n")
    assert jail("-m", "name=cell", "host.hostname=cell").returncode == 0
    assert jls("-j", "cell", "allow.raw_sockets").stdout == "false\n"
    conf("nonsense\n")
    assert jail("-m", "name=cell", "host.hostname=other").returncode == 0
    assert jail("-r", "cell").returncode == 0


@pytest.mark.parametrize("form", ["-c", "old", "--plan"])
def test_what_is_wrong_is_one_line_and_no_jail(
    conf: Write, jail: Command, jls: Command, small_root: Path, form: str
) -> None:
    new = ("-c", f"path={small_root}", "persist")
    words = {"-c": new, "old": (str(small_root), "cell", "", "/bin/true"), "--plan": ("--plan", *new)}[form]
    file = conf("# ours\n\nng.uids = host\n")
    done = jail(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'jail: /etc/jailng.conf: line 3: ng.uids: unknown value "host"\n'
    conf("ng.uids = shared\n").chmod(0o666)
    assert jail(*words).stderr == "jail: /etc/jailng.conf: others than root may write to it: chmod go-w\n"
    file.chmod(0o600)
    shutil.chown(file, 1)
    assert jail(*words).stderr == "jail: /etc/jailng.conf: does not belong to root\n"
    file.unlink()
    subprocess.run(["mkfifo", str(file)], check=True)
    assert jail(*words).stderr == "jail: /etc/jailng.conf: not a regular file\n"
    assert jls("name").stdout == ""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")
def test_a_file_that_is_not_there_costs_one_call(conf: Write, checkout: Path, small_root: Path, tmp_path: Path) -> None:
    conf("").unlink()
    log = tmp_path / "trace"
    argv = [str(checkout / "bin/jail"), "--plan", "-c", f"path={small_root}", "command=/bin/true"]
    subprocess.run(["strace", "-f", "-qq", "-o", str(log), *argv], check=True, stdout=subprocess.DEVNULL)
    lines = log.read_text().splitlines()
    assert len([line for line in lines if "/etc/jailng.conf" in line]) == 1
    assert not [line for line in lines if re.search("engine/(__pycache__/)?defaults", line)]
