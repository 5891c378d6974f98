from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.params.address import AF_INET, AF_INET6, Address, addresses, is_interface
from jailng.params.model import Parameters
from jailng.params.table import Parameter, lookup, resolve
from jailng.params.values import (
    escape,
    is_visible,
    parse,
    quoted,
    show,
    straight,
    unescape,
    visible,
)

if TYPE_CHECKING:
    from jailng.params.values import Value

# Every character, and the lone surrogates by which Python carries bytes that are not UTF-8.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)


def row(name: str) -> Parameter:
    found = lookup(name)
    assert found is not None
    return found


def read(name: str, text: str | None) -> Value:
    found = resolve(name)
    assert found is not None
    return parse(found[0], text, name, found[1])


def refusal(name: str, text: str | None) -> str:
    with pytest.raises(JailError) as caught:
        read(name, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("persist", None, True),
        ("persist", "true", True),
        ("persist", "TRUE", True),
        ("persist", "1", True),
        ("persist", "-3", True),
        ("persist", "false", False),
        ("persist", "False", False),
        ("persist", "0", False),
        ("persist", "", False),  # strtol(3) finds nothing, which is 0
        ("nopersist", None, False),
        ("nopersist", "true", False),
        ("nopersist", "false", True),
        ("allow.nomount", None, False),
        ("allow.mount", " 1", True),
    ],
)
def test_booleans(name: str, text: str | None, value: bool) -> None:
    assert read(name, text) is value


@pytest.mark.parametrize(
    ("name", "text"), [("persist", "yes"), ("allow.nomount", "1x"), ("exec.clean", "-"), ("dying", "1 ")]
)
def test_no_boolean(name: str, text: str) -> None:
    assert refusal(name, text) == f'{name}: unknown boolean value "{text}"'


@pytest.mark.parametrize(
    ("text", "value"),
    [(None, "new"), ("", "new"), ("new", "new"), ("Inherit", "inherit"), ("disable", "disable"), ("0", "disable"),
     ("1", "new"), ("2", "inherit")],
)  # fmt: skip
def test_jailsys(text: str | None, value: str) -> None:
    assert read("ip4", text) == value


@pytest.mark.parametrize(
    ("name", "text"), [("ip4", "on"), ("ip6", "3"), ("vnet", "disable"), ("host", "0"), ("sysvshm", "-1")]
)
def test_no_jailsys(name: str, text: str) -> None:
    assert refusal(name, text) == f'{name}: unknown jailsys value "{text}"'


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("jid", "7", 7),
        ("securelevel", "-1", -1),
        ("securelevel", None, 0),  # libjail's: nothing is 0
        ("securelevel", "", 0),
        ("children.max", "+5", 5),
        ("host.hostid", "18446744073709551615", 2**64 - 1),
        ("stop.timeout", None, 10),  # jail(8)'s own: nothing is the default
        ("exec.timeout", "30", 30),
    ],
)
def test_integers(name: str, text: str | None, value: int) -> None:
    assert read(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [("jid", "x"), ("jid", "7x"), ("jid", "1.5"), ("jid", "+"), ("jid", "0x10"), ("jid", "٣"), ("exec.timeout", "")],
)
def test_no_integer(name: str, text: str) -> None:
    assert refusal(name, text) == f'{name}: non-integer value "{text}"'


@pytest.mark.parametrize(
    ("name", "text", "low", "high"),
    [
        ("enforce_statfs", "3", 0, 2),
        ("devfs_ruleset", "65536", 0, 65535),
        ("jid", "4294967297", -(2**31), 2**31 - 1),
        ("jid", "9" * 5000, -(2**31), 2**31 - 1),
        ("stop.timeout", "-1", 0, 2**31 - 1),
    ],
)
def test_integer_out_of_range(name: str, text: str, low: int, high: int) -> None:
    assert refusal(name, text) == f"{name}: {text} is not from {low} to {high}"


def test_strings() -> None:
    assert read("host.hostname", "a b\n") == "a b\n"
    assert read("host.hostname", None) == ""
    assert read("ng.uids", "shared") == "shared"
    assert read("exec.start", "a, b") == ("a, b",)
    assert read("exec.start", None) == ()
    assert refusal("ng.uids", "Shared") == 'ng.uids: unknown value "Shared"'
    assert refusal("path", "/a\0b") == "path: a NUL within the value"


