"""Keys that go forward only: what is signed with one cannot be signed again once the next has taken its place.

A chain has an initial key, the verification key. Each of its files is an epoch, whose key is made of that of the one
before; of an epoch's key those of its entries are made, one of the other. Every step is HMAC-SHA256 with the old key,
so that whoever has a key has all later ones and none before it. An epoch's entries and the next epoch's key are made
apart, so that who verifies can skip a file. (Bellare and Yee, "Forward-Security in Private-Key
Cryptography", 2003; journald's sealing has the same purpose.)
"""

from __future__ import annotations

import hmac

BYTES = 32
_EPOCH = b"epoch"
_ENTRIES = b"entries"
_NEXT = b"next"
_ENTRY = b"entry"


def _made(key: bytes, label: bytes) -> bytes:
    return hmac.digest(key, label, "sha256")


def later_epoch(key: bytes, epochs: int) -> bytes:
    """The key of the epoch that is so many after the one whose key this is."""
    for _ in range(epochs):
        key = _made(key, _EPOCH)
    return key


def first_of(epoch: bytes) -> bytes:
    """The key of an epoch's first entry."""
    return _made(epoch, _ENTRIES)


def after(key: bytes, entries: int = 1) -> bytes:
    """The key of the entry that is so many after the one whose key this is."""
    for _ in range(entries):
        key = _made(key, _NEXT)
    return key


def mac(key: bytes, body: bytes) -> str:
    """What authenticates an entry: ``body`` is its line up to where this goes. Hexadecimal."""
    return hmac.digest(key, _ENTRY + body, "sha256").hex()
