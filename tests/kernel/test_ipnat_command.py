"""ipnat(8) as a command: what it loads, removes, forgets, shows and leaves alone."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import ENVIRONMENT, Command
from tests.kernel.networks import PATIENCE, Jail, Namespace, attach, ip, run
from tests.kernel.translating import ARTICLE, CELL, HOST, LAN, Load, exchange, loader, network, sessions, standing

_MAP = f"map ep0 {CELL}/32 -> 0/32 portmap tcp/udp 10000:65000"
_RDR = f"rdr ep0 {HOST}/32 port 8021 -> {CELL} port 21 tcp"
_LISTED = [f"map ep0 {CELL}/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000", _RDR]
# As Docker has it, with a policy that lets nothing through the host.
_OTHERS = """\
table ip nat {
    chain DOCKER { iifname "docker0" counter return; tcp dport 9000 counter dnat to 172.17.0.2:80; }
    chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local counter jump DOCKER; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/16 counter masquerade; }
}
table ip filter {
    chain FORWARD { type filter hook forward priority filter; policy drop;
        oifname "jng*" accept; iifname "jng*" accept; oifname "docker0" accept; iifname "docker0" accept; }
}
table inet mine { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; }
"""


@pytest.fixture
def lan() -> Iterator[Namespace]:
    """The machine behind the host's ep0."""
    with network() as made:
        yield made


@pytest.fixture
def cell(lan: Namespace) -> Iterator[Jail]:
    """The jail."""
    with standing(7, CELL) as made:
        yield made


@pytest.fixture
def rules(ipnat: Command) -> Iterator[Load]:
    """Loads lines of rules; at the end none is left."""
    yield loader(ipnat)
    assert ipnat("-CF").returncode == 0


def listed(ipnat: Command, *options: str) -> list[str]:
    """The rules that ipnat -l shows."""
    shown = ipnat("-l", *options)
    assert (shown.stderr, shown.returncode) == ("", 0)
    before, _, _ = shown.stdout.partition("\n\nList of active sessions:\n")
    return before.splitlines()[1:]


def _ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_rules_are_added_behind_others(rules: Load, ipnat: Command) -> None:
    rules(_MAP)
    assert _ok(ipnat("-f", "-", stdin=f"{_RDR}\n")) == ""
    assert listed(ipnat) == _LISTED
    assert _ok(ipnat("-C")) == "2 entries flushed from NAT list\n"
    assert listed(ipnat) == []


@pytest.mark.parametrize(
    ("options", "text", "said"),
    [
        ("-f", _RDR, "<stdin>:1: File exists: " + _RDR),
        ("-f", "map ep0 10.0.0.0/8 -> 0/32\nmap ep0 10.0.0.0/8 -> 0/32", "<stdin>:2: File exists: "),
        ("-rf", "map ep0 10.0.0.0/8 -> 0/32", "<stdin>:1: No such rule: map ep0 10.0.0.0/8 -> 0.0.0.0/32"),
        ("-CFf", "map ep0 10.0.0.0/8 ->", "<stdin>:"),
        ("-CFf", "# two\nmap ep0 pool/7 -> 0/32", "<stdin>:2: "),
        ("-CFf", "encap in on ep0 from any to any -> src 192.0.2.1 dst 192.0.2.2;", "<stdin>:1: encap: "),
        ("-CFf", "map ep0 0/0 -> 0/32 proxy port 53 dns/udp", "<stdin>:1: proxy dns: Linux has none"),
        ("-CFf", "map ep0 0/0 -> 0/32 gre age 30", "<stdin>:1: age: Linux sets"),
        ("-CFf", "map 'a\"b' 0/0 -> 0/32", '<stdin>:1: a"b: not the name of an interface'),
        ("-CFf", "map 'a{' 0/0 -> 0/32", "<stdin>:1: a{: not the name of an interface"),
        ("-CFf", "rdr ep0 inet6 any port 80 -> ::1 port 3128 tcp", "<stdin>:1: ::1: Linux leads nothing"),
    ],
)
def test_what_is_refused_changes_nothing(options: str, text: str, said: str, rules: Load, ipnat: Command) -> None:
    rules(_MAP, _RDR)
    before = run("nft", "list", "ruleset")
    done = ipnat(options, "-", stdin=text + "\n")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith(f"ipnat: {said}")
    assert done.stderr.count("\n") == 1
    assert run("nft", "list", "ruleset") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p"], "ipnat: -p must be used with -r\n"),
        (["-x"], "Usage: ipnat [-CFhlnrRsv] [-f filename]\n"),
        (["-f"], "Usage: ipnat [-CFhlnrRsv] [-f filename]\n"),
        (["-f", "/nonexistent/rules"], "ipnat: /nonexistent/rules: No such file or directory\n"),
    ],
)
def test_command_lines(words: list[str], said: str, ipnat: Command) -> None:
    done = ipnat(*words)
    assert (done.stdout, done.stderr, done.returncode) == ("", said, 1)


