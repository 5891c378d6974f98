"""Every attempt of ``probes``, by root inside jails of several kinds, and by a root whom nothing confines.

What is exposed is listed here by name, each with the reason; docs/attacks.md has the same list for people.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Set
from pathlib import Path

import pytest

from tests.kernel import hostile
from tests.kernel.confined import needs_a_judge
from tests.kernel.conftest import Command
from tests.kernel.stage import Stage

# In every jail.
EXPOSED = {
    "leaks: the root's path in mountinfo": "where an idmapped mount was cloned from: docs/decisions/0022-root-below.md",
    "leaks: the host's disk in mountinfo": "likewise its device",
    "leaks: memory, load and processes by sysinfo": "it knows no namespace; refused, glibc makes the answer up",
    "leaks: the file system's size": "statfs(2), as on FreeBSD; a file system of its own closes it",
    "leaks: the range of its uids": "uid_map is the process's own file",
    "leaks: the range of its uids in mountinfo": "options of the jail's own devpts and tmpfs",
    "leaks: how long the host has been up, by time idle": "the second word of /proc/uptime, whose first must tick",
    "leaks: how long the host has been up, by the time namespace": "timens_offsets is the process's own file",
    "leaks: how long the host has been up, by when it was scheduled": "/proc/PID/sched is the process's own file",
    "leaks: how many sessions there were, by autogroup": "/proc/PID/autogroup is the process's own file",
    "leaks: packets of the machine in /proc/net/softnet_stat": "/proc/net is /proc/PID/net: a process's own directory",
    "leaks: memory of all sockets in /proc/net/sockstat": "likewise",
    "leaks: routes of the machine in /proc/net/stat/rt_cache": "likewise",
}
# The files below /proc/1 are the host's uid 0's, so the jail's root may open these; what asks for more than that to be
# read or written (memory, descriptors, program, tracing) is refused.
SHARED = {
    f"processes: PID 1, {name}"
    for name in "fd map_files stack syscall io personality uid_map oom_score_adj clear_refs".split()
}
# ip4=inherit is the host's network by its name.
INHERITED = {
    "ipc: unix sockets of the host in /proc/net/unix",
    "namespaces: those that are the host's",
    "network: the host's interfaces",
    *(f"network: the host's sockets in /proc/net/{name}" for name in ("tcp", "tcp6", "udp", "udp6")),
}
INHERITED_ESCAPES = {
    "network: a service on the host's loopback",
    "network: a service on the host's IPv6 loopback",
    "network: a service at another of the host's addresses",
    "network: bind the host's address",
}
STACK_ESCAPES = {"network: a service at another of the host's addresses"}
# vnet: what these change is its own stack, as the name says; tests/kernel/test_vnet_inside.py compares the host's.
_CONFIGURES = (
    "add an address, add a route, add a rule, set a link up, change the MTU, change the hardware address, "
    "rename a link, add a neighbour, add a queueing discipline, move an interface, attach an XDP program, "
    "make an interface"
)
_SYSCTLS = (
    "ipv4/ip_forward, ipv4/ip_unprivileged_port_start, ipv4/ping_group_range, ipv4/conf/all/accept_source_route, "
    "core/somaxconn, ipv6/conf/all/forwarding"
)
_MARKS = "SO_MARK, SO_PRIORITY 7, IP_TRANSPARENT, IPV6_TRANSPARENT, TCP_REPAIR"
VNET: tuple[set[str], set[str]] = (
    {f"network: {name}" for name in _CONFIGURES.split(", ")}
    | {f"proc: write sys/net/{name}" for name in _SYSCTLS.split(", ")}
    | {"proc: write anything below /proc/sys"}
    | {f"sockets: option {name}" for name in _MARKS.split(", ")},
    # The first is the filter's own answer, and no driver's.
    {f"network: SIOC{name}" for name in ("ETHTOOL, reset", "SIFHWADDR", "SIFMTU", "SIFNAME")}
    | {"network: name another network namespace", "network: nftables"}
    | {f"sockets: {name}" for name in ("family 17", "family 17, its high half garbage", "netlink 12", "netlink 16")}
    | {f"sockets: {name}" for name in ("other protocols of inet", "other protocols of inet6", "packet")}
    | {f"sockets: raw {name}" for name in ("ICMP", "IPv6", "with the header")},
)
# path=/ confines no files, as on FreeBSD: these find the host's tree, which is the jail's.
ROOT_ESCAPES = {
    "files: the host's path as it is",
    "files: chroot twice",
    "files: chroot with a directory left open",
    "files: a directory moved out while one is in it",
    "files: .. with openat",
    "files: /proc/PID/root of every process",
    "files: /proc/PID/cwd of every process",
}

Attack = Callable[..., hostile.Report]


@pytest.fixture(scope="module")
def hostile_root(request: pytest.FixtureRequest, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the attempts are made; its content is a hostile root's, and no test may rely on it."""
    return hostile.prepare(request, stage, tmp_path_factory)


