"""Every system call fails once, of jails with more beside or in them: watched, logged, limited, with an init."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jailng.linux import btf
from tests.kernel import injector, test_faults
from tests.kernel.campaign import Campaign
from tests.kernel.networks import Namespace
from tests.kernel.stage import own_logs
from tests.kernel.test_faults import ADDRESS

pytestmark = pytest.mark.skipif(not injector.SUPPORTED, reason="the tracer knows the registers of x86_64 only")
needs_btf = pytest.mark.skipif(not os.path.exists(btf.VMLINUX), reason="a kernel without BTF")
tracer, campaign, on_lan, words = test_faults.tracer, test_faults.campaign, test_faults.on_lan, test_faults.words
_LIMITS = "maxproc:deny=20,memoryuse:deny=64M,pcpu:deny=50,nshm:deny=5,openfiles:deny=100"
_RULES = f"ng.limits={_LIMITS},wallclock:log=100000"


@pytest.fixture
def logs(stage: object) -> Iterator[None]:
    """A /var/log of the test's own."""
    with own_logs("size=64m"):
        yield


@pytest.fixture
def guest(small_root: Path) -> Path:
    """A root with an rc and an init, each of a few lines."""
    for name in ("sbin", "sys"):
        (small_root / name).mkdir(exist_ok=True)
    for script, text in (
        ("etc/rc", "sleep 1000 >/dev/null 2>&1 &\nuntil grep -q sleep /proc/$!/comm; do :; done"),
        ("etc/rc.shutdown", "echo goes"),
        ("sbin/init", "trap 'exit 0' TERM\nwhile :; do sleep 1000 & wait $!; done"),
        ("sbin/poweroff", "while kill -TERM 1; do sleep 1; done"),  # the first may come before PID 1 heeds it
    ):
        (small_root / script).write_text(f"#!/bin/sh\n{text}\n")
        (small_root / script).chmod(0o755)
    return small_root


# Watched and logged


@needs_btf
def test_terminals(logs: None, campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, "ng.watch=tty")


def test_a_worker_that_cannot_tell_that_it_is_ready(logs: None, campaign: Campaign, words: list[str]) -> None:
    """Its supervisor knows by then that it was, and is to end all the same."""
    _refused(campaign, [*words, "ng.watch=tty"], "'ready'", [errno.EIO, injector.KILL])


def _refused(campaign: Campaign, create: list[str], pattern: str, faults: list[int]) -> None:
    """A jail is not made, and leaves nothing, where the first call of that kind fails so."""
    command = campaign.argv("jail", *create)
    call = next(one for one in campaign.points(command) if re.search(pattern, str(one)))
    assert campaign.run("jail", "-r", "a").returncode == 0
    for fault in faults:
        done = campaign.injector.inject(fault, call, command)
        assert (done.fired, done.status) == (True, 1), done.err
        campaign.nothing_remains(f"{call} <- {fault}")
    campaign.verdict()


@pytest.mark.parametrize(
    ("pattern", "faults"),
    [
        pytest.param(r"^0:openat2\(\w+, 'ptmx'", [errno.EMFILE, errno.ENOMEM], id="no pty of the jail's own"),
        pytest.param(r"^0\.2:write\(", [errno.EIO, injector.KILL], id="nobody can tell which process it is"),
        pytest.param(r"^0\.2\.0:prctl\(0x18", [injector.KILL], id="it is killed before it begins"),
    ],
)
def test_a_console_that_nobody_keeps(
    logs: None, guest: Path, campaign: Campaign, words: list[str], pattern: str, faults: list[int]
) -> None:
    _refused(campaign, [*words, "ng.init=sysv", "allow.cgroup"], pattern, faults)


def test_packets(logs: None, campaign: Campaign, on_lan: Namespace, words: list[str]) -> None:
    campaign.creation(*words, "interface=ep0", f"ip4.addr={ADDRESS}", "ng.watch=packets size=1M files=2")


def test_a_log_of_what_it_says(logs: None, campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, "ng.log=syslog")


@needs_btf
def test_a_log_of_all(logs: None, campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, "ng.log=all")


@needs_btf
def test_to_watch_and_log_from_now_on(logs: None, campaign: Campaign, words: list[str]) -> None:
    campaign.modification(words, "-m", "name=a", "ng.watch=tty", "ng.log=syslog", "meta=new")


def test_to_log_no_longer(logs: None, campaign: Campaign, words: list[str]) -> None:
    campaign.modification([*words, "ng.log=syslog"], "-m", "name=a", "ng.log=", "meta=new")


def test_removal_of_what_is_logged(logs: None, campaign: Campaign, words: list[str]) -> None:
    campaign.removal([*words, "ng.log=syslog"], "-r", "a")


def test_entry_of_what_is_logged(logs: None, campaign: Campaign, words: list[str]) -> None:
    campaign.entry([*words, "ng.log=syslog"], "a", "/bin/echo", "here")


# Limited


def test_limits(campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, _RULES)


def test_modification_of_limits(campaign: Campaign, words: list[str]) -> None:
    campaign.modification([*words, _RULES], "-m", "name=a", _RULES.replace("100", "90"))


def test_entry_of_what_is_limited(campaign: Campaign, words: list[str]) -> None:
    campaign.entry([*words, _RULES], "a", "/bin/echo", "here")


@pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="no loop devices here")
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed")
def test_an_image(campaign: Campaign, words: list[str]) -> None:
    quota = [*words, "ng.quota=image:24M"]
    campaign.run("jail", *quota)  # which makes the image, and says so
    campaign.run("jail", "-r", "a")
    campaign.creation(*quota)


# With an init


def test_an_rc(logs: None, guest: Path, campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, "ng.init=rc")


def test_an_init(logs: None, guest: Path, campaign: Campaign, words: list[str]) -> None:
    campaign.creation(*words, "ng.init=sysv", "allow.cgroup")


def test_removal_of_an_rc(logs: None, guest: Path, campaign: Campaign, words: list[str]) -> None:
    campaign.removal([*words, "ng.init=rc"], "-r", "a")


def test_removal_of_an_init(logs: None, guest: Path, campaign: Campaign, words: list[str]) -> None:
    campaign.removal([*words, "ng.init=sysv", "allow.cgroup"], "-r", "a")
