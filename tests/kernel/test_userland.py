"""A bootstrapped root lives: it boots by /etc/rc, is logged in to, speaks as FreeBSD does, and stops."""

from __future__ import annotations

import ftplib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.core import registry
from tests.kernel.bootstrapped import SHIMS, bootstrap
from tests.kernel.conftest import Command
from tests.kernel.debian import LISTENS
from tests.kernel.networks import attach, ip
from tests.kernel.stage import Stage
from tests.kernel.stdio_host import until

_ADDRESS = "192.168.10.2"
# The article's, less the line that enables a mail program, which a root has none of.
_RC_CONF = """\
hostname="cell.hsc.fr"
syslogd_enable="YES"		# Run syslog daemon (or NO).
syslogd_flags="-s -s"
inetd_enable="YES"		# Run the network daemon dispatcher (or NO).
inetd_flags="-wW -a 192.168.10.2"
sshd_enable="YES"
"""


@pytest.fixture(scope="module")
def root(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root as the article has it, with the user monkeytest."""
    place = tmp_path_factory.mktemp("userland")
    place.chmod(0o700)
    made = place / _ADDRESS
    done = bootstrap(stage, str(made), "--hostname", "cell.hsc.fr")
    assert done.returncode == 0, done.stderr
    (made / "etc/rc.conf").write_text(_RC_CONF)
    # Nobody answers who asks for the names of addresses here, and ftpd and sshd would wait for that.
    (made / "etc/resolv.conf").write_text("")
    (made / "etc/hosts").write_text(f"127.0.0.1 localhost\n{_ADDRESS} cell.hsc.fr cell\n10.0.0.75 ogoun\n")
    inetd = made / "etc/inetd.conf"
    inetd.write_text(re.sub(r"(?m)^#ftp\b", "ftp", inetd.read_text()))
    for command in (["useradd", "-m", "-s", "/bin/tcsh", "monkeytest"], ["chpasswd"]):
        subprocess.run(["chroot", made, *command], input="monkeytest:banana\n", text=True, check=True)
    return made


@pytest.fixture
def ogoun(stage: Stage) -> Iterator[None]:
    """The article's host: 10.0.0.75 on ep0, with the alias."""
    with attach("ep0", ("10.0.0.75/24", "fd00::75/64"), ("10.0.0.1/24", "fd00::1/64")):
        ip(f"address add {_ADDRESS}/24 brd + dev ep0")
        yield


@pytest.fixture
def cell(root: Path, ogoun: None, jail: Command, jls: Command) -> Iterator[str]:
    """The jid of the jail, booted."""
    done = jail(str(root), "cell.hsc.fr", _ADDRESS, "/bin/sh", "/etc/rc")
    assert done.returncode == 0, done.stderr
    jid = jls("jid").stdout.strip()
    until(lambda: _listened_to(jid) >= {21, 22}, "inetd and sshd listen, which may be in the background before that")
    yield jid
    jail("-r", jid)  # what a jail has left that ended by itself, the next command clears away


def _listened_to(jid: str) -> set[int]:
    """The ports of TCP: /proc/net/tcp, where 0A is LISTEN."""
    record = registry.find(jid)
    assert record is not None
    rows = [line.split() for line in Path(f"/proc/{record.init_pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


@pytest.fixture
def inside(cell: str, jexec: Command) -> Command:
    """A command in the jail, the shims first in PATH."""

    def run(*words: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        path = f"PATH={SHIMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return jexec(cell, "/usr/bin/env", "LC_ALL=C", path, *words, stdin=stdin, timeout=timeout)

    return run


def test_what_rc_says(root: Path, ogoun: None, jail: Command, jls: Command) -> None:
    extra = (
        'sendmail_outbound_enable="YES"\nsendmail_outbound_flags="-q30m"\nnosuch_enable="YES"\ncron_enable="maybe"\n'
    )
    try:
        (root / "etc/rc.conf").write_text(_RC_CONF + extra)
        (root / "etc/rc.local").write_text("echo rc.local is run\n")
        done = jail(str(root), "cell.hsc.fr", _ADDRESS, "/bin/sh", "/etc/rc")
        assert done.returncode == 0
        said = done.stdout.splitlines()
        started = ["Starting syslogd.", "Starting sshd.", "Starting inetd.", "Starting local daemons:"]
        assert [line for line in said if line.startswith("Starting")] == started
        assert "rc.local is run" in said
        # A service that cannot be is one line, and the others start.
        complaints = done.stderr.splitlines()
        assert complaints.count("/etc/rc: WARNING: sendmail_outbound: not installed") == 1
        assert complaints.count("/etc/rc: WARNING: nosuch: not installed") == 1
        assert {line for line in complaints if "cron" in line} == {
            "/etc/rc: WARNING: $cron_enable is not set properly - see rc.conf(5)."
        }
        # It lives on by its daemons, and dies with the last of them.
        assert len(jls("jid").stdout.split()) == 1
    finally:
        (root / "etc/rc.conf").write_text(_RC_CONF)
        (root / "etc/rc.local").unlink()
        for jid in jls("jid").stdout.split():
            jail("-r", jid)


def test_any_script_of_debians_is_a_service(root: Path, ogoun: None, jail: Command, jls: Command) -> None:
    script = root / "etc/init.d/hello-there"
    script.write_text("#!/bin/sh\ncase $1 in status) exit 3 ;; *) echo $1 >>/tmp/hello ;; esac\n")
    script.chmod(0o755)
    try:
        (root / "etc/rc.conf").write_text(_RC_CONF + 'hello_there_enable="YES"\n')
        done = jail(str(root), "cell.hsc.fr", _ADDRESS, "/bin/sh", "/etc/rc")
        assert "Starting hello_there." in done.stdout.splitlines(), done.stderr
        assert (root / "tmp/hello").read_text() == "start\n"
    finally:
        (root / "etc/rc.conf").write_text(_RC_CONF)
        script.unlink()
        for jid in jls("jid").stdout.split():
            jail("-r", jid)


def test_cron_may_be_cronie(root: Path, ogoun: None, jail: Command, jexec: Command, jls: Command) -> None:
    """Its program has another name, and the same file for its pid."""
    program = root / "usr/sbin/cron"
    program.rename(program.with_name("crond"))
    try:
        done = jail(str(root), "cell.hsc.fr", _ADDRESS, "/bin/sh", "/etc/rc")
        jid = jls("jid").stdout.strip()
        assert "Starting cron." in done.stdout.splitlines(), done.stderr
        script = "until [ -s /run/crond.pid ]; do sleep 0.1; done; cat /proc/$(cat /run/crond.pid)/comm"
        shown = jexec(jid, "/bin/sh", "-c", script)
        assert shown.stdout == "crond\n", shown.stderr
        done = jexec(jid, "/bin/sh", "/etc/rc.shutdown")
        assert "Stopping cron." in done.stdout.splitlines(), done.stderr
    finally:
        program.with_name("crond").rename(program)
        jail("-r", jid)


def test_a_broken_rc_conf_is_one_line_and_the_defaults_hold(
    root: Path, ogoun: None, jail: Command, jls: Command
) -> None:
    try:
        (root / "etc/rc.conf").write_text('sshd_enable="YES\n')
        done = jail(str(root), "cell.hsc.fr", _ADDRESS, "/bin/sh", "/etc/rc")
        assert "/etc/rc: WARNING: /etc/rc.conf: not read" in done.stderr.splitlines()
        assert "Starting syslogd." in done.stdout and "sshd" not in done.stdout
    finally:
        (root / "etc/rc.conf").write_text(_RC_CONF)
        for jid in jls("jid").stdout.split():
            jail("-r", jid)


def test_rc_shutdown_stops_all_and_the_jail_ends(inside: Command, jls: Command) -> None:
    done = inside("/bin/sh", "/etc/rc.shutdown")
    assert done.stdout.splitlines() == ["Stopping inetd.", "Stopping cron.", "Stopping sshd.", "Stopping syslogd."]
    until(lambda: not jls("jid").stdout.strip(), "the last to leave is the shell that said so")


def test_services_by_both_names(inside: Command) -> None:
    def pid() -> str:
        """Of sshd, which writes it down when it listens."""
        return inside("/bin/sh", "-c", f"{LISTENS}; cat /run/sshd.pid").stdout

    before = pid()
    assert inside("service", "sshd", "status").stdout == f"sshd is running as pid {before.strip()}.\n"
    assert inside("service", "ssh", "restart").returncode == 0
    between = pid()
    assert between != before
    assert inside("service", "sshd", "restart").stdout == "Stopping sshd.\nStarting sshd.\n"
    assert pid() not in (before, between)
    assert inside("/etc/rc.d/sshd", "status").stdout.startswith("sshd is running as pid ")
    assert inside("service", "inetd", "start").stdout.startswith("inetd already running? (pid=")
    assert inside("service", "inetd", "nosuch").returncode == 64


def test_logins_over_ssh_and_ftp(cell: str, root: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    home = root / "home/monkeytest/.ssh"
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "authorized_keys").write_text((tmp_path / "key.pub").read_text())
    subprocess.run(["chown", "-R", "1001:1001", home], check=True)
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    done = subprocess.run(
        ["ssh", *options, "-i", str(key), f"monkeytest@{_ADDRESS}", "id -un; echo $PATH; ps aux"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "monkeytest", done.stderr
    assert lines[1].startswith(f"{SHIMS}:") and lines[1].count(SHIMS) == 1
    assert lines[2].split() == "USER PID %CPU %MEM VSZ RSS TT STAT STARTED TIME COMMAND".split()
    with ftplib.FTP(_ADDRESS, timeout=30) as ftp:
        assert ftp.getwelcome().startswith("220 cell.hsc.fr FTP server")
        assert ftp.login("monkeytest", "banana").endswith("230 User monkeytest logged in.")
        assert ftp.pwd() == "/home/monkeytest"


def test_the_first_user_and_his_shell(root: Path) -> None:
    assert ":1001:1001:" in (root / "etc/passwd").read_text()
    assert "/bin/tcsh" in (root / "etc/shells").read_text().split()


def test_ps(inside: Command) -> None:
    by_name: dict[str, list[str]] = {}

    def is_settled() -> bool:
        """sshd gives itself its name, cron may have a job, and a daemon that has just begun waits in a moment."""
        nonlocal by_name
        lines = inside("ps", "aux").stdout.splitlines()
        assert lines[0].split() == "USER PID %CPU %MEM VSZ RSS TT STAT STARTED TIME COMMAND".split()
        rows = [line.split(None, 10) for line in lines[1:]]
        assert all(row[7].endswith("J") for row in rows), lines
        by_name = {row[10].split()[0].rpartition("/")[2]: row for row in rows}
        return {"syslogd", "sshd:", "cron", "inetd", "ps"} == set(by_name) and by_name["inetd"][7] == "SsJ"

    until(is_settled, "these are there, and inetd waits")
    inetd = by_name["inetd"]
    assert inetd[0] == "root" and inetd[6] == "??" and inetd[7] == "SsJ"
    assert re.fullmatch(r"\d\d?:\d\d[AP]M", inetd[8]) and re.fullmatch(r"\d+:\d\d\.\d\d", inetd[9])
    assert by_name["ps"][7].startswith("R") and by_name["ps"][10] == "ps aux"
    assert inside("ps", "ax").stdout.splitlines()[0].split() == "PID TT STAT TIME COMMAND".split()
    # What FreeBSD's has another meaning for, or none, is Debian's own.
    assert inside("ps", "-o", "pid=", "-p", "1").stdout.strip() == "1"
    assert inside("ps", "-ef").stdout.startswith("UID ")


def test_a_login_shell_is_told_from_its_program(inside: Command) -> None:
    done = inside("su", "-", "monkeytest", "-c", "ps -aux")
    row = next(line for line in done.stdout.splitlines() if line.endswith("(tcsh)"))
    assert row.split()[0] == "monkeytest"
    assert re.search(r"-(su|csh|tcsh) -c ps -aux \(tcsh\)$", row), row


def test_ifconfig(inside: Command) -> None:
    lines = inside("ifconfig", "ep0").stdout.split("\n")
    assert lines[0] == "ep0: flags=8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST> mtu 1500"
    assert lines[1] == "\tinet 192.168.10.2 netmask 0xffffff00 broadcast 192.168.10.255"
    assert re.fullmatch(r"\tether ([0-9a-f]{2}:){5}[0-9a-f]{2}", lines[2])
    assert lines[3].startswith("\tmedia: ")
    everything = inside("ifconfig").stdout
    assert everything == inside("ifconfig", "-a").stdout
    assert "\n".join(lines[:4]) in everything and "\tinet 127.0.0.1 netmask 0xff000000" in everything
    assert inside("ifconfig", "-l").stdout.split() == ["lo", "ep0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ep9", "ifconfig: interface ep9 does not exist"),
        ("ep0 alias 192.168.10.3 netmask 0xffffff00", "ifconfig: ioctl (SIOCAIFADDR): permission denied"),
        ("ep0 inet 192.168.10.3/24", "ifconfig: ioctl (SIOCAIFADDR): permission denied"),
        ("ep0 -alias 192.168.10.2", "ifconfig: ioctl (SIOCDIFADDR): permission denied"),
        ("ep0 down", "ifconfig: down: permission denied"),
    ],
)
def test_ifconfig_changes_nothing(inside: Command, words: str, said: str) -> None:
    done = inside("ifconfig", *words.split())
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said + "\n")


def test_netstat(inside: Command) -> None:
    lines = inside("netstat", "-an").stdout.splitlines()
    assert lines[0] == "Active Internet connections (including servers)"
    assert lines[1] == "Proto Recv-Q Send-Q  Local Address          Foreign Address        (state)"
    table = [line.split() for line in lines[2 : lines.index("Active UNIX domain sockets")]]
    assert sorted(table) == [
        ["tcp4", "0", "0", f"{_ADDRESS}.21", "*.*", "LISTEN"],
        ["tcp4", "0", "0", f"{_ADDRESS}.22", "*.*", "LISTEN"],
    ]
    local = lines[lines.index("Active UNIX domain sockets") + 1 :]
    assert local[0].split() == "Address Type Recv-Q Send-Q Inode Conn Refs Nextref Addr".split()
    assert any(line.split()[1] == "dgram" and line.endswith("/dev/log") for line in local[1:])
    assert inside("netstat", "-an", "-f", "inet6").stdout == ""
    assert f"{_ADDRESS}.ftp" in inside("netstat", "-a", "-f", "inet").stdout
    assert "Kernel IP routing table" in inside("netstat", "-rne").stdout


def test_a_login_finds_ifconfig(cell: str, inside: Command, jexec: Command) -> None:
    """BastilleBSD asks for a jail's addresses by ``jexec -l JAIL ifconfig -an``."""
    found = jexec("-l", cell, "ifconfig", "-an")
    assert (found.stdout, found.stderr) == (inside("ifconfig").stdout, "")


def test_netstat_of_routes(inside: Command) -> None:
    """BastilleBSD's calls are ``netstat -4rn | awk '/default/ {print $2}'`` and the like."""
    lines = inside("netstat", "-rn").stdout.splitlines()
    assert lines[:4] == [
        "Routing tables",
        "",
        "Internet:",
        "Destination        Gateway            Flags     Netif Expire",
    ]
    rows = [line.split() for line in lines]
    (default,) = [row for row in rows if row[:1] == ["default"]]
    assert (default[2][:1], default[3:]) == ("U", ["ep0"])
    (own,) = [row for row in rows if row[:1] == [_ADDRESS]]
    assert (own[1][:5], own[2:]) == ("link#", ["UHS", "lo"])
    four = inside("netstat", "-nr4").stdout.splitlines()
    assert four == inside("netstat", "-r", "-f", "inet").stdout.splitlines() == lines[: len(four)]


def test_netstat_of_a_connection(inside: Command) -> None:
    with ftplib.FTP(_ADDRESS, timeout=30):
        rows = [line.split() for line in inside("netstat", "-n", "-f", "inet").stdout.splitlines()[2:]]
        ends = [(row[3], row[4].rpartition(".")[0], row[5]) for row in rows]
        assert ends == [(f"{_ADDRESS}.21", "10.0.0.75", "ESTABLISHED")]


def test_sockstat(inside: Command) -> None:
    lines = inside("sockstat", "-4l").stdout.splitlines()
    assert lines[0].split() == "USER COMMAND PID FD PROTO LOCAL ADDRESS FOREIGN ADDRESS".split()
    rows = {(row[0], row[1], row[4], row[5], row[6]) for row in [line.split() for line in lines[1:]]}
    assert rows == {
        ("root", "sshd", "tcp4", f"{_ADDRESS}:22", "*:*"),
        ("root", "inetd", "tcp4", f"{_ADDRESS}:21", "*:*"),
    }


_SERVERS = """
use strict;
use Socket qw(:DEFAULT IPPROTO_IPV6 IPV6_V6ONLY IN6ADDR_ANY pack_sockaddr_in6);
my @all;
my %any = (AF_INET, pack_sockaddr_in(2103, INADDR_ANY));
for ([AF_INET6, SOCK_STREAM, 2101, 0], [AF_INET6, SOCK_DGRAM, 2102, 0], [AF_INET6, SOCK_STREAM, 2103, 1],
     [AF_INET, SOCK_STREAM, 2103]) {
    my ($family, $kind, $port, $only) = @$_;
    socket(my $made, $family, $kind, 0) or die $!;
    setsockopt($made, IPPROTO_IPV6, IPV6_V6ONLY, $only) or die $! if $family == AF_INET6;
    bind($made, $any{$family} || pack_sockaddr_in6($port, IN6ADDR_ANY)) or die $!;
    listen($made, 1) if $kind == SOCK_STREAM;
    push @all, $made;
}
for (@ARGV) { system "sockstat -lq $_; echo --" }
system "netstat -an -f inet";
"""


def test_sockets_to_which_both_versions_come(root: Path, ogoun: None, jail: Command, jexec: Command) -> None:
    assert jail("-c", "name=both", f"path={root}", "vnet", "persist").returncode == 0
    try:
        asked = ("-4", "-6", "-46 -p 2102-", "-P tcp -p 22,-2101", "-p 2100")
        words = ("/usr/bin/env", f"PATH={SHIMS}:/usr/bin:/bin", "perl", "-e", _SERVERS, "--", *asked)
        done = jexec("both", *words)
        bad = jexec("both", "/usr/bin/env", f"PATH={SHIMS}:/usr/bin:/bin", "sockstat", "-p", "1-2-3")
    finally:
        assert jail("-r", "both").returncode == 0
    assert (done.stderr, bad.stderr) == ("", "sockstat: syntax error in port range: 1-2-3\n")
    *told, last = done.stdout.split("--\n")
    found = [sorted(tuple(row.split()[4:6]) for row in text.splitlines() if ":" in row) for text in told]
    one, two, four, six = ("tcp46", "*:2101"), ("udp46", "*:2102"), ("tcp4", "*:2103"), ("tcp6", "*:2103")
    assert found == [[four, one, two], [one, six, two], [four, six, two], [one], []]
    assert [row.split()[0] for row in last.splitlines()[2:]] == ["tcp4", "tcp46", "udp46"]


_ROUTES = (
    ("add default 192.0.2.1", "add net default: gateway 192.0.2.1\n", "", 0),
    ("add default 192.0.2.1", "add net default: gateway 192.0.2.1 fib 0: route already in table\n",
     "route: message indicates error: File exists\n", 1),
    ("change default 192.0.2.3", "change net default: gateway 192.0.2.3\n", "", 0),
    ("add -net 198.51.100.0/24 192.0.2.1", "add net 198.51.100.0/24: gateway 192.0.2.1\n", "", 0),
    ("add 198.51.100.10 -iface wire1", "add host 198.51.100.10: gateway wire1\n", "", 0),
    ("-6 add default fe80::1%wire1", "add net default: gateway fe80::1%wire1\n", "", 0),
    ("delete 198.51.100.10", "delete host 198.51.100.10\n", "", 0),
    ("delete 198.51.100.10", "delete host 198.51.100.10 fib 0: not in table\n",
     "route: route has not been found\n", 1),
    ("add 203.0.113.1 203.0.113.2", "add host 203.0.113.1: gateway 203.0.113.2 fib 0: Network is unreachable\n",
     "route: message indicates error: Network is unreachable\n", 1),
    ("add -host 203.0.113.1 gw 192.0.2.1", "", "", 0),  # Debian's own
)  # fmt: skip


def test_route(root: Path, ogoun: None, jail: Command, jexec: Command) -> None:
    ip("link add wire0 type veth peer name wire1", "link set wire0 up")
    try:
        made = jail("-c", "name=own", f"path={root}", "vnet", "vnet.interface=wire1", "persist")
        assert made.returncode == 0, made.stderr
        path = ("/usr/bin/env", f"PATH={SHIMS}:/usr/sbin:/usr/bin:/sbin:/bin")
        for words in ("address add 192.0.2.2/24 dev wire1", "link set wire1 up"):
            assert jexec("own", *path, "ip", *words.split()).returncode == 0
        for words, said, why, status in _ROUTES:
            done = jexec("own", *path, "route", *words.split())
            assert (done.stdout, done.stderr, done.returncode) == (said, why, status), words
        assert "default via 192.0.2.3 dev wire1 \n" in jexec("own", *path, "ip", "route").stdout
        assert "Kernel IP routing table" in jexec("own", *path, "route", "-n").stdout
    finally:
        jail("-r", "own")
        ip("link delete wire0")


_REFUSED = "ifconfig: ioctl (SIOCDIFADDR): Can't assign requested address\n"
_CHANGES = (
    ("wire1 inet 192.0.2.2 netmask 0xffffff00", "", "192.0.2.2/24 brd 192.0.2.255"),
    ("wire1 192.0.2.3/25 up", "", "192.0.2.3/25 brd 192.0.2.127"),  # in its place
    ("wire1 inet 192.0.2.4/32 alias", "", "192.0.2.3/25 brd 192.0.2.127, 192.0.2.4/32"),
    ("wire1 inet 192.0.2.4 -alias", "", "192.0.2.3/25 brd 192.0.2.127"),
    ("wire1 inet 192.0.2.4 -alias", _REFUSED, "192.0.2.3/25 brd 192.0.2.127"),
    ("wire1 up 198.51.100.1", "", "198.51.100.1/24 brd 198.51.100.255"),
    ("wire1 inet 192.0.2.5/33", "ifconfig: 192.0.2.5/33: bad value (width too large)\n",
     "198.51.100.1/24 brd 198.51.100.255"),
    ("wire1 inet 192.0.2.5 netmask 255.0.255.0", "ifconfig: 255.0.255.0: bad value\n",
     "198.51.100.1/24 brd 198.51.100.255"),
    ("lo0 inet 127.0.0.1 up", "", "127.0.0.1/8"),
    ("lo0 127.0.0.2/8 alias", "", "127.0.0.1/8, 127.0.0.2/8"),
    ("wire1 inet6 2001:db8::2 prefixlen 64 mtu 1400 ether 02:00:5e:00:53:01 descr wire", "",
     "198.51.100.1/24 brd 198.51.100.255"),
)  # fmt: skip


def test_ifconfig_of_a_jail_with_vnet_changes_what_it_is_asked(
    root: Path, ogoun: None, jail: Command, jexec: Command
) -> None:
    ip("link add wire0 type veth peer name wire1", "link set wire0 up")
    try:
        made = jail("-c", "name=own", f"path={root}", "vnet", "vnet.interface=wire1", "persist")
        assert made.returncode == 0, made.stderr
        path = ("/usr/bin/env", f"PATH={SHIMS}:/usr/sbin:/usr/bin:/sbin:/bin")

        def there(interface: str) -> str:
            told = jexec("own", *path, "ip", "-o", "-4", "address", "show", "dev", interface).stdout
            return ", ".join(line.split(" inet ")[1].split(" scope")[0] for line in told.splitlines())

        for words, why, addresses in _CHANGES:
            done = jexec("own", *path, "ifconfig", *words.split())
            assert (done.stdout, done.stderr, done.returncode) == ("", why, int(bool(why))), words
            assert there(words.split()[0].replace("lo0", "lo")) == addresses, words
        link = jexec("own", *path, "ip", "-d", "address", "show", "dev", "wire1").stdout
        assert " mtu 1400 " in link
        assert "link/ether 02:00:5e:00:53:01 " in link
        assert " inet6 2001:db8::2/64 " in link
        assert " alias wire" in link
        assert jexec("own", *path, "ifconfig", "lo0").stdout.startswith("lo: flags=49<UP,LOOPBACK,RUNNING> ")
        refused = jexec("own", *path, "setpriv", "--reuid=65534", "--clear-groups", "ifconfig", "wire1", "down")
        assert refused.stderr == "ifconfig: down: permission denied\n"
    finally:
        jail("-r", "own")
        ip("link delete wire0")


@pytest.mark.parametrize("where", ["/sbin/", ""])
def test_a_configuration_of_the_handbooks_starts_a_jail_with_vnet(
    root: Path, ogoun: None, jail: Command, jexec: Command, tmp_path: Path, where: str
) -> None:
    ip("link add wire0 type veth peer name wire1", "link set wire0 up")
    conf = tmp_path / "jail.conf"
    conf.write_text(f"""hand {{
    path = "{root}"; vnet; vnet.interface = wire1; persist; {"exec.clean;" if where else ""}
    $id = 7; $ip = "192.0.2.${{id}}/24"; $gateway = 192.0.2.1;
    exec.start += "{where}ifconfig lo0 127.0.0.1 up";
    exec.start += "{where}ifconfig wire1 ${{ip}} up";
    exec.start += "{where}route add default ${{gateway}}";
    exec.start += "{where}sysctl -n security.jail.vnet";
}}
""")
    try:
        made = jail("-f", str(conf), "-c", "hand")
        assert (made.stderr, made.returncode) == ("", 0)
        assert made.stdout == "hand: created\nadd net default: gateway 192.0.2.1\n1\n"
        path = ("/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
        assert " 192.0.2.7/24 " in jexec("hand", *path, "ip", "-br", "-4", "address", "show", "wire1").stdout
    finally:
        jail("-R", "hand")
        ip("link delete wire0")


def test_a_route_is_the_hosts_to_give(inside: Command) -> None:
    done = inside("route", "add", "default", "192.0.2.1")
    said = "route: writing to routing socket: Operation not permitted\n"
    assert (done.stdout, done.stderr, done.returncode) == ("", said, 1)


def test_sysctl(inside: Command) -> None:
    assert inside("sysctl", "security.jail.jailed").stdout == "security.jail.jailed: 1\n"
    assert inside("sysctl", "-n", "security.jail.jailed").stdout == "1\n"
    assert inside("sysctl", "kernel.ostype").stdout == "kernel.ostype = Linux\n"
    assert inside("sysctl", "-n", "hw.machine_arch").stdout == f"{os.uname().machine}\n"
    memory, page = inside("sysctl", "-n", "hw.physmem", "hw.pagesize").stdout.split()
    assert int(memory) > int(page) == os.sysconf("SC_PAGE_SIZE")


def test_flags_that_debians_daemons_do_not_know(root: Path, ogoun: None, jail: Command, jls: Command) -> None:
    try:
        (root / "etc/rc.conf").write_text(_RC_CONF.replace("-a 192.168.10.2", "-a 10.1.2.3 -Z"))
        done = jail(str(root), "cell.hsc.fr", _ADDRESS, "/bin/sh", "/etc/rc")
        assert [line for line in done.stderr.splitlines() if "inetd_flags" in line] == [
            "/etc/rc: WARNING: inetd_flags: -a 10.1.2.3: left out: not an address of this jail",
            "/etc/rc: WARNING: inetd_flags: -Z: left out: inetd does not know it",
        ]
        assert "Starting inetd." in done.stdout
    finally:
        (root / "etc/rc.conf").write_text(_RC_CONF)
        for jid in jls("jid").stdout.split():
            jail("-r", jid)
