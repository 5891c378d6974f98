"""The host's shims, against the article's outputs: ps, sockstat, netstat and ifconfig as FreeBSD has them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jailng.core import registry
from tests.kernel.conftest import Command, Shim
from tests.kernel.networks import Namespace, attach, ip, run
from tests.kernel.stage import Stage, mount, unmount
from tests.kernel.stdio_host import state, until

MS_BIND = 0x1000
ETHER = "00:50:04:cc:3e:cc"


@pytest.fixture
def ogoun() -> Iterator[Namespace]:
    """The article's host: 10.0.0.75 on ep0, with the card's address."""
    with attach("ep0", ("10.0.0.75/24", "2001:db8:1::75/64"), ("10.0.0.33/24", "2001:db8:1::33/64")) as made:
        ip(f"link set ep0 address {ETHER}")
        run("ip", "-6", "address", "flush", "dev", "ep0")
        ip("address delete 10.0.0.75/24 dev ep0", "address add 10.0.0.75/24 broadcast 192.70.106.255 dev ep0")
        yield made


@pytest.fixture
def titi(tmp_path: Path) -> Iterator[None]:
    """The host has a user of uid 1001."""
    known = [line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[2] != "1001"]
    passwd = tmp_path / "passwd"
    passwd.write_text("\n".join([*known, "titi:x:1001:1001:titi:/home/titi:/bin/sh"]) + "\n")
    passwd.chmod(0o644)
    mount(str(passwd), "/etc/passwd", None, MS_BIND)
    yield
    unmount("/etc/passwd")


@pytest.fixture
def cell(ogoun: Namespace, jail: Command, small_root: Path, stage: Stage) -> Iterator[Callable[..., None]]:
    """Starts the article's jail, with httpd in inetd's place on port 21; what is given are parameters more."""

    def start(*parameters: str) -> None:
        (small_root / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\nmonkeytest:x:1001:1001:monkeytest:/tmp:/bin/sh\n"
        )
        ip("address add 192.168.10.2/24 broadcast + dev ep0")
        words = ("name=cell", f"path={small_root}", "host.hostname=cell.hsc.fr", "ip4.addr=192.168.10.2", "persist")
        done = jail("-c", *words, *parameters, "exec.start=httpd -p 192.168.10.2:21")
        assert (done.returncode, done.stderr) == (0, "")
        record = registry.find("cell")
        assert record is not None
        for pid in (stage.cgroup2 / record.members / "cgroup.procs").read_text().split():
            until(lambda pid=int(pid): state(pid) == "S", "the daemon waits")  # type: ignore[misc]

    yield start
    jail("-r", "cell")


@pytest.fixture
def as_monkeytest(checkout: Path) -> Iterator[Callable[[], int]]:
    """Starts a process of monkeytest's in the jail, and tells its pid on the host."""
    started: list[subprocess.Popen[str]] = []

    def execute() -> int:
        argv = [f"{checkout}/bin/jexec", "-U", "monkeytest", "cell", "sh", "-c", "echo up; read word; exit"]
        entered = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(entered)
        assert entered.stdout is not None
        assert entered.stdout.readline() == "up\n"
        children = Path(f"/proc/{entered.pid}/task/{entered.pid}/children").read_text().split()
        until(lambda: state(int(children[-1])) == "S", "it waits for the word")
        return int(children[-1])

    yield execute
    for entered in started:
        entered.communicate()


