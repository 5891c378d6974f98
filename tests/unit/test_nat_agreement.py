"""ipnat(5) read by jailng and by a second grammar, tests/unit/nat/ipnat.lark: on any text both agree.

What a rule means is worked out a second time here, too: from the tree of its text, and from that of what jailng prints
for it. And what is printed is read as the same rule, and printed as the same text.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jailng.errors import JailError
from jailng.nat import names
from jailng.nat.parse import parse
from jailng.nat.printed import printed

lark = pytest.importorskip("lark", reason="pip install --group check")
LARK = lark.Lark((Path(__file__).parent / "nat" / "ipnat.lark").read_text(), parser="lalr", lexer="basic")

HOSTS = {"gate.example.org": "192.0.2.77", "br-lan.x": "192.0.2.78"}
SERVICES = {"ftp": 21, "domain": 53, "http": 80}


@pytest.fixture(autouse=True, scope="module")
def few_names() -> Any:
    """No name server is asked, and a service is what it is everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "host", lambda name, family: _address(HOSTS.get(name)) if family == 4 else None)
        patch.setattr(names, "service", lambda name, number=None: SERVICES.get(name))
        yield


def _address(text: str | None) -> Any:
    return None if text is None else ipaddress.ip_address(text)


# What a rule means, by the second grammar

Meaning = dict[str, Any]
NUMBERS = {"ip": (), "tcp": (6,), "udp": (17,), "tcpudp": (6, 17), "icmp": (1,), "gre": (47,), "ipv6-icmp": (58,)}
NUMBERS["esp"] = (50,)


def string(token: Any) -> str:
    text = str(token)
    return text[1:-1].replace("\n", " ") if text[0] in "\"'" else text


def port(tree: Any) -> int:
    text = string(tree.children[0])
    return int(text) if text.isdigit() else SERVICES[text]


def ports(tree: Any) -> tuple[int, int]:
    found = [port(one) for one in tree.find_data("port")]
    return found[0], found[-1]


def protocols(tree: Any) -> tuple[int, ...]:
    text = "".join([string(token).lower() for token in tree.children]).replace("/", "")
    return tuple([int(text)] * (int(text) > 0)) if text.isdigit() else NUMBERS[text]


def bits(tree: Any) -> tuple[int, int]:
    """Family and value of an address without a mask."""
    if isinstance(tree, lark.Token):
        if tree.type == "IPV6":
            return 6, int(ipaddress.IPv6Address(str(tree)))
        if tree.type == "STRING":
            return 4, int(ipaddress.IPv4Address(HOSTS[string(tree)]))
        return 4 * (int(tree) > 0), int(tree)
    if tree.data == "dotted":
        return 4, int(ipaddress.IPv4Address(".".join([str(one) for one in tree.children if one.type == "NUMBER"])))
    return bits(tree.children[0])


def network(tree: Any) -> tuple[int, Any, Any]:
    """Family, address, mask: of what has no family, a mask that is a number of bits is left as that."""
    if tree.data == "any":
        return 0, 0, "/0"
    if tree.data in ("pool", "dstlist"):
        return 0, tree.children[0].type, string(tree.children[-1])
    family, address = bits(tree.children[0])
    if tree.data == "host":
        return family, address, f"/{ {4: 32, 6: 128}.get(family, 0) }"
    mask = tree.children[2]
    if tree.data == "bits":
        return (6 if not family and int(mask) > 32 else family), address, f"/{int(mask)}"
    if isinstance(mask, lark.Token) and mask.type == "HEX":
        return 4, address, int(mask[2:] or "0", 16)
    kind, value = bits(mask)
    return kind, address, value


def settled(found: tuple[int, Any, Any], family: int) -> tuple[Any, Any]:
    """A network in a rule of that family."""
    _, address, mask = found
    if isinstance(address, str):
        return address, mask
    if isinstance(mask, str):
        length, size = int(mask[1:]), 128 if family == 6 else 32
        mask = ((1 << length) - 1) << (size - length)
    return address & mask, mask


def target(tree: Any) -> tuple[Any, ...]:
    while tree.data in ("target", "rdrtarget") and len(tree.children) == 1:
        tree = tree.children[0]
    if tree.data in ("range", "split"):
        ends = [bits(one) for one in tree.children if isinstance(one, lark.Tree)]
        return max(ends[0][0], ends[1][0]), tree.data, (ends[0][1], ends[1][1])
    return network(tree)


def settled_target(found: tuple[Any, ...], family: int) -> tuple[Any, Any]:
    return (found[1], found[2]) if found[1] in ("range", "split") else settled(found, family)


