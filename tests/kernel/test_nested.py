"""Jails in jails: made from the host, and from inside by jail, jls and jexec as the checkout has them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.core.index import FIRST_UID
from jailng.core.interpreter import PYTHON
from tests.kernel import debian as roots
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, ip
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until


def _ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def _refused(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stdout, done.returncode) == ("", 1)
    return done.stderr.removeprefix("jail: ").rstrip("\n")


class Outer:
    """A jail with the host's tree, in which the checkout's commands are."""

    def __init__(self, jexec: Command, checkout: Path, name: str = "top") -> None:
        self.jexec = jexec
        self.checkout = checkout
        self.name = name

    def __call__(self, command: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one of the commands inside."""
        return self.jexec(self.name, str(self.checkout / "bin" / command), *arguments, stdin=stdin)


@pytest.fixture
def top(jail: Command, jexec: Command, checkout: Path) -> Iterator[Outer]:
    """A jail that may have five in it."""
    _ok(jail("-c", "name=top", "path=/", "children.max=5", "allow.raw_sockets", "persist"))
    yield Outer(jexec, checkout)
    _ok(jail("-r", "top"))


def _end(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)


# From the host


def test_a_jail_of_the_host_in_another(top: Outer, jail: Command, jls: Command, jexec: Command) -> None:
    _ok(jail("-c", "name=top.in", "path=/", "persist"))
    rows = _ok(jls("-n", "name", "parent", "children.cur")).splitlines()
    assert rows[0].split() == ["name=top", "parent=0", "children.cur=1"]
    assert rows[1].split() == ["name=top.in", f"parent={_ok(jls('-j', 'top', 'jid')).strip()}", "children.cur=0"]
    # Its first uid is one that the outer jail has as another's.
    assert _ok(jexec("top.in", "cat", "/proc/self/uid_map")).split() == ["0", "65536", "65536"]
    assert _ok(jexec("top.in", "sh", "-c", "echo $$; id -u")).split()[1] == "0"


def test_the_host_name_of_the_outer_one(top: Outer, jail: Command, jls: Command, jexec: Command) -> None:
    for name in ("top.in", "top.in.in"):
        _ok(jail("-c", f"name={name}", "path=/", "host=inherit", f"children.max={2 - name.count('.')}", "persist"))
    for hostname in ("outer", "other"):
        _ok(jail("-m", "name=top", f"host.hostname={hostname}", "host.domainname=domain"))
        for name in ("top.in", "top.in.in"):
            assert _ok(jexec(name, "hostname")) == f"{hostname}\n"
            assert _ok(jls("-j", name, "host.hostname", "host.domainname")) == f"{hostname} domain\n"
        assert _ok(top("jls", "-j", "in", "host.hostname")) == f"{hostname}\n"
    assert [line.split()[1] for line in _ok(jls()).splitlines()[1:]] == ["other"] * 3


def test_fewer_jails_than_the_outer_one_may_have(top: Outer, jail: Command, jls: Command) -> None:
    _ok(jail("-c", "name=top.in", "path=/", "children.max=4", "persist"))
    _ok(jail("-c", "name=top.in.in", "path=/", "children.max=1", "persist"))
    for most, shown in (("4", "4 3 1"), ("2", "2 1 1"), ("1", "1 0 0"), ("0", "0 0 0"), ("5", "5 0 0")):
        _ok(jail("-m", "name=top", f"children.max={most}"))
        assert _ok(jls("children.max")).split() == shown.split()
    assert _ok(jail("-m", "name=top.in", "children.max=4")) == ""
    assert _refused(jail("-m", "name=top.in", "children.max=5")) == "jail_set: Operation not permitted"


def test_the_host_name_that_an_inner_root_has_set(jail: Command, jls: Command, jexec: Command, checkout: Path) -> None:
    _ok(jail("-c", "name=top", "path=/", "children.max=1", "allow.set_hostname", "persist"))
    outer = Outer(jexec, checkout)
    _ok(outer("jail", "-c", "name=in", "path=/", "host.hostname=given", "allow.set_hostname", "persist"))
    _ok(outer("jexec", "in", "hostname", "inside"))
    assert _ok(outer("jls", "host.hostname")) == "inside\n"
    assert _ok(jls("-j", "top.in", "host.hostname")) == "inside\n"
    _ok(jail("-r", "top"))