def rows(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert (done.stderr, done.returncode) == ("", 0)
    return [line.split() for line in done.stdout.splitlines()]


def test_ifconfig_is_the_articles(shim: Shim, ogoun: Namespace) -> None:
    """``ogoun% ifconfig ep0``, after ``ifconfig ep0 alias 192.168.10.2 netmask 0xffffff00``."""
    done = shim("ifconfig", "ep0", "alias", "192.168.10.2", "netmask", "0xffffff00")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert shim("ifconfig", "ep0").stdout == (
        "ep0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500\n"
        "\tinet 10.0.0.75 netmask 0xffffff00 broadcast 192.70.106.255\n"
        "\tinet 192.168.10.2 netmask 0xffffff00 broadcast 192.168.10.255\n"
        f"\tether {ETHER}\n"
    )
    done = shim("ifconfig", "ep0", "-alias", "192.168.10.2")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert "192.168.10.2" not in shim("ifconfig", "ep0").stdout


def test_ifconfig_of_a_label_is_the_hosts_own(shim: Shim, ogoun: Namespace) -> None:
    """Linux's old aliases: what is done to ep0:1 was done to ep0, for which the kernel takes it; ``down``, too."""
    assert shim("ifconfig", "ep0:1", "192.168.10.2", "netmask", "255.255.255.0").returncode == 0
    assert shim("ifconfig", "ep0:1").stdout.startswith("ep0:1: ")
    shown = shim("ifconfig", "ep0").stdout
    assert "\tinet 10.0.0.75 " in shown and "\tinet 192.168.10.2 " in shown
    assert shim("ifconfig", "ep0:1", "down").returncode == 0
    shown = shim("ifconfig", "ep0").stdout
    assert "UP," in shown and "\tinet 10.0.0.75 " in shown and "\tinet 192.168.10.2 " not in shown
    assert shim("ifconfig", "bridge0", "create").returncode == 0
    try:
        done = shim("ifconfig", "bridge0", "addm", "ep0:1")
        assert (done.returncode, done.stderr) == (1, "ifconfig: BRDGADD ep0:1: No such file or directory\n")
    finally:
        assert shim("ifconfig", "bridge0", "destroy").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("inet", "192.168.10.2/24", "alias"),
        ("alias", "192.168.10.2", "netmask", "255.255.255.0"),
        ("add", "192.168.10.2", "prefixlen", "24"),
        ("inet", "alias", "192.168.10.2"),  # of class C
    ],
)
def test_ifconfig_spellings_of_an_alias(shim: Shim, ogoun: Namespace, words: tuple[str, ...]) -> None:
    assert shim("ifconfig", "ep0", *words).returncode == 0
    line = "\tinet 192.168.10.2 netmask 0xffffff00 broadcast 192.168.10.255\n"
    assert line in shim("ifconfig", "ep0").stdout
    assert shim("ifconfig", "ep0", *words).returncode == 0  # twice is as once
    assert shim("ifconfig", "ep0").stdout.count(line) == 1


def test_ifconfig_takes_one_alias_of_several_in_a_network(shim: Shim, ogoun: Namespace) -> None:
    """The kernel would take the others with the first, unless told otherwise."""
    for last in (2, 3, 4):
        assert shim("ifconfig", "ep0", "alias", f"192.168.10.{last}/24").returncode == 0
    assert shim("ifconfig", "ep0", "-alias", "192.168.10.2").returncode == 0
    assert re.findall("inet 192.168.10.([0-9])", shim("ifconfig", "ep0").stdout) == ["3", "4"]


def test_ifconfig_inet6_and_down(shim: Shim, ogoun: Namespace) -> None:
    assert shim("ifconfig", "ep0", "inet6", "2001:db8::2", "prefixlen", "64", "alias").returncode == 0
    assert "\tinet6 2001:db8::2 prefixlen 64\n" in shim("ifconfig", "ep0").stdout
    assert shim("ifconfig", "ep0", "inet6", "2001:db8::2", "-alias").returncode == 0
    assert "2001:db8::2" not in shim("ifconfig", "ep0").stdout
    assert shim("ifconfig", "ep0", "down").returncode == 0
    assert shim("ifconfig", "ep0").stdout.startswith("ep0: flags=8802<BROADCAST,SIMPLEX,MULTICAST> ")
    assert shim("ifconfig", "ep0", "up").returncode == 0
    assert "UP," in shim("ifconfig", "ep0").stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("ep9",), "interface ep9 does not exist"),
        (("ep9", "up"), "interface ep9 does not exist"),
        (("ep9\x1b[31m",), "interface ep9\\x1b[31m does not exist"),
        (("ep9", "alias", "192.0.2.1"), "interface ep9 does not exist"),
        (("ep0", "alias", "300.1.2.3"), "300.1.2.3: bad value"),
        (("ep0", "alias", "192.0.2.1", "netmask", "0xff00ff00"), "0xff00ff00: bad value"),
        (("ep0", "alias", "192.0.2.1", "netmask", "0xfffffffff"), "0xfffffffff: bad value"),
        (("ep0", "alias", "192.0.2.1/33"), "192.0.2.1/33: bad value (width too large)"),
        (("ep0", "-alias", "192.0.2.9"), "ioctl (SIOCDIFADDR): Can't assign requested address"),
    ],
)
def test_ifconfig_complaints(shim: Shim, ogoun: Namespace, words: tuple[str, ...], complaint: str) -> None:
    before = run("ip", "address")
    done = shim("ifconfig", *words)
    assert (done.stdout, done.stderr, done.returncode) == ("", f"ifconfig: {complaint}\n", 1)
    assert run("ip", "address") == before


