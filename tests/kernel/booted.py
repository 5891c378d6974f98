"""A machine whose init is systemd or SysV's: Debian in a container of namespaces, booted and shut down by the test.

It has processes, mounts, network, IPC and a name of its own, and for its whole cgroup2 hierarchy a directory of the
stage's. Its root is an overlay that is thrown away; what the machine wrote can be read there as long as the fixture
lives. /jail is apart: an overlay cannot map uids, which jails need.
"""

from __future__ import annotations

import os
import pty
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel import debian, fivejails
from tests.kernel.stage import MS_BIND, Stage, mount, unmount

_EVERYWHERE = ("iproute2", "login", "procps")
SYSTEMD = debian.Recipe((*debian.DEPENDS, *_EVERYWHERE, "dbus", "systemd-sysv"))
SYSVINIT = debian.Recipe((*debian.DEPENDS, *_EVERYWHERE, "initscripts", "sysvinit-core"))

_PATIENCE = 240  # seconds to boot, or to shut down, on a machine that is emulated
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# What container managers do; $1 is the root, $2 the console. The old root is where nobody is any more.
_ENTER = f"""
set -e
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
[ -e etc/inittab ] || mount -t cgroup2 cgroup2 sys/fs/cgroup # SysV's init has no use for it, and nobody else mounts it
mount -t tmpfs -o mode=755 dev dev
for name in {" ".join(_DEVICES)}; do : >dev/$name; mount --bind /dev/$name dev/$name; done
: >dev/console
mount --bind "$2" dev/console
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 run run
mkdir -p run/lock
hostname ogoun
pivot_root . mnt
cd /
umount -l /mnt
exec /sbin/init </dev/console >/dev/console 2>&1
"""
# The last thing that is done to boot, as SysV's init has it and as systemd has it.
_READY = """#!/bin/sh
### BEGIN INIT INFO
# Provides:          ready
# Required-Start:    $all
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: tell the test
### END INIT INFO
[ "$1" != start ] || echo up >/srv/ready
"""
_READY_UNIT = """[Unit]
After=multi-user.target
[Service]
ExecStart=/bin/sh -c 'echo up >/srv/ready'
[Install]
WantedBy=multi-user.target
"""
_INITTAB = """id:2:initdefault:
si::sysinit:/etc/init.d/rcS
l0:0:wait:/etc/init.d/rc 0
l2:2:wait:/etc/init.d/rc 2
l6:6:wait:/etc/init.d/rc 6
"""


