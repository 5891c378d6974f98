"""Single faults that once led astray, by the system call and its error: what comes of them now."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jailng.core import outfit, registry, undo
from jailng.engine import beginning, life
from jailng.errors import JailError, messages
from jailng.linux import bpfattached, cgroup, cgroupend, controller, ns
from jailng.params.model import Parameters
from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.networks import Namespace, ip, run

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")


def _failing(call: str, error: str, *argv: str, when: str = "1+", path: str = "") -> subprocess.CompletedProcess[str]:
    """A command with ``call`` failing each time, or where ``when`` says; of ``path`` alone if that is given."""
    where = ["-P", path] if path else []
    inject = f"inject={call}:error={error}:when={when}"
    return subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", *where, "-e", f"trace={call}", "-e", inject, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM"])
def test_no_descriptor_to_see_whether_a_jail_lives(
    checkout: Path, jail: Command, jexec: Command, small_root: Path, error: str
) -> None:
    """That is no reason to take it for dead, and to clear it away."""
    assert jail("-c", "name=one", f"path={small_root}", "persist").returncode == 0
    for program, *words in (
        ["jail", "-c", "name=two", f"path={small_root}", "persist"],
        ["jail", "-c", "name=one", f"path={small_root}", "persist"],
        ["jail", "-m", "name=one", "host.hostname=other"],
        ["jail", "-r", "one"],
        ["jls", "-j", "one", "jid"],
        ["jexec", "one", "/bin/true"],
    ):
        done = _failing("pidfd_open", error, f"{checkout}/bin/{program}", *words)
        assert done.returncode == 1, (program, words)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "not found" not in done.stderr
        assert jexec("one", "/bin/echo", "here").stdout == "here\n", (program, words)
    assert jail("-r", "one").returncode == 0


@pytest.mark.parametrize("name", ["pids", "cpu", "memory"])
def test_no_room_for_a_cgroup_of_v1(checkout: Path, jail: Command, small_root: Path, name: str) -> None:
    """What it lies in, which is of all jails, goes with the last of them, though that never had one."""
    top = controller.hierarchy(name)
    if not top:
        pytest.skip(f"the controller {name} is not on v1")
    made = [f"{checkout}/bin/jail", "-c", "name=a", f"path={small_root}", "persist"]
    for number in range(1, 20):
        done = _failing("mkdir", "ENOSPC", *made, when=str(number))
        if done.returncode == 0:
            break
        assert not Path(top, "jailng").exists(), (number, done.stderr)
    assert jail("-r", "a").returncode == 0


def test_killed_before_all_jails_have_their_weight(jail: Command, small_root: Path) -> None:
    """The next one gives it to them."""
    top = controller.hierarchy("cpu")
    if not top:
        pytest.skip("the controller cpu is not on v1")
    Path(top, "jailng").mkdir()
    assert jail("-c", "name=a", f"path={small_root}", "persist").returncode == 0
    assert Path(top, "jailng/cpu.shares").read_text() == f"{min(1024 * (os.cpu_count() or 1), 1 << 18)}\n"
    assert jail("-r", "a").returncode == 0


def test_no_socket_to_see_whether_an_interface_is_there(
    lan: Namespace, checkout: Path, jail: Command, small_root: Path
) -> None:
    """That is no reason to leave the jail's address on it."""
    create = ("-c", "name=a", f"path={small_root}", "interface=ep0", "ip4.addr=198.51.100.10", "persist")
    for number in range(1, 20):
        assert jail(*create).returncode == 0
        done = _failing("socket", "EMFILE", f"{checkout}/bin/jail", "-r", "a", when=f"{number}+")
        if done.returncode:
            assert len(done.stderr.splitlines()) == 1, done.stderr
            jail("-r", "a")
        assert "198.51.100.10" not in run("ip", "address", "show", "dev", "ep0"), (number, done.stderr)
        if done.returncode == 0 and number > 8:
            break


