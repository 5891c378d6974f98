"""SIGKILL at every step of a command: what it leaves, and that the next command finds the truth and clears it away."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.linux import cgroup, controller, processid
from tests.kernel import faults
from tests.kernel.conftest import Command, _command
from tests.kernel.faults import STRIDE, Step
from tests.kernel.leftovers import indexed
from tests.kernel.networks import Namespace, inside, ip, run
from tests.kernel.stage import Stage, mounts, own_logs, unmount
from tests.kernel.stdio_host import is_pending
from tests.kernel.test_vnet import look

ADDRESS = "198.51.100.10"
_PF_EXITING = 4
Found = Callable[[], str]


@pytest.fixture
def remains(stage: Stage) -> Found:
    """What there still is of any jail, in a line; no waiting, for a removal is over when the command is.

    Interfaces are left to the fixture that compares the host: the kernel takes them as it gets to it.
    """

    def look() -> str:
        found = [str(path) for path in Path("/run/jailng/jails").glob("*")]
        found += [f"index: {line}" for line in indexed()]
        for hierarchy in stage.hierarchies:
            found += [str(path) for path in Path(hierarchy.mounted.target, "jailng").glob("*") if path.is_dir()]
        return "; ".join(found)

    return look


class Trial:
    """A command that is killed at one step after another, and how the world is put back in order after each."""

    def __init__(
        self, checkout: Path, trace: Path, jail: Command, jls: Command, jexec: Command, remains: Found
    ) -> None:
        self.bin = checkout / "bin"
        self.trace = trace
        self.jail = jail
        self.jls = jls
        self.jexec = jexec
        self.remains = remains
        self.wrong: list[str] = []
        self.killed = 0

    def steps(self, program: str, *arguments: str) -> list[Step]:
        found = faults.steps(self.trace, str(self.bin / program), *arguments)
        offset = os.getpid() % STRIDE  # others on other runs
        return found[offset::STRIDE]

    def kill(self, step: Step, program: str, *arguments: str) -> bool:
        """False where the command had other calls this time, and the step did not come."""
        done = faults.run(step, "signal=SIGKILL", str(self.bin / program), *arguments)
        if "Traceback" in done.stderr:
            self.note(step, done.stderr)
        killed = done.returncode == -signal.SIGKILL
        self.killed += killed
        return killed

    def note(self, step: Step, what: str) -> None:
        self.wrong.append(f"{step}\n    {what.strip()}")

    def there(self, step: Step, name: str) -> bool:
        """Whether jls(8) has the jail; and where it has, that a process can be brought into it."""
        if self.jls("-j", name, "jid").returncode:
            return False
        entered = self.jexec(name, "/bin/true")
        if self._dies(name):
            return False
        if entered.returncode:
            if self.jls("-j", name, "jid").returncode:
                return False  # it had been killed, and was about to die
            self.note(step, f"jls has it, but jexec: {entered.stderr}")
        return True

    def _dies(self, name: str) -> bool:
        """Whether its PID 1 has been killed; then wait for its end, which may take a moment."""
        record = registry.find(name)
        if record is None:
            return True
        try:
            pidfd = os.pidfd_open(record.init_pid)
            flags = int(Path(f"/proc/{record.init_pid}/stat").read_text().rpartition(") ")[2].split()[6])
        except OSError:
            return True
        dies = bool(flags & _PF_EXITING) or is_pending(record.init_pid, signal.SIGKILL)
        if dies:
            assert select.select([pidfd], [], [], 60)[0]
        os.close(pidfd)
        return dies

    def expect(self, step: Step, *arguments: str) -> None:
        done = self.jail(*arguments)
        if done.returncode or done.stderr:
            self.note(step, f"then jail {' '.join(arguments[:2])}: {done.returncode} {done.stderr}")

    def nothing_remains(self, step: Step) -> None:
        if found := self.remains():
            self.note(step, f"remains: {found}")
            self.jail("-R", "*")

    def creation(self, *create: str, every: int = 1, then: Callable[[Step], None] | None = None) -> None:
        """Kill what makes the jail "a"; ``then`` looks at what is there once it was said again."""
        steps = self.steps("jail", *create)[::every]
        self.jail("-R", "a")
        assert not self.remains()
        for step in steps:
            self.kill(step, "jail", *create)
            if not self.there(step, "a"):
                self.expect(step, *create)
            if then is not None:
                then(step)
            self.expect(step, "-r", "a")
            self.nothing_remains(step)
        self.verdict()

    def verdict(self) -> None:
        assert self.killed, "no command was killed, so nothing was tried"
        assert not self.wrong, "\n".join([f"{len(self.wrong)} steps:", *self.wrong])


@pytest.fixture
def trial(checkout: Path, tmp_path: Path, jail: Command, jls: Command, jexec: Command, remains: Found) -> Trial:
    return Trial(checkout, tmp_path / "trace", jail, jls, jexec, remains)


def test_creation(trial: Trial, small_root: Path) -> None:
    trial.creation("-c", "name=a", "jid=7", f"path={small_root}", "persist")


LIMITS = "ng.limits=maxproc:deny=%d,memoryuse:deny=64M,pcpu:deny=%d,nshm:deny=%d,openfiles:deny=%d"


def test_creation_with_limits(trial: Trial, small_root: Path) -> None:
    trial.creation("-c", "name=a", "jid=7", f"path={small_root}", "persist", LIMITS % (20, 50, 5, 100))


def test_modification_of_limits(trial: Trial, small_root: Path, stage: Stage) -> None:
    """Killed anywhere, the same command afterwards gives the jail what it says; and what it had, another."""
    trial.jail("-c", "name=a", "jid=7", f"path={small_root}", "persist", LIMITS % (20, 50, 5, 100))
    before = _limits_of(trial)
    modify = ("-m", "name=a", LIMITS % (30, 70, 6, 90))
    steps = trial.steps("jail", *modify)
    after = _limits_of(trial)
    assert before != after
    for step in steps[::2]:
        trial.expect(step, "-m", "name=a", LIMITS % (20, 50, 5, 100))
        if _limits_of(trial) != before:
            trial.note(step, f"then {_limits_of(trial)}")
        trial.kill(step, "jail", *modify)
        if not trial.there(step, "a"):
            trial.note(step, "the jail is gone")
            break
        trial.expect(step, *modify)
        if _limits_of(trial) != after:
            trial.note(step, f"then {_limits_of(trial)}")
        trial.kill(step, "jail", "-m", "name=a", LIMITS % (20, 50, 5, 100))
    trial.expect(steps[-1], "-r", "a")
    trial.nothing_remains(steps[-1])
    trial.verdict()


WATCHED = "jail:a:wallclock:log=100000"


def test_creation_with_rules(trial: Trial, small_root: Path, checkout: Path) -> None:
    """Of which one is watched."""
    rctl = _command(checkout / "bin/rctl")
    assert rctl("-a", "jail:a:openfiles:deny=90", WATCHED).returncode == 0
    trial.creation("-c", "name=a", "jid=7", f"path={small_root}", "persist", every=4)
    assert rctl("-r", ":").returncode == 0


def test_a_rule_is_added(trial: Trial, small_root: Path, checkout: Path) -> None:
    """Killed anywhere, whatever rctl(8) lists afterwards is carried out."""
    rctl = _command(checkout / "bin/rctl")
    trial.jail("-c", "name=a", "jid=7", f"path={small_root}", "persist")
    add = ("-a", "jail:a:openfiles:deny=90", WATCHED)
    steps = trial.steps("rctl", *add)
    for step in steps[::3]:
        rctl("-r", ":")
        trial.kill(step, "rctl", *add)
        listed = rctl("-l", "jail:a").stdout
        files = trial.jexec("a", "/bin/busybox", "sh", "-c", "ulimit -n").stdout
        if (files == "90\n") is not ("openfiles" in listed):
            trial.note(step, f"{listed} and {files}")
        record = None
        for _ in range(100):  # what the killed command was starting may hold the jail's lock for a moment
            record = registry.load(7)
            if record is None or WATCHED not in listed or processid.is_alive(record.warden):
                break
            time.sleep(0.2)
            trial.jexec("a", "/bin/true")
        else:
            trial.note(step, f"{listed} and {record and record.warden}")
        if record is None:
            trial.note(step, "no record")
    trial.expect(steps[-1], "-r", "a")
    trial.nothing_remains(steps[-1])
    rctl("-r", ":")
    trial.verdict()


def _limits_of(trial: Trial) -> list[str]:
    """By the kernel."""
    found = [trial.jexec("a", "sh", "-c", "ulimit -n; cat /proc/sys/kernel/shmmni").stdout]
    for name, v1, v2 in (("pids", "pids.max", "members/pids.max"), ("cpu", "cpu.cfs_quota_us", "cpu.max")):
        top = controller.hierarchy(name)
        found.append(Path(top, "jailng/7", v1).read_text() if top else cgroup.read(f"jailng/7/{v2}").decode())
    return found


def _links(lan: Namespace) -> list[tuple[str, str, int]]:
    """Every interface; not its carrier, which a veth that was just made gets some time later."""
    return [(link["ifname"], link["address"], link["mtu"]) for link in json.loads(lan.run("ip", "-j", "link"))]


def test_creation_with_an_address(trial: Trial, small_root: Path, lan: Namespace) -> None:
    before = _links(lan)
    trial.creation(
        "-c", "name=a", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", "ip6.addr=2001:db8:1::10",
        "persist",
    )  # fmt: skip
    assert _links(lan) == before


def test_creation_on_the_host_s_stack(trial: Trial, small_root: Path, lan: Namespace, stage: Stage) -> None:
    """The broker of its sockets is no child of whoever makes the jail, and goes all the same."""
    trial.creation(
        "-c", "name=a", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", "ng.stack=shared",
        "persist",
    )  # fmt: skip
    until = time.monotonic() + 60
    while "jail-sockets" in stage.processes().values():
        assert time.monotonic() < until


@pytest.fixture
def wire() -> Iterator[str]:
    """An epair0b, with an epair0a at its other end."""
    ip("link add epair0a type veth peer name epair0b", "link set epair0b mtu 1400 alias wire")
    yield "epair0b"
    ip("link delete epair0a")


def _whole(trial: Trial, step: Step, wire: str, before: object) -> None:
    if (now := look(wire)) != before:
        trial.note(step, f"{now} is not {before}")


def test_creation_with_an_interface(trial: Trial, small_root: Path, wire: str) -> None:
    before = look(wire)
    create = ("-c", "name=a", f"path={small_root}", "vnet", f"vnet.interface={wire}", "persist")
    steps = trial.steps("jail", *create)
    trial.jail("-R", "a")
    for step in steps:
        trial.kill(step, "jail", *create)
        if not trial.there(step, "a"):
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
        _whole(trial, step, wire, before)
    trial.verdict()


def test_removal_with_an_interface(trial: Trial, small_root: Path, wire: str) -> None:
    before = look(wire)
    create = ("-c", "name=a", f"path={small_root}", "vnet", f"vnet.interface={wire}", "persist")
    trial.jail(*create)
    for step in trial.steps("jail", "-r", "a"):
        trial.kill(step, "jail", "-r", "a")
        if not trial.there(step, "a"):
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
        _whole(trial, step, wire, before)
        assert not trial.jail(*create).returncode
    trial.jail("-r", "a")
    trial.verdict()


def _with_mounts(root: Path) -> tuple[str, ...]:
    (root / "above").mkdir()
    (root.parent / "data").mkdir()
    lines = (
        f"{root.parent}/data {root}/var/tmp nullfs",
        f"t {root}/tmp tmpfs size=1m",
        f"{root.parent}/data {root}/above unionfs",
        f"r {root}/tmp ramfs",
    )
    return ("-c", "name=a", f"path={root}", *[f"mount={line}" for line in lines], "ng.uids=shared", "persist")


def _mounted(trial: Trial, step: Step, root: Path) -> None:
    if left := [found.target for found in mounts() if found.target.startswith(f"{root}/")]:
        trial.note(step, f"mounted: {' '.join(left)}")
        for target in reversed(left):
            unmount(target)


def test_creation_with_mounts(trial: Trial, small_root: Path) -> None:
    create = _with_mounts(small_root)
    steps = trial.steps("jail", *create)
    trial.jail("-R", "a")
    trial.jail("-r", "a")
    assert not trial.remains()
    for step in steps:
        trial.kill(step, "jail", *create)
        if not trial.there(step, "a"):
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
        _mounted(trial, step, small_root)
    trial.verdict()


def test_removal_with_mounts(trial: Trial, small_root: Path) -> None:
    create = _with_mounts(small_root)
    trial.jail(*create)
    for step in trial.steps("jail", "-r", "a"):
        assert not trial.jail(*create).returncode
        trial.kill(step, "jail", "-r", "a")
        if not trial.there(step, "a"):
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
        _mounted(trial, step, small_root)
    trial.verdict()


def test_creation_with_commands(trial: Trial, small_root: Path) -> None:
    """Killed before it says that the jail is up, the jail is none, for nobody will carry on with what is left."""
    create = (
        "-c",
        "name=a",
        f"path={small_root}",
        "exec.prestart=true",
        "exec.start=sleep 100 >/dev/null 2>&1 &",
        "command=true",
    )
    steps = trial.steps("jail", *create)
    trial.jail("-R", "a")
    for step in steps:
        trial.kill(step, "jail", *create)
        if not trial.there(step, "a"):
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
    trial.verdict()


def test_a_guest_with_an_init(trial: Trial, small_root: Path) -> None:
    """PID 1 waits for whoever starts the jail, and has a console that a process of the host's keeps."""
    for name in ("sbin", "sys"):
        (small_root / name).mkdir(exist_ok=True)
    for name, lines in (
        ("init", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"),
        ("poweroff", "kill -TERM 1"),
    ):
        (small_root / "sbin" / name).write_text(f"#!/bin/sh\n{lines}\n")
        (small_root / "sbin" / name).chmod(0o755)
    create = ("-c", "name=a", f"path={small_root}", "ng.init=sysv", "allow.cgroup")
    with own_logs():
        steps = trial.steps("jail", *create)
        trial.jail("-R", "a")
        for step in steps:
            trial.kill(step, "jail", *create)
            if not trial.there(step, "a"):
                trial.expect(step, *create)
            trial.expect(step, "-r", "a")
            trial.nothing_remains(step)
    trial.verdict()


def test_removal(trial: Trial, small_root: Path, lan: Namespace) -> None:
    create = (
        "-c",
        "name=a",
        f"path={small_root}",
        "interface=ep0",
        f"ip4.addr={ADDRESS}",
        "exec.start=sleep 100 >/dev/null 2>&1 &",
        "persist",  # else it would end by itself, some time after SIGTERM
    )
    trial.jail(*create)
    for step in trial.steps("jail", "-r", "a"):
        assert not trial.jail(*create).returncode
        trial.kill(step, "jail", "-r", "a")
        if not trial.there(step, "a"):
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
    trial.verdict()


def test_modification(trial: Trial, small_root: Path) -> None:
    """What was to be changed is so or not yet; the same command again changes it."""
    create = ("-c", "jid=9", "name=a", f"path={small_root}", "persist")
    modify = ("-m", "name=a", "host.hostname=other", "meta=new")
    trial.jail(*create)
    steps = trial.steps("jail", *modify)
    trial.jail("-r", "a")
    for step in steps:
        trial.expect(step, *create)
        trial.kill(step, "jail", *modify)
        if not trial.there(step, "a"):
            trial.note(step, "the jail is gone")
        trial.expect(step, *modify)
        if (trial.jexec("a", "hostname").stdout, trial.jls("-j", "a", "meta").stdout) != ("other\n", "new\n"):
            trial.note(step, "it is not changed")
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
    trial.verdict()


_POLICY = (
    "ng.rdr=tcp 198.51.100.1 8080 -> 80, udp any 53 -> 53",
    "ng.egress=honeypot, pass tcp to host port 53, pass to any log group 3",
)


def _tables() -> str:
    return " ".join([line for line in run("nft", "list", "tables").splitlines() if "jailng_" in line])


def test_creation_with_a_policy(trial: Trial, small_root: Path, lan: Namespace) -> None:
    create = ("-c", "name=a", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", *_POLICY, "persist")
    steps = trial.steps("jail", *create)
    trial.jail("-R", "a")
    for step in steps:
        trial.kill(step, "jail", *create)
        if not trial.there(step, "a"):
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
        if _tables():
            trial.note(step, f"left: {_tables()}")
    trial.verdict()


def test_removal_with_a_policy(trial: Trial, small_root: Path, lan: Namespace) -> None:
    """As long as a process of the jail's lives, nothing leaves it but what its rules let pass."""
    create = ("-c", "name=a", f"path={small_root}", "interface=ep0", f"ip4.addr={ADDRESS}", "ng.egress=none", "persist")
    trial.jail(*create)
    on_lan = lan.datagrams("198.51.100.2", 9)
    on_lan.setblocking(False)
    for step in trial.steps("jail", "-r", "a"):
        assert not trial.jail(*create).returncode
        trial.kill(step, "jail", "-r", "a")
        if trial.there(step, "a"):
            with inside("a") as there, there.datagrams() as sender:
                try:
                    sender.sendto(b"x", ("198.51.100.2", 9))
                    on_lan.recv(10)
                    trial.note(step, "something has left")
                except OSError:
                    pass
        else:
            trial.expect(step, *create)
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
        if _tables():
            trial.note(step, f"left: {_tables()}")
    trial.verdict()


def test_modification_of_a_policy(trial: Trial, small_root: Path, lan: Namespace) -> None:
    """What was to be changed is so or not yet, wholly; the same command again changes it, and all of it goes."""
    create = (
        "-c",
        "name=a",
        "jid=9",
        f"path={small_root}",
        "interface=ep0",
        f"ip4.addr={ADDRESS}",
        *_POLICY,
        "persist",
    )
    modify = ("-m", "name=a", "ng.rdr=tcp 198.51.100.1 8081 -> 80", "ng.egress=pass udp to any port 53")
    trial.jail(*create)
    before = _plain_rules()
    steps = trial.steps("jail", *modify)
    after = _plain_rules()
    trial.jail("-r", "a")
    assert before != after
    for step in steps:
        trial.expect(step, *create)
        trial.kill(step, "jail", *modify)
        if not trial.there(step, "a"):
            trial.note(step, "the jail is gone")
        if _plain_rules() not in (before, after):
            trial.note(step, _plain_rules())
        trial.expect(step, *modify)
        if _plain_rules() != after:
            trial.note(step, f"then {_plain_rules()}")
        trial.expect(step, "-r", "a")
        trial.nothing_remains(step)
        if _tables():
            trial.note(step, f"left: {_tables()}")
    trial.verdict()


def _plain_rules() -> str:
    return run("nft", "--stateless", "list", "ruleset")


def test_entry(trial: Trial, small_root: Path, stage: Stage) -> None:
    """Whom jexec was to bring in does not stay when it is killed."""
    trial.jail("-c", "name=a", "jid=7", f"path={small_root}", "persist")
    members = stage.cgroup2 / "jailng/7/members/cgroup.procs"
    for step in trial.steps("jexec", "a", "/bin/sleep", "0"):
        trial.kill(step, "jexec", "a", "/bin/sleep", "12")  # some steps are behind its end
        if left := _left(members):
            trial.note(step, f"left in the jail: {left}")
            trial.jexec("a", "kill", "-9", "-1")
        if not trial.there(step, "a"):
            trial.note(step, "the jail is gone")
            break
    trial.jail("-r", "a")
    trial.verdict()


def _left(members: Path, seconds: float = 10) -> list[str]:
    """Who does not end: whoever is on the way in hears of it by a signal, and nobody tells when it has ended."""
    until = time.monotonic() + seconds
    while (pids := members.read_text().split()) and time.monotonic() < until:
        time.sleep(0.01)
    found = []
    for pid in pids:
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return found
