"""Values of ng.log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.params import log
from jailng.params.model import Parameters


@pytest.mark.parametrize(
    ("text", "one_form", "kinds"),
    [
        ("syslog", ["syslog"], ["syslog"]),
        ("exec , syslog,exec", ["exec", "syslog"], ["syslog", "exec"]),
        ("all,size=1m, keep=3,rate=5", ["all", "size=1048576", "keep=3", "rate=5"], list(log.KINDS)),
        (
            "forward  tls://log.example:6514 key=/k cert=/c ca=/etc/ca.pem,logins",
            ["logins", "forward tls://log.example:6514 ca=/etc/ca.pem cert=/c key=/k"],
            ["logins"],
        ),
        ("forward tcp://[2001:db8::1]:601,all", ["all", "forward tcp://[2001:db8::1]:601"], list(log.KINDS)),
        ("", [], []),
    ],
)
def test_a_list_and_its_one_form(text: str, one_form: list[str], kinds: list[str]) -> None:
    found = log.read([text])
    assert found.texts == one_form
    assert found.kinds == kinds
    assert log.read([",".join(found.texts)]).texts == one_form


def test_what_is_not_said_has_a_value() -> None:
    assert log.read(["all,keep=3"]).limits == {"size": 16 << 20, "keep": 3, "rate": 1000}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "auth",
            'ng.log: "auth": not one of syslog, exec, connections, logins, all, forward, size, keep, rate: "auth"',
        ),
        ("syslog exec", 'ng.log: "syslog exec": not understood: "exec"; commas part values'),
        ("forward", 'ng.log: "forward": not tcp://HOST:PORT or tls://HOST:PORT'),
        ("forward udp://a:1", 'ng.log: "forward udp://a:1": not tcp://HOST:PORT or tls://HOST:PORT'),
        ("forward tcp://a", 'ng.log: "forward tcp://a": not HOST:PORT: "a"'),
        ("forward tcp:a:1", 'ng.log: "forward tcp:a:1": not tcp://HOST:PORT or tls://HOST:PORT'),
        ("forward tcp://:1", 'ng.log: "forward tcp://:1": not HOST:PORT: ":1"'),
        ("forward tcp://a/b:1", 'ng.log: "forward tcp://a/b:1": not HOST:PORT: "a/b:1"'),
        ("forward tcp://[a%b]:1", 'ng.log: "forward tcp://[a%b]:1": not HOST:PORT: "[a%b]:1"'),
        ("forward tcp://[::1:1", 'ng.log: "forward tcp://[::1:1": not HOST:PORT: "[::1:1"'),
        ("forward tcp://::1]:1", 'ng.log: "forward tcp://::1]:1": not HOST:PORT: "::1]:1"'),
        ("forward tcp://a\x9b:1", 'ng.log: "forward tcp://a\\x9b:1": not HOST:PORT: "a\\x9b:1"'),
        ("forward tcp://a:1_0", 'ng.log: "forward tcp://a:1_0": not a port from 1 to 65535: "1_0"'),
        ("forward tcp://a:65536", 'ng.log: "forward tcp://a:65536": not a port from 1 to 65535: "65536"'),
        ("forward tcp://a:\u0661", 'ng.log: "forward tcp://a:\u0661": not a port from 1 to 65535: "\u0661"'),
        (
            "forward tls://a:1 ca=/x ca=/y",
            'ng.log: "forward tls://a:1 ca=/x ca=/y": not one of ca, cert, key, name: "ca=/y"',
        ),
        ("forward tls://a:1 name", 'ng.log: "forward tls://a:1 name": not one of ca, cert, key, name: "name"'),
        ("forward tls://a:1 name=", 'ng.log: "forward tls://a:1 name=": name is empty'),
        (
            "size",
            'ng.log: "size": not one of syslog, exec, connections, logins, all, forward, size, keep, rate: "size"',
        ),
        ("size=1x", 'ng.log: "size=1x": size: not a number from 4096 to 1099511627776: "1x"'),
        ("forward tcp://a:0", 'ng.log: "forward tcp://a:0": not a port from 1 to 65535: "0"'),
        ("forward tcp://a:1 ca=/x", 'ng.log: "forward tcp://a:1 ca=/x": tcp has no options: "ca=/x"'),
        ("forward tls://a:1 ca=x", 'ng.log: "forward tls://a:1 ca=x": ca is not an absolute path: "x"'),
        ("forward tls://a:1 key=/x", 'ng.log: "forward tls://a:1 key=/x": a key without a certificate'),
        ("forward tls://a:1,forward tls://a:1", 'ng.log: "forward tls://a:1": tls://a:1 is said twice'),
        ("size=1", 'ng.log: "size=1": size: not a number from 4096 to 1099511627776: "1"'),
        ("keep=2,keep=3", 'ng.log: "keep=3": keep is said twice'),
        (
            "size=1m,forward tcp://a:1",
            "ng.log: nothing is to be logged: not one of syslog, exec, connections, logins, all is said",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, why: str) -> None:
    with pytest.raises(JailError) as error:
        log.check([text])
    assert str(error.value) == why


def test_a_jail_has_it_as_one_list_of_several_values() -> None:
    made = Parameters()
    made.add("ng.log", "syslog,size=1m")
    made.add("ng.log", "forward tcp://192.0.2.1:601")
    made.settle()
    again = Parameters.from_lines(made.to_lines())
    assert again.strings("ng.log") == ("syslog", "forward tcp://192.0.2.1:601", "size=1048576")
    made.add("ng.log", "size=2m")
    with pytest.raises(JailError, match="size is said twice"):
        made.settle()


def test_a_host_and_a_port_as_long_as_they_may_be() -> None:
    longest = "a" * 253
    assert log.read([f"forward tls://{longest}:65535 name=a"]).texts == [f"forward tls://{longest}:65535 name=a"]
    for text in (f"tcp://a{longest}:1", f"tcp://a:{'9' * 5000}"):
        with pytest.raises(JailError, match=r"not HOST:PORT|not a port"):
            log.read([f"forward {text}"])


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = log.read([text])
    except JailError as error:
        assert "\n" not in str(error)
        return
    assert log.read([",".join(found.texts)]).texts == found.texts