def test_ifconfig_tells_who_has_the_other_end(shim: Shim, ogoun: Namespace) -> None:
    four, six = "203.0.113.5 peer 203.0.113.6", "2001:db8:7::5 peer 2001:db8:7::6"
    ip(f"address add {four} dev ep0", f"address add {six} dev ep0 nodad")
    lines = shim("ifconfig", "ep0").stdout.splitlines()
    ip(f"address delete {four} dev ep0", f"address delete {six} dev ep0")
    assert "\tinet 203.0.113.5 --> 203.0.113.6 netmask 0xffffffff" in lines
    assert "\tinet6 2001:db8:7::5 --> 2001:db8:7::6 prefixlen 128" in lines


def test_ifconfig_formats(shim: Shim, ogoun: Namespace) -> None:
    """-f, or IFCONFIG_FORMAT, and -n, which asks for no names: of scripts that take a network from here."""
    ip("address add 2001:db8:1::75/64 dev ep0 nodad")
    for words in (("-f", "inet:cidr,inet6:cidr,ether:dash", "ep0"), ("-n", "-finet:cidr,ether:dash,inet6:cidr", "ep0")):
        lines = shim("ifconfig", *words).stdout.splitlines()
        assert "\tinet 10.0.0.75/24 broadcast 192.70.106.255" in lines
        assert "\tinet6 2001:db8:1::75/64" in lines
        assert f"\tether {ETHER.replace(':', '-')}" in lines
    lines = shim("ifconfig", "-f", "inet:dotted", "ep0", "inet").stdout.splitlines()
    assert lines[1:] == ["\tinet 10.0.0.75 netmask 255.255.255.0 broadcast 192.70.106.255"]
    assert shim("ifconfig", "-an").stdout == shim("ifconfig", "-a").stdout
    assert shim("ifconfig", "-n", "ep0", "inet", "192.168.10.9/32", "alias").returncode == 0
    assert "\tinet 192.168.10.9/32\n" in shim("ifconfig", "-f", "inet:cidr", "ep0").stdout
    assert shim("ifconfig", "ep0", "-alias", "192.168.10.9").returncode == 0
    done = shim("ifconfig", "-f", "cidr", "-l")
    assert (done.stdout, done.stderr) == ("lo ep0\n", "ifconfig: Skipping invalid format specification: cidr\n")


def test_ifconfig_lists_all(shim: Shim, ogoun: Namespace) -> None:
    assert shim("ifconfig", "-l").stdout.split() == ["lo", "ep0"]
    for words in ((), ("-a",)):
        assert re.findall(r"^(\w+): flags=", shim("ifconfig", *words).stdout, re.MULTILINE) == ["lo", "ep0"]


def test_netstat_is_the_articles(shim: Shim, cell: Callable[..., None]) -> None:
    """``ogoun% netstat -an | fgrep '.21 '``."""
    cell()
    done = shim("netstat", "-an")
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "Active Internet connections (including servers)",
        "Proto Recv-Q Send-Q  Local Address          Foreign Address        (state)",
    ]
    assert [line for line in lines if "192.168.10.2.21 " in line] == [
        "tcp4       0      0  192.168.10.2.21        *.*                    LISTEN"
    ]
    ours = [line for line in shim("netstat", "-an", "-f", "inet", "-p", "tcp").stdout.splitlines() if "tcp" in line]
    assert _standing(ours) == [line for line in _standing(lines) if line.startswith("tcp4")]


