"""Salt's modules for FreeBSD that call our commands: freebsdjail (``jls``, ``jls -nq -j``), freebsdservice (``jexec``).

The whole of Salt runs, unmodified; its configuration tells it that this is a FreeBSD, whose modules it then takes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import HOST, Cell, Run

# As much of rc.subr(8)'s as Salt asks of a service.
_RC = """#!/bin/sh
case $1 in
onestart) touch /run/greet; id -un >/run/greet; hostname >>/run/greet ;;
onestop) rm /run/greet ;;
onestatus) test -e /run/greet ;;
*) exit 64 ;;
esac
"""


@pytest.fixture
def salt(client: Run, tmp_path: Path) -> Any:
    (tmp_path / "minion").write_text(
        f"grains: {{os: FreeBSD}}\nroot_dir: {tmp_path}\nfile_client: local\nid: ogoun\nlog_level: error\n"
    )

    def call(*words: str, **more: str) -> Any:
        done = client("salt-call", "--local", "-c", tmp_path, "--out=json", "--retcode-passthrough", *words, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        # show_config leaves jls's own output before it.
        return json.loads(done.stdout[done.stdout.index("{\n") :])["local"]

    return call


def test_jls(salt: Any, cell: Cell) -> None:
    assert salt("jail.status", "cell") is True
    assert salt("jail.status", "other") is False
    shown = salt("jail.show_config", "cell")
    assert shown["name"] == "cell"
    assert shown["path"] == str(cell.root)
    assert shown["host.hostname"] == "cell"
    assert shown["persist"] == "1"
    assert salt("jail.fstab", "cell") is False


def test_jexec(salt: Any, cell: Cell) -> None:
    """It runs in the jail the service(8) that it finds on the host's PATH, by that path: not a shim, then."""

    def service(action: str) -> Any:
        return salt(f"service.{action}", "greet", "jail=cell", path=HOST)

    script = cell.root / "etc/init.d/greet"
    script.write_text(_RC)
    script.chmod(0o755)
    assert service("status") is False
    assert service("start") is True
    assert cell.read("/run/greet") == b"root\ncell\n"
    assert service("status") is True
    assert service("stop") is True
    assert service("status") is False
    script.unlink()


def test_sysctl(salt: Any, cell: Cell) -> None:
    told = salt("jail.sysctl")
    assert [told[f"security.jail.{name}"] for name in ("jailed", "children.cur", "enforce_statfs")] == ["0", "1", "2"]
    assert [name for name in told if not name.startswith("security.jail.")] == []
