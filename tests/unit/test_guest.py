"""Whose a cgroup is, where a jailed root has named a part of its path (``ng.init``)."""

from __future__ import annotations

import pytest

from jailng.core.registry import Record


@pytest.mark.parametrize(
    ("place", "held"),
    [
        ("/jailng/7/members", True),
        ("/jailng/7/members/own", True),
        ("/jailng/7/members/guest/system.slice/ssh.service", True),
        ("/stage/jailng/7/members/guest", True),
        ("/jailng/7/init", False),
        ("/jailng/7/broker", False),
        ("/jailng/7/members/8/members", False),
        ("/jailng/77/members", False),
        ("/jailng/9/members/guest/jailng/7/members", False),
        ("/jailng/9/members/guest/jailng/7/members/own", False),
        ("/", False),
    ],
)
def test_only_what_the_host_has_named_counts(place: str, held: bool) -> None:
    assert Record(7).holds(place) is held