@pytest.fixture(scope="module")
def facts(
    stage: Stage, hostile_root: Path, jail: Command, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The host with something on it to be found, and another jail."""
    with hostile.host(stage, tmp_path_factory.mktemp("host"), hostile_root) as known:
        made = jail("-c", "name=sibling", "path=/", "persist", "sysvmsg=new", "sysvsem=new", "sysvshm=new")
        assert made.returncode == 0, made.stderr
        argv = [str(checkout / "bin/jexec"), "sibling", *hostile.sibling(known)]
        other = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        yield known
        other.kill()
        other.communicate()
        removed = jail("-R", "sibling")
        assert removed.returncode == 0, removed.stderr


@pytest.fixture
def attack(stage: Stage, jail: Command, jexec: Command, facts: dict[str, str]) -> Attack:
    """Start a jail, make the attempts in it as root, and stop it."""

    def run(path: str, *parameters: str, where: str = "/opt", name: str = "attacked") -> hostile.Report:
        made = jail("-i", "-c", f"name={name}", "persist", f"path={path}", *parameters)
        assert made.returncode == 0, made.stderr
        try:
            base = hostile.base_of(stage, made.stdout.strip())
            given = {**facts, "base": "" if base == "0" else base, "root": "" if path == "/" else facts["root"]}
            done = jexec(name, *hostile.program("probes", where=where), stdin=json.dumps(given), timeout=600)
        finally:
            removed = jail("-r", name)
        assert done.returncode == 0, done.stderr
        assert removed.returncode == 0, removed.stderr
        return hostile.Report.of(done.stdout)

    return run


def _judge(report: hostile.Report, exposed: Set[str] = frozenset(), escaped: Set[str] = frozenset()) -> None:
    assert len(report.results) > 800, report.counts()
    assert not report.names("broken"), report.lines("broken")
    strange = report.names("escaped") - escaped
    assert not strange, report.lines("escaped")
    more = report.names("exposed") - EXPOSED.keys() - exposed
    assert not more, "\n".join(f"{name}: {report.results[name][1]}" for name in sorted(more))


def test_default(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root)))


def test_with_an_address(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "ip4.addr=192.0.2.7", "ip6.addr=2001:db8::7"))


def test_with_ipc_of_its_own(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "sysvmsg=new", "sysvsem=new", "sysvshm=new"))


# What root may do more with a parameter, and no more than this.
MOUNTS = "enforce_statfs=1 allow.mount allow.mount.nullfs"
MOUNTED = ({"mounts: recursive bind mount"}, {"calls: mount", "calls: umount2"})
_RAW = ("other protocols of inet", "raw ICMP", "raw with the header", "ping")
ALLOWED = {
    "allow.set_hostname": ({"calls: host name", "calls: domain name"}, set()),
    "allow.raw_sockets": (
        # CAP_NET_RAW; sources are filtered at the host's end, and marks do not leave the namespace.
        {f"sockets: option {name}" for name in ("IP_TRANSPARENT", "SO_MARK", "SO_PRIORITY 7")},
        {f"sockets: {name}" for name in _RAW},
    ),
    # All families there are, vsock among them, whose peer is the hypervisor: as its name says.
    "allow.socket_af": (
        set(),
        {f"sockets: family {number}" for number in range(48)}
        | {f"sockets: netlink {number}" for number in range(24)}
        | {"sockets: netlink 9, its high half garbage", "network: nftables", "network: sock_diag"}
        | {f"sockets: family {number}, its high half garbage" for number in (38, 40, 44)}
        | {"sockets: other protocols of inet", "sockets: SCTP", "sockets: DCCP"}
        | {f"sockets: pair of family {number}" for number in (30, 40, 44)},
    ),
    "allow.nosuser": (set(), set()),
    # What the jail was given is locked, so only all of it can be had in another place, as it is.
    MOUNTS: MOUNTED,
    "allow.mlock": (
        {f"resources: {name}" for name in ("mlock", "mlockall", "memory locked by MAP_LOCKED")},
        set(),
    ),
    "allow.sysvipc": (
        {f"ipc: the host's {name}" for name in ("shared memory", "semaphores", "message queue", "POSIX message queue")}
        | {"ipc: any shared memory by index (SHM_STAT_ANY)"},
        {"ipc: what /proc/sysvipc and /dev/mqueue list", "namespaces: those that are the host's"},
    ),
}


@pytest.mark.parametrize("parameter", ALLOWED)
def test_what_a_parameter_allows(attack: Attack, hostile_root: Path, parameter: str) -> None:
    escaped, exposed = ALLOWED[parameter]
    _judge(attack(str(hostile_root), *parameter.split(), "ip4.addr=192.0.2.7"), exposed, escaped)


# The broker of a jail that may have others is there to be asked, and makes their user namespaces.
OUTER = {"namespaces: how many user namespaces may be made"}


def test_with_jails_in_it(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "children.max=3"), OUTER)


def test_in_a_jail(attack: Attack, hostile_root: Path, jail: Command) -> None:
    made = jail("-c", "name=outer", "path=/", "children.max=3", "persist")
    assert made.returncode == 0, made.stderr
    try:
        _judge(attack(str(hostile_root), name="outer.attacked"))
    finally:
        assert jail("-r", "outer").returncode == 0


def test_the_hosts_network(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "ip4=inherit"), INHERITED, INHERITED_ESCAPES)


def test_the_hosts_stack(attack: Attack, hostile_root: Path) -> None:
    """Held to the jail's addresses; what listens on the host's others can be reached, as from anywhere on the LAN."""
    words = ("interface=lo", "ip4.addr=192.0.2.7", "ip6.addr=2001:db8::7", "ng.stack=shared")
    _judge(attack(str(hostile_root), *words), set(), STACK_ESCAPES)


def test_the_hosts_names(attack: Attack, hostile_root: Path) -> None:
    """They are read, as the parameter says, and not changed."""
    _judge(
        attack(str(hostile_root), "host=inherit"), {"namespaces: those that are the host's", "leaks: the host's name"}
    )


def test_the_hosts_uids(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "ng.uids=shared"), SHARED)


@needs_a_judge
def test_file_systems(attack: Attack, hostile_root: Path) -> None:
    """All that can be mounted."""
    escaped, exposed = MOUNTED
    kinds = ["allow.mount.tmpfs", "allow.mount.fusefs"]
    report = attack(str(hostile_root), *MOUNTS.split(), *kinds)
    device = {"devices: open /dev/fuse"}
    _judge(report, exposed | {"devices: what is in /dev"}, escaped | device | {"mounts: mount tmpfs"})
    assert report.results["mounts: mount fuse"] == ("held", "Invalid argument")  # of a server that is none


def test_the_hosts_uids_and_mounts(attack: Attack, hostile_root: Path) -> None:
    escaped, exposed = MOUNTED
    _judge(attack(str(hostile_root), "ng.uids=shared", *MOUNTS.split()), SHARED | exposed, escaped)


def test_the_hosts_tree(attack: Attack) -> None:
    _judge(attack("/", where=str(hostile.PROBES.parent)), escaped=ROOT_ESCAPES)


def test_the_attempts_can_succeed(hostile_root: Path, facts: dict[str, str]) -> None:
    """Root whom nothing but chroot(2) confines gets what jails are denied, or the attempts would show nothing.

    What he does not get either this kernel has not: x32, modules, half of the netlink protocols.
    """
    report = hostile.unconfined(hostile_root, facts)
    assert not report.names("broken"), report.lines("broken")
    counts = report.counts()
    assert counts["escaped"] > 200 and counts["exposed"] > 200, counts
    classes = {name.partition(":")[0] for name in report.results}
    succeeded = {name.partition(":")[0] for name in report.names("escaped") | report.names("exposed")}
    assert succeeded == classes


def test_a_stack_of_its_own(attack: Attack, hostile_root: Path) -> None:
    _judge(attack(str(hostile_root), "vnet"), VNET[1], VNET[0])
