"""Descriptors that outlive the process that has made them."""

from __future__ import annotations

import os

from jailng.observe.fdstore import Store


def content(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_what_was_put_in_last_is_there_for_each_that_asks() -> None:
    store = Store()
    assert store.get() == []
    first, second = os.pipe()
    store.put([first])
    store.put([second, first])
    os.close(second)
    for _ in range(2):
        found = store.get()
        assert [content(fd) for fd in found] == [content(found[0]), content(first)]
        assert len({content(fd) for fd in found}) == 1  # both ends of one pipe
        assert os.write(found[0], b"x") == 1
        assert os.read(first, 9) == b"x"
        assert not any(os.get_inheritable(fd) for fd in found)
        for fd in found:
            os.close(fd)
    store.put([])
    assert store.get() == []
    os.close(first)
    store.close()


def test_whoever_was_killed_half_way_leaves_the_newer_one() -> None:
    store = Store()
    first, second = os.pipe()
    store.put([first])
    store._waiting = 0  # as if it knew nothing of it: what is put in next stands beside it
    store.put([second])
    found = store.get()
    assert os.write(found[0], b"x") == 1
    store.put(found)
    assert store._waiting == 1
    again = store.get()
    assert store._waiting == 1
    for fd in (first, second, *found, *again):
        os.close(fd)
    store.close()
