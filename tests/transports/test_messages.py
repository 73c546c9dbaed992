import json
import string

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from transports import messages
from transports.errors import INVALID_REQUEST, PARSE_ERROR, RemoteProtocolError
from transports.messages import Kind, as_number, batch, decode, error_code, member, members_of

# Spellings that a decoder and an encoder between two peers would change.
DELICATE = [
    "12345678901234567890",
    "-12345678901234567890123456789",
    "1.0",
    "-0",
    "-0.0",
    "1E+2",
    "1e400",
    "0.1000",
    "1" * 5000,
    '"\u2028\u2029"',
    '"\\u2028"',
    '"\\u0041\\/\\ud83d\\ude00"',
    '"NaN"',
    '"\x7f"',
    '"käse 🧀"',
    '{"b":1,"a":2,"b":3}',
    '{"":{"" : [ ]}}',
    "[ 1 , 2 ]",
    "[\t]",
    "null",
    "{}",
]

text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
payloads = (
    st.sampled_from(DELICATE)
    | values.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(", ", ":")))
    | values.map(json.dumps)
)
ids = st.integers() | text
names = st.text(string.ascii_letters + "_/.-", min_size=1).filter(
    lambda name: name not in ("jsonrpc", "id", "method", "result", "error")
)


@st.composite
def envelopes(draw):
    """Some message as bytes, its members in any order, with unknown ones among them: (bytes, spelling by name)."""
    id, method = json.dumps(draw(ids)), json.dumps(draw(text))
    kind = draw(st.sampled_from(["request", "notification", "result", "error"]))
    members = {"jsonrpc": '"2.0"'}
    members |= draw(st.dictionaries(names, payloads, max_size=3))
    members |= {
        "request": {"id": id, "method": method, "params": draw(payloads)},
        "notification": {"method": method, "params": draw(payloads)},
        "result": {"id": id, "result": draw(payloads)},
        "error": {"id": id, "error": draw(payloads)},
    }[kind]
    ordered = draw(st.permutations(sorted(members.items())))
    space = draw(st.sampled_from(["", " "]))
    body = f",{space}".join(f'"{name}":{space}{value}' for name, value in ordered)
    return f"{{{body}}}".encode(), dict(ordered)


def spellings(message):
    return {name: bytes(raw).decode() for name, raw in members_of(Raw(message.encode())).items()}


@given(envelopes())
def test_what_is_decoded_goes_out_as_the_bytes_that_came(envelope):
    data, _ = envelope
    assert decode(data).encode() == data


@given(envelopes())
def test_every_member_keeps_its_spelling_and_its_place(envelope):
    data, spelled = envelope
    message = decode(data)
    assert {name: bytes(raw).decode() for name, raw in message.members.items()} == spelled
    assert list(message.members) == list(spelled)


@given(envelopes(), ids)
def test_another_id_changes_nothing_else(envelope, id):
    data, spelled = envelope
    original = decode(data)
    if original.kind is Kind.NOTIFICATION:
        return
    changed = original.with_id(id)
    again = decode(changed.encode())
    assert (again.id, again.kind, again.method) == (id, original.kind, original.method)
    assert {**spellings(changed), "id": None} == {**spelled, "id": None}
    assert list(spellings(changed)) == list(spelled)
    assert original.encode() == data


@pytest.mark.parametrize(
    "params",
    [
        b'{"id":7}',
        b'{"a":"id"}',
        b'{"\\u0069d":7}',
        b'{"a":"\\"id\\""}',
        b'[{"id":7},{"id":7}]',
        b'{"id":{"id":"id"}}',
    ],
)
@pytest.mark.parametrize(
    "form",
    [b'{"jsonrpc":"2.0","id":7,"method":"m","params":%b}', b'{"params":%b,"method":"m","id" : 7 ,"jsonrpc":"2.0"}'],
)
def test_only_the_id_of_the_message_itself_is_changed(form, params):
    changed = json.loads(decode(form % params).with_id(12).encode())
    assert changed == {"jsonrpc": "2.0", "id": 12, "method": "m", "params": json.loads(params)}


