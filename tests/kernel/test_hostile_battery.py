"""Every probe of ``jailctl audit``, by root inside jails of several kinds, and where it is to fail.

What stays exposed in every jail, and what a parameter opens, stands in jailng.audit.expected, each with the reason;
docs/attacks.md has the same for people.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jailng.audit import enter, expected, kernel, planted
from jailng.audit.catalogue import matches
from jailng.audit.probe import PROBES
from jailng.core import registry
from jailng.params import table
from tests.kernel import debian as roots
from tests.kernel import hostile
from tests.kernel.confined import needs_a_judge
from tests.kernel.conftest import Command
from tests.kernel.hostile import Report
from tests.kernel.stage import Stage

Attack = Callable[..., Report]


@pytest.fixture(scope="module")
def hostile_root(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the attempts are made; its content is a hostile root's, and no test may rely on it."""
    return hostile.prepare(request, stage, tmp_path_factory)


@pytest.fixture(scope="module")
def facts(hostile_root: Path, jail: Command, checkout: Path) -> Iterator[dict[str, str]]:
    """The host with something on it to be found, and another jail."""
    with hostile.host(hostile_root) as known:
        made = jail("-c", "name=sibling", "persist", *planted.SIBLING_WORDS)
        assert made.returncode == 0, made.stderr
        argv = [str(checkout / "bin/jexec"), "sibling", *planted.sibling(known)]
        other = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        yield known
        other.communicate("")
        removed = jail("-R", "sibling")
        assert removed.returncode == 0, removed.stderr


@pytest.fixture
def attack(jail: Command, facts: dict[str, str], checkout: Path) -> Attack:
    """Start a jail, make the attempts in it as root, and stop it."""

    def run(path: str, *parameters: str, name: str = "attacked") -> Report:
        made = jail("-c", f"name={name}", "persist", f"path={path}", *parameters)
        assert made.returncode == 0, made.stderr
        try:
            record = registry.find(name)
            assert record is not None
            given = {**facts, "root": "" if path == "/" else facts["root"]}
            said = hostile.run([str(checkout / "bin/jexec"), name], given)
        finally:
            removed = jail("-r", name)
        assert removed.returncode == 0, removed.stderr
        return Report(said, given, expected.given(record.params))

    return run


def _judge(report: Report, *opening: str) -> None:
    """Nothing is exposed but what is known to be, or what these parameters open; and those do open what they say."""
    assert not report.names("unknown"), report.lines("unknown")
    assert not report.names("escaped"), report.lines("escaped")
    more = report.names("exposed") - expected.KNOWN.keys()
    assert not more, "\n".join(f"{name}: {report.results[name].said}" for name in sorted(more))
    opened = report.names("opened")
    assert {report.results[name].why.removeprefix("opened by ") for name in opened} == set(opening)


def test_default(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root)))


def test_with_an_address(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "ip4.addr=192.0.2.7", "ip6.addr=2001:db8::7"))


def test_with_ipc_of_its_own(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "sysvmsg=new", "sysvsem=new", "sysvshm=new"))


PINGS = {"sockets: ping", "sockets: ping of IPv6"}
MOUNTS = "enforce_statfs=1 allow.mount allow.mount.nullfs"
ALLOWED = {
    "allow.set_hostname": "allow.set_hostname",
    "allow.raw_sockets": "allow.raw_sockets",
    "allow.socket_af": "allow.socket_af",
    "allow.mlock": "allow.mlock",
    "allow.sysvipc": "allow.sysvipc",
    MOUNTS: "allow.mount.nullfs",
    # These open nothing; the second and the last shut something.
    "allow.nosuser": "",
    "allow.noreserved_ports": "",
    "allow.nounprivileged_proc_debug": "",
    "allow.vmm": "",
}


@pytest.mark.parametrize("words", ALLOWED)
def test_what_a_parameter_allows(attack: Attack, hostile_root: Path, words: str) -> None:
    """What its row says, and nothing else."""
    parameter = ALLOWED[words]
    report = attack(str(hostile_root), *words.split(), "ip4.addr=192.0.2.7", "ip6.addr=2001:db8::7")
    _judge(report, *filter(None, [parameter]))
    # No pattern of the row is there for nothing, but for what this kernel has not.
    for pattern in expected.OPENED.get(parameter, "").replace("\n", "|").split("|"):
        able = {one for one in report.names("opened", "held") if matches(one, pattern)}
        if parameter == "allow.socket_af" and kernel.lacks("sockets: SCTP"):
            able -= {"sockets: other protocols of inet", "sockets: other protocols of inet6"}
        if parameter == "allow.raw_sockets":
            able -= PINGS  # a network of the jail's own lets nobody ping so
        assert not able or report.names("opened") & able, pattern


