"""What a jail may know of itself, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from jailng.core import own, ownfile
from jailng.params.model import Parameters

SECRET = ("name", "path", "jid", "parent", "persist", "meta")


def _settled(**texts: str) -> Parameters:
    params = Parameters()
    for name, text in texts.items():
        params.add(name.replace("__", "."), text)
    params.settle()
    return params


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = own.text(
        _settled(env="a=1\nb=\\n \x1b\u20ac", allow__raw_sockets="1", host__hostname="cell", securelevel="2")
    )
    (tmp_path / "self").write_bytes(text)
    monkeypatch.setattr(own, "PATH", str(tmp_path / "self"))
    found = ownfile.read()
    assert found["env"] == "a=1\nb=\\n \x1b\u20ac"
    assert (found["allow.raw_sockets"], found["allow.socket_af"]) == ("true", "false")
    assert (found["host.hostname"], found["securelevel"], found["enforce_statfs"]) == ("cell", "2", "2")


def test_what_only_the_host_may_know_is_not_there() -> None:
    text = own.text(_settled(name="secret", path="/secret", meta="secret", exec__start="secret", persist="1", jid="71"))
    assert b"secret" not in text
    lines = text.decode().splitlines()
    told = [line.partition("=")[0] for line in lines]
    assert len(set(told)) == len(told)
    assert not {*SECRET} & {*told}
    assert not any(name.startswith(("exec.", "ng.", "mount")) for name in told)


def test_outside_there_is_nothing_to_read() -> None:
    assert ownfile.read() == {}