def test_netstat_of_a_jail(shim: Shim, cell: Callable[..., None], jail: Command, small_root: Path) -> None:
    """Statistics by the host's own, in the jail's network."""
    cell()
    with socket.create_server(("10.0.0.75", 2105)):
        done = shim("netstat", "-j", "cell", "-an", "-f", "inet")
        assert [row[3] for row in rows(done)[2:]] == ["192.168.10.2.21"]
        words = ("name=same", f"path={small_root}", "persist", "ip4=inherit", "exec.start=httpd -p 10.0.0.75:2106")
        assert jail("-c", *words).returncode == 0
        try:  # which has no table of its own
            assert [row[3] for row in rows(shim("netstat", "-an", "-f", "inet", "-j", "same"))[2:]] == [
                "10.0.0.75.2106"
            ]
        finally:
            jail("-r", "same")
    routes = shim("netstat", "-j", "cell", "-rn")
    assert "192.168.10.2" in routes.stdout and routes.stdout != shim("netstat", "-rn").stdout
    assert "Kernel IP routing table" in shim("netstat", "-j", "cell", "-rne").stdout
    for spelled in ("-rnj cell", "-jcell -rn", "-rn -jcell"):  # as getopt(3) has it
        assert shim("netstat", *spelled.split()).stdout == routes.stdout
    for word, why in (("nowhere", 'jail "nowhere" not found'), ("999999", "jail_attach(999999): Invalid argument")):
        for flags in ("-an", "-rn"):
            done = shim("netstat", "-j", word, flags)
            assert (done.stdout, done.stderr, done.returncode) == ("", f"netstat: {why}\n", 1)


def _standing(lines: list[str]) -> list[str]:
    """Without what other tests' connections leave behind, and a minute takes away."""
    return [line for line in lines if not re.search("(WAIT|WAIT_[12]|ACK|CLOSING|SYN_SENT|SYN_RCVD)$", line)]


def test_an_established_connection_is_seen_from_the_host(
    shim: Shim, ogoun: Namespace, cell: Callable[..., None]
) -> None:
    cell()
    ogoun.run("ip", "route", "add", "192.168.10.2", "via", "10.0.0.75")
    with ogoun.connect("192.168.10.2", 21) as caller:
        port = caller.getsockname()[1]
        assert ["tcp4", "0", "0", "192.168.10.2.21", f"10.0.0.33.{port}", "ESTABLISHED"] in rows(shim("netstat", "-an"))
        ends = ["192.168.10.2:21", f"10.0.0.33:{port}"]
        # It is nobody's until the daemon takes it.
        until(lambda: ends in [row[5:7] for row in rows(shim("sockstat", "-4c"))], "it is somebody's")


def test_sockstat_says_who_listens(shim: Shim, cell: Callable[..., None]) -> None:
    cell()
    ((pid,),) = rows(shim("ps", "-J", "cell", "-o", "pid="))
    done = shim("sockstat", "-4l", "-p", "21")
    assert re.split(" {2,}", done.stdout.splitlines()[0]) == [
        "USER", "COMMAND", "PID", "FD", "PROTO", "LOCAL ADDRESS", "FOREIGN ADDRESS",
    ]  # fmt: skip
    ((user, *rest),) = rows(done)[1:]
    assert int(user) % 65536 == 0
    assert (rest[0], rest[1], rest[3:]) == ("httpd", pid, ["tcp4", "192.168.10.2:21", "*:*"])
    assert os.readlink(f"/proc/{pid}/fd/{rest[2]}").startswith("socket:")
    assert rows(shim("sockstat", "-4l", "-j", "cell"))[1:] == [[user, *rest]]
    assert rows(shim("sockstat", "-4lq", "-p", "22-80")) == []


def test_sockets_to_which_both_versions_come(shim: Shim, jail: Command, ogoun: Namespace, small_root: Path) -> None:
    """Most servers have one of these and no other, and whoever asks for IPv4 is to find them: as on FreeBSD."""
    words = ("name=both", f"path={small_root}", "vnet", "persist", "exec.start=httpd -p 2100")
    assert jail("-c", *words).returncode == 0
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    try:
        with ExitStack() as stack:
            for kind, address, port, only in (
                (stream, "::", 2101, 0), (datagram, "::", 2102, 0), (stream, "::", 2103, 1), (stream, "::1", 2104, 0),
            ):  # fmt: skip
                made = stack.enter_context(socket.socket(socket.AF_INET6, kind))
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
                made.bind((address, port))
                if kind == stream:
                    made.listen()
            both = [["tcp46", "*:2100"], ["tcp46", "*:2101"], ["udp46", "*:2102"]]
            six = [["tcp6", "*:2103"], ["tcp6", "::1:2104"]]
            for option, expected in (("-46", both + six), ("-4", both), ("-6", both + six)):
                listed = rows(shim("sockstat", option, "-l", "-p", "2100-2104"))
                assert sorted(row[4:6] for row in listed[1:]) == sorted(expected)
            assert [row[4:6] for row in rows(shim("sockstat", "-4lq", "-j", "both"))] == both[:1]
            for family, expected in (("inet", both), ("inet6", both + six)):
                listed = rows(shim("netstat", "-an", "-f", family))
                told = [[row[0], row[3].replace(".", ":")] for row in listed if ".210" in " ".join(row)]
                assert sorted(told) == sorted(expected)
    finally:
        assert jail("-r", "both").returncode == 0