@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
def test_a_start_that_fails_and_cannot_be_undone(small_root: Path, monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    """Who imports jailng heard of the second failure alone, and not why there is no jail."""

    class Told(life.Voice):
        def fail(self, error: JailError) -> None:
            error.told = told

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/run")

    params = Parameters()
    for name, text in (("name", "a"), ("path", str(small_root)), ("persist", "true"), ("exec.prestart", "false")):
        params.add(name, text)
    params.settle()
    way = life.Life(params, None, Told())
    with monkeypatch.context() as patched:
        patched.setattr(undo, "walk", fails)
        with pytest.raises(JailError) as failed:
            beginning.start(way)
    first = [] if told else ["false: failed"]
    assert messages(failed.value) == [*first, "/run: Device or resource busy"]
    undo.walk(way.there)
    way.there.unlock()


def test_modules_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kit is made of the others."""
    monkeypatch.setattr(outfit, "_PARTS", (*outfit._PARTS, "nothing"))
    with pytest.raises(JailError, match="cannot be made"):
        outfit.ready()


def test_an_answer_about_a_lent_interface_that_is_lost(checkout: Path, jail: Command, small_root: Path) -> None:
    """Whatever the kernel had done by then, the interface is the host's again, and was not destroyed with the jail."""
    made = [f"{checkout}/bin/jail", "-c", "name=a", f"path={small_root}", "vnet", "vnet.interface=epair0b", "persist"]
    ip("link add epair0a type veth peer name epair0b")
    try:
        failed = 0
        for number in range(1, 15):  # some are passed over
            done = _failing("recvfrom", "ENOBUFS", *made, when=str(number))
            failed += done.returncode
            assert bool(jail("-r", "a").returncode) is bool(done.returncode)
            assert "epair0b" in run("ip", "-o", "link"), (number, done.stderr)
        assert failed > 3
    finally:
        ip("link delete epair0a")


def test_no_memory_to_be_root_again(checkout: Path, jail: Command, small_root: Path) -> None:
    """Who has written a jail's sysctls as its root could clear nothing away as that."""
    limits = "ng.limits=shmsize:deny=1M,openfiles:deny=100"
    for number in (1, 2, 3, 4):
        done = _failing(
            *("setresuid", "ENOMEM", f"{checkout}/bin/jail", "-c", "name=a", f"path={small_root}", limits, "persist"),
            when=str(number),
        )
        assert (done.returncode == 0) is (number % 2 == 0), (number, done.stderr)
        assert len(done.stderr.splitlines()) == done.returncode
        assert (jail("-r", "a").returncode == 0) is (done.returncode == 0), number
    assert not Path("/run/jailng/jails").exists() or not os.listdir("/run/jailng/jails")


def test_a_jail_that_cannot_be_killed_at_once(
    jail: Command, jls: Command, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies all the same: PID 1 is killed by itself, and takes the others along, before they are come to."""
    start = "exec.start=sleep 100 >/dev/null 2>&1 &"
    assert jail("-c", "name=a", f"path={small_root}", "persist", start).returncode == 0
    record = registry.find("a")
    assert record is not None
    write = cgroup.write

    def refusing(path: str, text: bytes) -> None:
        if path.endswith("/cgroup.kill"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        write(path, text)

    def slowly(pidfd: int, number: int) -> None:
        ns.pidfd_send_signal(pidfd, number)
        assert ns.ends_within(pidfd, 60)

    monkeypatch.setattr(cgroup, "write", refusing)
    monkeypatch.setattr(cgroupend, "pidfd_send_signal", slowly)
    cgroupend.remove(record.cgroup, undo.LEAVES)
    assert jls("-j", "a").returncode == 1
    jail("-r", "a")


def test_no_lock_can_be_had(checkout: Path, jail: Command, small_root: Path) -> None:
    """ENOLCK: the file is named by which the lock is, wherever it is wanted."""
    create = ["-c", "name=a", f"path={small_root}", f"mount=t {small_root}/tmp tmpfs", "persist"]
    lock = "/run/jailng/lock"
    refused = f"jail: {lock}: No locks available\n"
    assert _failing("flock", "ENOLCK", f"{checkout}/bin/jail", *create).stderr == refused
    for words, wants in (create, 3), (["-r", "a"], 2):
        for number in range(1, wants + 2):
            if words is not create:
                assert jail(*create).returncode == 0
            done = _failing("fcntl", "ENOLCK", f"{checkout}/bin/jail", *words, when=str(number), path=lock)
            said = done.stderr.replace("jail: a: ", "jail: ")  # by then it is one jail that is removed
            assert (said, done.returncode) == ((refused, 1) if number <= wants else ("", 0)), (words, number)
            jail("-r", "*")
    assert not registry.jids()


@pytest.mark.parametrize("when", ["4", "7"])
def test_sockets_that_are_taken_away_by_half(checkout: Path, jail: Command, small_root: Path, when: str) -> None:
    """What was taken is given back: jls(8) says that the jail has it, and to ask for that again changes nothing."""
    assert jail("-c", "name=one", "jid=71", f"path={small_root}", "persist", "ip4=inherit").returncode == 0
    done = _failing("bpf", "ENOMEM", f"{checkout}/bin/jail", "-m", "name=one", "ng.sockets=none", when=when)
    assert (done.returncode, done.stderr) == (
        1,
        f"jail: ng.sockets: a program on the jail's cgroup: {os.strerror(errno.ENOMEM)}\n",
    )
    members = cgroup.open_directory("jailng/71/members")
    try:
        for hook in (bpfattached.CGROUP_INET_SOCK_CREATE, bpfattached.CGROUP_UNIX_CONNECT):
            assert bpfattached.ours(members, hook) == []
    finally:
        os.close(members)
    assert jail("-r", "one").returncode == 0


def test_system_v_ipc_that_is_taken_away_by_half(
    checkout: Path, jail: Command, jexec: Command, small_root: Path
) -> None:
    words = [f"sysv{kind}=new" for kind in ("msg", "sem", "shm")]
    assert jail("-c", "name=one", f"path={small_root}", "persist", *words).returncode == 0
    read = ("one", "/bin/busybox", "cat", "/proc/sys/kernel/msgmni", "/proc/sys/kernel/shmmni", "/proc/sys/kernel/sem")
    before = jexec(*read).stdout
    changes = [word.replace("new", "disable") for word in words]
    path = "/proc/sys/kernel/msgmni"
    done = _failing("write", "ENOMEM", f"{checkout}/bin/jail", "-m", "name=one", *changes, when="1", path=path)
    assert done.returncode == 1
    assert jexec(*read).stdout == before
    assert jail("-r", "one").returncode == 0
