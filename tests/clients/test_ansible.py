"""Ansible's own connection to a jail, community.general.jail: ``jls -q name``, and ``jexec`` for everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Cell, Run
from tests.clients.playbook import play


@pytest.mark.parametrize(("user", "pipelining"), [("root", "False"), ("alice", "False"), ("alice", "True")])
def test_playbook(client: Run, tmp_path: Path, cell: Cell, user: str, pipelining: str) -> None:
    host = f"ansible_connection=community.general.jail ansible_user={user}"
    play(client, tmp_path, cell, host, user, ANSIBLE_PIPELINING=pipelining)


def test_a_jail_that_is_none(client: Run, cell: Cell) -> None:
    done = client("ansible", "-i", "other,", "-c", "community.general.jail", "-m", "raw", "-a", "true", "other")
    assert done.returncode != 0
    assert "incorrect jail name other" in done.stdout + done.stderr