def children(tree: Any, *kinds: str) -> list[Any]:
    return [one for one in tree.children if isinstance(one, lark.Tree) and one.data in kinds]


def compared(tree: Any) -> tuple[Any, ...] | None:
    """How the port of an object is compared; of what is none, None."""
    found = children(tree, "compared")
    if not found:
        return None
    signs = {"EQ": "=", "NE": "!=", "LT": "<", "GT": ">", "LE": "<=", "GE": ">="}
    signs |= {"OUTSIDE": "<>", "INSIDE": "><", "COLON": ":"}
    (sign,) = [signs[one.type] for one in found[0].children if isinstance(one, lark.Token)]
    return sign, *[port(one) for one in found[0].children if isinstance(one, lark.Tree)]


def meaning(rule: Any) -> Meaning:
    """All that a rule says, in one form."""
    said: Meaning = {
        "form": str(rule.data),
        "words": [one.type for one in rule.children if isinstance(one, lark.Token)],
    }
    said["words"] = sorted(set(said["words"]) - {"ARROW", "SEMICOLON", "SRC", "DST", "COMMA", "UDP"})
    where = next(iter(rule.find_data("where")))
    said["interfaces"] = [string(one) for one in where.children if one.type == "STRING"]
    if len(set(said["interfaces"])) == 1:
        del said["interfaces"][1:]
    family = {"INET6": 6, "INET": 4}.get(where.children[-1].type, 0)
    # The match
    sides: list[tuple[int, Any, Any]] = []
    said["compared"] = []
    given_protocols = None
    ported = False
    match = [one for kind in ("plain", "notto", "notfrom", "short") for one in rule.find_data(kind)]
    if match and match[0].data != "short":
        said["match"] = str(match[0].data)
        for one in children(match[0], "object"):
            sides.append(network(one.children[0]))
            said["compared"].append(compared(one))
        ported = any(one is not None for one in said["compared"])
    else:
        tree = match[0] if match else (children(rule, "left") or [rule])[0]
        first = next(one for one in tree.children if isinstance(one, lark.Tree) and one.data != "where")
        sides.append(network(first))
        if children(tree, "ports"):
            ported = True
            low, high = ports(children(tree, "ports")[0])
            said["compared"] = [(low, high)] if low else []
    # The targets
    targets = [target(one) for one in rule.children if isinstance(one, lark.Tree) and one.data in TARGETS]
    if rule.data in ("mapblock", "divert", "encap"):
        addresses = [network(one) for one in rule.children if isinstance(one, lark.Tree) and one.data in ADDRESSES]
        targets = addresses[1:] if rule.data == "mapblock" else addresses
        sides = addresses[:1] if rule.data == "mapblock" else sides
    families = {one[0] for one in [*sides, *targets]} - {0} | {family} - {0}
    assert len(families) < 2, "mixed"
    family = max([*families, 4])
    said["family"] = family
    said["sides"] = [settled(one, family) for one in sides]
    said["targets"] = [settled_target(one, family) for one in targets]
    said["ports"] = [("fixed" if one.data == "fixed" else "", *ports(one)) for one in children(rule, "pairports")]
    said["ports"] += [port(one) for one in children(rule, "port")]
    new = [one for one in rule.children if isinstance(one, lark.Tree) and one.data in ("newport", "fixed")]
    # The options
    for tree in [
        *children(rule, "protocol"),
        *[p for both in children(rule, "both") for p in children(both, "protocol")],
    ]:
        given_protocols = protocols(tree)
    options: Meaning = {}
    for option in children(rule, "mapoption", "blockoption", "rdroption", "portmap", "icmpidmap"):
        given_protocols = _option(option, options, given_protocols)
    for one in new:
        ported = True
        low, high = ports(one)
        said["new"] = (one.data == "fixed", low, high)
    if given_protocols is None:
        given_protocols = ((6,) if "RDR" in said["words"] else (6, 17)) if ported else ()
    said["protocols"] = given_protocols
    proxied = options.pop("proxied", None)
    if proxied and "RDR" in said["words"]:
        said["new"] = (False, proxied, proxied)
        if "match" not in said:
            said["compared"] = [(proxied, proxied)]
        elif said["compared"][1] is None:
            said["compared"][1] = ("=", proxied)
    elif "PROXY" in options and "new" in said and "match" not in said and not said["compared"] and said["new"][1]:
        said["compared"] = [(said["new"][1], said["new"][1])]
    elif proxied:
        options["PROXY"] = (*options["PROXY"], proxied)
    if said.get("new", (0, 0, 0)) == (False, 0, 0):
        said.pop("new", None)
    if not {6, 17} & set(given_protocols):
        said["compared"] = [None] * len(said["compared"]) if "match" in said else []
        said.pop("new", None)
    if "sticky" in options and "rr" not in options and said["targets"][0][0] != "split":
        del options["sticky"]
    said["options"] = options
    return said


