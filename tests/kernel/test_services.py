"""What people run in a jail: a Debian's own programs, started, logged in to and installed as on a machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import debian as roots
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace
from tests.kernel.stage import Stage

ADDRESS = "198.51.100.10"
_SHELL = ("command=/bin/sh", "-ec")


def _ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


Inside = Callable[[str], str]


@pytest.fixture
def inside(jail: Command, jexec: Command, debian_copy: Path, lan: Namespace) -> Iterator[Inside]:
    """Runs a script in a jail with an address, root of a Debian of the test's own; what it printed."""
    create = ("-c", "name=d", f"path={debian_copy}", "host.hostname=d", "interface=ep0", f"ip4.addr={ADDRESS}/24")
    made = jail(*create, "persist")
    assert made.returncode == 0, made.stderr

    def run(script: str) -> str:
        done = jexec("d", "/bin/sh", "-ec", script, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    gone = jail("-R", "d")
    assert gone.returncode == 0, gone.stderr


def test_users(inside: Inside) -> None:
    said = inside(
        "useradd -m -s /bin/sh bob; echo bob:secret | chpasswd; su - bob -c 'id -un; pwd; touch mine; stat -c %U mine'"
    )
    assert said.split() == ["bob", "/home/bob", "bob"]
    assert inside("userdel -r bob 2>/dev/null; getent passwd bob || echo none") == "none\n"


def test_ssh_by_key_and_by_password(inside: Inside, debian_copy: Path, lan: Namespace, tmp_path: Path) -> None:
    """From the LAN, whose machine sees the jail's address and is seen with its own."""
    inside(
        "useradd -m -s /bin/sh bob; echo bob:secret | chpasswd; ssh-keygen -q -t ed25519 -N '' -f /root/key;"
        " install -d -o bob -m 700 ~bob/.ssh; install -o bob -m 600 /root/key.pub ~bob/.ssh/authorized_keys;"
        f" mkdir -p /run/sshd; /usr/sbin/sshd; {roots.LISTENS}"
    )
    key = tmp_path / "key"
    key.write_bytes((debian_copy / "root/key").read_bytes())
    key.chmod(0o600)
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o700)
    common = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known",
              "-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR"]  # fmt: skip
    command = [f"bob@{ADDRESS}", 'id -un; echo "$SSH_CONNECTION"']
    by_key = ["ssh", *common, "-i", str(key), "-o", "BatchMode=yes", *command]
    by_password = ["ssh", *common, "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", *command]
    env = {**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "HOME": str(tmp_path)}
    env.pop("SSH_AUTH_SOCK", None)
    with lan.entered():
        for argv in (by_key, by_password):
            done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, timeout=60)
            assert done.returncode == 0, done.stderr
            user, connection = done.stdout.splitlines()
            assert user == "bob"
            assert connection.split()[0] == "198.51.100.2"
            assert connection.split()[2:] == [ADDRESS, "22"]


def test_cron_runs_a_job(inside: Inside) -> None:
    """At most a minute away; cron's own @reboot is as good a job and is due at once."""
    inside(
        "mkfifo -m 666 /tmp/ran; echo '@reboot nobody id -un >/tmp/ran' >/etc/cron.d/job; rm -f /run/crond.reboot; cron"
    )
    assert inside("timeout 60 cat /tmp/ran") == "nobody\n"


def _package(top: Path) -> None:
    control = top / "make/DEBIAN"
    control.mkdir(parents=True)
    (top / "make/usr/share/jailng-probe").mkdir(parents=True)
    (top / "make/usr/share/jailng-probe/file").write_text("here\n")
    (control / "control").write_text(
        "Package: jailng-probe\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@example.org>\nDescription: none\n"
    )
    (control / "postinst").write_text("#!/bin/sh\nchown nobody /usr/share/jailng-probe/file\n")
    (control / "postinst").chmod(0o755)


