"""ansible-jailexec: ``jexec`` over ssh, on the host of the jail. The host is the stage, its ssh server is dropbear."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Cell, Run
from tests.clients.playbook import play

_PORT = 2222


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[str]:
    """ssh's options to reach root of the stage."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    keys = Path("/run/jailng-test-keys")  # the stage's own /run: nobody else may write to a directory above
    keys.mkdir(mode=0o700)
    (keys / "authorized_keys").write_bytes((tmp_path / "key.pub").read_bytes())
    hostkey = str(tmp_path / "hostkey")
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", hostkey], check=True, capture_output=True)
    argv = ["dropbear", "-F", "-E", "-m", "-s", "-r", hostkey, "-D", str(keys), "-p", f"127.0.0.1:{_PORT}"]
    with subprocess.Popen([*argv, "-P", str(tmp_path / "pid")], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert "Not backgrounding" in server.stderr.readline()
        yield f"-i {tmp_path}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlMaster=no"
        server.kill()
    shutil.rmtree(keys)


@pytest.mark.parametrize(("user", "method"), [("root", "sftp"), ("alice", "piped")])
def test_playbook(client: Run, checkout: Path, tmp_path: Path, cell: Cell, ssh: str, user: str, method: str) -> None:
    plugins = tmp_path / "connection_plugins"  # it alone: Ansible tries to load whatever lies beside a plugin
    plugins.mkdir()
    (plugins / "jailexec.py").symlink_to(
        next((checkout / ".venv-clients/lib").glob("python3*/site-packages/jailexec.py"))
    )
    host = (
        f"ansible_connection=jailexec ansible_jail_host=127.0.0.1 ansible_port={_PORT} ansible_user=root"
        f" ansible_jail_privilege_escalation=none ansible_jail_user={user} ansible_ssh_transfer_method={method}"
        f" ansible_ssh_common_args='{ssh}'"
    )
    more = {"ANSIBLE_CONNECTION_PLUGINS": str(plugins), "ANSIBLE_SSH_ARGS": ""}
    if user != "root":  # Ansible would take the home of the user for whom it has logged in on the host
        more |= {"ANSIBLE_REMOTE_TMP": "/tmp/ansible", "ANSIBLE_PIPELINING": "True"}
    play(client, tmp_path, cell, host, user, **more)