@pytest.mark.parametrize("words", ["", "allow.raw_sockets"])
def test_ping_sockets_of_the_hosts_network(attack: Attack, hostile_root: Path, words: str) -> None:
    """Whom the host lets ping, as systemd has it, is no matter: it is for allow.raw_sockets to say."""
    file = Path("/proc/sys/net/ipv4/ping_group_range")
    before = file.read_text()
    file.write_text("0 2147483647")
    try:
        report = attack(str(hostile_root), "ip4=inherit", *words.split())
    finally:
        file.write_text(before)
    _judge(report, "ip4=inherit", *words.split())
    assert ("sockets: ping" in report.names("opened")) is bool(words)


def test_every_parameter_that_is_allowed_is_tried() -> None:
    rows = filter(None, map(table.lookup, table.names()))
    honoured = {row.name for row in rows if row.name.startswith("allow.") and not row.refused and not row.pseudo}
    mounts = {"allow.mount", "allow.mount.nullfs", "allow.mount.tmpfs", "allow.mount.fusefs"}
    of_guests = {"allow.cgroup"}
    assert honoured - mounts - of_guests == {word.replace("allow.no", "allow.") for word in ALLOWED if word != MOUNTS}


def test_with_an_init_of_the_guests_own(attack: Attack, hostile_root: Path) -> None:
    """PID 1 is one of its processes, and a part of its cgroup its own."""
    for name, lines in (
        ("init", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"),
        ("poweroff", "kill -TERM 1"),
    ):
        (hostile_root / "sbin" / name).write_text(f"#!/bin/sh\n{lines}\n")
        (hostile_root / "sbin" / name).chmod(0o755)
    words = ("ng.init=sysv", "allow.cgroup")
    _judge(attack(str(hostile_root), *words), *words)


def test_with_jails_in_it(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "children.max=3"), "children.max")


def test_in_a_jail(attack: Attack, hostile_root: Path, jail: Command) -> None:
    made = jail("-c", "name=outer", "path=/", "children.max=3", "persist")
    assert made.returncode == 0, made.stderr
    try:
        _judge(attack(str(hostile_root), name="outer.attacked"))
    finally:
        assert jail("-r", "outer").returncode == 0


def test_the_hosts_network(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "ip4=inherit"), "ip4=inherit")


def test_the_hosts_stack(attack: Attack, hostile_root: Path) -> None:
    """Held to the jail's addresses; what listens on the host's others can be reached, as from anywhere on the LAN."""
    words = ("interface=lo", "ip4.addr=192.0.2.7", "ip6.addr=2001:db8::7", "ng.stack=shared")
    _judge(attack(str(hostile_root), *words), "ng.stack=shared")


def test_the_hosts_names(attack: Attack, hostile_root: Path) -> None:
    """They are read, as the parameter says, and not changed."""
    _judge(attack(str(hostile_root), "host=inherit"), "host=inherit")


@needs_a_judge
def test_file_systems(attack: Attack, hostile_root: Path) -> None:
    """All that can be mounted."""
    kinds = ["allow.mount.tmpfs", "allow.mount.fusefs"]
    _judge(attack(str(hostile_root), *MOUNTS.split(), *kinds), "allow.mount.nullfs", *kinds)


def test_the_hosts_uids_and_mounts(attack: Attack, hostile_root: Path) -> None:
    report = attack(str(hostile_root), "ng.uids=shared", *MOUNTS.split())
    _judge(report, "ng.uids=shared", "allow.mount.nullfs")


def test_the_hosts_tree(attack: Attack) -> None:
    _judge(attack("/"), "path=/")


def test_a_stack_of_its_own(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "vnet"), "vnet")


def test_what_is_too_rough_for_a_host_at_work(hostile_root: Path, jail: Command, jexec: Command) -> None:
    """What the audit does not try."""
    made = jail("-c", "name=attacked", "persist", f"path={hostile_root}")
    assert made.returncode == 0, made.stderr
    try:
        done = jexec("attacked", *hostile.program("probes.rough"))
    finally:
        assert jail("-r", "attacked").returncode == 0
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 5 and {verdict for verdict, _ in found.values()} == {"held"}, found