@given(envelopes(), ids)
def test_going_to_another_id_and_back_is_lossless_but_for_white_space(envelope, id):
    data, spelled = envelope
    message = decode(data)
    if message.kind is Kind.NOTIFICATION:
        return
    there = decode(message.with_id(id).encode())
    back = there.with_id(message.id, message.members["id"])
    assert spellings(back) == spelled
    assert back.id == message.id


@given(envelopes(), st.dictionaries(names, values))
def test_other_params_change_nothing_else(envelope, params):
    data, spelled = envelope
    changed = decode(decode(data).with_params(params).encode())
    assert msgspec.json.decode(changed.params) == json.loads(json.dumps(params))
    assert {**spellings(changed), "params": None} == {**spelled, "params": None}


@given(values, st.integers(0, 4))
@example({"a": ["line\nbreak", "\r\n", "\u2028"]}, 2)
def test_a_pretty_printed_body_becomes_one_line_of_the_same_value(value, indent):
    body = {"jsonrpc": "2.0", "id": 1, "method": "m", "params": value}
    for newline in ("\n", "\r\n", "\r"):
        pretty = json.dumps(body, indent=indent).replace("\n", newline).encode()
        message = decode(pretty)
        line = message.encode()
        assert b"\n" not in line
        assert b"\r" not in line
        assert json.loads(line) == body
        assert b"\n" not in message.with_id(2).encode()
        assert b"\r" not in message.with_id(2).encode()


@given(envelopes(), ids)
def test_the_pieces_of_a_line_are_the_line(envelope, id):
    message = decode(envelope[0])
    assert b"".join(message.pieces()) == message.encode()
    if message.kind is not Kind.NOTIFICATION:
        assert b"".join(message.with_id(id).pieces()) == message.with_id(id).encode()


@pytest.mark.parametrize("size", [1000, 64 * 1024, 1024 * 1024])
@pytest.mark.parametrize("name", ["params", "x\\u0022 y"])
def test_the_pieces_of_a_long_line_are_the_line_and_no_copy_of_its_payload(size, name):
    data = b'{"jsonrpc":"2.0","id":1,"method":"m","%b":"%b","z":[]}' % (name.encode(), b"x" * size)
    message = decode(data).with_id("other")
    pieces = message.pieces()
    assert b"".join(pieces) == message.encode()
    if size > 64 * 1024:
        [payload] = [memoryview(piece).obj for piece in pieces if memoryview(piece).nbytes > size]
        assert any(payload is raw for raw in message.members.values())


@pytest.mark.parametrize(
    ("params", "meta"),
    [
        ('{"a":[1.0],"_meta":{"x":1.0,"y":{"z":[]}},"b":2}', {"x": "1.0", "y": '{"z":[]}'}),
        ('{"\\u005fmeta":{"\\u0078":1}}', {"x": "1"}),
        ('{"_meta":{"x":1},"_meta":{"x":2}}', {"x": "2"}),
        ('{"a":{"_meta":{"x":1}}}', {}),
        ('{"_meta":[]}', {}),
        ('{"_meta":null}', {}),
        ('{"_meta":3}', {}),
        ("[1]", {}),
        ("null", {}),
    ],
)
def test_the_meta_of_a_message_is_read_as_raw_members(params, meta):
    message = decode(f'{{"jsonrpc":"2.0","id":1,"method":"m","params":{params}}}'.encode())
    assert {name: bytes(raw).decode() for name, raw in message.meta.items()} == meta
    assert message.with_params({}).meta == {}
    assert decode(b'{"jsonrpc":"2.0","id":1,"method":"m"}').meta == {}


