"""jailng of 2001: the mail's session; joining with a root; jail.instance.*; a signal to all."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jailng.core import hostmounts, registry, rootfs
from jailng.linux import cgroup
from tests.kernel.conftest import Command, Shim
from tests.kernel.networks import Namespace, ip
from tests.kernel.stage import MS_BIND, MS_REC, mount, unmount

MAIL = """\
usage: jailctl create [jailname]
       jailctl destroy [jailname]
       jailctl join [jailname] [-c chrootpath] [path] [cmd] [args...]
"""
SEVEN = {
    "sysvipc_permitted": "0",
    "set_hostname_permitted": "1",
    "socket_ipv4_permitted": "1",
    "socket_unix_permitted": "1",
    "socket_route_permitted": "1",
    "socket_other_permitted": "0",
    "ipv4addr": "0",
}
# What a process may do, in a line, each time that it reads one.
FACTS = """\
import ctypes, errno, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "yes"
def shared_memory():
    if libc.shmget(0, 4096, 0o1600) < 0:
        raise OSError(ctypes.get_errno(), "")
def facts():
    print(
        *[tried(lambda: socket.socket(*one).close()) for one in ((2, 1), (1, 1), (16, 3, 0), (40, 1))],
        tried(lambda: socket.socket(1, 1).connect("/nobody")), tried(shared_memory),
        tried(lambda: socket.sethostname("other")), flush=True,
    )
facts()
for line in sys.stdin:
    facts()
"""
AT_FIRST = "yes yes yes EAFNOSUPPORT ENOENT ENOSYS yes".split()
Done = subprocess.CompletedProcess[str]


def said(done: Done) -> str:
    """What a command that succeeds, and does not complain, has written."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@contextmanager
def created(jailctl: Command, name: str = "test") -> Iterator[str]:
    """A jail, until the end."""
    assert said(jailctl("create", name)) == ""
    try:
        yield name
    finally:
        assert said(jailctl("destroy", name)) == ""


@pytest.fixture
def tmp(debian: Path) -> Iterator[Path]:
    """A Debian root mounted on /tmp."""
    mount(str(debian), "/tmp", None, MS_BIND | MS_REC)
    yield Path("/tmp")
    unmount("/tmp")


def on_terminal(argv: list[str], typed: list[str]) -> list[str]:
    """The lines that a shell on a terminal of its own shows, when it is typed to at each of its prompts."""
    pid, master = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)
    shown = b""
    try:
        while part := os.read(master, 4096):
            shown += part
            if typed and shown.endswith(b"# "):
                os.write(master, typed.pop(0).encode() + b"\n")
    except OSError:
        pass  # the terminal is gone
    finally:
        os.close(master)
    assert os.waitpid(pid, 0)[1] == 0, shown
    return shown.decode().splitlines()


class Inside:
    """A process in the jail that lives until its standard input ends."""

    def __init__(self, checkout: Path, *words: str) -> None:
        argv = [str(checkout / "bin/jailctl"), "join", *words]
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def hear(self) -> str:
        """Its next line."""
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def ask(self) -> str:
        """Its answer to a line."""
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return self.hear()

    def end(self) -> int:
        """Let it end; its status."""
        self.child.communicate("")
        return self.child.returncode


def test_the_mails_session(jailctl: Command, shim: Shim, checkout: Path, tmp: Path) -> None:
    """Line for line; but for pids, what Debian's ps(1) calls its columns, and whether the shell sleeps already."""
    told = jailctl()
    assert (told.returncode, told.stdout, told.stderr) == (1, "", MAIL)
    assert said(jailctl("create", "test")) == ""
    lines = [line for line in shim("sysctl", "-a").stdout.splitlines() if "jail.instance" in line]
    assert lines == [f"jail.instance.test.{name}: {value}" for name, value in SEVEN.items()]
    shown = on_terminal([f"{checkout}/bin/jailctl", "join", "test", "-c", str(tmp), "/bin/sh"], ["ps ax", "exit"])
    assert [re.sub(r"^ *\d+ ", "", re.sub(" [DR]s ", " Ss ", line)) for line in shown] == [
        "# ps ax",
        "    PID TTY      STAT   TIME COMMAND",
        "pts/0    Ss     0:00 /bin/sh",
        "pts/0    R+     0:00 ps ax",
        "# exit",
    ]
    assert said(jailctl("destroy", "test")) == ""


