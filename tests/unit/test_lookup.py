"""Looking up a user of a jail: whatever becomes of the process that does it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from jailng.core import lookup
from jailng.errors import JailError


def test_a_process_that_does_not_die_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for a FUSE server, which SIGKILL does not reach; here it is another's, that nobody may reap."""
    entry: Any = None
    waiting = os.fork()
    if waiting == 0:
        signal.pause()
        os._exit(0)
    monkeypatch.setattr(lookup, "born", lambda *_: (waiting, os.pidfd_open(waiting)))
    monkeypatch.setattr(lookup, "_PATIENCE", 0.05)
    monkeypatch.setattr(lookup, "_MOMENT", 0.05)
    monkeypatch.setattr("jailng.linux.ns.pidfd_send_signal", lambda *_: None)
    with pytest.raises(JailError, match="root: the jail's passwd could not be read"):
        lookup.find(entry, "root")
    os.kill(waiting, signal.SIGKILL)
    os.waitpid(waiting, 0)