@pytest.mark.parametrize("filling", ["x", "_", "x_y", "\\\\", "_met", '\\"'])
@pytest.mark.parametrize("meta", ['"_meta":{"a":1}', '"\\u005fmeta":{"a":1}', '"b":2'])
def test_the_meta_of_a_long_message_is_found_in_any_payload(filling, meta):
    for params in (f'{{"data":"{filling * 40_000}",{meta}}}', f'{{{meta},"data":"{filling * 40_000}"}}'):
        found = decode(f'{{"jsonrpc":"2.0","id":7,"method":"m","params":{params}}}'.encode()).meta
        assert {name: bytes(raw) for name, raw in found.items()} == ({} if "b" in meta else {"a": b"1"})


@pytest.mark.parametrize("payload", DELICATE)
def test_a_delicate_payload_is_relayed_byte_for_byte_C30(payload):
    request = decode(f'{{"jsonrpc":"2.0","id":1,"method":"m","params":{payload}}}'.encode())
    assert bytes(request.params) == payload.encode()
    assert request.with_id("x").encode() == f'{{"jsonrpc":"2.0","id":"x","method":"m","params":{payload}}}'.encode()
    error = decode(f'{{"jsonrpc":"2.0","id":1,"error":{payload}}}'.encode())
    assert bytes(error.with_id(9).members["error"]) == payload.encode()


def test_deep_nesting_that_is_still_legal_is_relayed():
    payload = b"[" * 400 + b"]" * 400
    message = decode(b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % payload)
    assert bytes(message.with_id(2).params) == payload


@pytest.mark.parametrize(
    ("body", "kind", "id", "method"),
    [
        ('{"jsonrpc":"2.0","id":1,"method":"m"}', Kind.REQUEST, 1, "m"),
        ('{"jsonrpc":"2.0","id":0,"method":""}', Kind.REQUEST, 0, ""),
        ('{"jsonrpc":"2.0","id":"1","method":"m"}', Kind.REQUEST, "1", "m"),
        ('{"jsonrpc":"2.0","id":"","method":"m"}', Kind.REQUEST, "", "m"),
        ('{"jsonrpc":"2.0","id":-0,"method":"m"}', Kind.REQUEST, 0, "m"),
        ('{"jsonrpc":"2.0","id":12345678901234567890,"method":"m"}', Kind.REQUEST, 12345678901234567890, "m"),
        ('{"jsonrpc":"2.0","method":"\\u006d"}', Kind.NOTIFICATION, None, "m"),
        ('{"jsonrpc":"2.0","id":1,"result":null}', Kind.RESULT, 1, ""),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":""}}', Kind.ERROR, 1, ""),
        ('{"jsonrpc":"2.0","id":null,"error":{}}', Kind.ERROR, None, ""),
        ('{"jsonrpc":"2.0","error":{}}', Kind.ERROR, None, ""),
        ('{"jsonrpc":"2.0","\\u0069d":1,"method":"m"}', Kind.REQUEST, 1, "m"),
    ],
)
def test_the_kind_of_a_message_is_read_from_its_envelope(body, kind, id, method):
    message = decode(body.encode())
    assert (message.kind, message.id, message.method) == (kind, id, method)
    assert type(message.id) is type(id)
    assert message.is_answer == (kind in (Kind.RESULT, Kind.ERROR))


@pytest.mark.parametrize(
    "body",
    [
        *(
            f'{{"jsonrpc":"2.0","id":{id},"method":"m"}}'
            for id in ["true", "1.5", "null", "[1]", "{}", "1e400", "1e16"]
        ),
        '{"jsonrpc":"2.0","id":"\\ud800","method":"m"}',
        '{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
        *(f'{{"jsonrpc":"2.0","id":{id},"result":{{}}}}' for id in ["true", "1.5", "null", "[1]"]),
        *(f'{{"jsonrpc":"2.0","id":{id},"error":{{}}}}' for id in ["false", "1.5", "[1]"]),
        f'{{"jsonrpc":"2.0","id":{"1" * 5000},"method":"m"}}',
        '{"jsonrpc":"1.0","id":1,"method":"m"}',
        '{"jsonrpc":2.0,"id":1,"method":"m"}',
        '{"jsonrpc":"2","id":1,"method":"m"}',
        '{"jsonrpc":null,"id":1,"method":"m"}',
        '{"id":1,"method":"m"}',
        '{"jsonrpc":"2.0","id":1}',
        '{"jsonrpc":"2.0","result":{}}',
        '{"jsonrpc":"2.0","id":1,"method":3}',
        '{"jsonrpc":"2.0","id":1,"method":null}',
        '[{"jsonrpc":"2.0","id":1,"method":"m"}]',
        "[]",
        "[1]",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "{}",
        "null",
        "3",
        '"text"',
        "true",
    ],
    ids=lambda body: body[:60],
)
def test_json_that_is_not_one_message_is_an_invalid_request(body):
    with pytest.raises(RemoteProtocolError) as refused:
        decode(body.encode())
    assert refused.value.code == INVALID_REQUEST


