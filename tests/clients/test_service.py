"""`service jail` as others drive it, on machines of systemd and of SysV's init: Ansible's modules for services, and
Salt's freebsdjail. jailng is there from its package, and nothing of either client is changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import PATH
from tests.kernel import booted, debian
from tests.kernel.booted import Machine, package
from tests.kernel.stage import MS_BIND, Stage, mount, unmount

__all__ = ["package"]

_CONFIGURATION = """
path = "/jail/$name";
host.hostname = "$name";
persist;
db {
    mount.fstab = "/etc/fstab.db";
}
www {
    depend = db;
}
"""
_FSTAB = ("/jail/log", "/jail/db/tmp", "nullfs", "rw", "0", "0")
_BOTH = ["db", "www"]


@pytest.fixture(params=[booted.SYSTEMD, booted.SYSVINIT], ids=["systemd", "sysvinit"])
def machine(
    request: pytest.FixtureRequest, stage: Stage, checkout: Path, tmp_path: Path, package: Path
) -> Iterator[Machine]:
    """It runs, with two jails configured and the clients where they are outside."""
    made = Machine(stage, request.param, tmp_path)
    clients = made.top / str(checkout / ".venv-clients").lstrip("/")
    clients.mkdir(parents=True)
    mount(str(checkout / ".venv-clients"), clients, None, MS_BIND)
    try:
        shutil.copy(package, made.top / "root/jailng.deb")
        made.chroot("dpkg", "-i", "/root/jailng.deb")
        (made.top / "jail/log").mkdir()
        for name in _BOTH:
            debian.small(made.top / "jail" / name)
        (made.top / "etc/fstab.db").write_text(" ".join(_FSTAB) + "\n")
        (made.top / "etc/jail.conf").write_text(_CONFIGURATION)
        (made.top / "etc/default/jail").write_text('jail_enable="YES"\n')
        made.boot()
        yield made
    finally:
        unmount(clients)
        made.close()


@pytest.fixture
def client(machine: Machine, checkout: Path) -> Callable[..., Any]:
    """Runs one of the clients' own commands there, which says something in JSON."""

    def run(name: str, *words: str, **more: str) -> Any:
        settings = {"LC_ALL": "C.UTF-8", "PATH": PATH, **more}
        argv = [*[f"{key}={value}" for key, value in settings.items()], f"{checkout}/.venv-clients/bin/{name}", *words]
        done = machine.run("env", *argv)
        assert "{" in done.stdout, done.stdout + done.stderr
        return json.loads(done.stdout[done.stdout.index("{") :])

    return run


def jails(machine: Machine) -> list[str]:
    return machine.must("jls", "name").split()


def test_ansible(machine: Machine, client: Callable[..., Any]) -> None:
    """The module that the machine's init asks for, and the one for any; one jail by its name, or by its unit."""

    def service(words: str) -> bool:
        hosts = ("-i", "localhost,", "-c", "local", "-e", "ansible_python_interpreter=/usr/bin/python3", "localhost")
        more = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline"}
        return bool(client("ansible", *hosts, "-m", "service", "-a", words, **more)["changed"])

    assert not service("name=jail state=started enabled=true")
    assert service("name=jail state=stopped")
    assert jails(machine) == []
    assert not service("name=jail state=stopped")
    assert service("name=jail state=started")
    assert jails(machine) == _BOTH
    before = machine.must("jls", "jid").split()
    assert service("name=jail state=restarted")
    assert (jails(machine), set(before) & set(machine.must("jls", "jid").split())) == (_BOTH, set())
    if (machine.top / "etc/inittab").exists():
        for state, running in (("stopped", ["db"]), ("started", _BOTH)):
            assert service(f"name=jail arguments=www state={state} use=service")
            assert jails(machine) == running
        return
    machine.must("jail", "-q", "-r", "www")
    assert service("name=jail@www state=started")
    assert jails(machine) == _BOTH
    assert not service("name=jail@www state=started")
    assert service("name=jail@www state=stopped")
    assert jails(machine) == ["db"]


def test_salt(machine: Machine, client: Callable[..., Any]) -> None:
    """The module freebsdjail, which takes the machine for a FreeBSD, as tests/clients/test_salt.py has it."""
    settings = "grains: {os: FreeBSD}\nroot_dir: /root\nfile_client: local\nid: ogoun\nlog_level: error\n"
    (machine.top / "root/minion").write_text(settings)

    def salt(*words: str) -> Any:
        options = ("--local", "-c", "/root", "--out=json")
        return client("salt-call", *options, *words)["local"]

    assert salt("jail.status", "www") is True
    assert salt("jail.stop", "www") is True
    assert jails(machine) == ["db"]
    assert salt("jail.status", "www") is False
    assert salt("jail.show_config", "www")["depend"] == "db"
    assert salt("jail.start", "www") is True
    before = machine.must("jls", "-j", "www", "jid")
    assert salt("jail.restart", "www") is True
    assert machine.must("jls", "-j", "www", "jid") != before
    assert salt("jail.start", "other") is False
    assert salt("jail.stop") is True
    assert jails(machine) == []
    columns = ("device", "mountpoint", "fstype", "options", "dump", "pass")
    assert salt("jail.fstab", "db") == [dict(zip(columns, _FSTAB, strict=True))]
    assert salt("jail.start") is True
    assert jails(machine) == _BOTH
    assert salt("jail.sysctl")["security.jail.children.cur"] == "2"
    assert salt("jail.is_enabled") is True
    machine.must("service", "jail", "disable")
    assert salt("jail.is_enabled") is False