def alone(path: str) -> bool:
    return hostmounts.is_here_alone(path, rootfs.mounts())


def test_what_is_said_of_names_and_roots(jailctl: Command, debian: Path) -> None:
    wrong: list[tuple[tuple[str, ...], str]] = [
        (("create",), "usage: jailctl create jailname"),
        (("create", ""), "usage: jailctl create jailname"),
        (("destroy",), "usage: jailctl destroy jailname"),
        (("destroy", "test"), 'jailctl: destroy: jail "test" not found'),
        (("join", "test", "-c", "/tmp", "true"), 'jailctl: join: jail "test" not found'),
        (("signal", "test"), 'jailctl: signal: jail "test" not found'),
        (("create", "a/b"), 'jailctl: create: name "a/b": contains "/"'),
        (("create", "7"), "jailctl: create: name cannot be numeric (unless it is the jid)"),
        (("create", "a.b"), 'jailctl: create: jail "a" not found'),
        (("nonsense",), "jailctl: nonsense: no such verb: jailctl help has them all"),
    ]
    for words, line in wrong:
        done = jailctl(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == line + "\n"
    with created(jailctl):
        wrong = [
            (("create", "test"), 'create: "test" already exists'),
            (("join", "test", "-c", "/nowhere", "true"), "join: path /nowhere: No such file or directory"),
            (("join", "test", "-c", "/etc/passwd", "true"), "join: path /etc/passwd: Not a directory"),
            (("join", "test", "-c", "/usr", "true"), "join: path /usr: other users of this host can reach it, and"),
            (("join", "test", "-c", str(debian), "nosuch"), "join: nosuch: No such file or directory"),
            (("signal", "-NOSUCH", "test"), "signal: unknown signal NOSUCH"),
        ]
        for words, line in wrong:
            if "/usr" in words and alone("/usr"):
                continue  # all of this is a chroot below a directory of root's
            done = jailctl(*words)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith(f"jailctl: {line}"), done.stderr
            assert done.stderr.count("\n") == 1, done.stderr


def test_a_root_that_is_brought(
    jailctl: Command, jexec: Command, jail: Command, checkout: Path, debian_copy: Path, small_root: Path
) -> None:
    """It is all that is seen, its uids are the jail's, and neither it nor what is mounted on it can be left."""
    with created(jailctl):

        def join(*command: str) -> Done:
            return jailctl("join", "test", "-c", str(debian_copy), *command)

        assert said(join("sh", "-c", "stat -c %u /etc; id -u; touch /made; ls /proc/1")).split() == ["0", "0"]
        assert os.stat(debian_copy / "made").st_uid == 0
        for attempt in (
            "umount /proc",
            "umount /proc/1",
            "mount -t tmpfs none /mnt",
            "mount --bind / /mnt",
            "mount -o remount,rw,bind /proc/sys",
            "unshare -m true",
            "nsenter -m -t 1 true",
            "mknod /null c 1 3",
        ):
            assert join("sh", "-c", f"{attempt} 2>/dev/null").returncode != 0, attempt
        climb = "mkdir /x; chroot /x /bin/true 2>/dev/null; cd /; stat -c %d:%i ../../.. / /x/.."
        assert len(set(said(join("sh", "-c", f"{climb} 2>/dev/null")).split())) == 1
        # Another has another root meanwhile, and the same /dev.
        other = Inside(
            checkout, "test", "-c", str(small_root), "sh", "-c", "echo there >/dev/shm/x; ls /usr; read line"
        )
        seen = other.hear()
        assert said(join("cat", "/dev/shm/x")) == "there\n"
        assert said(join("ls", "/usr/share")) and "share" not in seen
        other.child.kill()
        other.end()
        # Without one, and by jexec, it is path.
        assert said(jexec("test", "sh", "-c", "cat /etc/hostname; readlink /proc/self/root")) == said(
            jailctl("join", "test", "sh", "-c", "cat /etc/hostname; readlink /proc/self/root")
        )
        assert (
            jailctl("join", "test", "-c", str(debian_copy), "sh", "-c", "kill -KILL $$").returncode == -signal.SIGKILL
        )


def test_another_root_in_a_jail_that_has_one(jail: Command, jailctl: Command, debian: Path, small_root: Path) -> None:
    said(jail("-c", "name=own", f"path={small_root}", "persist"))
    which = ("sh", "-c", "test -e /usr/share && echo large || echo small; echo /proc/1/comm")
    assert said(jailctl("join", "own", *which)) == "small\n/proc/1/comm\n"
    assert said(jailctl("join", "own", "-c", str(debian), *which)) == "large\n/proc/1/comm\n"
    said(jailctl("destroy", "own"))


def test_where_root_may_mount_it_may_not_in_that(
    jail: Command, jailctl: Command, debian: Path, small_root: Path
) -> None:
    words = ("persist", "allow.mount", "allow.mount.tmpfs", "enforce_statfs=1")
    made = jail("-c", "name=own", f"path={small_root}", *words)
    if "judges no types of mounts" in made.stderr:
        pytest.skip(made.stderr.strip())
    said(made)
    mounting = (
        "sh",
        "-c",
        "mount -t tmpfs none /run 2>/dev/null && umount /run && echo mounted; ls -d /usr/share 2>&1; :",
    )
    assert said(jailctl("join", "own", *mounting)).startswith("mounted")
    assert said(jailctl("join", "own", "-c", str(debian), *mounting)) == "/usr/share\n"
    said(jailctl("destroy", "own"))


def test_root_of_a_brought_root_is_as_confined_as_any(jailctl: Command, checkout: Path, debian_python: Path) -> None:
    """All that root gets out of it, in 800 attempts, is what ``create`` permits: the host name of the jail."""
    with created(jailctl):
        done = jailctl(
            "audit", "--json", "--", f"{checkout}/bin/jailctl", "join", "test", "-c", str(debian_python), timeout=300
        )
        found = json.loads(done.stdout)["probes"]
        assert [one["tries"] for one in found if one["state"] == "escaped"] == ["host name", "domain name"]


def test_hostile_roots(jailctl: Command, tmp_path: Path, small_root: Path) -> None:
    """What lies where /dev and /proc belong leads nowhere else."""
    with created(jailctl):
        for name, parameter in (("dev", "mount.devfs"), ("proc", "mount.procfs")):
            (small_root / name).rename(small_root / "aside")
            (small_root / name).symlink_to("/etc")
            done = jailctl("join", "test", "-c", str(small_root), "true")
            assert done.stderr == f"jailctl: join: {parameter}: {small_root}/{name} is a symbolic link\n"
            (small_root / name).unlink()
            (small_root / "aside").rename(small_root / name)
        (small_root / "proc").rmdir()
        assert said(jailctl("join", "test", "-c", str(small_root), "sh", "-c", "echo /proc*")) == "/proc*\n"


def test_the_variables_of_each_jail(
    jailctl: Command, jls: Command, jail: Command, shim: Shim, checkout: Path, debian_python: Path
) -> None:
    """What a change does to who comes afterwards, and to who is there."""

    def new() -> list[str]:
        return said(jailctl("join", "test", "-c", str(debian_python), "python3", "-c", FACTS)).split()

    with created(jailctl):
        there = Inside(checkout, "test", "-c", str(debian_python), "python3", "-c", FACTS)
        assert there.hear().split() == AT_FIRST == new()
        for name, place, changed, at_once in (
            ("sysvipc_permitted", 5, "yes", False),
            ("set_hostname_permitted", 6, "EPERM", False),
            ("socket_ipv4_permitted", 0, "EAFNOSUPPORT", True),
            ("socket_unix_permitted", 4, "EAFNOSUPPORT", True),
            ("socket_route_permitted", 2, "EAFNOSUPPORT", False),
        ):
            variable = f"jail.instance.test.{name}"
            before, after = SEVEN[name], str(1 - int(SEVEN[name]))
            assert said(shim("sysctl", f"{variable}={after}")) == f"{variable}: {before} -> {after}\n"
            assert new()[place] == changed
            assert there.ask().split()[place] == (changed if at_once else AT_FIRST[place])
            assert said(shim("sysctl", "-n", f"{variable}={before}")) == f"{after} -> {before}\n"
            assert there.ask().split() == AT_FIRST == new()
        said(jailctl("sysctl", "jail.instance.test.sysvipc_permitted=1"))
        permitted = Inside(checkout, "test", "-c", str(debian_python), "python3", "-c", FACTS)
        assert permitted.hear().split()[5] == "yes"
        for value, fact in (("0", "ENOSPC"), ("1", "yes"), ("0", "ENOSPC")):
            said(jailctl("sysctl", f"jail.instance.test.sysvipc_permitted={value}"))
            assert permitted.ask().split()[5] == fact
        said(jail("-m", "name=test", "ng.limits=nshm:deny=7"))
        assert permitted.ask().split()[5] == "ENOSPC"
        assert permitted.end() == 0
        said(
            shim("sysctl", "jail.instance.test.socket_other_permitted=1", "jail.instance.test.socket_route_permitted=0")
        )
        assert new()[3] != "EAFNOSUPPORT" or not Path("/sys/module/vsock").exists()
        assert said(jls("-j", "test", "allow.socket_af", "ng.sockets")) == "true ipv4,unix\n"
        said(jail("-m", "name=test", "ng.sockets=none"))
        listed = json.loads(said(jailctl("sysctl", "--json", "jail.instance.test")))["variables"]
        assert [row["value"] for row in listed] == [0, 1, 0, 0, 0, 1, "0"]
        wrong = shim("sysctl", "jail.instance.test.socket_tcp_permitted=1")
        assert (wrong.returncode, wrong.stderr) == (
            1,
            "sysctl: unknown oid 'jail.instance.test.socket_tcp_permitted'\n",
        )
        assert there.end() == 0
    assert shim("sysctl", "jail.instance").returncode == 1


def test_every_jail_has_them(jail: Command, jailctl: Command, small_root: Path) -> None:
    said(jail("-c", "name=cell", f"path={small_root}", "persist"))
    shown = said(jailctl("sysctl", "-n", "jail.instance.cell")).split()
    assert shown == ["0", "0", "0", "1", "1", "0", "0"]
    said(jailctl("sysctl", "jail.instance.cell.socket_unix_permitted=0"))
    assert jailctl("sysctl", "jail.instance.cell.sysvipc_permitted=x").returncode == 1
    said(jailctl("destroy", "cell"))


LISTENING = """\
import socket
server = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
while True:
    server.accept()[0].send(b"here")
"""


def test_an_address_while_the_jail_runs(
    lan: Namespace, jailctl: Command, jail: Command, jls: Command, checkout: Path, debian_python: Path
) -> None:
    """Who listens there is reached by it, and by no other; the host has it again afterwards."""
    ip("address add 198.51.100.7/24 dev ep0", "address add 198.51.100.8/24 dev ep0")
    variable = "jail.instance.test.ipv4addr"

    def answered(address: str) -> bool:
        try:
            with lan.connect(address) as caller:
                return caller.recv(4) == b"here"
        except OSError:
            return False

    with created(jailctl):
        there = Inside(checkout, "test", "-c", str(debian_python), "python3", "-c", LISTENING)
        assert there.hear() == "ready"
        before = "0"
        for now in ("198.51.100.7", "198.51.100.8", "0", "198.51.100.8,198.51.100.7"):
            assert said(jailctl("sysctl", f"{variable}={now}")) == f"{variable}: {before} -> {now}\n"
            before = now
            for address in ("198.51.100.7", "198.51.100.8"):
                assert answered(address) is (address in now), (address, now)
        assert said(jls("-j", "test", "ip4.addr")) == "198.51.100.8,198.51.100.7\n"
        said(jail("-c", "name=other", "path=/", "persist", "ip4.addr=198.51.100.9"))
        for wrong, why in (
            ("169.254.1", "not an IPv4 address"),
            ("198.51.100.9", "another jail has it, too"),
            ("ep0|198.51.100.20", "not on ep0"),
        ):
            done = jailctl("sysctl", f"{variable}={wrong}")
            assert (done.returncode, why in done.stderr) == (1, True), done.stderr
        assert answered("198.51.100.7")  # as it was
        other = registry.find("other")
        assert other is not None
        os.kill(other.init_pid, signal.SIGKILL)  # and nobody clears up after it
        while other.alive():
            pass
        now = "198.51.100.7,198.51.100.9"
        assert said(jailctl("sysctl", f"{variable}={now}")) == f"{variable}: {before} -> {now}\n"
        assert registry.find("other") is None
        there.child.kill()
        there.end()
    ip("address del 198.51.100.7/24 dev ep0", "address del 198.51.100.8/24 dev ep0")


def test_a_signal_to_all(jailctl: Command, checkout: Path, small_root: Path) -> None:
    """Each once; who forks as fast as it can is not faster."""
    with created(jailctl):
        root = ("-c", str(small_root))
        said(jailctl("signal", "test"))  # nobody is there
        counting = "trap 'echo had >>/told' HUP; echo ready; while read line; do :; done; while :; do sleep 1000; done"
        several = [Inside(checkout, "test", *root, "sh", "-c", counting) for _ in range(3)]
        assert [one.hear() for one in several] == ["ready"] * 3
        said(jailctl("signal", "-SIGHUP", "test"))
        said(jailctl("signal", "-s", "0", "test"))
        # The first shell forks once only: dash ends where it cannot.
        forking = "f() { f & f & }; (while :; do f; sleep 1; done) & echo ready; while read line; do :; done"
        bomb = Inside(checkout, "test", *root, "sh", "-c", forking)
        assert bomb.hear() == "ready"
        until = time.monotonic() + 60
        while not (small_root / "told").exists() or (small_root / "told").read_text().count("had\n") < 3:
            assert time.monotonic() < until
        said(jailctl("signal", "-KILL", "test"))
        for one in (*several, bomb):
            one.child.communicate()
            assert one.child.returncode == -signal.SIGKILL
        assert (small_root / "told").read_text().split() == ["had"] * 3
        assert said(jailctl("signal", "-9", "test")) == ""


def test_killed_in_the_middle_of_a_signal(jailctl: Command, checkout: Path, small_root: Path) -> None:
    """The next command lets the jail go on."""
    with created(jailctl):
        there = Inside(checkout, "test", "-c", str(small_root), "sh", "-c", "while echo ready && read line; do :; done")
        assert there.hear() == "ready"
        code = "from jailng.core import halt, registry; r = registry.find('test'); r.lock(); halt.Halted(r).__enter__()"
        dying = f"{code}; import os; os.kill(os.getpid(), 9)"
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        done = subprocess.run([str(checkout / ".venv/bin/python"), "-c", dying], env=environment, timeout=60)
        assert done.returncode == -signal.SIGKILL
        record = registry.find("test")
        assert record is not None
        freezer = f"{record.cgroup}/members/cgroup.freeze"
        assert cgroup.read(freezer) == b"1\n"
        assert said(jailctl("join", "test", "-c", str(small_root), "true")) == ""
        assert cgroup.read(freezer) == b"0\n"
        assert there.ask() == "ready"
        there.end()


def test_a_root_in_a_namespace_of_ones_own_that_others_find_elsewhere(tmp_path: Path) -> None:
    """What is mounted for root alone is nobody else's, and what only lies under another path there is everybody's.

    But where the machine's others reach nothing of here, in a chroot below a directory of root's.
    """
    nobodys = alone("/usr")
    for source, kind, flags, own in (
        ("none", "tmpfs", 0, True),
        ("/usr/share", None, MS_BIND, nobodys),  # a machine's directory at another path
    ):
        mount(source, "/mnt", kind, flags)
        try:
            assert alone("/mnt") is own, source
        finally:
            unmount("/mnt")
    (tmp_path / "hidden").mkdir()
    mount("none", tmp_path / "hidden", "tmpfs")
    try:
        (tmp_path / "hidden/usr").mkdir()
        mount("/usr", tmp_path / "hidden/usr", None, MS_BIND)
        assert alone(f"{tmp_path}/hidden")
        assert alone(f"{tmp_path}/hidden/usr") is nobodys
    finally:
        unmount(tmp_path / "hidden/usr")
        unmount(tmp_path / "hidden")