@pytest.mark.parametrize(
    ("name", "most", "message"),
    [
        ("name", 255, "name: File name too long"),
        ("host.hostname", 64, "host.hostname: longer than 64 bytes, which is all that Linux holds"),
        ("host.domainname", 64, "host.domainname: longer than 64 bytes, which is all that Linux holds"),
        ("host.hostuuid", 63, "host.hostuuid: File name too long"),
        ("osrelease", 31, "osrelease string must be 1-31 bytes long"),
        ("path", 4095, "path: File name too long"),
    ],
)
def test_lengths_are_of_bytes(name: str, most: int, message: str) -> None:
    assert read(name, "x" * most) == "x" * most
    assert refusal(name, "x" * (most + 1)) == message
    assert refusal(name, "é" * (most // 2 + 1)) == message


@pytest.mark.parametrize(
    ("text", "packed", "prefix", "interface", "words"),
    [
        ("192.0.2.1", "192.0.2.1", 32, "", ""),
        ("192.0.2.1/24", "192.0.2.1", 24, "", ""),
        ("192.0.2.1/255.255.255.128", "192.0.2.1", 25, "", ""),
        ("192.0.2.1/0.0.0.0", "192.0.2.1", 0, "", ""),
        ("ep0|192.0.2.1", "192.0.2.1", 32, "ep0", ""),
        ("ep0|192.0.2.1/32", "192.0.2.1", 32, "ep0", ""),
        ("ep0|192.0.2.1/24  broadcast  192.0.2.255", "192.0.2.1", 24, "ep0", "broadcast 192.0.2.255"),
        ("192.0.2.1 vhid 1", "192.0.2.1", 32, "", "vhid 1"),
    ],
)
def test_ipv4(text: str, packed: str, prefix: int, interface: str, words: str) -> None:
    (address,) = addresses("ip4", "ip4.addr", text)
    assert address.packed == socket.inet_aton(packed)
    assert (address.family, address.prefix) == (AF_INET, prefix)
    assert (address.interface, address.words) == (interface, words)
    assert address.bare == packed
    assert addresses("ip4", "ip4.addr", address.text) == (address,)


def test_ipv6() -> None:
    (one, two) = addresses("ip6", "ip6.addr", "ep0|2001:DB8:0::1/64,2001:db8::2")
    assert (one.family, one.bare, one.prefix, one.interface) == (AF_INET6, "2001:db8::1", 64, "ep0")
    assert one.text == "ep0|2001:db8::1/64"
    assert (two.text, two.prefix) == ("2001:db8::2", 128)


def test_a_list_without_addresses() -> None:
    assert addresses("ip4", "ip4.addr", "") == ()
    assert addresses("ip6", "ip6.addr", "-") == ()


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.-4",
        "1.2.3.٤",
        "::1",
        "x",
        "1.2.3.4x",
        " 1.2.3.4",
        "1.2.3.4\0",
    ],
)
def test_no_ipv4_address(text: str) -> None:
    assert refusal("ip4.addr", text) == f"ip4.addr: not an IPv4 address: {visible(text.partition(' ')[0])}"


@pytest.mark.parametrize("text", ["192.0.2.1", "::g", "fe80::1%lo", "1:2:3", ":::", "\udcff", "::1\0"])
def test_no_ipv6_address(text: str) -> None:
    assert refusal("ip6.addr", text) == f"ip6.addr: not an IPv6 address: {visible(text)}"


def test_the_message_has_the_address_alone() -> None:
    assert refusal("ip4.addr", "192.0.2.1,ep0|10.0.0.300/24") == "ip4.addr: not an IPv4 address: 10.0.0.300"


@pytest.mark.parametrize("mask", ["33", "-1", "", "x", "255.0.255.0", "0.0.0.255", "24/24"])
def test_no_mask(mask: str) -> None:
    message = f'ip4.addr: 192.0.2.1: not a netmask or prefix length: "{mask}"'
    assert refusal("ip4.addr", f"192.0.2.1/{mask}") == message


@pytest.mark.parametrize("mask", ["129", "255.0.0.0"])
def test_no_ipv6_prefix(mask: str) -> None:
    assert refusal("ip6.addr", f"::1/{mask}") == f'ip6.addr: ::1: not a netmask or prefix length: "{mask}"'


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a" * 16, "a:1", "a\n"])
def test_no_interface(name: str) -> None:
    assert not is_interface(name)
    assert "not the name of an interface" in refusal("ip4.addr", f"{name}|192.0.2.1")


@given(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    st.integers(0, 128),
    st.sampled_from(["", "ep0", "eth0.7", "a" * 15]),
    st.sampled_from(["", "up", "vhid 1 pass x"]),
)
def test_address_round_trip(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int, iface: str, words: str
) -> None:
    family = AF_INET if ip.version == 4 else AF_INET6
    address = Address(family, ip.packed, min(bits, ip.max_prefixlen), iface, words)
    assert addresses(f"ip{ip.version}", "a", address.text) == (address,)
    assert ipaddress.ip_address(address.bare) == ip
    assert hash(address) == hash(addresses(f"ip{ip.version}", "a", address.text)[0])


@given(st.ip_addresses(v=4))
def test_ipv4_is_read_as_inet_pton_reads_it(ip: ipaddress.IPv4Address) -> None:
    assert addresses("ip4", "a", str(ip))[0].packed == socket.inet_pton(socket.AF_INET, str(ip))