def test_the_outer_root_sees_and_signals_the_inner(top: Outer, jail: Command, jls: Command, jexec: Command) -> None:
    _ok(jail("-c", "name=top.in", "path=/", "exec.start=sleep 1000 </dev/null >/dev/null 2>&1 &", "command=true"))
    assert "top.in" in _ok(jls("name")).split()
    assert "sleep 1000" in _ok(jexec("top", "ps", "ax"))
    _ok(jexec("top", "pkill", "-f", "sleep 1000"))
    until(lambda: "top.in" not in _ok(jls("name")).split(), "a jail without a process is gone")


def test_the_inner_root_sees_nothing_of_the_outer(top: Outer, jail: Command, jexec: Command) -> None:
    _ok(jail("-c", "name=top.in", "path=/", "persist"))
    with subprocess.Popen(
        [str(top.checkout / "bin/jexec"), "top", "sh", "-c", "echo ready; exec sleep 1001"],
        stdout=subprocess.PIPE,
        text=True,
    ) as sleeping:
        assert sleeping.stdout is not None and sleeping.stdout.readline() == "ready\n"
        assert "sleep 1001" not in _ok(jexec("top.in", "ps", "axww"))
        assert "sleep 1001" in _ok(jexec("top", "ps", "axww"))
        sleeping.kill()


def test_a_jail_that_is_not_there(jail: Command) -> None:
    assert _refused(jail("-c", "name=nosuch.in", "path=/", "persist")) == 'jail "nosuch" not found'


def test_a_link_in_the_outer_tree_leads_nowhere_else(jail: Command, jexec: Command, small_root: Path) -> None:
    """Whoever is root in there may have put it in the way of the host's administrator."""
    (small_root / "jails").mkdir(mode=0o700)
    roots.small(small_root / "jails/in")
    (small_root / "jails/link").symlink_to("/jails/in")
    (small_root / "jails/out").symlink_to("/usr/lib/python3")
    _ok(jail("-c", "name=o", f"path={small_root}", "children.max=2", "persist"))
    assert _refused(jail("-c", "name=o.out", f"path={small_root}/jails/out", "persist")) == (
        f"path {small_root}/jails/out: No such file or directory"
    )
    _ok(jail("-c", "name=o.in", f"path={small_root}/jails/link", "persist"))
    assert "jails" not in _ok(jexec("o.in", "ls", "/")).split()
    _ok(jail("-r", "o"))


def test_limits(top: Outer, jail: Command) -> None:
    _ok(jail("-c", "name=top.a", "path=/", "children.max=2", "persist"))
    _ok(jail("-c", "name=top.a.b", "path=/", "children.max=1", "persist"))
    _ok(jail("-c", "name=top.a.b.c", "path=/", "persist"))
    assert _refused(jail("-c", "name=top.a.b.d", "path=/", "persist")) == "prison limit exceeded"
    assert _refused(jail("-c", "name=top.a.d", "path=/", "persist")) == "prison limit exceeded"
    _ok(jail("-c", "name=top.e", "path=/", "persist"))
    _ok(jail("-c", "name=top.f", "path=/", "persist"))
    assert _refused(jail("-c", "name=top.g", "path=/", "persist")) == "prison limit exceeded"


def test_one_that_has_ended_by_itself_does_not_count(jail: Command) -> None:
    _ok(jail("-c", "name=one", "path=/", "children.max=1", "persist"))
    for _ in range(3):
        _ok(jail("-c", "name=one.in", "path=/", "command=true"))
    _ok(jail("-r", "one"))


@pytest.mark.parametrize(
    "word",
    [
        "allow.mlock",
        "children.max=5",
        "children.max=6",
        "sysvshm=new",
        "ng.uids=shared",
        "ng.lenient",
        "devfs_ruleset=5",
    ],
)
def test_no_more_than_the_outer_jail_has(top: Outer, jail: Command, word: str) -> None:
    """In FreeBSD's words: kern_jail.c refuses each with EPERM."""
    assert _refused(jail("-c", "name=top.in", "path=/", "persist", word)) == "jail_set: Operation not permitted"


