"""Parameters that are neither allow.* nor of the network, seen from inside."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.engine.modify import modify
from jailng.errors import JailError
from jailng.params.model import Parameters
from tests.kernel.conftest import Command


def hostname_of(jexec: Command, name: str) -> str:
    return jexec(name, "/bin/hostname").stdout.strip()


def test_host_inherit_follows_the_host_and_cannot_change_it(
    jail: Command, jls: Command, jexec: Command, small_root: Path
) -> None:
    before = socket.gethostname()
    start = "hostname; hostname inside; hostname; cat /proc/sys/kernel/hostname"
    done = jail("-c", "name=cell", f"path={small_root}", "persist", "host=inherit", f"exec.start={start}; true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [before] * 3
    assert "Operation not permitted" in done.stderr
    try:
        assert socket.gethostname() == before
        socket.sethostname("elsewhere")
        assert hostname_of(jexec, "cell") == "elsewhere"
        assert jls("-j", "cell", "host", "host.hostname").stdout == "inherit elsewhere\n"
        assert "elsewhere" in jls("-j", "cell").stdout
        assert os.stat("/proc/self/ns/uts").st_ino == int(
            jexec("cell", "/bin/readlink", "/proc/self/ns/uts").stdout.strip().strip("uts:[]")
        )
    finally:
        socket.sethostname(before)
    refused = jail("-m", "name=cell", "host.hostname=own")
    assert (refused.returncode, refused.stderr) == (1, "jail: host cannot be changed after creation\n")
    restarted = jail("-mr", "name=cell", f"path={small_root}", "persist", "host.hostname=own")
    assert restarted.returncode == 0, restarted.stderr
    assert hostname_of(jexec, "cell") == "own"
    assert jls("-j", "cell", "host").stdout == "new\n"
    assert jail("-r", "cell").returncode == 0


def test_the_names_that_root_inside_has_set(
    public: Path, jail: Command, jls: Command, jexec: Command, small_root: Path
) -> None:
    words = ("host.hostname=given", "host.domainname=domain", "allow.set_hostname")
    assert jail("-c", "name=cell", f"path={small_root}", "persist", *words).returncode == 0
    assert jls("-j", "cell", "host.hostname", "host.domainname").stdout == "given domain\n"
    assert jexec("cell", "/bin/hostname", "inside").returncode == 0
    assert jls("-j", "cell", "host.hostname", "host.domainname").stdout == "inside domain\n"
    assert "inside" in jls("-j", "cell").stdout
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", f"{public}/bin/jls", "-j", "cell", "host.hostname"]
    assert subprocess.run(as_nobody, capture_output=True, text=True).stdout == "given\n"
    assert jail("-m", "name=cell", "host.hostname=again").returncode == 0
    assert jls("-j", "cell", "host.hostname").stdout == "again\n"
    assert jail("-r", "cell").returncode == 0


def test_enforce_statfs_shows_the_jail_s_own_mounts_at_every_level(jail: Command, small_root: Path) -> None:
    """And never a path or a mount of the host's."""
    seen = []
    for level in ("0", "1", "2"):
        done = jail("-c", f"path={small_root}", f"enforce_statfs={level}", "exec.start=cat /proc/self/mounts")
        assert done.returncode == 0, done.stderr
        targets = [line.split()[1] for line in done.stdout.splitlines()]
        assert {"/", "/dev", "/proc"} <= set(targets)
        assert not any(target.startswith(("/sys", "/run", "/tmp")) for target in targets)
        seen.append(targets)
    assert seen[0] == seen[1] == seen[2]


def test_osrelease_is_the_host_s_or_refused(jail: Command, jls: Command, small_root: Path) -> None:
    release = os.uname().release
    done = jail("-c", "name=cell", f"path={small_root}", "persist", f"osrelease={release}", "exec.start=uname -r")
    assert (done.returncode, done.stdout) == (0, f"{release}\n"), done.stderr
    assert jls("-j", "cell", "osrelease").stdout == f"{release}\n"
    assert jail("-m", "name=cell", f"osrelease={release}").returncode == 0
    assert jail("-r", "cell").returncode == 0
    done = jail("-c", "name=cell", f"path={small_root}", "persist", "osrelease=14.1-RELEASE")
    assert done.returncode == 1
    assert done.stderr == f"jail: osrelease=14.1-RELEASE: not honoured on Linux: uname(2) says {release} everywhere\n"
    assert jls("-c", "-j", "cell").returncode == 1


def test_the_numbers_of_a_jail_and_of_its_set_of_processors(jail: Command, jls: Command, small_root: Path) -> None:
    assert jail("-c", "jid=77", f"path={small_root}", "persist").returncode == 0
    assert jls("-j", "77", "cpuset.id").stdout == "77\n"
    verbose = jls("-v", "-j", "77").stdout.splitlines()
    # Four lines of headings, then the jail's: jid, name and state, set of processors.
    assert (verbose[4].split()[0], verbose[6].strip()) == ("77", "77")
    assert jail("-r", "77").returncode == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("path", "/", "path cannot be changed after creation"),
        ("securelevel", -2, "jail_set: Operation not permitted"),
        ("name", "other", 'jail "other" already exists'),
    ],
)
def test_a_change_that_fails_lets_go_of_the_jail(
    jail: Command, small_root: Path, name: str, value: str | int, message: str
) -> None:
    """One process may change one jail after the other."""
    for made in ("cell", "other"):
        assert jail("-c", f"name={made}", f"path={small_root}", "persist").returncode == 0
    try:
        found = registry.find("cell")
        assert found is not None
        for title, given in (("host.hostname", "web"), (name, value)):
            changes = Parameters()
            changes.set(title, given)
            if title == "host.hostname":
                modify(found, changes)
            else:
                with pytest.raises(JailError) as caught:
                    modify(found, changes)
                assert str(caught.value) == message
            other = registry.find("cell")
            assert other is not None and other.lock(wait=False)
            other.unlock()
            assert other.params["host.hostname"] == "web"
    finally:
        assert jail("-R", "cell", "other").returncode == 0