# What the painted /proc and /sys of tests.kernel.control hold, where nothing else can be had that lets a probe fail.
PAINTED = {
    **{f"proc/{name}": "x" for name in "novel kcore keys mtrr locks acpi/wakeup driver/x scsi/scsi asound/x".split()},
    "proc/self/fd/9": "",
    "proc/stat": "cpu900 1\n",
    "proc/uptime": "100.00 99999.00\n",
    "proc/self/timens_offsets": "monotonic 9999999 0\n",
    "proc/self/status": "NSpid:\t12\t1\n",
    "proc/self/uid_map": "0 0 0\n0 1879048192 65536\n",
    "proc/self/cgroup": "0::/painted/cgroup\n",
    "proc/1/cgroup": "0::/painted/cgroup\n",
    "proc/cpuinfo": "processor: 900\nmicrocode: 1\n",
    "proc/meminfo": "Buffers: 99999999 kB\n",
    "proc/self/mountinfo": "1 1 0:1 / / uid=1879048192 ROOT\n",
    "proc/self/mounts": "x ROOT x\n",
    "proc/self/stat": "1 (x) S\n",
}


@pytest.fixture(scope="module")
def failing(
    hostile_root: Path, facts: dict[str, str], stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Report]:
    """What came of the probes in the places of tests.kernel.control."""
    given = tmp_path_factory.mktemp("control") / "facts"
    small = roots.small(tmp_path_factory.mktemp("painted") / "root")
    known = {
        **facts,
        "base": "1879048192",
        "sibling address": "127.0.0.1",
        "root": str(hostile_root),
        "cgroup": "/painted/cgroup",
    }
    given.write_text(json.dumps(known))
    painted = {name: content.replace("ROOT", known["root"]) for name, content in PAINTED.items()}
    for name in PROBES:
        kind, _, what = name.partition(": ")
        verb, _, path = what.partition(" ")
        where = path[1:] if path.startswith("/") else f"{kind}/{path}"
        if kind in ("proc", "sys") and verb in ("read", "write") and path and " " not in path:
            painted.setdefault(where, "x")
        if kind == "leaks" and verb == "counter":
            painted[f"proc/sys/{path}"] = "7 7\n"
    for name in [one for one in painted if any(other.startswith(f"{one}/") for other in painted)]:
        del painted[name]
    os.environ["PAINTED"] = json.dumps(painted)
    realtime = [h.mounted.target + "/cpu.rt_runtime_us" for h in stage.hierarchies]
    realtime = [file for file in realtime if os.path.exists(file)]
    switches = ("ipv4/ping_group_range", "ipv4/ip_nonlocal_bind", "ipv6/ip_nonlocal_bind")
    before = {name: Path("/proc/sys/net", name).read_text() for name in switches}
    for file in realtime:
        Path(file).write_text("10000")
    try:
        for name in switches:
            Path("/proc/sys/net", name).write_text("0 0" if "range" in name else "1")
        return {
            f"{place} {prefix}": _fail(given, place, small if place == "painted" else hostile_root, known, prefix)
            for place, prefix in PLACES
        }
    finally:
        del os.environ["PAINTED"]
        for file in realtime:
            Path(file).write_text("0")
        for name, content in before.items():
            Path("/proc/sys/net", name).write_text(content)


PLACES = (
    *(("plain", ""), ("painted", ""), ("masked", "mounts:"), ("files", "ipc:")),
    *(("host", prefix) for prefix in ("namespaces:", "files:", "leaks:", "processes: the", "mounts: remount")),
)


def _fail(given: Path, place: str, root: Path, known: dict[str, str], prefix: str) -> Report:
    argv = [sys.executable, "-m", "tests.kernel.control", str(given), place, str(root)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = subprocess.Popen(
            [*argv, *enter.command(known, prefix)],
            stdin=theirs.fileno() if place != "files" else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=hostile.PROBES.parents[2],
            env={**os.environ, "PYTHONPATH": "src"},
        )
        theirs.close()
        if place != "files":
            made.stdin = os.fdopen(os.dup(ours.fileno()), "wb", 0)
            ours.close()
        given_facts = dict(known)
        said = enter.run(made, given_facts)
        return Report(said, {**given_facts, **{name: known[name] for name in ("base", "root", "cgroup")}})


def test_every_probe_can_fail(failing: dict[str, Report]) -> None:
    """A probe that cannot shows nothing."""
    for place, report in failing.items():
        report.results = {name: one for name, one in report.results.items() if one.said != "nothing was said of it"}
        assert place.startswith("painted") or not report.names("unknown"), report.lines("unknown")
    failed = {name for report in failing.values() for name in report.names("exposed", "escaped")}
    absent, held = (
        {name for report in failing.values() for name in report.names(state)} for state in ("absent", "held")
    )
    never = {name for name in PROBES.keys() - failed - (absent - held) if not kernel.lacks(name)}
    assert not never, "\n".join(
        f"{name}: {[report.results[name].said for report in failing.values() if name in report.results]}"
        for name in sorted(never)
    )
    # And in every class, most of them.
    assert len(failed) > 500
