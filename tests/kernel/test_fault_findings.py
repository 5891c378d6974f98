"""Single faults that once led astray, by the system call and its error: what comes of them now."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import ENVIRONMENT, Command

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace(1)")


def _failing(call: str, error: str, *argv: str, when: str = "1+") -> subprocess.CompletedProcess[str]:
    """A command with ``call`` failing each time, or where ``when`` says."""
    inject = f"inject={call}:error={error}:when={when}"
    return subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM"])
def test_no_descriptor_to_see_whether_a_jail_lives(
    checkout: Path, jail: Command, jexec: Command, small_root: Path, error: str
) -> None:
    """That is no reason to take it for dead, and to clear it away."""
    assert jail("-c", "name=one", f"path={small_root}", "persist").returncode == 0
    for program, *words in (
        ["jail", "-c", "name=two", f"path={small_root}", "persist"],
        ["jail", "-c", "name=one", f"path={small_root}", "persist"],
        ["jail", "-m", "name=one", "host.hostname=other"],
        ["jail", "-r", "one"],
        ["jls", "-j", "one", "jid"],
        ["jexec", "one", "/bin/true"],
    ):
        done = _failing("pidfd_open", error, f"{checkout}/bin/{program}", *words)
        assert done.returncode == 1, (program, words)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "not found" not in done.stderr
        assert jexec("one", "/bin/echo", "here").stdout == "here\n", (program, words)
    assert jail("-r", "one").returncode == 0
