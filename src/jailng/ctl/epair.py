"""epair(4): two interfaces with a wire between them, which Linux calls a veth."""

from __future__ import annotations

import errno
import os
import re

from jailng.errors import JailError, UsageError
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink

_EPAIR = re.compile("epair(0|[1-9][0-9]{0,5})?")
_MOST = 1 << 15  # IF_MAXUNIT of FreeBSD's sys/net/if.h


def create(name: str) -> str:
    """Make ``epairN``, or the first ``epair`` that there is not yet; the name of its first end.

    Raises JailError, and UsageError for an interface of another kind.
    """
    asked = _EPAIR.fullmatch(name)
    if asked is None:
        raise UsageError(f"ifconfig: {name}: only epair can be created")
    with Netlink() as netlink:
        for unit in [int(asked[1])] if asked[1] else range(_MOST):
            made = f"epair{unit}a"
            try:
                netlink.batch([rt.new_pair(made, f"epair{unit}b")])
            except OSError as error:
                if error.errno == errno.EEXIST and not asked[1]:
                    continue
                raise _refused(f"SIOCIFCREATE2 ({name})", error) from None
            return made
    raise JailError(f"SIOCIFCREATE2 ({name}): {os.strerror(errno.ENOSPC)}")


def destroy(interface: str) -> None:
    """Remove an interface, and the one at the other end. Raises JailError: it is no pseudo-device."""
    try:
        with Netlink() as netlink:
            netlink.batch([rt.delete_link(interface)])
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            error = OSError(errno.EINVAL, "")
        raise _refused("SIOCIFDESTROY", error) from None


def _refused(call: str, error: OSError) -> JailError:
    return JailError(f"{call}: {os.strerror(error.errno or 0)}")
