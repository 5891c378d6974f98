"""Ordinary Debian programs under the default filter and capabilities: what a jail's users do all day goes on working.

Around them are only the namespaces that keep the host out of it; the rest of a jail is tested elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jailng.core import devfs
from jailng.core.confinement import Privileges, compute
from tests.kernel.confined import apply, child
from tests.kernel.stage import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, mount, unshare

HOST_OWNED = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
}
ON = Privileges(inet4=True)


class Shell:
    """A place in which a script runs confined."""

    def __init__(self, furnish: Callable[[], None]) -> None:
        self.furnish = furnish

    def __call__(self, script: str, privileges: Privileges = ON) -> str:
        """What it writes. Raises AssertionError with that if it fails; it stops at the first command that does."""
        confinement = compute(privileges)

        def outside() -> Any:
            unshare(HOST_OWNED)
            return child(inside)

        def inside() -> list[Any]:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            self.furnish()
            mount("proc", "/proc", "proc")
            apply(confinement)
            done = subprocess.run(
                ["/bin/sh", "-euc", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=ENVIRONMENT,
                timeout=120,
            )
            return [done.returncode, done.stdout]

        status, said = child(outside)
        assert status == 0, f"exit status {status}\n{said}"
        return str(said)


def overlay(root: Path, scratch: Path) -> Callable[[], None]:
    """A copy of the root to write to, for the life of a mount namespace, with a /dev as jails have it."""

    def furnish() -> None:
        mount("none", scratch, "tmpfs", 0, "mode=755")
        for name in ("upper", "work", "root"):
            (scratch / name).mkdir()
        mount(
            "none", scratch / "root", "overlay", 0, f"lowerdir={root},upperdir={scratch}/upper,workdir={scratch}/work"
        )
        dev = scratch / "root/dev"
        mount("none", dev, "tmpfs", 0, "mode=755")
        os.umask(0)
        nodes, links = devfs.shown()
        for name, mode, major, minor, *_ in nodes:
            os.mknod(dev / name, mode, os.makedev(major, minor))
        for name, target in links:
            (dev / name).symlink_to(target)
        for name, kind, options in (
            ("pts", "devpts", "newinstance,ptmxmode=666,mode=620,gid=5"),
            ("shm", "tmpfs", "mode=1777"),
            ("mqueue", "mqueue", ""),
        ):
            (dev / name).mkdir()
            mount("none", dev / name, kind, 0, options)
        os.umask(0o022)
        os.chroot(scratch / "root")
        os.chdir("/")

    return furnish


@pytest.fixture
def shell(debian: Path, tmp_path: Path) -> Shell:
    return Shell(overlay(debian, tmp_path))


@pytest.fixture
def postgresql_shell(debian_postgresql: Path, tmp_path: Path) -> Shell:
    return Shell(overlay(debian_postgresql, tmp_path))


@pytest.fixture
def here(tmp_path: Path) -> Shell:
    """The machine's own root, for the tools that a small Debian has not; the scripts run in ``tmp_path``."""
    return Shell(lambda: os.chdir(tmp_path))


def test_accounts(shell: Shell) -> None:
    said = shell("""
        groupadd staff2
        useradd -m -G staff2 -s /bin/bash alice
        echo alice:secret | chpasswd
        usermod -c Alice alice; chage -M 90 alice; passwd -S alice
        su alice -c 'id -un; id -Gn; touch ~/mine; stat -c %U ~/mine'
        su - alice -c 'echo $HOME; nice -n 5 nice; ulimit -c'
        adduser --disabled-password --comment '' bob >/dev/null
        deluser bob >/dev/null
        userdel -r alice
        install -o www-data -g www-data -m 2750 -d /srv/www; stat -c '%U %a' /srv/www
        getent passwd alice bob || echo gone
    """)
    for line in ("alice P", "alice\nalice staff2\nalice\n", "/home/alice\n5\n0\n", "www-data 2750", "gone"):
        assert line in said


