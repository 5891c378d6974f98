"""Commands in a jail: what is said of one whose jail has ended on its way in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jailng.core import attach, privileges
from jailng.engine import inside
from jailng.errors import JailError
from jailng.linux import processid
from jailng.params.model import Parameters

WHY = "jail_attach: No such file or directory"
GONE = 'jail "cell" not found'


@pytest.mark.parametrize("alive, late, why", [(True, False, WHY), (True, True, GONE), (False, False, GONE)])
def test_what_a_command_meets_when_its_jail_has_ended(
    monkeypatch: pytest.MonkeyPatch, alive: bool, late: bool, why: str
) -> None:
    record: Any = SimpleNamespace(
        name="cell", init="", params={}, remote=False, joined=False, warden="", halted="", posts={}, alive=lambda: alive
    )

    def jail_attach(*_: object) -> None:
        raise JailError(WHY)

    monkeypatch.setattr(attach, "Entry", lambda *_: SimpleNamespace(base=0, close=lambda: None))
    monkeypatch.setattr(attach, "jail_attach", jail_attach)
    monkeypatch.setattr(processid, "is_ending", lambda *_: late)
    monkeypatch.setattr(privileges, "confine", lambda *_: None)
    monkeypatch.setattr(inside, "_streams", lambda *_: None)
    with pytest.raises(JailError) as met:
        inside.attached(Parameters(), record, attach.Command(["true"], {}))
    assert str(met.value) == why