def test_what_it_has_of_the_outer_jail(jail: Command, jls: Command) -> None:
    more = ("securelevel=1", "allow.noreserved_ports", "allow.raw_sockets")
    _ok(jail("-c", "name=o", "path=/", "persist", "children.max=2", *more))
    _ok(jail("-c", "name=o.i", "path=/", "persist"))
    asked = ("securelevel", "allow.reserved_ports", "allow.raw_sockets")
    assert _ok(jls("-j", "o.i", *asked)).split() == ["1", "false", "false"]
    assert _refused(jail("-m", "name=o.i", "securelevel=0")) == "jail_set: Operation not permitted"
    assert _refused(jail("-m", "name=o.i", "allow.reserved_ports")) == "jail_set: Operation not permitted"
    _ok(jail("-m", "name=o.i", "allow.raw_sockets"))
    _ok(jail("-m", "name=o", "securelevel=2", "allow.noraw_sockets"))
    assert _ok(jls("-j", "o.i", *asked)).split() == ["2", "false", "false"]
    _ok(jail("-r", "o"))


def test_renaming_takes_the_inner_ones_along(top: Outer, jail: Command, jls: Command) -> None:
    _ok(jail("-c", "name=top.a", "path=/", "children.max=1", "persist"))
    _ok(jail("-c", "name=top.a.b", "path=/", "persist"))
    jid = _ok(jls("-j", "top.a", "jid")).strip()
    _ok(jail("-m", f"jid={jid}", "name=top.z"))
    assert _ok(jls("name")).split() == ["top", "top.z", "top.z.b"]
    assert _refused(jail("-m", f"jid={jid}", "name=elsewhere")) == "cannot change jail's parent"


def test_removal_takes_the_inner_ones_along(jail: Command, jls: Command, stage: Stage) -> None:
    _ok(jail("-c", "name=o", "path=/", "persist", "children.max=3"))
    for name, more in (("o.a", "children.max=1"), ("o.a.b", "children.max=0"), ("o.c", "children.max=0")):
        _ok(jail("-c", f"name={name}", "path=/", "persist", more))
    _ok(jail("-r", "o"))
    assert _ok(jls("name")) == ""
    assert registry.jids() == [] and not list(stage.cgroup2.glob("jailng/*"))


def test_the_end_of_the_outer_pid_1_is_that_of_all(jail: Command, jls: Command) -> None:
    _ok(jail("-c", "name=o", "path=/", "persist", "children.max=3"))
    _ok(jail("-c", "name=o.a", "path=/", "persist"))
    record = registry.find("o")
    assert record is not None
    _end(record.init_pid)
    assert _ok(jls("name")) == ""
    _ok(jail("-c", "name=o", "path=/", "command=true"))
    for jid in registry.jids():
        jail("-R", str(jid))


def test_a_jail_lasts_as_long_as_one_in_it(jail: Command, jls: Command) -> None:
    _ok(jail("-c", "name=o", "path=/", "persist", "children.max=1"))
    _ok(jail("-c", "name=o.a", "path=/", "persist"))
    _ok(jail("-m", "name=o", "nopersist"))
    assert _ok(jls("name")).split() == ["o", "o.a"]
    record = registry.find("o")
    assert record is not None
    ended = os.pidfd_open(record.init_pid)
    _ok(jail("-r", "o.a"))
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)
    assert _ok(jls("name")) == ""
    jail("-R", "o")


def test_a_jail_ends_with_the_last_one_in_it_though_nobody_reaps_that(
    unreaped: None, jail: Command, jls: Command
) -> None:
    _ok(jail("-c", "name=o", "path=/", "persist", "children.max=1"))
    _ok(jail("-c", "name=o.a", "path=/", "persist"))
    _ok(jail("-m", "name=o", "nopersist"))
    _ok(jail("-r", "o.a"))
    record = registry.find("o")
    until(lambda: record is None or not record.alive(), "it has ended")
    assert _ok(jls("name")) == ""
    _ok(jail("-c", "name=o", "path=/", "command=true"))


# From inside


