"""What is passed on to a guest's syslogd, and what of it counts as lost: nothing where there is no syslogd."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from jailng.observe.datagram import Datagram
from jailng.observe.passing import Guest

_MANY = 5000  # more than wait


def _flood(guest: Guest) -> None:
    for number in range(_MANY):
        guest.pass_on(Datagram(b"<13>%d" % number, 0, os.getpid(), os.getuid(), os.getgid()))


def test_who_has_no_syslogd_loses_nothing(tmp_path: Path) -> None:
    guest = Guest()
    _flood(guest)
    guest.drop_waiting()
    assert guest.lost == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslogd:
        syslogd.bind(str(tmp_path / "log"))
        address = os.open(tmp_path / "log", os.O_PATH)
        try:
            assert guest.connect(address)
        finally:
            os.close(address)
        assert guest.lost == 0
        guest.leave()


def test_a_syslogd_that_comes_back_has_missed_what_could_not_wait(tmp_path: Path) -> None:
    guest = Guest()
    _flood(guest)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslogd:
        syslogd.bind(str(tmp_path / "log"))
        address = os.open(tmp_path / "log", os.O_PATH)
        try:
            assert guest.connect(address)
        finally:
            os.close(address)
        guest.send()
        assert guest.lost
        assert syslogd.recv(100) == b"<13>%d" % guest.lost
        guest.leave()
