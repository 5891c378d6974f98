"""jail, jls and jexec as sudo(8), cron(8), at(1) and their like run them: in a Debian that has these, for real."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path

import pytest

from tests.kernel import debian
from tests.kernel.stage import MS_BIND, MS_REC, Stage, mount, unmount

_PATIENCE = 300_000  # milliseconds: what cron(8) and at(1) begin they begin with a minute
# Every command once; what it says, and how it ends, go to the file that is named by the first word.
_ROUND = """\
#!/bin/sh
umask 077
{
    /usr/sbin/jail -c name=x path=/jails/cell persist exec.start='echo started'; echo $?
    /usr/sbin/jexec x sh -c 'echo out; echo err >&2; umask; trap; exit 3'; echo $?
    /usr/sbin/jail -m name=x host.hostname=other; echo $?
    /usr/sbin/jls -j x name host.hostname; echo $?
    /usr/sbin/jail -rc name=x path=/jails/cell persist command=echo again; echo $?
    /usr/sbin/jail -r x; echo $?
} >/root/said 2>&1
echo >/root/told
"""
_SAID = """\
started
0
out
err
0022
3
0
x other
0
again
0
0
"""

# The same with the streams as they are: how each ends is one word.
_BARE = """\
#!/bin/sh
ended() { echo -n "$? " >>/root/said; }
/usr/sbin/jail -c name=x path=/jails/cell persist exec.start='echo started' command=sh -c 'cat; echo err >&2'; ended
/usr/sbin/jexec x sh -c 'cat; echo err >&2; exit 3'; ended
/usr/sbin/jail -m name=x host.hostname=other; ended
/usr/sbin/jls; ended
/usr/sbin/jail -r x; ended
/usr/sbin/jail -r x; ended
echo >/root/told
"""
_ENDED = "0 3 0 0 0 1 "


class Host:
    """A Debian with jailng on it; its root is ``top``, its kernel, network and cgroups are the stage's."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root", "MARK": "secret"}

    def command(self, *argv: str) -> list[str]:
        """What runs that on it."""
        return ["chroot", str(self.top), *argv]

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on it."""
        return subprocess.run(
            self.command(*argv), input=stdin, capture_output=True, text=True, env=self.environment, timeout=60
        )

    @contextmanager
    def daemon(self, *argv: str) -> Iterator[None]:
        """One that stays in the foreground, until the end."""
        words = self.command("env", "-i", "PATH=/usr/bin:/bin", *argv)
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def said(self) -> str:
        """What a round has said, once it is over."""
        told = os.open(self.top / "root/told", os.O_RDONLY | os.O_NONBLOCK)  # a fifo
        waiter = select.poll()
        waiter.register(told, select.POLLIN)
        assert waiter.poll(_PATIENCE), "there was no round"
        os.close(told)
        return (self.top / "root/said").read_text()


@pytest.fixture(scope="module")
def root(stage: Stage, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What all tests have: /jails/cell is a root for a jail."""
    recipe = debian.make(debian.CALLERS, prepare=stage.onto_host_network)
    layers, top = tmp_path_factory.mktemp("layers"), tmp_path_factory.mktemp("top")
    mount("none", layers, "tmpfs")
    for name in ("upper", "work"):
        (layers / name).mkdir()
    mount("none", top, "overlay", 0, f"lowerdir={recipe},upperdir={layers}/upper,workdir={layers}/work")
    for name in ("proc", "sys", "dev"):
        mount(f"/{name}", top / name, None, MS_BIND | MS_REC)
    install = ["make", "-s", "-C", str(checkout), "install", f"DESTDIR={top}"]
    subprocess.run(install, check=True, capture_output=True)
    (top / "jails").mkdir(mode=0o700)
    mount("none", top / "jails", "tmpfs", 0, "mode=700")
    debian.small(top / "jails/cell")
    for name, script in (("round", _ROUND), ("bare", _BARE)):
        (top / "root" / name).write_text(script)
        (top / "root" / name).chmod(0o755)
    (top / "etc/hosts").write_text(f"127.0.0.1 localhost {os.uname().nodename}\n")  # which sudo(8) looks up
    (top / "etc/sudoers.d/alice").write_text("alice ALL=(ALL) NOPASSWD: ALL\n")
    subprocess.run(["chroot", str(top), "useradd", "-m", "-s", "/bin/sh", "alice"], check=True)
    yield top
    for target in (top / "jails", top / "dev", top / "sys", top / "proc", top, layers):
        unmount(target)


