"""Where a line of rctl(8) goes: to who listens, or else to the kernel's log."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from jailng.limits import syslog


def test_where_a_line_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "log")
    hears, tells = os.pipe()
    monkeypatch.setattr(syslog, "_LISTENERS", (str(tmp_path / "none"), address))
    monkeypatch.setattr(syslog, "_kernel", [tells])
    try:
        syslog.tell("one")
        assert os.read(hears, 99) == b"<28>rctl: one"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(address)
            syslog.tell("two")
            assert re.fullmatch(rb"<28>\w{3} [ \d]\d [\d:]{8} rctl: two", listening.recv(99))
            monkeypatch.setattr(syslog, "_kernel", [])
            for _ in range(1000):  # it takes no more: nobody waits for that
                syslog.tell("three")
    finally:
        os.close(hears)
        os.close(tells)
