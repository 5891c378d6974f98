"""The article's rules, with its addresses and its names: ogoun translates for cell, and bubble sees ogoun alone.

Debian's own ftpd, sshd and inetd run in the jail, and its ftp and ssh ask them; bubble has no way to 192.168.10.2.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.bootstrapped import bootstrap
from tests.kernel.conftest import Command
from tests.kernel.networks import Namespace, attach, ip
from tests.kernel.stage import Stage
from tests.kernel.translating import sessions

_OGOUN, _BUBBLE, _CELL = "10.0.0.75", "10.0.0.33", "192.168.10.2"
# As the article has them, in both states of its file.
_RULES = """\
#
map ep0 192.168.10.2/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000
map ep0 192.168.10.2/32 -> 0.0.0.0/32

# redirecting the request to the ftp port of our host to the ftp
# port inside the jail
rdr ep0 10.0.0.75/32 port 21 -> 192.168.10.2 port 21
"""
_MORE_RULES = """\
# redirecting requests for the sshd server
rdr ep0 10.0.0.75/32 port 22 -> 192.168.10.2 port 22

# redirecting requests for the httpd server
rdr ep0 10.0.0.75/32 port 80 -> 192.168.10.2 port 80
"""
_RC_CONF = """\
hostname="cell.hsc.fr"
syslogd_enable="YES"
syslogd_flags="-s -s"
inetd_enable="YES"
inetd_flags="-wW -a 192.168.10.2"
sshd_enable="YES"
"""
_BIG = bytes(range(256)) * 2000


@pytest.fixture(scope="module")
def root(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jail's root, with the user monkeytest; bubble's programs are the same."""
    place = tmp_path_factory.mktemp("article")
    place.chmod(0o700)
    made = place / _CELL
    done = bootstrap(stage, str(made), "--hostname", "cell.hsc.fr", "--include", "inetutils-ftp")
    assert done.returncode == 0, done.stderr
    (made / "etc/rc.conf").write_text(_RC_CONF)
    (made / "etc/resolv.conf").write_text("")  # nobody answers here who asks for the names of addresses
    (made / "etc/hosts").write_text(
        f"127.0.0.1 localhost\n{_CELL} cell.hsc.fr cell\n{_OGOUN} ogoun\n{_BUBBLE} bubble\n"
    )
    inetd = made / "etc/inetd.conf"
    inetd.write_text(re.sub(r"(?m)^#ftp\b", "ftp", inetd.read_text()))
    for command in (["useradd", "-m", "-u", "1001", "-s", "/bin/tcsh", "monkeytest"], ["chpasswd"]):
        subprocess.run(["chroot", made, *command], input="monkeytest:banana\n", text=True, check=True)
    home = made / "home/monkeytest"
    (home / "thttpd-2.21b.tgz").write_bytes(_BIG)
    subprocess.run(["chroot", made, "chown", "-R", "monkeytest:", "/home/monkeytest"], check=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, made / "usr/local/sbin/busybox")
    (made / "var/www").mkdir(exist_ok=True)
    (made / "var/www/index.html").write_text("<h1>cell.hsc.fr</h1>\n")
    return made


@pytest.fixture
def bubble(stage: Stage) -> Iterator[Namespace]:
    """The machine outside; this one is ogoun."""
    with attach("ep0", (f"{_OGOUN}/24", "fd00::75/64"), (f"{_BUBBLE}/24", "fd00::33/64")) as made:
        ip(f"address add {_CELL}/24 brd + dev ep0")
        yield made


@pytest.fixture
def cell(root: Path, bubble: Namespace, jail: Command, jls: Command, jexec: Command) -> Iterator[str]:
    """The jail, booted, with a web server; its jid."""
    done = jail(str(root), "cell.hsc.fr", _CELL, "/bin/sh", "/etc/rc")
    assert done.returncode == 0, done.stderr
    jid = jls("jid").stdout.strip()
    web = jexec(jid, "/usr/local/sbin/busybox", "httpd", "-p", f"{_CELL}:80", "-h", "/var/www")
    assert web.returncode == 0, web.stderr
    # inetd(8) listens when it is in the background.
    heard = "until netstat -ltn | grep -q ':21 '; do :; done"
    assert jexec(jid, "/bin/sh", "-c", heard.replace("netstat", "/usr/local/sbin/busybox netstat")).returncode == 0
    yield jid
    jail("-r", jid)


@pytest.fixture
def translated(cell: str, ipnat: Command, tmp_path: Path) -> Iterator[Path]:
    """The file of rules, loaded."""
    file = tmp_path / "ipnat.rules"
    file.write_text(_RULES + "\n" + _MORE_RULES)
    done = ipnat("-CF", "-f", str(file))
    assert (done.stdout, done.stderr, done.returncode) == (
        "0 entries flushed from NAT table\n0 entries flushed from NAT list\n",
        "",
        0,
    )
    yield file
    assert ipnat("-CF").returncode == 0