class Machine:
    """One of them. Its root is ``top``, to be written to before it boots; ``chroot`` runs a command in it by then."""

    def __init__(self, stage: Stage, recipe: debian.Recipe, place: Path) -> None:
        self.top = place / "machine"
        self._layers = place / "layers-of-machine"
        self._cgroup = stage.cgroup2 / "machine"
        self._hierarchies = [Path(one.mounted.target) for one in stage.hierarchies if one.mounted.kind == "cgroup"]
        self._console = b""
        self._init = 0
        root = debian.make(recipe, prepare=stage.onto_host_network)
        for directory in (self.top, self._layers):
            directory.mkdir()
        mount("none", self._layers, "tmpfs")
        for name in ("upper", "work"):
            (self._layers / name).mkdir()
        mount(
            "none", self.top, "overlay", 0, f"lowerdir={root},upperdir={self._layers}/upper,workdir={self._layers}/work"
        )
        for directory in (place / "jail", self.top / "jail"):
            directory.mkdir(mode=0o700)
        mount(str(place / "jail"), self.top / "jail", None, MS_BIND)
        self._furnish()

    def _furnish(self) -> None:
        os.mkfifo(self.top / "srv/ready")
        if (self.top / "etc/inittab").exists():
            script = self.top / "etc/init.d/ready"
            script.write_text(_READY)
            script.chmod(0o755)
            self.chroot("update-rc.d", "ready", "defaults")
            for name in ("hwclock.sh", "kmod", "procps", "udev"):  # there is one kernel and one clock, the host's
                self.chroot("update-rc.d", name, "remove")
            (self.top / "etc/inittab").write_text(_INITTAB)
        else:
            (self.top / "etc/systemd/system/ready.service").write_text(_READY_UNIT)
            self.chroot("systemctl", "enable", "ready.service")
            self.chroot("systemctl", "set-default", "multi-user.target")
            self.chroot("systemctl", "mask", "systemd-modules-load.service", "systemd-sysctl.service")

    def chroot(self, *argv: str) -> str:
        """Run a command in the root of the machine while it is off; what it says."""
        return _must(["chroot", str(self.top), *argv])

    def boot(self) -> None:
        """Until the last of what its init starts."""
        self._cgroup.mkdir()
        (self._cgroup / "visitor").mkdir()
        master, self._terminal = pty.openpty()
        ready = os.open(self.top / "srv/ready", os.O_RDONLY | os.O_NONBLOCK)
        argv = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child"]
        self._outer = subprocess.Popen(
            [*argv, "/bin/sh", "-c", _ENTER, "sh", str(self.top), os.ttyname(self._terminal)],
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "container": "jailng", "TERM": "dumb"},
            preexec_fn=self._move_into("."),
        )
        self._reader = threading.Thread(target=self._listen, args=(master,))
        self._reader.start()
        end = os.pidfd_open(self._outer.pid)
        try:
            with selectors.DefaultSelector() as waiting:
                waiting.register(ready, selectors.EVENT_READ)
                waiting.register(end, selectors.EVENT_READ)
                heard = [key.fd for key, _ in waiting.select(_PATIENCE)]
                assert heard == [ready], f"it does not come up:\n{self.console}"
        finally:
            os.close(ready)
            os.close(end)
        self._init = int(Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text())

    def until(self, path: str) -> None:
        """Wait for a file below ``top``: for what SysV's init starts beside the last that it starts."""
        end = time.monotonic() + _PATIENCE
        while not (self.top / path).exists():
            assert time.monotonic() < end, f"no {path}:\n{self.console}"
            time.sleep(0.02)

    @property
    def console(self) -> str:
        """What was written to its console."""
        return self._console.decode(errors="replace")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command on the running machine, as root of it; nothing is checked."""
        enter = [
            "nsenter",
            f"--target={self._init}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--root",
        ]
        return subprocess.run(
            [*enter, "--wdns=/", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb"},
            preexec_fn=self._move_into("visitor"),
            check=False,
        )

    def must(self, *argv: str) -> str:
        """A command that works and complains of nothing; what it says."""
        done = self.run(*argv)
        assert (done.returncode, done.stderr) == (0, ""), (argv, done.stdout, done.stderr)
        return done.stdout

    def shut_down(self) -> None:
        """As its administrator does it; until it is off."""
        self.run("shutdown", "-h", "now")
        self._outer.wait(_PATIENCE)
        self._init = 0

    def close(self) -> None:
        """Nothing is left of it."""
        if self._cgroup.exists():
            self._outer.kill()
            self._outer.wait()
            os.close(self._terminal)
            self._reader.join()
            (self._cgroup / "cgroup.kill").write_text("1")
            # What its jails had of v1 is not below a directory of its own.
            for top in (self._cgroup, *[top / "jailng" for top in self._hierarchies]):
                for path, _, _ in os.walk(top, topdown=False):
                    _remove(Path(path))
        for target in (self.top / "jail", self.top, self._layers):
            unmount(target)

    def _move_into(self, cgroup: str) -> Callable[[], None]:
        procs = self._cgroup / cgroup / "cgroup.procs"

        def move() -> None:
            procs.write_text("0")

        return move

    def _listen(self, master: int) -> None:
        with suppress(OSError):  # the last who had it open has gone
            while data := os.read(master, 65536):
                self._console += data
        os.close(master)


def _must(argv: list[str]) -> str:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


def _remove(cgroup: Path) -> None:
    while True:
        try:
            cgroup.rmdir()
            return
        except OSError:
            signal.sigtimedwait([], 0.005)


@pytest.fixture(scope="module")
def package(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = str(tmp_path_factory.mktemp("package"))
    done = subprocess.run([checkout / "package/build", "-o", output], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


@pytest.fixture(params=[SYSTEMD, SYSVINIT], ids=["systemd", "sysvinit"])
def machine(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path, package: Path) -> Iterator[Machine]:
    """With jailng, as its package leaves it, and roots for jails; it is off."""
    made = Machine(stage, request.param, tmp_path)
    try:
        shutil.copy(package, made.top / "root/jailng.deb")
        made.chroot("dpkg", "-i", "/root/jailng.deb")
        fivejails.make_roots(made.top)
        yield made
    finally:
        made.close()


@pytest.fixture
def five(machine: Machine) -> Machine:
    """They are configured, and to be started with the machine."""
    fivejails.configure(machine.top)
    return machine