def test_not_root(ipnat: Command, public: Path) -> None:
    """-n takes no privileges; what asks the kernel is told what it says."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", f"{public}/bin/ipnat"]
    done = subprocess.run([*nobody, "-nvf", "-"], input=f"{_RDR}\n", capture_output=True, text=True, env=ENVIRONMENT)
    assert _ok(done) == f"{_RDR}\n"
    done = subprocess.run([*nobody, "-l"], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == "ipnat: Operation not permitted\n"


def test_remove_and_forget(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    more = f"rdr ep0 {HOST}/32 port 8022 -> {CELL} port 21 tcp"
    rules(_MAP, _RDR, more)
    exchange(cell.listen(CELL, 21), lan.connect(HOST, 8021))
    exchange(cell.listen(CELL, 21), lan.connect(HOST, 8022))
    exchange(lan.listen(LAN, 53), cell.connect(LAN, 53))
    assert listed(ipnat, "-h") == [f"1 {rule}" for rule in (*_LISTED, more)]
    assert _ok(ipnat("-s")).splitlines() == [
        "2\tinuse in",
        "1\tinuse out",
        "2\tadded in",
        "1\tadded out",
        "3\tactive",
        "3\trule count",
        "1\tmap rules",
        "2\trdr rules",
    ]
    assert _ok(ipnat("-rf", "-", stdin=f"{more}\n")) == ""
    assert listed(ipnat, "-h") == [f"1 {rule}" for rule in _LISTED]
    assert len(sessions(ipnat)) == 3
    assert _ok(ipnat("-rpf", "-", stdin=f"{_RDR}\n")) == ""
    assert sorted(line.split(" [")[0].split()[0] for line in sessions(ipnat)) == ["MAP", "RDR"]
    # The number of a session that lives on is given to no other rule.
    assert _ok(ipnat("-Cf", "-", stdin=f"{_RDR}\n")) == "1 entries flushed from NAT list\n"
    assert _ok(ipnat("-rpf", "-", stdin=f"{_RDR}\n")) == ""
    assert len(sessions(ipnat)) == 2
    assert _ok(ipnat("-F")) == "2 entries flushed from NAT table\n"


def test_what_goes_is_told_of_before_what_comes(lan: Namespace, rules: Load, ipnat: Command) -> None:
    rules(_MAP)
    gone = "0 entries flushed from NAT table\n1 entries flushed from NAT list\n"
    assert _ok(ipnat("-CFvf", "-", stdin=f"{_RDR}\n")) == f"{gone}{listed(ipnat)[0]}\n"
    assert _ok(ipnat("-CF")) == gone


def test_purge(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    rules(_MAP, f"{_RDR} purge")
    exchange(cell.listen(CELL, 21), lan.connect(HOST, 8021))
    exchange(lan.listen(LAN, 53), cell.connect(LAN, 53))
    assert _ok(ipnat("-C")) == "2 entries flushed from NAT list\n"
    assert [line.split()[0] for line in sessions(ipnat)] == ["MAP"]


def test_sessions_go_on_without_their_rules(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    """The kernel translates as long as anybody has a chain for that: ours stays while a session needs it."""
    rules(_MAP, _RDR)
    listener, caller = cell.listen(CELL, 21), lan.connect(HOST, 8021)
    served, _ = listener.accept()
    assert _ok(ipnat("-C")) == "2 entries flushed from NAT list\n"
    assert listed(ipnat) == []
    with listener, caller, served:
        served.settimeout(PATIENCE)
        caller.sendall(b"ask")
        assert served.recv(3) == b"ask"
        served.sendall(b"tell")
        assert caller.recv(4) == b"tell"
    assert _ok(ipnat("-F")) == "1 entries flushed from NAT table\n"
    assert "jailng_nat" not in run("nft", "list", "tables")


def test_tables_of_that_name_that_are_not_ours(ipnat: Command) -> None:
    """A root of a network namespace may have made them."""
    text = (
        'table ip jailng_nat { chain listed { counter comment "x"; counter; counter comment "1 2"; '
        'counter comment "7 0 map ep0 0/0 -> "; }; }'
    )
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    done = ipnat("-l")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("ipnat: the kernel's list:")
    assert _ok(ipnat("-C")) == "1 entries flushed from NAT list\n"
    subprocess.run(["nft", "-f", "-"], input="table ip6 jailng_nat { }", text=True, check=True)
    assert listed(ipnat) == []
    assert _ok(ipnat("-C")) == "0 entries flushed from NAT list\n"
    assert "jailng_nat" not in run("nft", "list", "tables")


def test_flushed_by_others(rules: Load, ipnat: Command) -> None:
    rules(*ARTICLE)
    run("nft", "flush", "ruleset")
    assert listed(ipnat) == []
    rules(*ARTICLE)
    run("nft", "flush", "table", "ip", "jailng_nat")
    assert listed(ipnat) == []


def test_long_rules_and_odd_names(rules: Load, ipnat: Command) -> None:
    rule = (
        "rdr ep0,'in' from 192.0.2.0/255.0.255.0 port 1000 <> 2000 to 198.51.100.0/24 port = 8080 -> "
        "203.0.113.1,203.0.113.2 port 80 tcp round-robin frag age 40/40 sticky mssclamp 1000 purge"
    )
    rules(rule)
    (shown,) = listed(ipnat, "-R")
    assert len(shown) > 150
    assert ipnat("-nvf", "-", stdin=f"{shown}\n").stdout.strip()
    rules(shown)
    assert listed(ipnat, "-R") == [shown]


@pytest.fixture
def docker(lan: Namespace) -> Iterator[Namespace]:
    """A container of Docker's on this host, and rules of others beside ours."""
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    with attach("docker0", ("172.17.0.1/16", "fd17::1/64"), ("172.17.0.2/16", "fd17::2/64")) as made:
        with made.entered():
            ip("route add default via 172.17.0.1")
        done = subprocess.run(["nft", "-f", "-"], input=_OTHERS, text=True, check=False)
        assert done.returncode == 0
        yield made
        for table in ("ip nat", "ip filter", "inet mine"):
            run("nft", "delete", "table", *table.split())
    run("sysctl", "-qw", "net.ipv4.ip_forward=0")