def test_apt_from_a_file_repository(inside: Inside, debian_copy: Path) -> None:
    _package(debian_copy / "srv/repository")
    said = inside(
        "cd /srv/repository; dpkg-deb -b make probe_1_all.deb >/dev/null;"
        " { dpkg-deb -f probe_1_all.deb; echo Filename: ./probe_1_all.deb; echo Size: $(stat -c %s probe_1_all.deb);"
        "   echo SHA256: $(sha256sum probe_1_all.deb | cut -d' ' -f1); } >Packages;"
        " rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*;"
        " echo 'deb [trusted=yes] file:/srv/repository ./' >/etc/apt/sources.list;"
        " export DEBIAN_FRONTEND=noninteractive;"
        " apt-get -q update >/dev/null; apt-get -qq install jailng-probe >/dev/null;"
        " cat /usr/share/jailng-probe/file; stat -c %U /usr/share/jailng-probe/file;"
        " apt-get -qq purge jailng-probe >/dev/null; ls /usr/share/jailng-probe 2>/dev/null || echo gone"
    )
    assert said.split() == ["here", "nobody", "gone"]


_POSTGRESQL = (
    "cd /; rm -rf /var/lib/postgresql/probe; PATH=$(echo /usr/lib/postgresql/*/bin):$PATH;"
    " install -d -o postgres /var/lib/postgresql/probe /var/run/postgresql;"
    ' as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; };'
    " as initdb -D /var/lib/postgresql/probe -c shared_memory_type=sysv >/tmp/log 2>&1 || { cat /tmp/log; exit 3; };"
    " as pg_ctl -D /var/lib/postgresql/probe -w -o '-k /tmp -c listen_addresses=' -l /tmp/pg.log"
    " start >/dev/null || { cat /tmp/pg.log; exit 4; };"
    " as psql -h /tmp -Atc 'select 6 * 7' postgres;"
    " as pg_ctl -D /var/lib/postgresql/probe -w -m fast stop >/dev/null"
)


@pytest.fixture
def postgresql(debian_postgresql: Path, tmp_path: Path) -> Path:
    """A PostgreSQL root of the test's own."""
    return roots.copy(debian_postgresql, tmp_path / "postgresql")


def test_postgresql(jail: Command, postgresql: Path) -> None:
    given = (f"path={postgresql}", "sysvshm=new", "sysvsem=new", *_SHELL, _POSTGRESQL)
    done = jail("-c", *given, timeout=120)
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stdout + done.stderr


def test_postgresql_without_shared_memory(jail: Command, postgresql: Path) -> None:
    done = jail("-c", f"path={postgresql}", *_SHELL, _POSTGRESQL, timeout=120)
    assert done.returncode == 1
    assert "shared memory" in done.stdout
    assert "Function not implemented" in done.stdout


# Who owns what, seen from outside


def _uids(stage: Stage) -> set[int]:
    return {
        os.stat(f"/proc/{pid}").st_uid
        for path in stage.cgroup2.glob("jailng/*/members/cgroup.procs")
        for pid in path.read_text().split()
    }


_AS_ALICE = "sleep 1000 >/dev/null 2>&1 </dev/null &"


def test_private_uids(jail: Command, small_root: Path, stage: Stage) -> None:
    """What root makes is root's on the disk; the host's ps shows a range that nobody on the host has."""
    _ok(jail("-c", "name=a", f"path={small_root}", "persist", "command=sh", "-c", f"echo x >/root/made; {_AS_ALICE}"))
    _ok(jail("-m", "name=a", "meta=x"))
    made = (small_root / "root/made").stat()
    uids = _uids(stage)
    _ok(jail("-R", "a"))
    assert (made.st_uid, made.st_gid) == (0, 0)
    (uid,) = uids
    assert uid >= 0x70000000
    assert uid % 65536 == 0


@pytest.mark.parametrize(("mode", "shown"), [("private", None), ("shared", 1001)])
def test_alice(jail: Command, small_root: Path, stage: Stage, mode: str, shown: int | None) -> None:
    given = (f"path={small_root}", f"ng.uids={mode}", "exec.jail_user=alice", "persist")
    _ok(jail("-c", "name=a", *given, "command=sh", "-c", f"echo x >/tmp/made; {_AS_ALICE}"))
    made = (small_root / "tmp/made").stat()
    (uid,) = _uids(stage)
    _ok(jail("-R", "a"))
    assert (made.st_uid, made.st_gid) == (1001, 1001)
    assert uid == shown if shown else uid % 65536 == 1001 and uid >= 0x70000000
