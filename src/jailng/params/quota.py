"""``ng.quota``: how much of the disk a jail's root may take, and by which means.

    [image:]SIZE[,inodes=COUNT]

SIZE and COUNT may end in a unit of 1024 (expand_number(3)).
"""

from __future__ import annotations

from jailng.errors import JailError
from jailng.params.limit import expand
from jailng.params.values import visible

_SMALLEST_IMAGE = 8 << 20  # below that mkfs.ext4 has no room for a journal
_MOST = 1 << 62


class Quota:
    """``bytes`` and ``inodes`` that the root may take, 0 for any number; ``image``: in a file system of its own."""

    __slots__ = ("bytes", "image", "inodes")

    def __init__(self, size: int, inodes: int = 0, image: bool = False) -> None:
        self.bytes = size
        self.inodes = inodes
        self.image = image


def parse(text: str) -> Quota:
    """Read ``8G``, ``8G,inodes=200k`` or ``image:8G``. Raises JailError."""
    first, *more = text.split(",")
    image = first.startswith("image:")
    size = _amount(text, first.removeprefix("image:"))
    inodes = 0
    for word in more:
        name, _, value = word.strip().partition("=")
        if name != "inodes" or inodes:
            raise _wrong(text, f'not inodes=COUNT: "{visible(word.strip())}"')
        inodes = _amount(text, value)
    if image and size < _SMALLEST_IMAGE:
        raise _wrong(text, "an image has 8M at least")
    return Quota(size, inodes, image)


def _amount(text: str, digits: str) -> int:
    amount = expand(digits)
    if not amount or amount > _MOST:
        raise _wrong(text, f'not an amount: "{visible(digits)}"')
    return amount


def _wrong(text: str, why: str) -> JailError:
    return JailError(f'ng.quota: "{visible(text)}": {why}')
