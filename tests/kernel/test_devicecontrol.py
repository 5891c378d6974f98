"""Who has a device node in hand, in a jail's cgroup, opens what the jail's rule set shows, and makes none."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from jailng.core.devicecontrol import LABEL
from jailng.linux.libc import NR
from tests.kernel import confined
from tests.kernel.conftest import Command
from tests.kernel.stage import Stage, mount, unmount

# What is tried: no memory, disk or machine is harmed where it succeeds. The major of ``disk`` is for experiments.
NODES = {
    "null": (0o020666, 1, 3),
    "random": (0o020666, 1, 8),
    "kmsg": (0o020600, 1, 11),
    "loop-control": (0o020600, 10, 237),
    "disk": (0o060600, 60, 1),
}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Path]:
    """Devices on a file system that has them."""
    place = tmp_path / "nodes"
    place.mkdir()
    mount("none", place, "tmpfs", 0, "mode=700")
    for name, (mode, major, minor) in NODES.items():
        os.mknod(place / name, mode, os.makedev(major, minor))
    yield place
    unmount(place)


def _tried(nodes: Path, *cgroups: Path) -> dict[str, str]:
    """What root of the host, with all privileges, cannot do in these cgroups (the last is where it stays)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        found = {}
        try:
            for cgroup in cgroups:
                (cgroup / "cgroup.procs").write_text("0")
            for name in NODES:
                try:
                    os.close(os.open(nodes / name, os.O_RDONLY))
                except OSError as why:
                    found[name] = errno.errorcode[why.errno or 0]
            try:
                os.mknod(nodes / "new", 0o020666, os.makedev(1, 3))
                os.unlink(nodes / "new")
            except OSError as why:
                found["mknod"] = errno.errorcode[why.errno or 0]
            os.mkfifo(nodes / "fifo")
            os.unlink(nodes / "fifo")
            os.write(writing, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as told:
        result: dict[str, str] = json.loads(told.read())
    return result


# As they are without the program: nobody has that drive.
FREE = {"disk": "ENXIO"}
REFUSED = dict.fromkeys(("kmsg", "loop-control", "disk", "mknod"), "EPERM")


@pytest.fixture
def rules(etc: Path) -> None:
    (etc / "devfs.rules").write_text("[shows=20]\nadd include $devfsrules_jail\nadd path loop-control unhide\n")


def test_a_node_in_hand(jail: Command, small_root: Path, stage: Stage, nodes: Path) -> None:
    assert _tried(nodes) == FREE
    for name in ("cell", "another"):
        assert jail("-c", f"name={name}", f"path={small_root}", "persist").returncode == 0
    try:
        jids = [path for path in (stage.cgroup2 / "jailng").iterdir() if path.is_dir()]
        assert len(jids) == 2
        for path in jids:
            for leaf in ("members", "init"):
                assert _tried(nodes, path / leaf) == REFUSED
    finally:
        jail("-R", "*")


def test_what_a_rule_shows(
    jail: Command, jls: Command, jexec: Command, small_root: Path, stage: Stage, nodes: Path, rules: None
) -> None:
    """The jail's own devices, and no other's; another jail at the same time has not got them."""
    try:
        for name, ruleset in (("cell", "20"), ("plain", "4"), ("bare", "1")):
            made = jail("-c", f"name={name}", f"path={small_root}", f"devfs_ruleset={ruleset}", "persist")
            assert made.returncode == 0, made.stderr
        opened = jexec(
            "cell", "/bin/sh", "-c", "exec 3</dev/loop-control; exec 4</dev/random; exec 5<>/dev/null; echo fine"
        )
        assert (opened.stdout, opened.stderr) == ("fine\n", "")
        members = {name: _members(stage, jls, name) for name in ("cell", "plain", "bare")}
        assert _tried(nodes, members["cell"]) == {name: why for name, why in REFUSED.items() if name != "loop-control"}
        assert _tried(nodes, members["plain"]) == REFUSED
        assert _tried(nodes, members["bare"]) == REFUSED | {"random": "EPERM"}
    finally:
        jail("-R", "*")


def _members(stage: Stage, jls: Command, name: str) -> Path:
    *outer, jid = [jls("-j", above, "jid").stdout.strip() for above in _with_those_above(name)]
    return stage.cgroup2.joinpath("jailng", *[part for above in outer for part in (above, "members")], jid, "members")


def _with_those_above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def test_jails_in_jails(
    jail: Command, jls: Command, jexec: Command, checkout: Path, stage: Stage, nodes: Path, rules: None
) -> None:
    """Whoever makes them makes their nodes, from beside the outer jail's members; they have what that has."""
    command = str(checkout / "bin/jail")
    words = ("path=/", "persist")
    try:
        made = jail("-c", "name=top", "devfs_ruleset=20", "children.max=3", *words)
        assert made.returncode == 0, made.stderr
        made = jexec("top", command, "-c", "name=in", "children.max=1", *words)
        assert made.returncode == 0, made.stderr
        made = jexec("top.in", command, "-c", "name=deep", *words)
        assert made.returncode == 0, made.stderr
        for name in ("top", "top.in", "top.in.deep"):
            done = jexec(name, "/bin/sh", "-c", "exec 3</dev/loop-control; exec 4<>/dev/null; echo fine")
            assert (done.stdout, done.stderr) == ("fine\n", "")
            members = _members(stage, jls, name)
            assert _tried(nodes, members) == {name: why for name, why in REFUSED.items() if name != "loop-control"}
    finally:
        jail("-R", "top")


def test_a_kernel_without_such_programs(jail: Command, checkout: Path, small_root: Path) -> None:
    """bpf(2) fails as where it is not built in: the jail is not started, or with ng.lenient it is said."""
    words = (str(checkout / "bin/jail"), "-c", "name=cell", f"path={small_root}")
    refused = _without_bpf(*words, "command=/bin/echo", "in")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"jail: {LABEL}: Function not implemented\n"
    lenient = _without_bpf(*words, "ng.lenient", "command=/bin/echo", "in")
    assert (lenient.returncode, lenient.stdout) == (0, "in\n")
    assert lenient.stderr == f"jail: {LABEL}: not supported by this kernel\n"


def _without_bpf(*argv: str) -> subprocess.CompletedProcess[str]:
    rules = ((0x20, 0, 0, 0), (0x15, 0, 1, NR["bpf"]), (6, 0, 0, 0x50000 | errno.ENOSYS), (6, 0, 0, 0x7FFF0000))
    program = b"".join([struct.pack("=HBBI", *rule) for rule in rules])
    without = partial(confined.attach, program)
    return subprocess.run(argv, preexec_fn=without, stdin=subprocess.DEVNULL, capture_output=True, text=True)
