"""What `jailctl doctor` says of limits, on hosts that this one is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jailng.ctl import limitable
from jailng.ctl.diagnosis import Finding, Jails
from jailng.linux import cgroup, controller

Host = Callable[..., list[Finding]]
V1 = {name: f"/sys/fs/cgroup/{old}" for name, old in controller.V1.items()}
V2 = dict.fromkeys(controller.V1, "")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    def found(
        where: dict[str, str], *, handed: bytes = b"", members: tuple[int, ...] = (), swap: bool = True
    ) -> list[Finding]:
        monkeypatch.setattr(controller, "hierarchy", where.get)
        monkeypatch.setattr(limitable, "exists", lambda path: swap and path.endswith("memory.memsw.limit_in_bytes"))
        monkeypatch.setattr(cgroup, "read", lambda path: {"cgroup.subtree_control": handed}[path])
        monkeypatch.setattr(cgroup, "exists", lambda path: {"cgroup.type": bool(members)}[path])
        monkeypatch.setattr(cgroup, "members", lambda path: {".": [*members]}[path])
        return list(limitable.check(Jails()))

    return found


@pytest.mark.parametrize(
    ("where", "handed", "members"), [(V1, b"", ()), (V2, b"", ()), (V2, b"pids cpu memory\n", (1, 7))]
)
def test_all_is_well(host: Host, where: dict[str, str], handed: bytes, members: tuple[int, ...]) -> None:
    """The root of a machine's cgroup2 has processes too, and no cgroup.type."""
    assert host(where, handed=handed, members=members) == []


@pytest.mark.parametrize(("name", "wrong"), [("pids", True), ("cpu", True), ("memory", False), ("io", False)])
def test_a_controller_is_missing(host: Host, name: str, wrong: bool) -> None:
    (finding,) = host({one: place for one, place in V2.items() if one != name})
    assert finding.what.startswith(f"this kernel hands out no cgroup controller {name}: ")
    assert finding.wrong == wrong
    assert ("ng.lenient" in finding.what) == wrong


def test_a_container_s_root_has_processes(host: Host) -> None:
    (finding,) = host(V2, handed=b"memory\n", members=(1,))
    assert "has processes of its own" in finding.what
    assert "no pids and cpu" in finding.what
    assert finding.wrong


def test_swap_is_not_counted(host: Host) -> None:
    (finding,) = host(V1, swap=False)
    assert "swapuse is refused" in finding.what
    assert not finding.wrong
