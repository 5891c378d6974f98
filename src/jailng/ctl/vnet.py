"""Interfaces that go to a jail's network namespace, and come back: FreeBSD's SIOCSIFVNET and SIOCSIFRVNET."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from jailng.core import nested, origin
from jailng.core import vnet as lending
from jailng.errors import JailError
from jailng.linux import ns, processid
from jailng.linux import rtnetlink as rt
from jailng.linux.netlink import Netlink
from jailng.observe import posts
from jailng.params.values import visible
from jailng.procs.jails import named

_NOT_CONFIGURED = "Device not configured"  # FreeBSD's strerror(ENXIO)
_OWN = "/proc/self/ns/net"


def enter(jail: str) -> None:
    """Be in the jail's network namespace from here on. Raises JailError."""
    with _namespace(jail, f"jail_attach({visible(jail)}): {os.strerror(errno.EINVAL)}") as there:
        try:
            ns.setns(there, ns.CLONE_NEWNET)
        except OSError as error:
            raise JailError(f"jail_attach: {error.strerror}") from None


def jail_of(argv: list[str]) -> tuple[str | None, list[str]]:
    """The jail of ``-j`` among the options, which may stand with others in one word (``-rnj JAIL``), and what is left.

    For programs of whose options neither system's has another with a j.
    """
    for at, word in enumerate(argv):
        letters, found, jail = word[1:].partition("j")
        if found and word[0] == "-" and "-" not in letters and (jail or argv[at + 1 :]):
            rest = argv[at + 1 if jail else at + 2 :]
            return jail or argv[at + 1], [*argv[:at], *([f"-{letters}"] if letters else []), *rest]
    return None, argv


def move(index: int, jail: str) -> None:
    """Take an interface from here to the jail: to one with vnet until that ends. Raises JailError."""
    unknown = f"SIOCSIFVNET: {_NOT_CONFIGURED}"
    record = named(jail, lambda _: unknown)
    if record.remote:
        nested.lend(record, socket.if_indextoname(index))
        return
    if record.params.get("vnet") == "new" and origin.is_here(record):
        try:
            if not record.lock_again():
                raise JailError(unknown)
            lending.lend(record, socket.if_indextoname(index))
        except OSError as error:
            raise JailError(f"SIOCSIFVNET: {_words(error)}") from None
        finally:
            record.unlock()
        return
    with _namespace(jail, f"SIOCSIFVNET: {_NOT_CONFIGURED}") as there:
        if os.path.sameopenfile(there, _here()):
            raise JailError(f"SIOCSIFVNET: {os.strerror(errno.EEXIST)}")
        try:
            with Netlink() as netlink:
                netlink.batch([rt.move_link(index, there)])
        except OSError as error:
            raise JailError(f"SIOCSIFVNET: {_words(error)}") from None


def reclaim(interface: str, jail: str) -> None:
    """Bring an interface of the jail's here. Raises JailError."""
    here = _here()
    with _namespace(jail, f"SIOCSIFRVNET: {_NOT_CONFIGURED}") as there:
        if os.path.sameopenfile(there, here):
            raise JailError(f"SIOCSIFRVNET: {os.strerror(errno.EEXIST)}")
        try:
            ns.setns(there, ns.CLONE_NEWNET)
            try:
                index = socket.if_nametoindex(interface)
            except OSError:
                raise JailError(f"SIOCSIFRVNET: {_NOT_CONFIGURED}") from None
            with Netlink() as netlink:
                netlink.batch([rt.move_link(index, here)])
        except OSError as error:
            raise JailError(f"SIOCSIFRVNET: {_words(error)}") from None
    posts.follow(named(jail, str), wait=False)


def _words(error: OSError) -> str:
    """Without what the kernel may have to say beyond that, which FreeBSD's does not."""
    return os.strerror(error.errno or 0)


def _here() -> int:
    """The network namespace that this process is in, as a descriptor for the rest of its life."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _namespace(jail: str, unknown: str) -> Iterator[int]:
    """The network namespace of a jail, by name or jid. Raises JailError: it is ``unknown`` by that jid."""
    record = named(jail, lambda _: unknown)
    try:
        there = processid.open_namespace(record.init, "net")
    except (FileNotFoundError, ProcessLookupError):
        raise JailError(f'jail "{record.name}" not found', errno=errno.ENOENT) from None
    except OSError as error:
        raise JailError(f"jail {visible(jail)}: {error.strerror}") from None
    try:
        yield there
    finally:
        os.close(there)