_SCRIPT = "user monkeytest banana\nbinary\nls\nget thttpd-2.21b.tgz /tmp/got\nput /tmp/got put\nquit\n"


def _ftp_words(server: str, mode: str) -> list[str]:
    """inetutils-ftp(1), which is to be told what to do by ``_SCRIPT``."""
    return ["/usr/bin/ftp", "-n", "-v", *(["-p"] if mode == "passive" else []), server]


def _check_ftp(root: Path, said: str, greeting: str) -> None:
    assert greeting in said
    assert "230 User monkeytest logged in." in said, said
    assert re.search(r"-rw-r--r-- .* 512000 .* thttpd-2\.21b\.tgz", said), said
    assert said.count("226 Transfer complete.") == 3, said
    assert (root / "tmp/got").read_bytes() == _BIG
    assert (root / "home/monkeytest/put").read_bytes() == _BIG
    (root / "tmp/got").unlink()
    (root / "home/monkeytest/put").unlink()


@pytest.mark.parametrize("mode", ["active", "passive"])
def test_ftp_from_bubble(mode: str, root: Path, bubble: Namespace, translated: Path, ipnat: Command) -> None:
    with bubble.entered():
        done = subprocess.run(
            ["chroot", root, *_ftp_words(_OGOUN, mode)], input=_SCRIPT, capture_output=True, text=True, timeout=60
        )
    _check_ftp(root, done.stdout + done.stderr, "220 cell.hsc.fr FTP server")
    lines = ipnat("-l").stdout.splitlines()
    assert lines[:4] == [
        "List of active MAP/Redirect filters:",
        "map ep0 192.168.10.2/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000",
        "map ep0 192.168.10.2/32 -> 0.0.0.0/32",
        "rdr ep0 10.0.0.75/32 port 21 -> 192.168.10.2 port 21 tcp",
    ]
    listed = sessions(ipnat)
    assert [line for line in listed if re.fullmatch(rf"RDR {_CELL} 21 <- -> {_OGOUN} 21 \[{_BUBBLE} \d+\]", line)]
    data = "MAP" if mode == "active" else "RDR"
    assert [
        line
        for line in listed
        if re.fullmatch(rf"{data} {_CELL} (?!21 )\d+ <- -> {_OGOUN} \d+ \[{_BUBBLE} \d+\]", line)
    ], listed


@pytest.fixture
def ftpd(root: Path, bubble: Namespace) -> Iterator[None]:
    """Debian's ftpd on bubble, started by inetd as in the jail."""
    with bubble.entered():
        inetd = subprocess.Popen(["chroot", root, "/usr/sbin/inetd", "-i"], stdin=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while ":21 " not in bubble.run("ss", "-tln"):
        assert time.monotonic() < until
        time.sleep(0.01)
    yield
    inetd.kill()
    inetd.wait()


@pytest.mark.parametrize("mode", ["active", "passive"])
@pytest.mark.usefixtures("ftpd", "translated")
def test_ftp_from_the_jail(mode: str, cell: str, root: Path, jexec: Command, ipnat: Command) -> None:
    done = jexec(cell, *_ftp_words(_BUBBLE, mode), stdin=_SCRIPT)
    _check_ftp(root, done.stdout + done.stderr, "220 ")
    (line,) = [line for line in sessions(ipnat) if line.endswith(f"[{_BUBBLE} 21]")]
    assert re.fullmatch(rf"MAP {_CELL} \d+ <- -> {_OGOUN} [1-6]\d{{4}} \[{_BUBBLE} 21\]", line)


def test_ssh_and_web(root: Path, bubble: Namespace, translated: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    home = root / "home/monkeytest/.ssh"
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "authorized_keys").write_text((tmp_path / "key.pub").read_text())
    subprocess.run(["chown", "-R", "1001:1001", home], check=True)
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    options += ["-o", "ConnectionAttempts=60"]  # sshd(8) listens when it is in the background
    command = ["ssh", *options, "-i", str(key), f"monkeytest@{_OGOUN}", "hostname; id -u; echo $SSH_CONNECTION"]
    with bubble.entered():
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        page = subprocess.run(
            ["busybox", "wget", "-q", "-O", "-", f"http://{_OGOUN}/"], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    name, uid, connection = done.stdout.splitlines()
    assert (name, uid) == ("cell.hsc.fr", "1001")
    assert (connection.split()[0], connection.split()[2:]) == (_BUBBLE, [_CELL, "22"])
    assert page.stdout == "<h1>cell.hsc.fr</h1>\n"