def inside(value):
    return b'{"jsonrpc":"2.0","id":1,"method":"m","params":[%b]}' % value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"hello",
        b"{",
        b'{"jsonrpc":"2.0","id":1,"method":"m"',
        b'{"jsonrpc":"2.0","id":1,"method":"m"} x',
        b'{"jsonrpc":"2.0","id":1,"method":"m"}{"jsonrpc":"2.0","id":2,"method":"m"}',
        b'{"jsonrpc":"2.0","id":1,"method":"m"}\n{"jsonrpc":"2.0","id":2,"method":"m"}',
        '{"jsonrpc":"2.0","id":1,"method":"m"}'.encode("utf-16"),
        b"\x00",
        inside(b"01"),
        inside(b"1."),
        inside(b".5"),
        inside(b"+1"),
        inside(b"tru"),
        inside(b"1,"),
        inside(b"'1'"),
        inside(b"1 // comment"),
        inside(b'"a\nb"'),
        inside(b'"a\tb"'),
        inside(b'"a\x00b"'),
        inside(b'"\\x41"'),
        inside(b'"\\u12"'),
        inside(b'"\\ud8zz\\ud800"'),
        inside(b'"\xed\xa0\x80"'),
        inside(b'"\xff"'),
        inside(b'"\xc3"'),
        inside(b'"\xc0\xaf"'),
        inside(b'"\xf4\x90\x80\x80"'),
        inside(b'NaN,"\\ud800 \xff"'),
        b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","\xff":1}',
        inside(b"-NaN"),
        inside(b"NaN1"),
        inside(b"xNaN"),
        inside(b'NaN"'),
        b'{"a":' * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        inside(b"[" * 100_000 + b"]" * 100_000),
        inside(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ],
    ids=lambda body: ascii(body[:60]),
)
def test_what_is_not_json_in_utf8_is_a_parse_error_L10(body):
    with pytest.raises(RemoteProtocolError) as refused:
        decode(body)
    assert refused.value.code == PARSE_ERROR


@given(st.binary())
@example(b'{"jsonrpc":"2.0","id":1,"method":"m","params":"\xed\xa0\x80"}')
def test_any_bytes_are_a_message_or_a_protocol_error(data):
    try:
        code = None if decode(data).members["jsonrpc"] else 0
    except RemoteProtocolError as refused:
        code = refused.code
    assert code in (None, PARSE_ERROR, INVALID_REQUEST)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b'"cut \\ud83d"', b'"cut \\ud83d"'),
        (b'"\\udc00 \\ud83d\\ude00 \\\\ud83d \\ud83d\\ud83d"', b'"\\udc00 \\ud83d\\ude00 \\\\ud83d \\ud83d\\ud83d"'),
        (b'{"\\ud83d":[NaN]}', b'{"\\ud83d":[null]}'),
        (b'"\x7f \x7f0 \x7f1 \x7f\\ud83d"', b'"\x7f \x7f0 \x7f1 \x7f\\ud83d"'),
        (b"[NaN,-Infinity, Infinity ]", b"[null,null, null ]"),
        (b'["NaN","\\"Infinity",NaN]', b'["NaN","\\"Infinity",null]'),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("after", [b"", b"\n"])