@pytest.fixture
def host(root: Path) -> Iterator[Host]:
    os.mkfifo(root / "root/told")
    made = Host(root)
    yield made
    made.run("jail", "-R", "*")
    for name in ("told", "said"):
        (root / "root" / name).unlink(missing_ok=True)


WAYS = {
    "by hand": ("/root/round",),
    "sudo of root": ("sudo", "-n", "/root/round"),
    "sudo of alice": ("su", "alice", "-c", "sudo -n /root/round"),
    "sudo on a terminal": ("script", "-qec", "sudo -n /root/round", "/dev/null"),
    "sudo without use_pty on a terminal": ("script", "-qec", "sudo -n -u root -g root /root/round", "/dev/null"),
    "sudo in the background": ("sudo", "-n", "-b", "/root/round"),
    "su": ("su", "-c", "/root/round"),
    "su as at a login": ("su", "-", "-c", "/root/round"),
    "nohup": ("nohup", "/root/round"),
    "setsid": ("setsid", "-f", "/root/round"),
    "no environment": ("env", "-i", "/root/round"),
    "SIGPIPE and SIGHUP ignored": ("env", "--ignore-signal=PIPE,HUP,CHLD", "/root/round"),
    "all closed": ("sh", "-c", "exec /root/round <&- >&- 2>&-"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_round(host: Host, way: str) -> None:
    with subprocess.Popen(host.command(*WAYS[way]), env=host.environment, stdin=subprocess.DEVNULL):
        assert host.said() == _SAID


def test_cron(host: Host) -> None:
    (host.top / "etc/cron.d/jails").write_text("@reboot root /root/round\n")
    (host.top / "run/crond.reboot").unlink(missing_ok=True)
    with host.daemon("/usr/sbin/cron", "-f"):
        assert host.said() == _SAID
    (host.top / "etc/cron.d/jails").unlink()


def test_at(host: Host) -> None:
    with host.daemon("/usr/sbin/atd", "-f"):
        assert host.run("at", "-f", "/root/round", "now").returncode == 0
        assert host.said() == _SAID


def test_a_terminal_by_way_of_sudo(host: Host) -> None:
    """sudo(8) has one of its own between (use_pty), and hands on size and keys."""
    assert host.run("jail", "-c", "name=x", "path=/jails/cell", "persist").returncode == 0
    words = ("sudo", "-n", "jexec", "x", "sh", "-c", "stty size; tty; echo ${MARK-unset}; echo ready; cat")
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        os.execvpe("chroot", host.command(*words), host.environment)
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 4096)
    assert said.decode().split() == ["33", "77", "/dev/pts/0", "unset", "ready"]
    os.write(terminal, b"\x03")
    with suppress(OSError):  # EIO is the end of it
        while os.read(terminal, 4096):
            pass
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) in (-signal.SIGINT, 128 + signal.SIGINT)
    assert host.run("jail", "-r", "x").returncode == 0


@pytest.mark.parametrize("closed", ["".join(found) for size in range(4) for found in combinations("012", size)])
def test_closed_streams(host: Host, closed: str) -> None:
    script = "exec /root/bare " + " ".join([f"{fd}{'<' if fd == '0' else '>'}&-" for fd in closed])
    command = host.command("sh", "-c", script)
    null = subprocess.DEVNULL
    with subprocess.Popen(command, env=host.environment, stdin=null, stdout=null, stderr=null):
        assert host.said() == _ENDED


@contextmanager
def _stdin(kind: str, directory: Path) -> Iterator[int]:
    if kind == "pipe":
        fd, other = os.pipe()
        os.close(other)
    elif kind == "socket":
        one, two = socket.socketpair()
        two.close()
        fd = one.detach()
    elif kind == "terminal that has hung up":
        master, fd = pty.openpty()
        os.close(master)
    else:
        (directory / "file").write_text("input\n")
        fd = os.open(directory if kind == "directory" else directory / "file", os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


# With a directory for stdin Python itself does not start: jail(8), BUGS.
@pytest.mark.parametrize(
    ("kind", "ended"),
    [
        ("pipe", _ENDED),
        ("socket", _ENDED),
        ("file", _ENDED),
        ("terminal that has hung up", _ENDED),
        ("directory", "1 1 1 1 1 1 "),
    ],
)
def test_stdin(host: Host, kind: str, ended: str, tmp_path: Path) -> None:
    null = subprocess.DEVNULL
    with _stdin(kind, tmp_path) as fd:
        command = host.command("/root/bare")
        with subprocess.Popen(command, env=host.environment, stdin=fd, stdout=null, stderr=null):
            assert host.said() == ended