def test_a_jail_made_inside(top: Outer, jls: Command) -> None:
    assert _ok(top("jls", "name")) == ""
    _ok(top("jail", "-c", "name=in", "path=/", "persist"))
    assert _ok(top("jls", "name", "parent", "path")) == "in 0 /\n"
    assert _ok(jls("name")).split() == ["top", "top.in"]
    assert top("jexec", "in", "sh", "-c", "exit 7").returncode == 7
    # A thread that the broker is to trace, and that ends: without the broker neither has the command.
    traced = "import ctypes, os, threading as t; one = t.Thread(target=ctypes.CDLL(None).ptrace, args=(0, 0, 0, 0)); "
    assert top("jexec", "in", PYTHON, "-ISc", f"{traced}one.start(); one.join(); os._exit(7)").returncode == 7
    assert _ok(top("jexec", "in", "cat", stdin="through\n")) == "through\n"
    assert _ok(top("jexec", "in", "cat", "/proc/self/uid_map")).split() == ["0", "65536", "65536"]
    _ok(top("jail", "-m", "name=in", "meta.a=1"))
    assert _ok(jls("-j", "top.in", "meta.a")) == "1\n"
    _ok(top("jail", "-r", "in"))
    assert _ok(top("jls", "name")) == "" and _ok(jls("name")) == "top\n"


def test_a_jail_that_ends_with_its_command(top: Outer, jls: Command) -> None:
    assert _ok(top("jail", "-c", "path=/", "command=echo", "hello")) == "hello\n"
    assert _ok(jls("name")) == "top\n"
    failed = top("jail", "-c", "path=/", "command=false")
    assert (failed.returncode, failed.stderr) == (1, "jail: false: failed\n")
    assert _ok(jls("name")) == "top\n"


def test_hooks_run_inside_the_caller(top: Outer, jls: Command) -> None:
    made = ("exec.prestart=cat /proc/self/uid_map", "exec.start=cat /proc/self/uid_map", "exec.poststop=echo gone")
    said = _ok(top("jail", "-c", "name=in", "path=/", *made, "persist"))
    assert [line.split()[1] for line in said.splitlines()] != ["0", "0"]
    outer, inner = [int(line.split()[1]) for line in said.splitlines()]
    assert outer >= FIRST_UID and inner == 65536


def test_a_configuration_is_read_inside(top: Outer, tmp_path: Path) -> None:
    conf = tmp_path / "jail.conf"
    conf.write_text(
        'one { path = "/"; persist; } two { path = "/"; depend = one; exec.start = "echo started"; persist; }\n'
    )
    assert _ok(top("jail", "-f", str(conf), "-c")) == "one: created\ntwo: created\nstarted\n"
    assert _ok(top("jail", "-f", str(conf), "-r", "*")) == "two: removed\none: removed\n"


def test_to_any_depth(top: Outer, jls: Command) -> None:
    where = top.checkout / "bin"
    script = f"""
        {where}/jail -c name=a path=/ children.max=3 persist
        {where}/jexec a {where}/jail -c name=b path=/ children.max=2 persist
        {where}/jexec a {where}/jexec b {where}/jail -c name=c path=/ persist
        {where}/jexec a {where}/jexec b {where}/jls -n name parent
        {where}/jls name
        {where}/jexec a.b.c id -u
    """
    done = top.jexec("top", "sh", "-ec", script)
    assert _ok(done).splitlines() == ["name=c parent=0", "a", "a.b", "a.b.c", "0"]
    assert _ok(jls("name")).split() == ["top", "top.a", "top.a.b", "top.a.b.c"]


def test_only_its_own_are_there(top: Outer, jail: Command) -> None:
    _ok(jail("-c", "name=other", "path=/", "persist"))
    jid = str(registry.jids()[-1])
    try:
        for name in ("other", jid, "top", "0"):
            assert top("jls", "-j", name).stderr in (f'jls: jail "{name}" not found\n', f"jls: jail {name} not found\n")
            assert top("jexec", name, "true").returncode == 1
            assert top("jail", "-r", name).stderr == f'jail: "{name}" not found\n'
        # A known leak of FreeBSD's, too: a jid is one of all there are.
        assert _refused(top("jail", "-c", f"jid={jid}", "path=/", "persist")) == f"jail {jid} already exists"
    finally:
        _ok(jail("-r", "other"))


