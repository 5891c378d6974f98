"""One playbook for every way in which Ansible can reach a jail, and what has to come out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.clients.conftest import BYTES, Cell, Run

# As somebody would write it: raw goes by the connection alone, the rest by Python in the jail.
_PLAY = """
- hosts: cell
  gather_facts: false
  tasks:
    - raw: hostname; id -un; echo to-stderr >&2; exit 7
      register: raw
      failed_when: false
    - command: python3 -c 'import os; print(os.getuid(), os.getcwd())'
      register: command
    - command: 'false'
      register: status
      failed_when: false
    - setup: gather_subset=min
      register: facts
    - copy: src=sent dest={there}/sent mode=0640
    - stat: path={there}/sent checksum_algorithm=sha256
      register: stat
    - fetch: src={there}/sent dest=fetched flat=true
    - copy: content='' dest={there}/empty
    - command: cat /nowhere
      register: missing
      failed_when: false
    - copy:
        dest: told.json
        content: "{{{{ {{'raw': raw, 'command': command, 'status': status, 'missing': missing,
                   'node': facts.ansible_facts.ansible_nodename, 'mode': stat.stat.mode}} | to_json }}}}"
      delegate_to: localhost
      vars: {{ansible_connection: local, ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"}}
"""


def play(client: Run, tmp_path: Path, cell: Cell, host: str, user: str = "root", **environment: str) -> None:
    """Run it as that user of the jail. ``host`` is what the inventory says after the jail's name."""
    there = "/root" if user == "root" else "/home/alice"
    (tmp_path / "play.yml").write_text(_PLAY.format(there=there))
    (tmp_path / "inventory").write_text(f"cell {host} ansible_python_interpreter=/usr/bin/python3\n")
    (tmp_path / "sent").write_bytes(BYTES)
    done = client("ansible-playbook", "-i", "inventory", "play.yml", timeout=240, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    assert told["raw"]["rc"] == 7
    assert told["raw"]["stdout_lines"][:2] == ["cell", user]
    assert "to-stderr" in told["raw"]["stdout"] + told["raw"]["stderr"]  # some make a terminal of all three
    assert told["command"]["stdout"].split()[0] == ("0" if user == "root" else "1001")
    assert (told["status"]["rc"], told["missing"]["rc"]) == (1, 1)
    assert told["missing"]["stderr"] == "cat: /nowhere: No such file or directory"
    assert (told["node"], told["mode"]) == ("cell", "0640")
    assert (tmp_path / "fetched").read_bytes() == BYTES == cell.read(f"{there}/sent")
    assert cell.read(f"{there}/empty") == b""
    assert cell.owner(f"{there}/sent") == (0 if user == "root" else 1001)
    for name in ("sent", "empty"):
        (cell.root / there.lstrip("/") / name).unlink()
