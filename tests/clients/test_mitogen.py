"""mitogen's jail method: ``/usr/sbin/jexec [-U user] jail python3 -c ...``, its own protocol over the streams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.conftest import Cell, Run
from tests.clients.playbook import play

_PROGRAM = Path(__file__).with_name("mitogen_client.py")


@pytest.mark.parametrize(("user", "uid"), [(None, 0), ("alice", 1001)])
def test_router(client: Run, cell: Cell, user: str | None, uid: int) -> None:
    done = client("python", _PROGRAM, *([user] if user else []))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["about"] == ["cell", uid, "/", user or "root"]
    assert told["run"] == [7, "out\n", "err\n"]
    assert told["same"]
    assert "No such file or directory: '/nowhere'" in told["error"]
    assert cell.owner("/tmp/sent") == uid
    (cell.root / "tmp/sent").unlink()


@pytest.mark.parametrize("user", ["root", "alice"])
def test_playbook(client: Run, checkout: Path, tmp_path: Path, cell: Cell, user: str) -> None:
    """The same playbook as with Ansible's own connections, by mitogen's strategy."""
    strategies = next((checkout / ".venv-clients/lib").glob("python3*/site-packages/ansible_mitogen/plugins/strategy"))
    host = f"ansible_connection=jail ansible_user={user}"
    more = {"ANSIBLE_STRATEGY_PLUGINS": str(strategies), "ANSIBLE_STRATEGY": "mitogen_linear"}
    play(client, tmp_path, cell, host, user, **more)
