"""Every allow.*: shut without it, and opening exactly what it says; or refused by its name.

What a jailed root is able to do is asked of ``powers``, a program in the jail. allow.mount and those below it have
tests of their own (test_allow_mount.py).
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.params.table import Parameter, lookup, names, negated
from tests.kernel.conftest import Command
from tests.kernel.stage import Stage

_POWERS = (Path(__file__).parent / "powers.py").read_text()
_KEY = 0x6A61696C
_libc = ctypes.CDLL(None, use_errno=True)
_IPC = ("msg", "sem", "shm")

# What root of a jail with an address can do by default, and with what errno all else is refused.
_TRACING = ("trace as root", "trace as a user", "trace another user's", "read memory")
_FILES = ("file's owner", "another user's file", "chroot")
USUALLY = {
    **dict.fromkeys(("socket of inet", "socket of route", "port 80", "port 8080", "another uid"), "ok"),
    **dict.fromkeys((*_TRACING, *_FILES), "ok"),
    "host name": "EPERM",
    "domain name": "EPERM",
    "raw socket": "EPERM",
    "ping socket": "EPERM",
    "socket of uevent": "EAFNOSUPPORT",
    "socket of packet": "EAFNOSUPPORT",
    "route": "EPERM",
    "locked memory": "EPERM",
    **{name: "ENOSYS" for kind in _IPC for name in (f"own {kind}", f"the host's {kind}")},
    "file flags": "EPERM",
    "system attributes": "EPERM",
    "quotas": "EPERM",
    "kernel messages": "EPERM",
    "clock's speed": "EPERM",
    "clock": "EPERM",
    "audit session": "EAFNOSUPPORT",
    "mount": "EPERM",
    "nfsd": "EPERM",
    "virtual machines": "ENOENT",
    "PCI devices": "ENOENT",
}
# The parameters that are honoured: what changes when one is switched to what it is not by default.
CHANGES = {
    "allow.set_hostname": {"host name": "ok", "domain name": "ok"},
    "allow.sysvipc": {name: "ok" for kind in _IPC for name in (f"own {kind}", f"the host's {kind}")},
    # The filter lets ping sockets pass; the namespace's net.ipv4.ping_group_range, which is nobody's, does not.
    "allow.raw_sockets": {"raw socket": "ok", "ping socket": "EACCES"},
    # A packet socket takes the one privilege and the other; the audit system is asked, and knows nobody here.
    "allow.socket_af": {"socket of uevent": "ok", "socket of packet": "EPERM", "audit session": "ECONNREFUSED"},
    "allow.mlock": {"locked memory": "ok"},
    "allow.reserved_ports": {"port 80": "EACCES"},
    "allow.unprivileged_proc_debug": dict.fromkeys(_TRACING, "EPERM"),
    "allow.suser": {
        "port 80": "EACCES",
        "another uid": "EPERM",
        "chroot": "EPERM",
        "file's owner": "EPERM",
        "another user's file": "EACCES",
        "trace as a user": "EPERM",  # for want of another uid
        "trace another user's": "EPERM",
    },
    "allow.vmm": {"virtual machines": "ok"},
}
# Together they do what neither does.
RAW_AND_FAMILIES = CHANGES["allow.raw_sockets"] | CHANGES["allow.socket_af"] | {"socket of packet": "ok"}


def row(name: str) -> Parameter:
    found = lookup(name)
    assert found is not None
    return found


ALLOW = [name for name in names() if name.startswith("allow.") and name != "allow.dying"]
MOUNTING = [name for name in ALLOW if name == "allow.mount" or name.startswith("allow.mount.")]
REFUSED = [name for name in ALLOW if row(name).refused]
LATER = [name for name in CHANGES if row(name).live == "new"]


def switched(name: str) -> str:
    """The word that switches it to what it is not by default."""
    return negated(name) if row(name).default else name


@pytest.fixture
def host(etc: Path) -> Iterator[None]:
    """A host with System V objects, and with a rule set that shows what has a parameter of its own."""
    (etc / "devfs.rules").write_text("[ours=10]\nadd include $devfsrules_jail\nadd path kvm unhide\n")
    made = {
        "msg": _libc.msgget(_KEY, 0o1666),
        "sem": _libc.semget(_KEY, 1, 0o1666),
        "shm": _libc.shmget(_KEY, 4096, 0o1666),
    }
    assert min(made.values()) >= 0
    yield
    _libc.msgctl(made["msg"], 0, None)
    _libc.semctl(made["sem"], 0, 0)
    _libc.shmctl(made["shm"], 0, None)


def able(jail: Command, root: Path, *words: str) -> dict[str, str]:
    """What root of a jail with these parameters can do."""
    done = jail(
        *("-c", f"path={root}", "ip4.addr=192.0.2.7", "devfs_ruleset=10", *words),
        *("command=/usr/bin/python3", "-IS", "-", str(_KEY)),
        stdin=_POWERS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_every_parameter_has_a_test() -> None:
    of_guests = {"allow.cgroup"}  # test_init.py
    assert set(CHANGES) | set(REFUSED) | set(MOUNTING) | of_guests == set(ALLOW)
    assert not set(CHANGES) & set(REFUSED)


def test_what_root_can_do_by_default(jail: Command, debian_python: Path, host: None) -> None:
    assert able(jail, debian_python) == USUALLY


@pytest.mark.parametrize("name", CHANGES)
def test_it_opens_exactly_what_it_says(jail: Command, debian_python: Path, host: None, name: str) -> None:
    if name == "allow.vmm" and not os.path.exists("/dev/kvm"):
        pytest.skip("this machine has no /dev/kvm")
    found = able(jail, debian_python, switched(name))
    assert {power: said for power, said in found.items() if said != USUALLY[power]} == CHANGES[name]


def test_two_that_belong_together(jail: Command, debian_python: Path, host: None) -> None:
    found = able(jail, debian_python, "allow.raw_sockets", "allow.socket_af")
    assert {power: said for power, said in found.items() if said != USUALLY[power]} == RAW_AND_FAMILIES


@pytest.mark.parametrize("name", LATER)
def test_a_change_reaches_what_starts_afterwards(
    jail: Command, jexec: Command, debian_python: Path, host: None, name: str
) -> None:
    made = jail("-c", "name=cell", f"path={debian_python}", "ip4.addr=192.0.2.7", "devfs_ruleset=10", "persist")
    assert made.returncode == 0, made.stderr
    try:
        for word, changes in ((switched(name), CHANGES[name]), (f"{name}={row(name).default}", {})):
            assert jail("-m", "name=cell", word).returncode == 0
            done = jexec("cell", "/usr/bin/python3", "-IS", "-", str(_KEY), stdin=_POWERS)
            assert (done.returncode, done.stderr) == (0, "")
            found = json.loads(done.stdout)
            assert {power: said for power, said in found.items() if said != USUALLY[power]} == changes
    finally:
        assert jail("-r", "cell").returncode == 0


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_its_name(jail: Command, jls: Command, small_root: Path, tmp_path: Path, name: str) -> None:
    """Nothing is made, and nothing is run; off, which is what every jail has, is no offence."""
    ran = tmp_path / "ran"
    words = ["-c", "name=cell", f"path={small_root}", "persist", f"exec.prepare=touch {ran}"]
    done = jail(*words, name)
    assert (done.returncode, done.stdout) == (1, "")
    why = f"not honoured on Linux: {row(name).linux}"
    assert done.stderr == f"jail: {name}: {why}\n"
    assert not ran.exists()
    assert jls("-c", "-j", "cell").returncode == 1
    assert jail(*words, negated(name)).returncode == 0
    again = jail("-m", "name=cell", name)
    assert again.returncode == 1
    assert again.stderr in (f"jail: {name}: {why}\n", f"jail: {name} cannot be changed after creation\n")
    assert jls("-j", "cell", name).stdout == "false\n"
    assert jail("-r", "cell").returncode == 0


@pytest.mark.parametrize(("uids", "reached"), [("private", False), ("shared", True)])
def test_a_user_of_the_host_and_one_of_the_jail_with_the_same_uid(
    stage: Stage, jail: Command, small_root: Path, uids: str, reached: bool
) -> None:
    """allow.unprivileged_parent_tampering is off, which private uids honour and shared ones cannot (differences.md)."""
    start = "exec.start=sleep 1000 > /dev/null 2>&1 &"
    made = jail("-c", "jid=88", f"path={small_root}", f"ng.uids={uids}", "exec.jail_user=alice", f"{start} true")
    assert made.returncode == 0, made.stderr
    try:
        (pid,) = (stage.cgroup2 / "jailng/88/members/cgroup.procs").read_text().split()
        done = subprocess.run(["kill", "-0", pid], user=1001, group=1001, extra_groups=[], capture_output=True)
        assert (done.returncode == 0) is reached
    finally:
        assert jail("-R", "88").returncode == 0
