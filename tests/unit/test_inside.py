"""Commands in a jail: what is said of one whose jail has ended on its way in; and numbers that are another's by now."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from jailng.core import attach, privileges
from jailng.core.registry import Record
from jailng.engine import inside, modify
from jailng.errors import UNREACHED, JailError
from jailng.linux import processid
from jailng.params.model import Parameters

WAY = JailError("jail_attach: No such file or directory", kind=UNREACHED)
COMMAND = JailError("execvp: true: No such file or directory")
GONE = 'jail "cell" not found'


@pytest.mark.parametrize(
    "met, alive, late, told",
    [
        (WAY, True, False, str(WAY)),
        (WAY, True, True, GONE),
        (WAY, False, False, GONE),
        (COMMAND, True, False, str(COMMAND)),
        (COMMAND, True, True, str(COMMAND)),  # it may be because of this that the jail ends
        (COMMAND, False, True, GONE),
    ],
)
def test_what_a_command_meets_when_its_jail_has_ended(
    monkeypatch: pytest.MonkeyPatch, met: JailError, alive: bool, late: bool, told: str
) -> None:
    record: Any = SimpleNamespace(
        name="cell", init="", params={}, remote=False, joined=False, warden="", halted="", posts={}, alive=lambda: alive
    )

    def jail_attach(*_: object) -> None:
        raise met

    monkeypatch.setattr(attach, "Entry", lambda *_: SimpleNamespace(base=0, close=lambda: None))
    monkeypatch.setattr(attach, "jail_attach", jail_attach)
    monkeypatch.setattr(processid, "is_ending", lambda *_: late)
    monkeypatch.setattr(privileges, "confine", lambda *_: None)
    monkeypatch.setattr(inside, "_streams", lambda *_: None)
    with pytest.raises(JailError) as raised:
        inside.attached(Parameters(), record, attach.Command(["true"], {}))
    assert str(raised.value) == told


def test_a_process_of_the_host_s_that_has_a_member_s_number_by_now_is_not_terminated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        monkeypatch.setattr(inside, "_members", lambda _: [other.pid])
        assert inside.terminate(Record(7)) == ([], [])
        other.kill()
    assert other.returncode == -9


def test_a_process_that_has_pid_1_s_number_by_now_keeps_its_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[object] = []
    monkeypatch.setattr(modify, "InNamespace", lambda *given: entered.append(given))
    record = Record(7)
    record.init = f"{os.getpid()} 1"  # the inode of no pidfd
    with pytest.raises(JailError, match='jail "7" not found'):
        modify._set_names(record, Parameters())
    assert entered == []