def test_what_an_sdk_reads_and_a_strict_parser_refuses_is_carried_with_as_little_changed_as_can_be(
    written, read, before, after
):
    form = b'{"jsonrpc":"2.0","id":1,"method":"m","params":[%b]}'
    message = decode(before + form % written + after)
    assert message.encode() == form % read + after.replace(b"\n", b" ")
    assert bytes(message.with_id("x").params) == b"[%b]" % read
    strict = message.well_formed()
    assert strict.id == 1
    msgspec.json.decode(strict.params)


@pytest.mark.parametrize("size", [10, 64 * 1024])
def test_halves_of_surrogate_pairs_hide_nothing_that_is_looked_for(size):
    params = b'{"\x7f1":"\x7f0","a"' + rb':"%b\ud800","_meta":{"x":1.0,"y":"\udfff"},"\ud800":2}' % (b"z" * size)
    message = decode(b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % params)
    assert {name: bytes(raw) for name, raw in message.meta.items()} == {"x": b"1.0", "y": rb'"\udfff"'}
    assert bytes(member(message.params, "_meta", "x")) == b"1.0"
    assert list(members_of(message.params)) == ["\x7f1", "a", "_meta"]
    changed = message.with_params({**members_of(message.params), "b": 1})
    assert b"\\udfff" in changed.encode()
    assert msgspec.json.decode(changed.well_formed().params)["_meta"]["y"] == "\ufffd"


@pytest.mark.parametrize(
    ("said", "kind", "line"),
    [
        ('"id":1,"result":{},"error":null', Kind.RESULT, '"id":1,"result":{}'),
        ('"id":1,"error":null,"result":[]', Kind.RESULT, '"id":1,"result":[]'),
        ('"id":1,"result":null,"error":{"code":1}', Kind.ERROR, '"id":1,"error":{"code":1}'),
        ('"id":1,"result":{},"error":{"code":1,"message":""}', Kind.ERROR, '"id":1,"error":{"code":1,"message":""}'),
        ('"id":1,"result":{},"error":""', Kind.RESULT, '"id":1,"result":{}'),
        ('"id":1,"result":null,"error":null', Kind.RESULT, '"id":1,"result":null'),
        ('"id":1,"method":null,"result":{}', Kind.RESULT, '"id":1,"result":{}'),
        ('"id":1,"method":3,"result":{}', Kind.RESULT, '"id":1,"result":{}'),
        ('"id":1,"method":"m","result":{},"params":[]', Kind.RESULT, '"id":1,"result":{},"params":[]'),
        ('"id":1,"method":"m","result":null,"error":null', Kind.REQUEST, None),
        ('"id":null,"method":"notifications/x"', Kind.NOTIFICATION, '"method":"notifications/x"'),
        ('"id":1.0,"result":{}', Kind.RESULT, None),
    ],
)
def test_of_what_excludes_each_other_one_thing_is_meant_and_goes_out_alone(said, kind, line):
    message = decode(f'{{"jsonrpc":"2.0",{said}}}'.encode())
    assert message.kind is kind
    assert message.encode().decode() == f'{{"jsonrpc":"2.0",{line or said}}}'


@pytest.mark.parametrize(("spelled", "id"), [("1.0", 1), ("1e2", 100), ("-0.0", 0), ("9007199254740991.0", 2**53 - 1)])
def test_a_whole_number_is_an_id_however_it_is_written(spelled, id):
    message = decode(f'{{"jsonrpc":"2.0","id":{spelled},"method":"m"}}'.encode())
    assert (message.id, type(message.id)) == (id, int)
    assert f'"id":{spelled},'.encode() in message.with_id(3).with_id(message.id, message.raw_id).encode()


@pytest.mark.parametrize(
    ("id", "number"),
    [
        *((1, 1), ("1", 1), (" 12 ", 12), ("1.0", 1), ("1e2", 100)),
        *((text, None) for text in ("", "x", "1.5", "nan", "inf", "9" * 5000, None)),
    ],
)
def test_a_text_is_the_number_that_it_spells_where_numbers_are_given_out(id, number):
    assert as_number(id) == number