def test_ps_aux_is_the_articles(
    shim: Shim, cell: Callable[..., None], titi: None, as_monkeytest: Callable[[], int]
) -> None:
    """``ogoun% ps aux | grep J``: monkeytest is titi, since the uids are the same."""
    cell("ng.uids=shared")
    pid = as_monkeytest()
    listed = rows(shim("ps", "aux"))
    assert listed[0] == "USER PID %CPU %MEM VSZ RSS TT STAT STARTED TIME COMMAND".split()
    jailed = [row for row in listed if "J" in row[7]]
    assert sorted([row[0], *row[10:12]] for row in jailed) == [["root", "httpd", "-p"], ["titi", "sh", "-c"]]
    (mine,) = [row for row in jailed if row[0] == "titi"]
    assert (mine[1], mine[6], mine[7]) == (str(pid), "??", "SsJ")
    assert re.fullmatch(r"[0-9]+:[0-9]{2}[AP]M", mine[8]), mine
    assert re.fullmatch(r"[0-9]+:[0-9]{2}\.[0-9]{2}", mine[9]), mine


def test_ps_with_private_uids_lends_the_jail_no_name_of_the_hosts(
    shim: Shim, jls: Command, cell: Callable[..., None], titi: None, as_monkeytest: Callable[[], int]
) -> None:
    cell()
    pid = as_monkeytest()
    (mine,) = [row for row in rows(shim("ps", "aux")) if row[1] == str(pid)]
    assert mine[0] == str(os.stat(f"/proc/{pid}").st_uid)
    assert int(mine[0]) % 65536 == 1001
    assert "J" in mine[7]


def test_ps_spellings(shim: Shim, cell: Callable[..., None], jls: Command) -> None:
    cell()
    jid = jls("-j", "cell", "jid").stdout.strip()
    assert rows(shim("ps", "ax"))[0] == ["PID", "TT", "STAT", "TIME", "COMMAND"]
    assert rows(shim("ps", "-aux"))[0][:2] == ["USER", "PID"]
    assert ["ps", "ax"] in [row[4:] for row in rows(shim("ps", "ax"))]
    assert {row[2] for row in rows(shim("ps", "ax", "-J", "cell"))[1:]} == {"SsJ"}
    assert rows(shim("ps", "-J", "cell", "-o", "jid,jail,comm"))[1:] == [[jid, "cell", "httpd"]]
    assert {row[0] for row in rows(shim("ps", "-J", "0", "-o", "jid,jail"))[1:]} == {"0"}
    assert {row[0] for row in rows(shim("ps", "-J", f"0,{jid}", "-o", "jid,jail"))[1:]} == {"0", jid}
    assert shim("ps", "-o", "comm=", "-p", str(os.getpid())).stdout == Path("/proc/self/comm").read_text()
    nobody = shim("ps", "-p", "4194304")
    assert (nobody.stderr, nobody.returncode) == ("", 1)
    unknown = shim("ps", "-J", "nowhere")
    assert (unknown.stderr, unknown.returncode) == ("ps: Invalid jail id: nowhere\n", 1)
    empty = shim("ps", "-J", "")
    assert (empty.stderr, empty.returncode) == ("ps: Invalid (zero-length) jail id\n", 1)
    none = shim("ps", "-J", "999999")
    assert (none.stdout.split(), none.stderr, none.returncode) == (["PID", "TT", "STAT", "TIME", "COMMAND"], "", 1)


