"""A table of nf_tables that has changed is another form of it: else one of an older release is taken for it."""

from __future__ import annotations

import sys
import zlib

import pytest

from jailng.core import firewall


@pytest.mark.skipif(sys.byteorder != "little", reason="the messages are others")
def test_each_table_has_its_form() -> None:
    """Where this fails count ``FORM`` on, and enter both here."""
    forms = {"form 2": 2622054647}
    assert forms[firewall.FORM] == zlib.crc32(repr(firewall.table()).encode())