@pytest.mark.parametrize(
    ("data", "each"),
    [
        (b'[{"a":1}, {"result":"\\ud800"}]', [b'{"a":1}', b'{"result":"\\ud800"}']),
        (b'\xef\xbb\xbf [{"error":NaN}]', [b'{"error":null}']),
        (b'[{"method":"m"}]', []),
        (b"[]", []),
        (b"[1]", []),
        (b"[[{}]]", []),
        (b"[{},", []),
        (b'{"a":[{}]}', []),
        (b"[" + b'{"result":1},' * messages.MAX_BATCH + b"{}]", []),
        (b"[" * 100_000, []),
        (b"[INFO] ready", []),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_batch_is_its_messages(data, each):
    assert batch(data) == each


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (messages.request(1, "m"), b'{"jsonrpc":"2.0","id":1,"method":"m"}'),
        (messages.request("a", "m", {"x": 1}), b'{"jsonrpc":"2.0","id":"a","method":"m","params":{"x":1}}'),
        (messages.notification("n"), b'{"jsonrpc":"2.0","method":"n"}'),
        (messages.notification("n", {"x": Raw(b"1.0")}), b'{"jsonrpc":"2.0","method":"n","params":{"x":1.0}}'),
        (messages.result(0, {}), b'{"jsonrpc":"2.0","id":0,"result":{}}'),
        (messages.error(1, -5, "no"), b'{"jsonrpc":"2.0","id":1,"error":{"code":-5,"message":"no"}}'),
        (
            messages.error(None, -5, "no", {"why": "x"}),
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-5,"message":"no","data":{"why":"x"}}}',
        ),
    ],
)
def test_a_new_message_is_one_line_that_decodes_to_itself(made, line):
    assert made.encode() == line
    again = decode(line)
    assert (again.kind, again.id, again.method) == (made.kind, made.id, made.method)


def test_a_message_shows_its_kind_method_and_id():
    assert repr(messages.request("1", "tools/call")) == "<Message request tools/call id='1'>"
    assert repr(messages.notification("n")) == "<Message notification n>"
    assert repr(messages.result(1, {})) == "<Message result id=1>"
    assert repr(messages.error(None, 1, "")) == "<Message error>"


def test_a_member_is_found_down_a_path_and_only_through_objects():
    raw = Raw(b'{"a":{"b":[1, 2],"c":null}}')
    assert bytes(member(raw, "a", "b")) == b"[1, 2]"
    assert bytes(member(raw, "a", "c")) == b"null"
    assert member(raw, "a", "x") is None
    assert member(raw, "a", "b", "0") is None
    assert member(raw, "a", "c", "d") is None
    assert member(None, "a") is None
    assert member(raw) is raw


@pytest.mark.parametrize("raw", [None, Raw(b"[]"), Raw(b"null"), Raw(b"3")])
def test_what_is_no_object_has_no_members(raw):
    assert members_of(raw) == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":""}}', -32601),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":"-32601"}}', None),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":1.5}}', None),
        (f'{{"jsonrpc":"2.0","id":1,"error":{{"code":{"1" * 5000}}}}}', None),
        ('{"jsonrpc":"2.0","id":1,"error":{}}', None),
        ('{"jsonrpc":"2.0","id":1,"error":"no"}', None),
        ('{"jsonrpc":"2.0","id":1,"result":{"code":-32601}}', None),
    ],
)
def test_the_code_of_an_error_is_an_integer_or_nothing(body, code):
    assert error_code(decode(body.encode())) == code


@pytest.mark.parametrize(
    "message",
    [
        messages.error(7, -32000, "no", {"cause": "x"}),
        messages.result("a", {"content": [1, 2, "☃"]}),
        messages.notification("notifications/progress", {"progressToken": 3}),
        messages.decode(b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}'),
        messages.decode(b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call"}').with_params({"name": "say"}),
    ],
    ids=repr,
)
def test_the_size_of_a_message_is_that_of_its_line_whether_that_has_been_made_or_not(message):
    assert message.size == len(message.encode()) == message.size