def test_beside_docker(docker: Namespace, lan: Namespace, rules: Load, ipnat: Command) -> None:
    before = run("nft", "list", "ruleset")
    rules(_MAP, _RDR)
    assert _ok(ipnat("-CF")) == "0 entries flushed from NAT table\n2 entries flushed from NAT list\n"
    assert run("nft", "list", "ruleset") == before
    before = run("nft", "-s", "list", "ruleset")  # without what packets have been counted
    with standing(7, CELL) as cell:
        rules(_MAP, _RDR)
        theirs = docker.listen("172.17.0.2", 80), lan.connect(HOST, 9000)
        served, _ = theirs[0].accept()
        ours = cell.listen(CELL, 21), lan.connect(HOST, 8021)
        exchange(*ours)
        assert exchange(lan.listen(LAN, 53), docker.connect(LAN, 53))[0] == HOST
        assert len(sessions(ipnat)) == 1
        assert _ok(ipnat("-F")) == "1 entries flushed from NAT table\n"
        theirs[1].sendall(b"ask")  # theirs goes on
        assert served.recv(3) == b"ask"
        for end in (*theirs, served):
            end.close()
        assert _ok(ipnat("-CF")) == "0 entries flushed from NAT table\n2 entries flushed from NAT list\n"
    assert run("nft", "-s", "list", "ruleset") == before