def test_ssh_logins(shell: Shell) -> None:
    said = shell("""
        useradd -m -s /bin/bash alice
        mkdir -p /run/sshd /root/.ssh /home/alice/.ssh
        ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
        cp /root/.ssh/id_ed25519.pub /home/alice/.ssh/authorized_keys
        /usr/sbin/sshd # which listens when it is in the background
        until grep -q ':0016 [0-9A-F:]* 0A ' /proc/net/tcp; do sleep 0.01; done
        login='ssh -o StrictHostKeyChecking=no -o BatchMode=yes alice@127.0.0.1'
        $login 'id -un'
        $login -tt 'tty; stty size' </dev/null
        echo copied >/root/file
        scp -q -o BatchMode=yes /root/file alice@127.0.0.1:
        cat /home/alice/file
    """)
    assert "alice\n" in said
    assert "/dev/pts/0" in said
    assert "copied" in said


def test_cron(shell: Shell) -> None:
    said = shell("""
        useradd -m alice
        mkfifo -m 666 /tmp/done
        echo '@reboot alice id -un >/tmp/done' >/etc/cron.d/test
        cron
        cat /tmp/done
    """)
    assert "alice" in said


def test_apt_get(shell: Shell) -> None:
    said = shell("""
        mkdir -p /repo /build/DEBIAN /build/usr/bin
        printf '#!/bin/sh\\necho installed\\n' >/build/usr/bin/greet; chmod 755 /build/usr/bin/greet
        cat >/build/DEBIAN/control <<-END
			Package: greet
			Version: 1
			Architecture: all
			Maintainer: nobody <nobody@example.org>
			Description: greets
			END
        dpkg-deb -b /build /repo/greet.deb >/dev/null
        ( cat /build/DEBIAN/control; echo Filename: ./greet.deb; echo Size: $(stat -c %s /repo/greet.deb)
          echo SHA256: $(sha256sum /repo/greet.deb | cut -d ' ' -f 1) ) >/repo/Packages
        rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
        echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list
        apt-get -q update
        apt-get -qy install greet
        greet
        apt-get -qy purge greet
        dpkg -l greet 2>/dev/null | grep ^ii || echo removed
    """)
    assert "\ninstalled\n" in said
    assert "\nremoved\n" in said


def test_what_an_administrator_looks_at(shell: Shell) -> None:
    said = shell("""
        ps -e -o comm= | sort -u
        top -b -n 1 >/dev/null
        ip -o addr show lo; ip route
        uptime >/dev/null; free >/dev/null; df / >/dev/null; vmstat >/dev/null
        setarch -R true; linux32 uname -m; nproc >/dev/null
        chroot / /bin/echo chrooted
        mkfifo /tmp/fifo; test -p /tmp/fifo
        setpriv --reuid=www-data --regid=www-data --clear-groups id -un
        flock /tmp/lock echo locked
        timeout 5 true; taskset -c 0 true; renice -n 5 -p $$ >/dev/null
    """)
    for line in ("ps\n", "inet 127.0.0.1/8", "i686", "chrooted", "www-data", "locked"):
        assert line in said


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("ping -c 1 127.0.0.1", "Operation not permitted"),
        ("hostname mine", "you must be root to change the host name"),
        ("mount -t tmpfs none /mnt", "permission denied"),
        ("umount /dev/pts", "superuser"),
        ("unshare -r true", "Operation not permitted"),
        ("unshare -m true", "Operation not permitted"),
        ("nsenter -t 1 -n true", "Operation not permitted"),
        ("dmesg", "Operation not permitted"),
        ("date -s '2001-01-01'", "Operation not permitted"),
        ("mknod /tmp/disk b 254 0", "Operation not permitted"),
        ("ip link set lo down", "Operation not permitted"),
        ("ip addr add 192.0.2.1/32 dev lo", "Operation not permitted"),
        ("chrt -f 1 true", "Operation not permitted"),
        ("ionice -c 1 true", "Operation not permitted"),
        ("prlimit --memlock=1000000000 true", "Operation not permitted"),
    ],
)
def test_what_is_refused(shell: Shell, command: str, answer: str) -> None:
    assert answer in shell(f"if ( {command} ) 2>&1; then exit 1; fi")


def test_ping_when_allowed(shell: Shell) -> None:
    assert "1 received" in shell("ping -c 1 127.0.0.1", Privileges(inet4=True, raw_sockets=True))