def test_no_name_of_the_host_is_told(top: Outer) -> None:
    _ok(top("jail", "-c", "name=in", "path=/", "persist"))
    refused = {
        ("-c", f"jid={registry.jids()[-1] + 1}", "name=in", "path=/", "persist"): 'jail "in" already exists',
        ("-c", "name=none.in", "path=/", "persist"): 'jail "none" not found',
    }
    for words, sentence in refused.items():
        assert _refused(top("jail", *words)) == sentence


def test_an_address_that_a_jail_of_the_host_has(
    lan: Namespace, addresses: None, jail: Command, jexec: Command, checkout: Path
) -> None:
    both = ("ip4.addr=198.51.100.10", "ip6.addr=2001:db8:1::10")
    for name, more in (("other", ()), ("top", ("children.max=1",))):
        _ok(jail("-c", f"name={name}", "path=/", "persist", *both, *more))
    done = Outer(jexec, checkout)("jail", "-c", "name=in", "path=/", "persist", both[0])
    assert _refused(done).startswith("198.51.100.10: another jail has it too, and not the same addresses besides")
    for name in ("top", "other"):
        _ok(jail("-r", name))


def test_who_can_reach_the_root_is_looked_at_after_prestart_too(top: Outer, tmp_path: Path, modes: None) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for path in (root, *root.parents):
        path.chmod(path.stat().st_mode | 0o755)
    for more in ((), ("exec.prestart=true",), ("exec.prepare=true",)):
        done = top("jail", "-c", "name=in", f"path={root}", "persist", *more)
        assert _refused(done).startswith(f"path {root}: other users of this host can reach it")


def test_a_jail_that_may_have_none(jail: Command, jexec: Command, checkout: Path) -> None:
    _ok(jail("-c", "name=top", "path=/", "persist"))
    outer = Outer(jexec, checkout)
    assert _refused(outer("jail", "-c", "path=/", "persist")) == "jail_set: Operation not permitted"
    assert _ok(outer("jls", "name")) == ""
    _ok(jail("-r", "top"))


def test_whoever_is_not_root_only_looks(public: Path, top: Outer, jexec: Command) -> None:
    _ok(top("jail", "-c", "name=in", "path=/", "persist"))
    as_nobody = ("top", "setpriv", "--reuid=65534", "--clear-groups")
    assert _ok(jexec(*as_nobody, f"{public}/bin/jls", "name")) == "in\n"
    for command in ("-r in", "-m name=in meta=x", "-c path=/ persist"):
        assert jexec(*as_nobody, f"{public}/bin/jail", *command.split()).returncode == 1
    assert _ok(top("jls", "name", "meta")) == 'in ""\n'


def test_a_killed_jail_command_leaves_no_jail(top: Outer, jls: Command) -> None:
    command = [str(top.checkout / "bin/jexec"), "top", str(top.checkout / "bin/jail"), "-c", "name=in", "path=/"]
    with subprocess.Popen(
        [*command, "command=sh", "-c", "echo up; exec sleep 1000"], stdout=subprocess.PIPE
    ) as starting:
        assert starting.stdout is not None and starting.stdout.readline() == b"up\n"
        record = registry.find("top.in")
        assert record is not None
        ended = os.pidfd_open(record.init_pid)
        starting.kill()
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)
    assert _ok(top("jls", "name")) == ""


def test_whoever_enters_starts_a_broker_that_has_died(top: Outer) -> None:
    record = registry.find("top")
    assert record is not None
    _end(int(record.broker.split()[0]))
    _ok(top("jail", "-c", "name=in", "path=/", "persist"))
    assert _ok(top("jls", "name")) == "in\n"


# Addresses


@pytest.fixture
def addresses(lan: Namespace) -> None:
    """The host has two addresses for jails."""
    ip(*[f"address add 198.51.100.{last}/24 dev ep0" for last in (10, 11)])