def test_others_than_root_see_who_is_jailed(shim: Shim, cell: Callable[..., None], public: Path) -> None:
    """Of what is not theirs to see they miss the names inside, and who has a socket."""
    cell()
    bare = "PATH=/usr/bin:/bin exec setpriv --reuid=65534 --regid=65534 --clear-groups --"

    def nobody(words: str) -> list[list[str]]:
        return rows(subprocess.run(["sh", "-c", f"{bare} {public}/shims/{words}"], capture_output=True, text=True))

    (mine,) = [row for row in nobody("ps aux") if "J" in row[7]]
    assert mine[10] == "httpd"
    assert nobody("ps -J cell -o jail,comm")[1:] == [["cell", "httpd"]]
    assert "192.168.10.2.21" in {row[3] for row in nobody("netstat -an") if len(row) > 3}
    assert ["?", "?", "?", "?", "tcp4", "192.168.10.2:21", "*:*"] in nobody("sockstat -4l")
    done = subprocess.run(["sh", "-c", f"{bare} {public}/shims/ifconfig ep0 alias 192.0.2.1/24"], capture_output=True)
    assert (done.stderr, done.returncode) == (b"ifconfig: ioctl (SIOCAIFADDR): permission denied\n", 1)
    done = subprocess.run(["sh", "-c", f"{bare} {public}/shims/ifconfig ep0 -alias 10.0.0.75"], capture_output=True)
    assert (done.stderr, done.returncode) == (b"ifconfig: ioctl (SIOCDIFADDR): permission denied\n", 1)


def test_ifconfig_of_a_jail_is_what_the_article_sees_inside(shim: Shim, cell: Callable[..., None]) -> None:
    """``cell% ifconfig ep0``."""
    cell()
    assert shim("ifconfig", "-j", "cell", "ep0").stdout == (
        "ep0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500\n"
        "\tinet 192.168.10.2 netmask 0xffffff00 broadcast 192.168.10.255\n"
        f"\tether {ETHER}\n"
    )
    unknown = shim("ifconfig", "-j", "nowhere")
    assert (unknown.stderr, unknown.returncode) == ('ifconfig: jail "nowhere" not found\n', 1)