POSTGRESQL = """
    bin=$(echo /usr/lib/postgresql/*/bin)
    mkdir -p /srv/data /run/postgresql; chown postgres: /srv/data /run/postgresql
    su postgres -c "$bin/initdb -D /srv/data -A trust >/dev/null"
    su postgres -c "$bin/pg_ctl -D /srv/data -w -l /srv/data/log start >/dev/null" || { cat /srv/data/log; exit 1; }
    su postgres -c "psql -h 127.0.0.1 -qAtc 'create table t as select generate_series(1, 1000) as n'"
    su postgres -c "psql -h 127.0.0.1 -qAtc 'select sum(n) from t'"
    su postgres -c "$bin/pg_ctl -D /srv/data -m fast -w stop >/dev/null"
"""


def test_postgresql(postgresql_shell: Shell) -> None:
    assert "500500" in postgresql_shell(POSTGRESQL, Privileges(inet4=True, sysvshm=True, sysvsem=True))


def test_postgresql_without_shared_memory(postgresql_shell: Shell) -> None:
    with pytest.raises(AssertionError, match=r"could not create shared memory segment: Function not implemented"):
        postgresql_shell(POSTGRESQL)


def tools(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not shutil.which(name)]
    return pytest.mark.skipif(bool(missing), reason=f"this machine has no {' '.join(missing)}")


PROGRAM = """
cat >program.c <<END
#include <stdio.h>
static int answer(int x) { return 2 * x; }
int main(void) { printf("%d\\\\n", answer(21)); return 0; }
END
gcc -g -O0 -o program program.c
"""


@tools("gcc", "gdb")
def test_the_debugger(here: Shell) -> None:
    said = here(
        PROGRAM + "gdb -q -batch -ex 'break answer' -ex run -ex 'print x' -ex finish -ex continue ./program 2>&1"
    )
    assert "$1 = 21" in said
    assert "exited normally" in said
    assert "randomization" not in said  # "Error disabling address space randomization"


@tools("gcc", "gdb", "strace")
def test_without_the_privilege_nothing_is_traced(here: Shell) -> None:
    said = here(PROGRAM + "./program; strace ./program 2>&1 || echo refused", Privileges(proc_debug=False))
    assert "42" in said
    assert "refused" in said


@tools("gcc", "strace")
def test_strace(here: Shell) -> None:
    said = here(PROGRAM + "strace -f -o log sh -c './program; ./program & wait'; grep -c 'execve(../program' log")
    assert said.split() == ["42", "42", "2"]


PYTHON = """
import asyncio, concurrent.futures, multiprocessing, os, socket, subprocess, tempfile, threading

async def echo():
    server = await asyncio.start_server(lambda r, w: w.write(b"hello") or w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    return await reader.read()

if __name__ == "__main__":
    assert asyncio.run(echo()) == b"hello"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(len, ["ab"] * 50)) == 100
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
    assert subprocess.run(["id", "-un"], capture_output=True, user="nobody").stdout == b"nobody\\n"
    a, b = socket.socketpair()
    os.openpty(); os.memfd_create("x"); os.getrandom(8); os.pidfd_open(os.getpid()); os.sched_getaffinity(0)
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, 4096)
    print("all of it")
"""


def test_python(here: Shell, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PYTHON)
    assert "all of it" in here("/usr/bin/python3 -W ignore program.py")


def test_the_coreutils(here: Shell) -> None:
    said = here("""
        mkdir tree; echo x >tree/file; ln tree/file tree/hard; ln -s file tree/soft; chmod 4755 tree/file
        cp -a --reflink=auto tree copy; mv copy moved; tar -C moved -czf all.tgz .; mkdir out; tar -C out -xzpf all.tgz
        stat -c %a out/file; sort -S 1M --parallel=2 out/file; dd if=/dev/zero of=big bs=64k count=4 status=none
        truncate -s 1M sparse; cp --sparse=always sparse sparse2; sync; find . -newer tree -type f | wc -l; rm -rf out
        bash -c 'cat <(echo substituted)'; script -qc 'tty; echo in a terminal' /dev/null
    """)
    for line in ("4755", "substituted", "in a terminal"):
        assert line in said
