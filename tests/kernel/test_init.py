"""``ng.init``: Debian with systemd, with SysV's init and with OpenRC, and a bare rc, each boots and is shut down.

In each sshd, cron and a web server run, and a service of the test's own that writes down what signal it gets.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel import debian, guests
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace
from tests.kernel.stage import Stage, own_logs

_PATIENCE = 240  # seconds, on a machine that is emulated
_ADDRESS, _ADDRESS6 = "198.51.100.10", "2001:db8:1::10"
# Tells when it is up, by a byte into a FIFO, and what ended it, in a file.
_WITNESS = """#!/bin/sh
trap 'echo TERM >/var/tmp/seen; exit 0' TERM
echo up >/var/tmp/up
while :; do sleep 1000 & wait $!; done
"""
_UNIT = """[Unit]
After=ssh.service cron.service nginx.service
[Service]
ExecStart=/usr/local/sbin/witness
[Install]
WantedBy=multi-user.target
"""
_SCRIPT = """#!/bin/sh
### BEGIN INIT INFO
# Provides:          witness
# Required-Start:    $all
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: tell the test
### END INIT INFO
[ "$1" != start ] || start-stop-daemon --start --background --exec /usr/local/sbin/witness
"""
_RC = """#!/bin/sh
mkdir -p /run/sshd
/usr/sbin/sshd
/usr/sbin/cron
/usr/sbin/nginx
/usr/local/sbin/witness &
echo rc has started
"""
_RC_SHUTDOWN = """#!/bin/sh
echo rc shuts down
/usr/sbin/nginx -s stop
"""
_RECIPES = {"systemd": guests.SYSTEMD, "sysv": guests.SYSVINIT, "openrc": guests.OPENRC, "rc": guests.SYSVINIT}
# What the console says last when the guest has shut itself down. startpar of SysV's init keeps to itself what a script
# says beside another until that has ended, so what halts says it, or is too fast for it.
_LAST_WORDS = {"systemd": "Halting system", "sysv": "Deactivating swap", "openrc": "Will now", "rc": "rc shuts down"}
_INIT = """#!/bin/sh
trap '' TERM INT HUP PWR
{}
while :; do sleep 1000; done
"""


@pytest.fixture
def logs() -> Iterator[Path]:
    """The directory of what is kept of the jail, in a /var/log of the test's own."""
    with own_logs() as directory:
        yield directory / "guest"