def test_a_link_to_a_shim_is_one(shim: Shim, checkout: Path, others: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/ps").symlink_to(checkout / "shims/ps")
    path = f"{tmp_path}/mine:{checkout}/shims:{others}:{checkout}/bin:/usr/bin:/bin"
    for words in (["aux"], ["-ef"]):
        done = subprocess.run(["ps", *words], capture_output=True, text=True, env={"PATH": path})
        assert done.stdout.startswith("USER " if words == ["aux"] else "other ps -ef\n"), done


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A directory of programs that say how they were called."""
    made = tmp_path / "others"
    made.mkdir()
    for name in ("ps", "sockstat", "netstat", "ifconfig", "sysctl", "mount", "umount"):
        (made / name).write_text('#!/bin/sh\necho other "$(basename "$0")" "$@"\nexit 7\n')
        (made / name).chmod(0o755)
    return made


@pytest.mark.parametrize(
    "argv",
    [
        "ps -ef", "ps auxf", "ps --version", "ps -o pid,cmd", "ps -u root", "netstat -rne", "netstat -a",
        "netstat -anp", "netstat -tulpn", "netstat -an -p icmp", "ifconfig ep0 mtu 1400", "ifconfig ep0 10.1.1.1",
        "ifconfig --version", "mount", "mount -t tmpfs none /x", "mount -o bind /x /y", "mount -a", "umount -f /x",
        "sysctl", "sysctl -w kernel.x=1", "sysctl -p", "sysctl --system", "sysctl -r kern", "sysctl -n kernel.ostype",
        "sysctl -qe hw.other net.x", "sockstat -z",
    ],
)  # fmt: skip
def test_what_is_not_understood_goes_to_the_next_on_path(shim: Shim, checkout: Path, others: Path, argv: str) -> None:
    name, *words = argv.split()
    done = shim(name, *words, path=f"{checkout}/shims:{others}:/usr/bin:/bin")
    assert (done.stdout, done.stderr, done.returncode) == (f"other {argv}\n", "", 7)


@pytest.mark.parametrize("words", ["sysctl -N security.jail", "ps ax", "ps -ef"])
def test_who_stops_reading_ends_them_in_silence(checkout: Path, others: Path, words: str) -> None:
    """``sysctl -a | head -1``, also where the host's own goes on: it does not ignore the signal either."""
    (others / "ps").write_text("#!/bin/sh\nkill -PIPE $$\n")
    reader, writer = os.pipe()
    os.close(reader)
    path = f"{checkout}/shims:{others}:/usr/bin:/bin"
    done = subprocess.run(["sh", "-c", f"exec {words}"], stdout=writer, stderr=subprocess.PIPE, env={"PATH": path})
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_shims_in_two_directories_do_not_call_each_other_in_circles(
    shim: Shim, checkout: Path, others: Path, tmp_path: Path
) -> None:
    second = tmp_path / "shims"
    second.mkdir()
    (tmp_path / "bin").symlink_to(checkout / "bin")
    (second / "ps").write_bytes((checkout / "shims/ps").read_bytes())
    (second / "ps").chmod(0o755)
    for order in ([checkout / "shims", second], [second, checkout / "shims"]):
        path = ":".join(map(str, [*order, others, "/usr/bin", "/bin"]))
        assert shim("ps", "-ef", path=path).stdout == "other ps -ef\n"
    done = shim("sockstat", "-z", path=f"{checkout}/shims:{checkout}/shims:/usr/bin:/bin")
    assert (done.stdout, done.returncode) == ("", 127)
    assert done.stderr.startswith("usage: sockstat ")


def test_ps_json_as_its_clients_read_it(shim: Shim, cell: Callable[..., None]) -> None:
    """The call of OSLV::Monitor, and the fields that it adds up."""
    cell()
    keywords = (
        "%cpu,%mem,pid,acflag,cow,dsiz,etimes,inblk,jail,majflt,minflt,msgrcv,msgsnd,nivcsw,nswap,nvcsw,oublk,rss,ssiz,"
        "systime,time,tsiz,usertime,vsz,pid,gid,uid,command,jid,nsigs"
    )
    done = shim("ps", "a", "--libxo", "json", "-o", keywords, "-J", "cell")
    assert (done.stderr, done.returncode) == ("", 0)
    (daemon,) = json.loads(done.stdout)["process-information"]["process"]
    assert (daemon["jail-name"], daemon["command"].split()[0]) == ("cell", "httpd")
    assert int(daemon["jail-id"]) > 0
    fields = (
        "copy-on-write-faults data-size elapsed-times involuntary-context-switches major-faults minor-faults "
        "percent-cpu percent-memory read-blocks received-messages rss sent-messages stack-size swaps text-size "
        "virtual-size voluntary-context-switches written-blocks signals-taken uid gid pid"
    )
    assert not [name for name in fields.split() if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", daemon[name])]
    for name in ("cpu-time", "system-time", "user-time"):
        assert re.fullmatch(r"[0-9]+:[0-9]{2}\.[0-9]{2}", daemon[name])


@pytest.mark.parametrize(
    "argv",
    [
        "pgrep", "pgrep -c -x init-that-is-none", "pgrep --help", "pgrep --version", "pgrep -x -l no.such.process",
        "pgrep -Z x", "pgrep -d -j -n x y", "pkill", "pkill -0 -x no-such-process", "pkill --help", "pkill -1",
        "killall", "killall --version", "killall -0 no-such-process", "killall -l", "killall -s 0 no-such -j x",
        "ps --version", "ps -p 1 -o pid,cmd", "ps -o pid,cmd -C no-such", "ps --no-such-option", "service",
        "service --version", "service no-such-service start", "ifconfig --version", "ifconfig lo mtu",
        "ifconfig -s lo", "ifconfig nonesuch 127.0.0.1 netmask 255.0.0.0", "ifconfig tun7 create mtu 5",
        "netstat -ie", "netstat --version", "netstat -rne", "netstat -r x", "sysctl -n kernel.ostype",
        "sysctl no.such.name",
    ],
)  # fmt: skip
def test_what_is_not_about_jails_is_as_the_real_programs(shim: Shim, stage: object, argv: str) -> None:
    name, *words = argv.split()
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    real = subprocess.run([name, *words], input="", capture_output=True, text=True, env=environment)
    ours = shim(name, *words)
    said, wanted = ours.stdout, real.stdout
    if argv == "netstat -i":  # what other tests' connections go on to say on the loopback is counted
        said, wanted = (re.sub(r"\d+", "N", text) for text in (said, wanted))
    assert (said, ours.stderr, ours.returncode) == (wanted, real.stderr, real.returncode)
    assert ours.stdout or ours.stderr or ours.returncode