@given(st.text("0123456789. ", max_size=15))
def test_garbage_is_refused_where_inet_pton_refuses_it(text: str) -> None:
    try:
        packed = socket.inet_pton(socket.AF_INET, text)
    except OSError:
        if " " not in text and text:
            with pytest.raises(JailError):
                addresses("ip4", "a", text)
    else:
        assert addresses("ip4", "a", text)[0].packed == packed


def test_show() -> None:
    both = addresses("ip4", "a", "ep0|192.0.2.1/24,192.0.2.2")
    assert show(both) == "ep0|192.0.2.1/24,192.0.2.2"
    assert show(both, bare=True) == "192.0.2.1,192.0.2.2"
    assert [show(value) for value in (True, False, 7, "x", ())] == ["true", "false", "7", "x", ""]


@given(TEXT)
def test_escape_round_trip(text: str) -> None:
    line = escape(text)
    assert unescape(line) == text
    assert len(f"{line}.".splitlines()) == 1
    line.encode("utf-8", "surrogateescape" if not _has_other_surrogates(line) else "surrogatepass")


def _has_other_surrogates(text: str) -> bool:
    return any(0xD800 <= ord(char) < 0xDC80 or 0xDD00 <= ord(char) <= 0xDFFF for char in text)


@given(st.text("\\nxu0123456789abcdef\n"))
def test_escape_round_trip_of_backslashes(text: str) -> None:
    assert unescape(escape(text)) == text


def test_unescape_leaves_alone_what_escape_did_not_write() -> None:
    assert unescape(r"C:\temp\xZZ\u12\q") == r"C:\temp\xZZ\u12\q"
    assert unescape("ends with \\") == "ends with \\"


@given(TEXT)
def test_visible_text_cannot_steer_a_terminal(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable() and is_visible(shown)
    if is_visible(text):
        assert shown == text


def test_visible() -> None:
    assert visible("a\x1b[2J\n") == "a\\x1b[2J\\x0a"
    assert visible("a\nb\tc\r", "\n\t") == "a\nb\tc\\x0d"
    assert visible("\udc9b\u202e\U000e0001") == "\\x9b\\u202e\\U000e0001"
    assert visible("é日\u05d0e\u0301") == "é日\u05d0e\u0301"


def test_what_shows_nothing_is_visible() -> None:
    """A process called so would look like none, and a name with such a sign like two."""
    for code in (0x34F, 0x115F, 0x1160, 0x17B4, 0x180B, 0x2800, 0x3164, 0xFE0F, 0xFFA0, 0x1D159, 0xE0100, 0xE01EF):
        assert visible(f"a{chr(code)}b").isascii(), hex(code)
    assert visible("\u3164\U000e0100") == "\\u3164\\U000e0100"


def test_straight() -> None:
    """Of letters that are written from right to left, numbers behind them are shown in the other order."""
    assert straight("a\x1b é日") == "a\\x1b é日"
    assert straight("\u05d0\u0627\u0661x") == "\\u05d0\\u0627\\u0661x"


@pytest.mark.skipif(not Path("/usr/share/i18n/charmaps/ISO-8859-1.gz").exists(), reason="no package locales")
def test_visible_in_another_character_set(tmp_path: Path) -> None:
    """Of UTF-8 such a terminal takes 0x9b for what begins escape sequences, and Python cannot print all of it."""
    subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / "en_US.ISO-8859-1"], check=True)
    source = Path(__file__).parents[2] / "src"
    script = (
        f"import sys; sys.path.append({str(source)!r}); from jailng.params.values import visible;"
        "print(visible('a\\xdb31m\\u65e5\\n'))"
    )
    environment = {"LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1"}
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("a\\xdb31m\\u65e5\\x0a\n", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '""'),
        ("/a;b#c", "/a;b#c"),
        ("a b", '"a b"'),
        ("a\tb", '"a\tb"'),
        ("it's", '"it\'s"'),
        ('a"b', "'a\"b'"),
        ("a'\"b", '"a\'\\"b"'),
        ("a\\b", "a\\\\b"),
        ("a\\ b", '"a\\\\ b"'),
        ("a\nb", "a\nb"),
    ],
)
def test_quotes_as_jail_puts_them(text: str, expected: str) -> None:
    assert quoted(text) == expected


def test_a_list_of_interfaces_may_be_one_word() -> None:
    """jail(8) parts it at commas on the command line, as it does addresses."""
    made = Parameters()
    made.add("vnet")
    made.add("vnet.interface", "em0,epair0b")
    made.add("vnet.interface", "em1")
    assert made.strings("vnet.interface") == ("em0", "epair0b", "em1")
    made.add("exec.start", "echo a,b")
    assert made.strings("exec.start") == ("echo a,b",)
