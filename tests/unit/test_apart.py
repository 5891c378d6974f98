"""core/apart.py: a child that mounts, for as long as whatever it mounts from keeps it waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jailng.core import registry
from jailng.core.apart import apart
from jailng.errors import JailError
from jailng.linux import mountfd, ns


def test_who_mounts_holds_no_lock_of_a_jail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else nobody could clear the jail away where jail(8) is killed and mount(8) waits for a server."""
    held = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    monkeypatch.setattr(registry, "_locks", {held})
    monkeypatch.setattr(ns, "unshare", lambda _: None)
    monkeypatch.setattr(mountfd, "make_private", lambda: None)

    def work(_: int) -> int:
        os.fstat(held)
        raise JailError("it is still there")

    try:
        with pytest.raises(JailError, match=os.strerror(9)):
            apart(work)
        os.fstat(held)
    finally:
        os.close(held)
