"""./demo as a visitor runs it: twice in a row, then by hand, then undone. On the machine itself, with its network."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
J = r"[A-Z][A-Za-z<+]*J[A-Za-z+]*"  # STAT of a jailed process

SERVICES = ("syslogd", "cron", "inetd", "sshd", "mini_httpd")


def _article() -> list[str]:
    """The expressions of article.txt, one a command."""
    lines = (Path(__file__).parent / "article.txt").read_text().replace("{J}", J).splitlines()
    blocks = "\n".join([line for line in lines if not line.startswith("#")]).split("\n\n")
    return [rf"(?m)^{block.strip(chr(10))}$" for block in blocks if block.strip()]


def _demo(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    argv = [str(TOP / "demo"), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout
    return done


def _host() -> dict[str, str]:
    """What of the machine may not have changed."""

    def said(*argv: str) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    mounts = Path("/proc/self/mountinfo").read_text()
    return {
        "links": said("ip", "-o", "link").partition("qdisc")[0],
        "addresses": re.sub(r"valid_lft.*", "", said("ip", "-o", "address")),
        "routes": said("ip", "route", "show", "table", "all"),
        "rules": said("nft", "list", "ruleset"),
        "mounts": "\n".join(line.split()[4] for line in mounts.splitlines()),
        "users": Path("/etc/passwd").read_text() + Path("/etc/group").read_text(),
        "name": os.uname().nodename,
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "jail": str(Path("/jail").exists()),
        "processes": said("pgrep", "-f", "jailng-demo-"),
        "jails": said(str(TOP / "bin/jls"), "name"),
    }


@pytest.fixture
def machine() -> Iterator[None]:
    if (TOP / ".demo/jid").exists():
        pytest.fail("a demo runs from this checkout: ./demo --stop ends it")
    _demo("--stop")
    before = _host()
    yield
    _demo("--stop")
    end = time.monotonic() + 60
    while _host() != before and time.monotonic() < end:  # the kernel takes networks apart in its own time
        time.sleep(0.2)
    assert _host() == before


def test_the_article(machine: None) -> None:
    """Every command of it and what it says, twice, and once more by hand; then nothing is left."""
    for _ in (1, 2):
        said = _demo(timeout=900).stdout
        at = 0
        for wanted in _article():
            found = re.compile(wanted).search(said, at)
            assert found, f"not found: {wanted}\nin:\n{said[at:]}"
            at = found.start()
    processes = _demo("cell", "ps", "aux").stdout
    for service in SERVICES:
        assert re.search(rf" {J} .*{service}", processes), f"{service} in {processes}"
    assert _demo("ogoun", "hostname").stdout == "ogoun\n"
    assert _demo("bubble", "hostname").stdout == "bubble\n"
    outside = _demo("ogoun", "netstat", "-an").stdout
    for port in (21, 22, 80):
        assert re.search(rf"tcp4 +0 +0 +192\.168\.10\.2\.{port} +\*\.\* +LISTEN", outside), outside
