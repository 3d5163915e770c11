"""Strict parsing of a JSON object: RFC 8259, and what it leaves to the reader."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import MalformedJSON
from openhqm.policy import json_text
from openhqm.policy.json_text import MAX_DEPTH, MOST_MEMBERS, json_value, members, parse_object
from tests import hypothesis_profile  # noqa: F401

# RFC 8259, section 2 and 6
SPACE = st.text(" \t\r\n", max_size=3)
NUMBER = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@st.composite
def spellings(draw: Any, characters: str) -> str:
    """A strategy for JSON strings of these characters, each in one of the spellings of section 7."""
    written = []
    for character in characters:
        ways = ["".join(f"\\u{unit:04x}" for unit in utf16(character))]
        if character >= " " and character not in '"\\':
            ways.append(character)
        if character in SHORT:
            ways.append(SHORT[character])
        written.append(draw(st.sampled_from(ways)))
    return f'"{"".join(written)}"'


def utf16(character: str) -> list[int]:
    units = character.encode("utf-16-be")
    return [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]


@st.composite
def arrays(draw: Any, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=4))
    return f"[{','.join(draw(SPACE) + item + draw(SPACE) for item in items)}]"


@st.composite
def objects(draw: Any, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(st.tuples(st.text(max_size=3).flatmap(spellings), inner), max_size=4))
    return f"{{{','.join(f'{name}{draw(SPACE)}:{draw(SPACE)}{item}' for name, item in items)}}}"


VALUE = st.recursive(
    st.sampled_from(["null", "true", "false"]) | NUMBER | st.text(max_size=8).flatmap(spellings),
    lambda inner: arrays(inner) | objects(inner),
    max_leaves=12,
)


def reference(text: bytes | str) -> Any:
    """The document as the standard library parses it, with numbers as they are written."""
    return json.loads(text, parse_int=str, parse_float=str)


def nested(kinds: str, core: str = "1") -> bytes:
    """An object whose payload nests as ``kinds`` says: ``[`` for an array, ``{`` for an object."""
    opening = "".join('{"a":' if kind == "{" else "[" for kind in kinds)
    closing = "".join("}" if kind == "{" else "]" for kind in reversed(kinds))
    return f'{{"payload":{opening}{core}{closing}}}'.encode()


class MembersTests(SynchronousTestCase):
    """`members`"""

    def refused(self, text: bytes) -> str:
        error: Any = self.assertRaises(MalformedJSON, members, text)
        return str(error.reason)

    @given(st.data())
    def test_byte_for_byte(self, data: st.DataObject) -> None:
        """Any JSON value is returned as it was written: digits, escapes, order of keys, and inner white space."""
        names = data.draw(st.lists(st.text(max_size=8), unique=True, max_size=5))
        values = {name: data.draw(VALUE) for name in names}
        space = data.draw(SPACE)
        inside = f"{space},{space}".join(
            f"{data.draw(spellings(name))}{space}:{space}{value}" for name, value in values.items()
        )
        text = f"{space}{{{space}{inside}{space}}}{space}"
        self.assertEqual(members(text.encode()), {name: value.encode() for name, value in values.items()})

    @given(st.text('[]{}",:\\/u01e-. an', max_size=60).map(str.encode) | st.binary(max_size=40))
    @example(b'{"a":[{}' * 30)
    @example(b'{"a":"\\"}')
    @example(b'{"a\\/b":1,"a/b":2}')
    def test_agrees_with_the_standard_library(self, soup: bytes) -> None:
        """Accepted text means the same to `json.loads`. Any other text raises `MalformedJSON`, and nothing else."""
        for text in (soup, b'{"payload":' + soup + b"}"):
            try:
                found = members(text)
            except MalformedJSON:
                continue
            there = json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str)
            self.assertEqual(sorted(name for name, _ in there), sorted(found))
            self.assertEqual({name: reference(value) for name, value in found.items()}, reference(text))

    @given(st.text("[{", max_size=130))
    @example("[" * 63)
    @example("[" * 64)
    @example("{" * 64)
    @example("{[" * 32)
    @example("[{" * 32)
    def test_depth(self, kinds: str) -> None:
        """64 levels are accepted, of which the object is the first; 65 are refused, of any kind."""
        text = nested(kinds)
        if 1 + len(kinds) <= 64:
            self.assertEqual(list(members(text)), ["payload"])
        else:
            self.assertIn("64 levels", self.refused(text))

    def test_depth_counts_no_strings(self) -> None:
        """Brackets inside a string do not count, also behind escaped quotes and backslashes."""
        for string in ('"' + "[{" * 100 + '"', '"\\"' + "[" * 100 + '"', '"\\\\\\"' + "{" * 100 + '\\\\"'):
            self.assertEqual(members(nested("[", string)), {"payload": f"[{string}]".encode()}, string[:8])
        self.refused(nested("[" * 70, '"\\\\"'))

    def test_million_brackets(self) -> None:
        """A million brackets, closed or not, raise `MalformedJSON`."""
        for start in (b"", b'{"payload":'):
            for bracket in (b"[", b'{"a":', b'[{"a":', b"]", b"}", b'["",'):
                self.refused(start + bracket * 1_000_000)
        self.refused(nested("[" * 500_000))

    @given(st.text(min_size=1, max_size=6), st.data())
    @example("payload", None)
    @example("a/b", None)
    def test_repeated_name(self, name: str, data: Any) -> None:
        """A repeated name is refused, in whichever spelling."""
        if data is None:
            pairs = [(json.dumps(name), json.dumps(name)), (json.dumps(name), json.dumps(name).replace("/", "\\/"))]
        else:
            pairs = [(data.draw(spellings(name)), data.draw(spellings(name)))]
        for one, two in pairs:
            for text in (f"{{{one}:1,{two}:2}}", f'{{"x":{one},{two}:1,"y":0,{one}:{two}}}'):
                self.refused(text.encode())

    def test_repeated_name_in_payload(self) -> None:
        """A repeated name inside a payload is accepted: the payload is not parsed."""
        payload = b'{"a":1,"a":{"payload":1,"payload":2}}'
        self.assertEqual(members(b'{"payload":%b}' % payload), {"payload": payload})

    def test_surrogate_pair(self) -> None:
        """Two surrogates that form a pair are one character (RFC 8259, section 7)."""
        self.assertEqual(members(b'{"payload":"\\ud83d\\ude00"}'), {"payload": b'"\\ud83d\\ude00"'})
        self.assertEqual(list(members(b'{"\\ud83d\\ude00":1}')), ["\N{GRINNING FACE}"])

    def test_not_json(self) -> None:
        """What RFC 8259 does not allow is refused, also where other parsers accept it."""
        envelope = '{"payload":1}'
        for what, text in (
            ("nothing", b""),
            ("white space", b" \n"),
            ("byte order mark", b"\xef\xbb\xbf" + envelope.encode()),
            ("UTF-16 with a mark", envelope.encode("utf-16")),
            ("UTF-16, little end first", envelope.encode("utf-16-le")),
            ("UTF-16, big end first", envelope.encode("utf-16-be")),
            ("UTF-32", envelope.encode("utf-32")),
            ("Latin-1", '{"payload":"é"}'.encode("latin-1")),
            ("overlong UTF-8", b'{"payload":"\xc0\x80"}'),
            ("a surrogate as UTF-8", b'{"payload":"\xed\xa0\x80"}'),
            ("a high surrogate alone", b'{"payload":"\\ud800"}'),
            ("a high surrogate and more", b'{"payload":"\\ud800abcdef"}'),
            ("a low surrogate alone", b'{"payload":"\\udc00"}'),
            ("surrogates the wrong way round", b'{"payload":"\\udc00\\ud800"}'),
            ("a lone surrogate deep inside", b'{"payload":[{"a":["\\udfff "]}]}'),
            ("a lone surrogate in a name", b'{"\\ud800":1}'),
            ("a lone surrogate in a name deep inside", b'{"payload":{"\\ud800":1}}'),
            ("NaN", b'{"payload":NaN}'),
            ("Infinity", b'{"payload":Infinity}'),
            ("-Infinity", b'{"payload":[-Infinity]}'),
            ("bytes behind the end", envelope.encode() + b"x"),
            ("a second document", envelope.encode() * 2),
            ("NUL behind the end", envelope.encode() + b"\0"),
            ("no end", envelope.encode()[:-1]),
            ("trailing comma", b'{"payload":1,}'),
            ("trailing comma in an array", b'{"payload":[1,]}'),
            ("comment", b'{"payload":1/**/}'),
            ("single quotes", b"{'payload':1}"),
            ("name without quotes", b"{payload:1}"),
            ("leading zero", b'{"payload":01}'),
            ("plus", b'{"payload":+1}'),
            ("no digit before the point", b'{"payload":.5}'),
            ("no digit behind the point", b'{"payload":1.}'),
            ("hexadecimal", b'{"payload":0x10}'),
            ("control character in a string", b'{"payload":"a\nb"}'),
            ("unknown escape", b'{"payload":"\\x41"}'),
            ("short escape", b'{"payload":"\\u12"}'),
            ("vertical tab as white space", b'{"payload":\x0b1}'),
            ("capitals", b'{"payload":True}'),
            ("an array", b"[1]"),
            ("null", b"null"),
            ("a string", b'"payload"'),
            ("a number", b"1"),
        ):
            with contextlib.suppress(MalformedJSON):
                self.fail(f"{what} was read as {members(text)}")

    def test_many_names(self) -> None:
        """Names up to the limit are compared; one more is refused before that."""
        names = [b'"%x":1' % number for number in range(MOST_MEMBERS)]
        self.assertEqual(len(members(b"{%b}" % b",".join(names))), MOST_MEMBERS)
        self.assertIn("members", self.refused(b'{%b,"\\u00e9":1}' % b",".join(names)))
        self.assertIn("repeated", self.refused(b"{%b,%b}" % (b",".join(names[1:]), names[-1])))

    @given(st.text('[]{}"\\,a', max_size=200) | st.text("[]", max_size=2000), st.integers(1, 7))
    def test_depth_of_anything(self, soup: str, piece: int) -> None:
        """The depth counted eight brackets at a time is the depth counted one by one."""
        deepest = level = 0
        inside = escaped = False
        for character in soup:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = inside
                if not inside:
                    assume(False)  # not JSON
            elif character == '"':
                inside = not inside
            elif not inside:
                level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0)
                deepest = max(deepest, level)
        assume(not escaped)
        self.patch(json_text, "_PIECE", piece)
        self.assertEqual(json_text._depth(soup.encode()), deepest)

    @given(st.data())
    def test_agrees_with_full_parser(self, data: Any) -> None:
        """Repeated names, depth and all else are accepted and refused as a parser of the whole text would."""
        names = st.sampled_from(["a", "b", "payload", "\\", '"', "é", ":1,"])
        value = VALUE | st.sampled_from(["1", "12", "1.5", "1e3", '":1,"', '"a:1"', '","', "[" * 63 + "]" * 63])
        pairs = data.draw(st.lists(st.tuples(names.flatmap(spellings), value), max_size=5))
        inside = ",".join(f"{data.draw(SPACE)}{name}{data.draw(SPACE)}:{data.draw(SPACE)}{one}" for name, one in pairs)
        text = f"{{{inside}{data.draw(SPACE)}}}"
        read = [json.loads(name) for name, _ in pairs]
        if len(set(read)) < len(read):
            self.assertIn("repeated", self.refused(text.encode()))
        else:
            self.assertEqual(members(text.encode()), dict(zip(read, (one.encode() for _, one in pairs), strict=True)))

    @given(st.lists(st.sampled_from(["1", "2", "12", "1.5", '"1"', "[1]"]), min_size=2, max_size=3))
    def test_repeated_name_with_any_values(self, values: list[str]) -> None:
        """A repeated name is refused also where one value begins like the other."""
        inside = ",".join('"a":' + value for value in values)
        self.assertIn("repeated", self.refused(f"{{{inside}}}".encode()))

    def test_memory(self) -> None:
        """For any body, the memory needed is a few times its size."""
        for part, before in (
            (b"[],", b""),
            (b"[],", b'"\\u0041",'),
            (b'"[",[],', b""),
            (b'"\\"[",{"a":[]},', b""),
            (b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2) + b",", b""),
        ):
            text = b'{"payload":[%b%b1]}' % (before, part * (500_000 // len(part)))
            tracemalloc.start()
            try:
                members(text)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 4 * len(text) + 500_000, part[:20])

    def test_values_are_not_parsed(self) -> None:
        """Escapes in a name or a value do not cause values to be parsed."""
        parsed: list[bytes] = []
        loads = json.loads
        self.patch(json_text.json, "loads", lambda text: parsed.append(text) or loads(text))
        members(b'{"payload":["\\u0041"],"\\u0041":{"\\u0042":1}}')
        self.assertEqual(parsed, [b'"\\u0041"'])


class JSONValueTests(SynchronousTestCase):
    @given(
        st.builds("{}{}{}".format, SPACE, VALUE, SPACE).map(str.encode)
        | st.text('[]{}",:\\/u01e-. an', max_size=60).map(str.encode)
        | st.binary(max_size=40)
    )
    @example(b"[" * 63 + b"]" * 63)
    @example(b"[" * 64 + b"]" * 64)
    @example(b'1,"a":2')
    @example(b'1}{"a":2')
    @example(b'"\xff"')
    @example(b"\xef\xbb\xbf1")
    @example(b"")
    def test_as_a_member(self, text: bytes) -> None:
        """A text is a value where it would be one as the only member of an object, and then in the same bytes."""
        try:
            found = members(b'{"payload":%b}' % text)
        except MalformedJSON:
            found = {}
        if list(found) == ["payload"]:
            self.assertEqual(json_value(text, MAX_DEPTH - 1), found["payload"])
        else:
            self.assertRaises(MalformedJSON, json_value, text, MAX_DEPTH - 1)


class ParseObjectTests(SynchronousTestCase):
    """`parse_object`"""

    def refused(self, text: bytes) -> str:
        error: Any = self.assertRaises(MalformedJSON, parse_object, text, "metadata")
        return str(error.reason)

    @given(
        st.dictionaries(
            st.text(max_size=5),
            st.recursive(
                st.none() | st.booleans() | st.text() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                max_leaves=8,
            ),
        ),
        st.booleans(),
    )
    def test_round_trip(self, value: dict[str, Any], ascii_only: bool) -> None:
        """What `json.dumps` writes is parsed as the same object."""
        try:
            text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
        except ValueError:
            assume(False)
        self.assertEqual(parse_object(text.encode(), "metadata"), value)

    def test_repeated_name_at_any_depth(self) -> None:
        """A repeated name is refused at any depth, and the error says where the object was."""
        for text in (b'{"a":1,"a":1}', b'{"a":1,"\\u0061":2}', b'{"x":[{"y":{"a":1,"b":2,"a":3}}]}'):
            self.assertIn("metadata", self.refused(text))

    def test_numbers_of_64_bits(self) -> None:
        """Integers of 64 bits are exact. A number that a 64-bit reader would change is refused."""
        for number in (-(2**63), 2**63, 2**64 - 1):
            self.assertEqual(parse_object(b'{"a":%d}' % number, "metadata"), {"a": number})
        for digits in (b"18446744073709551616", b"-9223372036854775809", b"9" * 5000, b"1e400", b"-1e999"):
            self.assertIn("metadata", self.refused(b'{"a":[%b]}' % digits))

    def test_not_an_object(self) -> None:
        """An array, a string and a number are refused."""
        for text in (b"[]", b'"a"', b"1", b"true"):
            self.assertIn("metadata", self.refused(text))