TARGETS = ("target", "rdrtarget", "split", "range", "dstlist")
ADDRESSES = ("any", "host", "mask", "bits")


def _option(option: Any, options: Meaning, known: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """One option into ``options``. The protocols, which it may say."""
    tree = option.children[0] if len(option.children) == 1 and isinstance(option.children[0], lark.Tree) else option
    if tree.data == "common" and isinstance(tree.children[0], lark.Tree):
        tree = tree.children[0]
    if tree.data == "protocol":
        assert known is None, "twice"
        return protocols(tree)
    if tree.data in ("portmap", "icmpidmap"):
        assert known is None, "twice"
        words = {one.type for one in tree.children if isinstance(one, lark.Token)}
        numbers = [ports(one) for one in children(tree, "ports")] or [(1024, 65535)]
        options[str(tree.data)] = (numbers[0], "AUTO" in words, "SEQUENTIAL" in words)
        if tree.data == "icmpidmap":
            return NUMBERS[string(tree.children[1])]
        return protocols(children(tree, "tcpudp")[0])
    if tree.data == "proxy":
        strings = [string(one) for one in tree.children if isinstance(one, lark.Token) and one.type == "STRING"]
        options["PROXY"] = tuple(strings)
        options["proxied"] = port(children(tree, "port")[0])
        return protocols(children(tree, "protocol")[0])
    word = tree.children[0].type
    values = [string(one) for one in tree.children[1:] if one.type != "SLASH"]
    if word == "AGE":
        values = values * (3 - len(values)) if len(values) == 1 else values
        if int(values[0]):
            options["age"] = [int(one) for one in values]
    elif word == "PROXY":
        options["PROXY"] = tuple(values)
    elif word == "PORTS":
        options["ports"] = values[0].lower()
    elif word == "MSSCLAMP":
        if int(values[0]):
            options["mssclamp"] = int(values[0])
    else:
        options[word.lower()] = values
    return known


def theirs(text: str) -> list[Meaning] | None:
    """What a text says by the second grammar, or None."""
    try:
        return [meaning(rule) for rule in LARK.parse(text).children]
    except (lark.exceptions.UnexpectedInput, AssertionError, KeyError, ValueError):
        return None


# Texts

spaces = st.sampled_from([" "] * 12 + ["  ", "\t", "\n", " \\\n", " # a comment\n"])
octets = st.sampled_from(["0", "1", "10", "192", "255"])
dotted = st.builds(".".join, st.tuples(octets, octets, octets, octets))
sixes = st.sampled_from(["::", "::1", "2001:db8::", "2001:DB8:1:2:3:4:5:6", "fe80::1", "::ffff:192.0.2.1"])
services = st.sampled_from(["0", "1", "53", "80", "65535", "ftp", "http"])
interfaces = st.sampled_from(["ep0", "*", '"-"', "eth0.7", "'in'", "br-lan", "ep0,le1", "*,le0", "le0,*", "le0,le0"])
protocol_words = st.sampled_from(
    ["tcp", "udp", "tcp/udp", "tcpudp", "icmp", "gre", "ip", "ipv6-icmp", "6", "50", "TCP"]
)
signs = st.sampled_from(["=", "!=", "<", ">", "<=", ">=", "eq", "ne", "lt", "GT", "le", "ge"])


def hosts(family: int) -> st.SearchStrategy[str]:
    return sixes if family == 6 else st.one_of(dotted, st.sampled_from(["1", "gate.example.org", "br-lan.x"]))


def masked(family: int) -> st.SearchStrategy[str]:
    if family == 6:
        masks = st.sampled_from(["", "/0", "/64", "/128", "/ffff::", " netmask ffff:ffff::"])
        return st.one_of(
            st.sampled_from(["any", "::/0", "0/0", "::0/0", "0/128"]), st.builds("".join, st.tuples(sixes, masks))
        )
    masks = st.sampled_from(
        ["", "/0", "/8", "/24", "/32", "/0xffffff00", "/255.255.0.0", "/255.0.255.0", " mask 0xff000000"]
    )
    return st.one_of(st.sampled_from(["any", "0/0", "0", "0/0x0"]), st.builds("".join, st.tuples(hosts(4), masks)))


def spans(separators: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(["80", "http", *[f"21{one}80" for one in separators], f"ftp{separators[0]}http"])


@st.composite
def objects(draw: st.DrawFn, family: int) -> str:
    text = draw(st.one_of(masked(family), masked(family), st.sampled_from(["pool/100", "hash/x", 'pool/"in"'])))
    kind = draw(st.sampled_from(["", "", "compare", "between"]))
    if kind == "compare":
        return f"{text} port {draw(signs)} {draw(services)}"
    if kind == "between":
        return (
            f"{text} port 21 {draw(st.sampled_from(['<>', '><', ':']))} {draw(st.sampled_from(['21', '80', 'http']))}"
        )
    return text


@st.composite
def options(draw: st.DrawFn, words: list[str]) -> str:
    taken = draw(st.permutations(words))[: draw(st.integers(0, 4))]
    values = {"age": ["age 0", "age 30", "age 60/10"], "mssclamp": ["mssclamp 0", "mssclamp 1400"]}
    values |= {"tag": ["tag a", 'tag "tcp"'], "protocol": [draw(protocol_words)]}
    values |= {
        "portmap": [
            *("portmap tcp/udp 1:2", "portmap tcp 21-ftp sequential", "portmap 5:9 udp", "portmap tcpudp auto"),
            *("icmpidmap icmp 1:20", "icmpidmap ipv6-icmp 1:2 sequential", "proxy port ftp ftp/tcp config x"),
            *("proxy port 53 dns/udp", "proxy port 1 x/TCP"),
        ],
        "proxy": ["proxy ftp", "proxy port ftp ftp/tcp", "proxy port 21 ftp/tcp config x"],
        "ports": ["ports auto", "ports 0", "ports 252"],
    }
    if any(word in taken for word in ("portmap", "proxy")) and "protocol" in taken:
        taken.remove("protocol")
    return " ".join([draw(st.sampled_from(values.get(word, [word]))) for word in taken])


COMMON = ["round-robin", "frag", "age", "mssclamp", "tag", "purge", "protocol"]


@st.composite
def rules(draw: st.DrawFn) -> str:
    family = draw(st.sampled_from([4, 4, 6]))
    where = draw(interfaces) + draw(st.sampled_from(["", " inet6" if family == 6 else " inet"]))
    kind = draw(st.sampled_from(["map", "bimap", "map-block", "rdr", "rewrite", "divert", "encap", "MAP", "Rdr"]))
    form = kind.lower()
    rdr = form == "rdr"
    source, destination = draw(objects(family)), draw(objects(family))
    nots = ["! from", "from !"] if rdr else ["! to", "to !"]
    verb = draw(st.sampled_from(["from to", *nots])) if form not in ("map-block",) else ""
    left = draw(masked(family))
    if verb and (form in ("rewrite", "divert", "encap") or draw(st.booleans())):
        begin = verb.removesuffix(" to") if rdr else "from"
        begin, end = (verb if verb in nots else "from", "to") if rdr else ("from", verb if verb in nots else "to")
        left = f"{begin} {source} {end} {destination}"
    elif rdr and draw(st.booleans()):
        left += f" port {draw(spans(['-', ':']))}"
    first, second = draw(hosts(family)), draw(hosts(family))
    ends = sorted([first, second], key=lambda one: bits_of(one))
    target = draw(st.sampled_from([draw(masked(family)), f"{ends[0]} - {ends[1]}", f"range {ends[0]} - {ends[1]}"]))
    if form in ("map", "bimap", "rdr", "map-block") and draw(st.integers(0, 5)) == 0:
        return f"no {kind} {where} {left} {draw(st.sampled_from(['', 'tcp', 'ip', 'gre', ';', 'tcp;']))}"
    end = draw(st.sampled_from(["", "", ";"]))
    if form == "map-block":
        return f"{kind} {where} {left} -> {draw(masked(family))} {draw(options([*COMMON, 'ports']))}{end}"
    if rdr:
        one = draw(st.sampled_from([first, "0/0", "any", target if "-" in target else first, f"{first},{second}"]))
        new = draw(st.sampled_from(["", "", f"port {draw(services)}", "port = 80", "port 80-http"]))
        return f"{kind} {where} {left} -> {one} {new} {draw(options([*COMMON, 'proxy', 'sticky']))}{end}"
    if form in ("map", "bimap"):
        return f"{kind} {where} {left} -> {target} {draw(options([*COMMON, 'portmap']))}{end}"
    proto = draw(st.sampled_from(["", "proto tcp", "proto tcp/udp", "proto udp"]))
    head = f"{form} {draw(st.sampled_from(['in', 'out']))} on {where} {proto} {left} ->"
    purge = draw(st.sampled_from(["", " purge"]))
    if form == "divert":
        return f"{head} src {first},{draw(services)} dst {second},{draw(services)} udp{purge};"
    if form == "encap":
        return f"{head} src {first} dst {draw(masked(family))}{purge};"
    news = ["", ",80", ",21-80", ",port = ftp", " port = 80"] if proto else [""]
    last = draw(st.sampled_from([draw(masked(family)), "dstlist/7", "dstlist/x", target]))
    return f"{head} src {target}{draw(st.sampled_from(news))} dst {last}{draw(st.sampled_from(news))}{purge};"


def bits_of(host: str) -> int:
    address = HOSTS.get(host, host)
    return int(address) if address.isdigit() else int(ipaddress.ip_address(address))


@st.composite
def files(draw: st.DrawFn) -> str:
    """Some rules, with other blanks and comments between their words."""
    text = "\n".join(draw(st.lists(rules(), min_size=1, max_size=3)))
    words = text.split(" ")
    return "".join([words[0], *[draw(spaces) + word for word in words[1:]]])


WORDS = """map bimap map-block rdr no rewrite divert encap from to ! any pool hash dstlist / , ; -> - : . = != < > <=
    >= <> >< ep0 * 0 0/0 0/32 10.0.0.1 1.2.3 10.0.0.0/8 ::1 2001:db8::/32 80 21 65536 99999999999 port portmap icmpidmap
    icmp auto sequential proxy ftp config tcp udp tcp/udp tcpudp gre frag age mssclamp round-robin sticky tag purge in
    out on proto src dst inet inet6 mask netmask 0xff range x # { } ( ) @ 'a' "b" "tcp" ' " $x \\ eq""".split()
soup = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
damaged = st.builds(
    lambda text, at, word, size: text[: at % (len(text) + 1)] + word + text[at % (len(text) + 1) + size :],
    files(),
    st.integers(0, 400),
    st.sampled_from(["", *WORDS]),
    st.integers(0, 6),
)


@given(files())
@example("rdr a 0/0 port 21 -> 10.0.0.1 proxy port ftp ftp/tcp config x")
@example("map a 0/0 -> 0/32 icmpidmap ipv6-icmp 1:2")
def test_rules_are_read_printed_and_read_again(text: str) -> None:
    found = theirs(text)
    try:
        read = parse("f", text.encode()).rules
    except JailError as error:
        assert found is None or "syntax error" not in str(error), text
        return
    assert found is not None, text
    for resolve in (False, True):
        shown = "\n".join([printed(rule, resolve) for rule in read])
        assert parse("g", shown.encode()).rules == read
        assert [printed(rule, resolve) for rule in parse("g", shown.encode()).rules] == shown.split("\n")
        again = theirs(shown)
        assert again is not None, shown
        assert [_same(one) for one in found] == [_same(one) for one in again], (text, shown)


def _same(said: Meaning) -> Meaning:
    """Two rules mean the same though one is written with what the other takes for granted."""
    ours = dict(said)
    if ours["form"] == "mapblock":
        ours["options"] = {"ports": "0", **ours["options"]}
    return ours


@given(st.one_of(soup, damaged))
@example("map ep0 0/0 -> 0/32 tcp / udp")
@example("rdr ep0 0/0 -> 1:2:3")
@example("map ep0 10.0.0.0/8->1.2.3.4")
def test_both_grammars_take_the_same(text: str) -> None:
    found = theirs(text)
    try:
        read = parse("f", text.encode()).rules
    except JailError as error:
        assert "\n" not in str(error)
        assert found is None or "syntax error" not in str(error), text
        return
    assert found is not None and len(found) == len(read), text
    shown = "\n".join([printed(rule) for rule in read])
    assert parse("g", shown.encode()).rules == read


def test_most_of_what_is_made_up_is_taken() -> None:
    """Or the tests above show nothing."""
    taken: list[bool] = []

    @given(rules())
    def count(text: str) -> None:
        try:
            parse("f", text.encode())
            taken.append(True)
        except JailError:
            taken.append(False)

    count()
    assert sum(taken) > 0.7 * len(taken), f"{sum(taken)} of {len(taken)}"