class Guest:
    """One that is started and stopped in the way ``kind``; ``root`` is its tree."""

    def __init__(self, jail: Command, jexec: Command, jls: Command, root: Path, kind: str) -> None:
        self._jail, self._jexec, self._jls = jail, jexec, jls
        self.root = root
        self.kind = kind

    def furnish(self, key: str) -> None:
        """Let root log in by that key, have cron do something at once, and start the witness last."""
        (self.root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (self.root / "root/.ssh/authorized_keys").write_text(key)
        (self.root / "etc/cron.d/test").write_text("@reboot root echo cron >/var/tmp/cron\n")
        (self.root / "var/www/html/index.html").write_text("served\n")
        os.mkfifo(self.root / "var/tmp/up")
        os.mkfifo(self.root / "var/tmp/cron")
        self._script("usr/local/sbin/witness", _WITNESS)
        if self.kind == "systemd":
            (self.root / "etc/systemd/system/witness.service").write_text(_UNIT)
            self._chroot("systemctl", "enable", "witness.service")
        elif self.kind == "rc":
            self._script("etc/rc", _RC)
            self._script("etc/rc.shutdown", _RC_SHUTDOWN)
        else:
            self._script("etc/init.d/witness", _SCRIPT)
            self._chroot("update-rc.d", "witness", "defaults")

    def _script(self, path: str, text: str) -> None:
        (self.root / path).write_text(text)
        (self.root / path).chmod(0o755)

    def _chroot(self, *argv: str) -> None:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        done = subprocess.run(["chroot", self.root, *argv], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def start(self, *given: str) -> str:
        """Until the last of its services runs; what -v said."""
        allowed = ["allow.cgroup"] if self.kind == "systemd" else []
        done = self._jail(
            "-v", "-c", "name=guest", f"path={self.root}", "host.hostname=guest", "interface=ep0",
            f"ip4.addr={_ADDRESS}/24", f"ip6.addr={_ADDRESS6}/64", *allowed, *given,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert self._heard("var/tmp/up") == "up\n"
        return done.stdout + done.stderr

    def heard_of_cron(self) -> str:
        """What the job of cron's has said."""
        return self._heard("var/tmp/cron")

    def _heard(self, fifo: str) -> str:
        ready, pidfd = os.open(self.root / fifo, os.O_RDONLY | os.O_NONBLOCK), self.open_init()
        try:
            assert self._first_of(ready, pidfd) == ready, self.console
            return os.read(ready, 64).decode()
        finally:
            os.close(ready)
            os.close(pidfd)

    def _first_of(self, *fds: int) -> int:
        with selectors.DefaultSelector() as waiting:
            for fd in fds:
                waiting.register(fd, selectors.EVENT_READ)
            found = waiting.select(_PATIENCE)
            assert found, self.console
            return found[0][0].fd

    def open_init(self) -> int:
        """A pidfd of its PID 1."""
        return os.pidfd_open(int(self.recorded("init")[0]))

    def recorded(self, word: str) -> list[str]:
        """What its record says."""
        record = Path("/run/jailng/jails", self._jls("-j", "guest", "jid").stdout.strip()).read_text()
        return [line.split()[1:] for line in record.splitlines() if line.startswith(f"{word} ")][-1]

    def run(self, *argv: str) -> str:
        """A command inside; what it printed."""
        done = self._jexec("guest", *argv, timeout=_PATIENCE)
        assert done.returncode == 0, (argv, done.stdout, done.stderr, self.console)
        return done.stdout

    def refused(self, script: str) -> str:
        """Of a command inside that fails, what it says."""
        done = self._jexec("guest", "sh", "-c", script, timeout=_PATIENCE)
        assert done.returncode != 0, (script, done.stdout)
        return done.stderr

    @property
    def console(self) -> str:
        """What was kept of its console."""
        return Path("/var/log/jailng/guest/console.log").read_text(errors="replace")

    def take_what_was_seen(self) -> str:
        """What signal the witness had."""
        file = self.root / "var/tmp/seen"
        assert file.exists(), self.console
        seen = file.read_text()
        file.unlink()
        return seen

    def end_from_inside(self, *argv: str) -> None:
        """Until it has ended by itself."""
        pidfd = self.open_init()
        self._jexec("guest", *argv, timeout=_PATIENCE)
        self._first_of(pidfd)
        os.close(pidfd)
        assert self._jls("-j", "guest").returncode == 1


@pytest.fixture(params=["systemd", "sysv", "openrc", "rc"])
def guest(
    request: pytest.FixtureRequest, stage: Stage, jail: Command, jexec: Command, jls: Command, tmp_path: Path
) -> Iterator[Guest]:
    """A Debian of that kind, which is not started."""
    root = debian.copy(debian.make(_RECIPES[request.param], prepare=stage.onto_host_network), tmp_path / "root")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    made = Guest(jail, jexec, jls, root, request.param)
    made.furnish((tmp_path / "key.pub").read_text())
    yield made
    jail("-R", "guest")


def _ssh(key: Path, script: str) -> str:
    argv: list[str | Path] = ["ssh", "-F", "/dev/null", "-i", key, "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    argv += ["-o", "ConnectionAttempts=60"]  # one a second: sshd(8) listens when it is in the background
    argv += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={key.parent}/known", f"root@{_ADDRESS}"]
    done = subprocess.run(
        [*argv, script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def _processes(guest: Guest, *names: str) -> list[list[str]]:
    """Pid and name of each, once those names are there: what was begun may not have executed its program."""
    end = time.monotonic() + _PATIENCE
    while True:
        found = [line.split() for line in guest.run("ps", "-e", "-o", "pid=,comm=").splitlines()]
        if {*names} <= {name for _, name in found}:
            return found
        assert time.monotonic() < end, found


def test_it_boots_and_shuts_down(guest: Guest, jail: Command, lan: Namespace, logs: Path, tmp_path: Path) -> None:
    said = guest.start(f"ng.init={'rc' if guest.kind == 'rc' else 'auto'}")
    assert f"ng.init: {guest.kind}\n" in said
    processes = _processes(guest, "cron", "nginx", "sshd", "witness")
    first = next(name for pid, name in processes if pid == "1")
    assert first == ("systemd" if guest.kind == "systemd" else "init")
    assert guest.heard_of_cron() == "cron\n"
    with lan.entered():
        assert urllib.request.urlopen(f"http://{_ADDRESS}/", timeout=_PATIENCE).read() == b"served\n"
        assert _ssh(tmp_path / "key", "hostname; id -u") == "guest\n0\n"
    assert (logs.stat().st_mode & 0o777, (logs / "console.log").stat().st_mode & 0o777) == (0o700, 0o600)
    if guest.kind == "systemd":
        _look_at_systemd(guest, jail)
    conf = tmp_path / "jail.conf"
    conf.write_text("guest { stop.timeout = 120; }\n")  # on a machine that is emulated 10 seconds are not much
    done = jail("-f", str(conf), "-r", "guest", timeout=_PATIENCE)
    assert (done.returncode, done.stderr) == (0, ""), guest.console
    assert guest.take_what_was_seen() == "TERM\n"
    assert _LAST_WORDS[guest.kind] in guest.console
    if guest.kind in ("systemd", "sysv"):
        guest.start(f"ng.init={guest.kind}")
        guest.end_from_inside(*(["reboot"] if guest.kind == "systemd" else ["shutdown", "-h", "now"]))
        assert guest.take_what_was_seen() == "TERM\n"
        assert jail("-r", "guest").stderr == 'jail: "guest" not found\n'


def _look_at_systemd(guest: Guest, jail: Command) -> None:
    assert guest.run("systemctl", "is-system-running", "--wait") == "running\n"
    assert "container=jailng" in guest.run("cat", "/proc/1/environ").split("\0")
    # What it has been given it parts; what the jail has been given it does not reach.
    guest.run("sh", "-c", "cd /sys/fs/cgroup && mkdir mine && echo max >mine/cgroup.max.depth && rmdir mine")
    for file in ("cgroup.freeze", "cgroup.max.descendants", "cgroup.max.depth", "cgroup.kill"):
        assert "denied" in guest.refused(f"echo 1 >/sys/fs/cgroup/{file}")
    assert "Read-only" in guest.refused("mkdir /sys/fs/other")
    guest.refused("echo $$ >/sys/fs/cgroup/cgroup.procs")  # nobody moves into it, or out of it
    guest.refused("systemd-run --pipe sh -c 'mkdir /sys/fs/cgroup/../more'")
    _hide(guest, jail)
    # Whatever it does, its processes are the jail's members.
    place = f"/jailng/{guest.recorded('home')[0].split('/')[1]}/members/"
    places = [text.partition("0::")[2] for text in _read(guest, "cgroup").values()]
    assert len(places) > 5 and all(one.startswith(place) for one in places), places


def _read(guest: Guest, name: str) -> dict[str, str]:
    """That file in /proc of all that is in its pid namespace, by pid."""
    ours = os.readlink(f"/proc/{guest.recorded('init')[0]}/ns/pid")
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended, or is no process
            if os.readlink(entry / "ns/pid") == ours:
                found[entry.name] = (entry / name).read_text()
    return found


_HIDE = """
cd /sys/fs/cgroup && mkdir -p broker/threaded jailng/1/members
echo threaded >broker/threaded/cgroup.type
i=0; while mkdir many$i 2>/dev/null; do i=$((i + 1)); done; [ $i -lt 1024 ] || exit 1
for place in broker jailng/1/members; do
    sleep 1234567 & echo $! >$place/cgroup.procs || exit 1
    until [ "$(tr '\\0' ' ' </proc/$!/cmdline)" = "sleep 1234567 " ]; do :; done
done
echo 1 >jailng/1/members/cgroup.freeze
"""


def _hide(guest: Guest, jail: Command) -> None:
    """Cgroups that are called as the host's are, as many as it may make, threaded and frozen ones: it is no use."""
    guest.run("systemd-run", "-q", "--wait", "-p", "KillMode=process", "sh", "-c", _HIDE)
    assert jail("-m", "name=guest", "ng.limits=openfiles:deny=1234").returncode == 0
    kept = _read(guest, "limits")
    hidden = [pid for pid, argv in _read(guest, "cmdline").items() if argv == "sleep\x001234567\0"]
    assert len(hidden) == 2
    for pid in hidden:
        assert next(line for line in kept[pid].splitlines() if line.startswith("Max open files")).split()[4] == "1234"
    guest.run("sh", "-c", "echo 0 >/sys/fs/cgroup/jailng/1/members/cgroup.freeze")


def _journal(guest: Guest, *words: str, least: int) -> list[dict[str, str]]:
    """The entries of the guest's journal, once it has so many of them."""
    end = time.monotonic() + _PATIENCE
    while True:
        found = [json.loads(line) for line in guest.run("journalctl", "-q", "-o", "json", *words).splitlines()]
        if len(found) >= least:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.1)


@pytest.mark.parametrize("guest", ["systemd"], indirect=True)
def test_what_is_logged_goes_on_to_the_journal(
    guest: Guest, jail: Command, jailctl: Command, lan: Namespace, logs: Path, tmp_path: Path
) -> None:
    """By /dev/log, which systemd finds taken; as whose it was there, too."""
    guest.start("ng.init=systemd", "ng.log=syslog,logins")
    guest.run("logger", "-t", "here", "from inside")
    with lan.entered():
        assert _ssh(tmp_path / "key", "logger -t here over ssh") == ""
    logged, logins, end = [""], "", time.monotonic() + _PATIENCE
    while (len(logged) < 2 or "198.51.100.2" not in logins) and time.monotonic() < end:  # it is written a moment later
        done = jailctl("log", "--json", "guest")
        assert (done.returncode, done.stderr) == (0, "")
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        logged = [one["message"].rpartition(": ")[2] for one in entries if "here" in one.get("message", "")]
        logins = str([one for one in entries if one["kind"] == "login"])
    assert logged == ["from inside", "over ssh"]
    assert "198.51.100.2" in logins
    assert [one["MESSAGE"] for one in _journal(guest, "-t", "here", least=2)] == ["from inside", "over ssh"]
    # What has ended by the time that its line is passed on, as logger may have, is not told of; sshd lives.
    first = _journal(guest, "-t", "sshd", least=1)[0]
    assert (first["MESSAGE"].partition(" on ")[0], first["_UID"]) == ("Server listening", "0")
    assert first["_SYSTEMD_UNIT"] == "ssh.service"
    assert jail("-r", "guest", timeout=_PATIENCE).returncode == 0
    assert jailctl("log", "verify", "guest").returncode == 0


def test_what_is_missing_is_named(jail: Command, stage: Stage, tmp_path: Path, small_root: Path) -> None:
    root = debian.make(guests.SYSTEMD, prepare=stage.onto_host_network)
    for word in ("auto", "systemd"):
        done = jail("-c", "name=guest", f"path={root}", f"ng.init={word}", "allow.socket_af")
        assert (done.returncode, done.stderr) == (1, "jail: ng.init=systemd: needs allow.cgroup\n")
    why = "only with an init of the guest's own: ng.init=auto, sysv, openrc or systemd"
    done = jail("-c", "name=guest", f"path={root}", "allow.cgroup", "persist")
    assert (done.returncode, done.stderr) == (1, f"jail: allow.cgroup: {why}\n")
    done = jail("-c", "name=guest", "ng.init=auto", "allow.cgroup")
    why = "it would start the host's own system once more"
    assert (done.returncode, done.stderr) == (1, f"jail: ng.init=auto: not with path=/: {why}\n")
    # Links lead nowhere but below the root, whatever the host has there.
    (small_root / "etc/rc").symlink_to("/../../../../etc/passwd-")
    (small_root / "sbin").mkdir(exist_ok=True)
    (small_root / "sbin/init").symlink_to("/sbin/init-of-the-guest")
    for word, said in (
        ("auto", "ng.init=auto: the root has no init that is known, and no /etc/rc"),
        ("sysv", "ng.init=sysv: /sbin/init: No such file or directory"),
        ("openrc", "ng.init=openrc: /sbin/openrc-init: No such file or directory"),
        ("rc", "ng.init=rc: /etc/rc: No such file or directory"),
    ):
        done = jail("-c", "name=guest", f"path={small_root}", f"ng.init={word}")
        assert (done.returncode, done.stderr) == (1, f"jail: {said}\n")
    (small_root / "sbin/init").unlink()
    (small_root / "sbin/init").write_text("#!/no/such/interpreter\n")
    (small_root / "sbin/init").chmod(0o755)
    done = jail("-c", "name=guest", f"path={small_root}", "ng.init=sysv")
    assert (done.returncode, done.stderr) == (
        1, "jail: ng.init=sysv: /sbin/init: No such file or directory\n"
    )  # fmt: skip


def _small_init(root: Path, script: str) -> None:
    (root / "sbin").mkdir(exist_ok=True)
    (root / "sbin/init").write_text(_INIT.format(script))
    (root / "sbin/init").chmod(0o755)


def test_one_that_does_not_shut_down_is_killed(jail: Command, jexec: Command, small_root: Path, logs: Path) -> None:
    """Its own shutdown hangs, and its PID 1 hears no signal."""
    _small_init(small_root, "")
    (small_root / "sbin/poweroff").write_text("#!/bin/sh\nexec sleep 1000\n")
    (small_root / "sbin/poweroff").chmod(0o755)
    conf = small_root.parent / "jail.conf"
    conf.write_text(f'guest {{ path = "{small_root}"; ng.init = sysv; stop.timeout = 1; }}\n')
    assert jail("-f", str(conf), "-c", "guest").returncode == 0
    done = jail("-f", str(conf), "-r", "guest", timeout=_PATIENCE)
    assert done.returncode == 0
    said = ["ng.init: /sbin/poweroff: timed out", "ng.init=sysv: /sbin/init: timed out"]
    assert done.stderr == "".join([f"jail: guest: {what}\n" for what in said])


def test_a_root_without_run(jail: Command, small_root: Path, logs: Path) -> None:
    _small_init(small_root, "echo up >/tmp/up")
    os.mkfifo(small_root / "tmp/up")
    if (small_root / "run").exists():
        (small_root / "run").rmdir()
    done = jail("-c", "name=guest", f"path={small_root}", "ng.init=sysv")
    assert (done.stderr, done.returncode) == ("", 0)
    assert (small_root / "tmp/up").read_text() == "up\n"
    assert jail("-R", "guest").returncode == 0


def test_one_that_is_left_alone_is_not_waited_for(
    jail: Command, jexec: Command, small_root: Path, logs: Path, tmp_path: Path
) -> None:
    """Where the shutdown hangs, SIGTERM ends all of it but PID 1, which nothing would have end: as with OpenRC's."""
    _small_init(small_root, "trap - TERM; echo up >/tmp/up")  # which a PID 1 is not ended by, but what it starts
    os.mkfifo(small_root / "tmp/up")
    (small_root / "sbin/poweroff").write_text("#!/bin/sh\nsleep 1000 &\n")
    (small_root / "sbin/poweroff").chmod(0o755)
    conf = tmp_path / "jail.conf"
    text = 'guest {{ path = "{}"; ng.init = sysv; exec.timeout = 1; stop.timeout = 1000; }}\n'
    conf.write_text(text.format(small_root))
    assert jail("-f", str(conf), "-c", "guest").returncode == 0
    assert (small_root / "tmp/up").read_text() == "up\n"
    done = jail("-v", "-f", str(conf), "-r", "guest", timeout=_PATIENCE)
    assert (done.returncode, done.stderr) == (0, "jail: guest: ng.init=sysv: /sbin/init: timed out\n")
    assert "guest: sent SIGTERM to: " in done.stdout


def test_a_flood_on_the_console_is_kept_within_bounds(
    jail: Command, small_root: Path, logs: Path, tmp_path: Path
) -> None:
    _small_init(small_root, "head -c 9m /dev/zero | tr '\\0' x; echo; echo the last line; echo up >/tmp/up")
    os.mkfifo(small_root / "tmp/up")
    kept = tmp_path / "kept"
    for given, file in (([], logs / "console.log"), ([f"exec.consolelog={kept}"], kept)):
        assert jail("-c", "name=guest", f"path={small_root}", "ng.init=sysv", *given).returncode == 0
        assert (small_root / "tmp/up").read_text() == "up\n"
        assert jail("-R", "guest").returncode == 0
        old = file.with_name(f"{file.name}.1")
        sizes = [one.stat().st_size for one in (file, old)]
        assert sum(sizes) <= 8 << 20
        assert (file.stat().st_mode & 0o777, old.stat().st_mode & 0o777) == (0o600, 0o600)
        assert "the last line" in file.read_text()[-100:]