def test_an_address_of_the_outer_jail(lan: Namespace, addresses: None, jail: Command, jexec: Command) -> None:
    both = "ip4.addr=198.51.100.10,198.51.100.11"
    _ok(jail("-c", "name=o", "path=/", "children.max=2", both, "persist"))
    assert _refused(jail("-c", "name=o.i", "path=/", "ip4.addr=198.51.100.12", "persist")) == (
        "jail_set: Operation not permitted"
    )
    _ok(jail("-c", "name=o.i", "path=/", "ip4.addr=198.51.100.11", "persist"))
    assert _refused(jail("-c", "name=o.j", "path=/", both, "persist")) == "IPv4 addresses clash"
    with _listening(jexec, "o.i", "198.51.100.11"):
        assert _reaches(lan, "198.51.100.11")
    until(lambda: not _reaches(lan, "198.51.100.11"), "nobody listens")
    _ok(jail("-r", "o.i"))
    with _listening(jexec, "o", "198.51.100.11"):  # it has it again
        assert _reaches(lan, "198.51.100.11")
    _ok(jail("-r", "o"))


def test_an_ipv6_address_is_the_innermost_jail_s(lan: Namespace, jail: Command, jexec: Command) -> None:
    address, names = "2001:db8:1::10", ("o", "o.i", "o.i.j")
    ip(f"address add {address}/64 dev ep0 nodad")
    for left, name in zip((2, 1, 0), names, strict=True):
        words = (f"name={name}", "path=/", f"children.max={left}", f"ip6.addr={address}", "persist")
        _ok(jail("-c", *words))
    for name in reversed(names):
        with _listening(jexec, name, address):
            assert _reaches(lan, address)
        _ok(jail("-r", name))


def test_the_stack_of_the_outer_jail(lan: Namespace, addresses: None, jail: Command, jexec: Command) -> None:
    _ok(jail("-c", "name=o", "path=/", "children.max=1", "ip4.addr=198.51.100.10", "persist"))
    _ok(jail("-c", "name=o.i", "path=/", "ip4=inherit", "persist"))
    with _listening(jexec, "o.i", "198.51.100.10"):
        assert _reaches(lan, "198.51.100.10")
    with _listening(jexec, "o.i", "198.51.100.10", 80):  # a reserved port
        assert _reaches(lan, "198.51.100.10", 80)
    _ok(jail("-r", "o"))


def test_inherited_addresses_go_with_those_of_the_outer_jail(
    lan: Namespace, addresses: None, jail: Command, jexec: Command, jls: Command
) -> None:
    """It went on making IPv4 sockets, without an address, and said that it inherits."""
    _ok(jail("-c", "name=o", "path=/", "children.max=3", "ip4.addr=198.51.100.10", "persist"))
    _ok(jail("-c", "name=o.i", "path=/", "children.max=1", "ip4=inherit", "persist"))
    _ok(jail("-c", "name=o.i.j", "path=/", "ip4=inherit", "persist"))
    _ok(jail("-m", "name=o", "ip4=disable"))
    for name in ("o.i", "o.i.j"):
        asked = jexec(name, "/usr/bin/python3", "-c", "import socket; socket.socket()")
        assert (asked.returncode, "Address family not supported" in asked.stderr) == (1, True), asked.stderr
        assert jls("-j", name, "ip4").stdout == "disable\n"
    _ok(jail("-r", "o"))


_LISTEN = """from socket import *
s = create_server(('{0}', {1}), family=AF_INET6 if ':' in '{0}' else AF_INET)
print(flush=True)
s.accept()[0].recv(1)"""


class _listening:
    """A program in a jail that takes one connection."""

    def __init__(self, jexec: Command, name: str, address: str, port: int = 7777) -> None:
        program = _LISTEN.format(address, port)
        command = [str(Path(__file__).parents[2] / "bin/jexec"), name, "/usr/bin/python3", "-c", program]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        assert self.process.stdout is not None and self.process.stdout.readline() == b"\n"

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _reaches(lan: Namespace, address: str, port: int = 7777) -> bool:
    program = f"import socket; socket.create_connection(('{address}', {port}), 2)"
    with lan.entered():
        return subprocess.run(["/usr/bin/python3", "-c", program], capture_output=True).returncode == 0
