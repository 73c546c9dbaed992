"""What can still be told of bytes that are no message."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.errors import RemoteProtocolError
from transports.messages import Kind, decode
from transports.unread import Unread, request_id, unread

DEEP = b"[" * 100_000


def request(id):
    return [Unread(Kind.REQUEST, id)]


def answer(id):
    return [Unread(Kind.RESULT, id)]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"id":7,"method":3,"jsonrpc":"2.0"}', request(7)),
        (b'{"id":"7","jsonrpc":"1.0"}', answer("7")),
        (b'{"jsonrpc":"2.0","id":7,"result":"\x01"}', answer(7)),
        (b'{"jsonrpc":"2.0","id":7.0,"result":01}', answer(7)),
        (b'{"jsonrpc":"2.0","id":7,"result":"\xff","\xff":1}', answer(7)),
        (b'{"jsonrpc":"2.0","id":"\xff","result":1}', []),
        (b'[{"jsonrpc":"2.0","id":7,"method":"m"}]', request(7)),
        (b'{"id":7,"result":{}}', answer(7)),
        (b'\xef\xbb\xbf {"id":7,"error":"\xff","x":}', answer(7)),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"na', request(7)),
        (b'{"method":"m","id":7,"params":{"id":8,"a":[{"id":9}]}, "x"', request(7)),
        (b'{"params":{"id":8,"method":"m"},"result":x,"id" : 7 }', answer(7)),
        (b'{"jsonrpc":"2.0","id":7,"result":' + DEEP, answer(7)),
        (b'{"result":' + DEEP + b"]" * 100_000 + b',"id":7,"jsonrpc":"2.0"}', answer(7)),
        (b'{"jsonrpc":"2.0","result":' + DEEP + b"]" * 100_000 + b',"id":"a"}', answer("a")),
        (b'[{"jsonrpc":"2.0","id":7,"result":01},{"method":"m","id":8}', [*answer(7), *request(8)]),
        # What looks like an id, and does not stand where a member does, or whose end is not told.
        (b'{"jsonrpc":"""id":0,"method":"m"', []),
        (b'{"jsonrpc":"2.0" "id":7,"method":"m"}', []),
        (b'{"method":"m","id":7 8}', []),
        (b'{"method":"m","id":7 "params":{}}', []),
        (b'{"method":"m","id":,7}', []),
        (b'{"method":"m","params":{"id":7}', []),
        (b'[{"method":"m"},"id":7,"method":"m"]', []),
        (b'{"method":"m",,"id":7,"x"', request(7)),
        # No message: real servers print lines of JSON, and some of their lines have an id.
        (b'{"id":7,"level":"info","msg":"request done"}', []),
        (b'{"id":7}', []),
        (b'{"jsonrpc":"2.0","id":true,"method":"m"}', []),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"m"}', []),
        (b'{"jsonrpc":"2.0","id":null,"method":"m"}', []),
        (b'{"jsonrpc":"2.0","id":[7],"method":"m"}', []),
        (b'{"jsonrpc":"2.0","id":{"id":7},"method":"m"}', []),
        (b'{"jsonrpc":"2.0","method":3}', []),
        (b'[[{"id":7,"method":3}]]', []),
        (b'INFO {"id":7,"method":3}', []),
        (b'"id":7,"method":3', []),
        (b"", []),
        (b"\xff", []),
        (DEEP, []),
    ],
    ids=lambda value: ascii(value[:40]) if isinstance(value, bytes) else None,
)
def test_what_refused_bytes_were_is_read_where_it_can_be(body, found):
    with pytest.raises(RemoteProtocolError):
        decode(body)
    assert unread(body) == found
    assert request_id(body) == (found[0].id if found and found == request(found[0].id) else None)


@given(st.binary() | st.text(alphabet='{}[]":,\\ idmethodresult0123', max_size=80).map(str.encode))
def test_any_bytes_are_looked_at_without_an_error(data):
    assert all(isinstance(one.id, int | str) for one in unread(data))


@pytest.mark.parametrize(
    "unit", [b"[", b'\\"', b'"', b"[],", b"N", b"NaN,", b"-", b"\\", b"\\u", b"\\ud800", b"\x7f", b'"\\']
)
@pytest.mark.parametrize(
    "head", [b'{"jsonrpc":"2.0","id":1,"result":[NaN,"\\ud800",', b'{"jsonrpc":"2.0","id":1,"result":"\\ud800']
)
def test_the_work_grows_with_the_length_of_the_bytes_whatever_they_are(unit, head):
    def spent(size):
        data = head + unit * (size // len(unit))
        began = time.thread_time()
        try:
            decode(data)
        except RemoteProtocolError:
            unread(data)
        return time.thread_time() - began

    # A square would be 256 times as much.
    assert spent(1 << 20) < 0.5 + 64 * max(spent(1 << 16), 0.002)
