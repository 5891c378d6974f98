"""Filters of pcap-filter(7), compiled by libpcap to classic BPF. It is loaded when there is one."""

from __future__ import annotations

import ctypes
from typing import ClassVar

_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1")  # Debian's name for it, and everybody else's
_ETHERNET = 1  # DLT_EN10MB
_NETMASK_UNKNOWN = 0xFFFFFFFF
_INSTRUCTION = 8  # bytes: struct bpf_insn


class Unavailable(OSError):
    """There is no libpcap."""


class _Program(ctypes.Structure):
    _fields_: ClassVar = [("length", ctypes.c_uint), ("instructions", ctypes.c_void_p)]


class _Header(ctypes.Structure):
    """struct pcap_pkthdr."""

    _fields_: ClassVar = [
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    ]


def _library() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            found = ctypes.CDLL(name)
        except OSError:
            continue
        found.pcap_open_dead.restype = ctypes.c_void_p
        found.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        found.pcap_compile.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        ]
        found.pcap_geterr.restype = ctypes.c_char_p
        found.pcap_geterr.argtypes = [ctypes.c_void_p]
        found.pcap_offline_filter.argtypes = [ctypes.POINTER(_Program), ctypes.POINTER(_Header), ctypes.c_char_p]
        found.pcap_close.argtypes = [ctypes.c_void_p]
        return found
    raise Unavailable(f"{_LIBRARIES[0]}: not installed (Debian: libpcap0.8)")


class Filter:
    """An expression for Ethernet's frames; ``program`` is what the kernel takes, and keeps ``snaplen`` bytes of each.

    Raises Unavailable; ValueError with libpcap's words for what is no expression.
    """

    __slots__ = ("_compiled", "_header", "_library", "program")

    def __init__(self, expression: str, snaplen: int) -> None:
        self._library = _library()
        self._compiled = _Program()
        self._header = _Header()
        if "\0" in expression:
            raise ValueError("a NUL in it")
        handle = self._library.pcap_open_dead(_ETHERNET, snaplen)
        try:
            text = expression.encode("utf-8", "surrogateescape")
            if self._library.pcap_compile(handle, ctypes.byref(self._compiled), text, 1, _NETMASK_UNKNOWN) != 0:
                raise ValueError(self._library.pcap_geterr(handle).decode("utf-8", "replace"))
        finally:
            self._library.pcap_close(handle)
        self.program = ctypes.string_at(self._compiled.instructions, _INSTRUCTION * self._compiled.length)

    def takes(self, data: bytes, length: int) -> bool:
        """Whether it is for a frame that had that ``length`` before it was cut to ``data``."""
        self._header.captured, self._header.length = len(data), length
        return bool(self._library.pcap_offline_filter(ctypes.byref(self._compiled), ctypes.byref(self._header), data))