def test_the_host_forwards_for_nobody(lan: Namespace, rules: Load) -> None:
    """Rules for other machines translate; whether the host forwards is for its administrator to say."""
    before = run("sysctl", "-a", "--pattern", "forwarding|ip_forward")
    rules("map ep0 198.51.100.0/24 -> 0/32", "rdr ep0 10.0.0.76/32 port 80 -> 198.51.100.2 port 80")
    assert run("sysctl", "-a", "--pattern", "forwarding|ip_forward") == before


def test_replaced_under_traffic(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    """Every connection is translated, while the rules are replaced again and again."""
    rules(_MAP, _RDR)
    stop = threading.Event()
    replaced = []

    def replace() -> None:
        while not stop.is_set():
            done = ipnat("-Cf", "-", stdin=f"{_MAP}\n{_RDR}\n")
            replaced.append((done.stderr, done.returncode))

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        listener = cell.listen(CELL, 21)
        while len(replaced) < 4 and thread.is_alive():
            caller = lan.connect(HOST, 8021)  # nobody listens there on the host: refused, if not translated
            served, seen = listener.accept()
            assert seen[0] == LAN
            caller.close()
            served.close()
        listener.close()
    finally:
        stop.set()
        thread.join()
    assert set(replaced) == {("", 0)}


def test_two_at_once(rules: Load, ipnat: Command, checkout: Path) -> None:
    """None is lost of rules that eight processes add at the same time."""
    rules(_MAP)
    texts = [f"rdr ep0 {HOST}/32 port {port} -> {CELL} port 21 tcp" for port in range(3000, 3008)]
    argv = [f"{checkout}/bin/ipnat", "-f", "-"]
    running = [subprocess.Popen(argv, stdin=subprocess.PIPE, text=True, env=ENVIRONMENT) for _ in texts]
    for process, text in zip(running, texts, strict=True):
        assert process.stdin is not None
        process.stdin.write(text + "\n")
        process.stdin.close()
    assert [process.wait() for process in running] == [0] * 8
    assert sorted(listed(ipnat)[1:]) == texts


@pytest.mark.parametrize("call", ["sendmsg", "sendto", "recvmsg", "fcntl", "openat", "socket"])
def test_killed(call: str, rules: Load, ipnat: Command, checkout: Path) -> None:
    """Whenever it is killed, there are the old rules or the new, and the next finds its way."""
    rules(_MAP)
    for when in range(1, 400, 7 if call == "openat" else 1):
        argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={when}"]
        argv += [f"{checkout}/bin/ipnat", "-CFf", "-"]
        done = subprocess.run(argv, input=f"{_RDR}\n", capture_output=True, text=True, env=ENVIRONMENT)
        assert listed(ipnat) in ([_LISTED[0]], [_RDR])
        rules(_MAP)
        if done.returncode == 0:
            break
    else:
        pytest.fail("it never came to its end")


def test_in_a_network_namespace_of_its_own(ipnat: Command, rules: Load) -> None:
    """Rules of another network namespace are other rules."""
    rules(_MAP)
    inside = Namespace.new()
    with inside.entered():
        assert listed(ipnat) == []
        assert _ok(ipnat("-f", "-", stdin=f"{_RDR}\n")) == ""
        assert listed(ipnat) == [_RDR]
    assert listed(ipnat) == [_LISTED[0]]
    inside.close()


def test_a_thousand_rules(lan: Namespace, cell: Jail, rules: Load, ipnat: Command) -> None:
    """A packet finds its rule by maps: in the chains that it passes there are few."""
    texts = []
    for at in range(500):
        address = f"192.168.{20 + at // 250}.{at % 250 + 1}"
        texts += [f"map ep0 {address}/32 -> 0/32", f"rdr ep0 {HOST}/32 port {2000 + at} -> {address} port 80 tcp"]
    rules(*texts, _MAP, _RDR)
    exchange(cell.listen(CELL, 21), lan.connect(HOST, 8021))
    assert exchange(lan.listen(LAN, 53), cell.connect(LAN, 53))[0] == HOST
    assert len(listed(ipnat)) == 1002
    for chain in ("prerouting", "postrouting"):
        assert len(run("nft", "-a", "list", "chain", "ip", "jailng_nat", chain).split("# handle")) < 20
