"""Programs on cgroups: reserved ports for a jail on the host's network, and those that hold sockets to addresses."""

from __future__ import annotations

import errno
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jailng.core.stackfilter import PROGRAMS
from jailng.core.stackrules import Rules
from jailng.linux import bpf
from tests.kernel.confined import BASE, NAMESPACES, child, in_namespaces
from tests.kernel.stage import CLONE_NEWNET, Stage

# The network namespace stays the stage's, which belongs to the host's user namespace.
ON_THE_HOSTS_NETWORK = NAMESPACES & ~CLONE_NEWNET


@pytest.fixture
def cgroup(stage: Stage) -> Iterator[Path]:
    """A cgroup2 directory, removed with its programs."""
    path = stage.cgroup2 / f"jailng-test-{uuid.uuid4().hex}"
    path.mkdir()
    yield path
    path.rmdir()


def allow(cgroup: Path, uid: int) -> None:
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        bpf.allow_reserved_ports(directory, uid)
    finally:
        os.close(directory)


def bind(address: str, kind: socket.SocketKind = socket.SOCK_STREAM, port: int = 80) -> int:
    """The errno of bind(2)."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as made:
        # Connections of tests before this one may wait for their last segments there.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((address, port))
        except OSError as why:
            return why.errno or -1
    return 0


def binds(cgroup: Path, uid: int = 0) -> Any:
    """What a process of that uid of a user namespace, in the cgroup and on the host's network, may bind."""

    def body() -> list[int]:
        os.setresuid(uid, uid, uid)
        found = [bind(address, kind) for address in ADDRESSES for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
        return [*found, bind("127.0.0.1", port=8080)]

    def enter() -> Any:
        (cgroup / "cgroup.procs").write_text("0")
        return in_namespaces(body, ON_THE_HOSTS_NETWORK)

    return child(enter)


ADDRESSES = ("0.0.0.0", "127.0.0.1", "::", "::1")
DENIED, BOUND = [errno.EACCES] * 8 + [0], [0] * 9


def test_without_the_program_a_jails_root_may_not(cgroup: Path) -> None:
    assert binds(cgroup) == DENIED


def test_with_the_program_it_may(cgroup: Path) -> None:
    allow(cgroup, BASE)
    assert binds(cgroup) == BOUND


def test_other_users_of_the_jail_may_not(cgroup: Path) -> None:
    allow(cgroup, BASE)
    assert binds(cgroup, uid=33) == DENIED


def test_another_jails_root_may_not(cgroup: Path) -> None:
    allow(cgroup, BASE + 65536)
    assert binds(cgroup) == DENIED


def test_cgroups_below_are_in_it_too(cgroup: Path) -> None:
    below = cgroup / "members"
    below.mkdir()
    allow(cgroup, BASE)
    try:
        assert binds(below) == BOUND
    finally:
        below.rmdir()


def test_it_stands_beside_other_programs(cgroup: Path) -> None:
    """One that allows without waiving takes nothing away; a second that waives changes nothing."""
    plain = bpf.mov(bpf.R0, 1) + bpf.leave()
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    program = bpf.load(bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET4_BIND, plain)
    bpf.attach(directory, program, bpf.CGROUP_INET4_BIND)
    os.close(program)
    os.close(directory)
    assert binds(cgroup) == DENIED
    allow(cgroup, BASE)
    allow(cgroup, BASE)
    assert binds(cgroup) == BOUND


def test_a_denial_by_the_administrators_program_stands(cgroup: Path) -> None:
    never = bpf.mov(bpf.R0, 0) + bpf.leave()
    allow(cgroup, BASE)
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    for kind in (bpf.CGROUP_INET4_BIND, bpf.CGROUP_INET6_BIND):
        program = bpf.load(bpf.PROG_TYPE_CGROUP_SOCK_ADDR, kind, never)
        bpf.attach(directory, program, kind)
        os.close(program)
    os.close(directory)
    assert binds(cgroup) == [errno.EPERM] * 9


def test_outside_of_the_cgroup_nothing_changes(cgroup: Path) -> None:
    allow(cgroup, BASE)
    assert in_namespaces(lambda: bind("0.0.0.0"), ON_THE_HOSTS_NETWORK) == errno.EACCES


def test_what_the_verifier_refuses_is_an_error() -> None:
    with pytest.raises(OSError) as caught:
        bpf.load(bpf.PROG_TYPE_CGROUP_SOCK_ADDR, bpf.CGROUP_INET4_BIND, bpf.mov(bpf.R0, 4) + bpf.leave())
    assert caught.value.errno == errno.EINVAL


def test_what_is_no_cgroup_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        allow(tmp_path, BASE)


def test_no_descriptor_is_left(cgroup: Path) -> None:
    before = os.listdir("/proc/self/fd")
    allow(cgroup, BASE)
    assert os.listdir("/proc/self/fd") == before


def _held(four: int, six: int) -> list[tuple[bytes, int]]:
    """So many addresses of each version, on networks of their own."""
    return [
        *[(bytes([198, 18, number, 1]), 24) for number in range(four)],
        *[(b"\x20\x01\x0d\xb8" + bytes([0, number]) + bytes(9) + b"\x01", 49) for number in range(six)],
    ]


@pytest.mark.parametrize("four", [0, 1, 2, 255])
@pytest.mark.parametrize("six", [0, 1, 2, 255])
@pytest.mark.parametrize("free", [(), (4,), (6,)])
def test_the_verifier_takes_the_programs_that_hold_a_jail_s_sockets(four: int, six: int, free: tuple[int, ...]) -> None:
    if (4 in free and four) or (6 in free and six) or not (four or six or free):
        return
    for select, root in ((True, 0), (False, -1)):
        rules = Rules(_held(four, six), root, {4: select, 6: select}, free)
        for kind, attach_type, made in PROGRAMS:
            os.close(bpf.load(kind, attach_type, made(rules).assembled()))
