"""Bytes that are nearly, or entirely, JSON-RPC."""

from __future__ import annotations

import json

from hypothesis import strategies as st

IDS = st.one_of(
    st.integers(0, 6),
    st.integers(),
    st.integers(2**63 - 2, 2**64 + 2),
    st.text(max_size=5),
    st.sampled_from(["1", "", "\u2028", None, 1.0, 1.5, True, [], {}, -1, 10**400]),
)
NAMES = st.sampled_from(
    ["jsonrpc", "id", "method", "params", "result", "error", "_meta", "progressToken", "requestId", "code", "x", ""]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), IDS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)
METHODS = st.sampled_from(
    [
        *("initialize", "ping", "tools/call", "tools/list", "server/discover", "subscriptions/listen", "no/such"),
        *("notifications/initialized", "notifications/cancelled", "notifications/progress", "notifications/message"),
        *("notifications/tools/list_changed", "sampling/createMessage", "roots/list"),
    ]
)
META = st.fixed_dictionaries(
    {},
    optional={
        "progressToken": IDS,
        "muxsim/control": VALUES,
        "io.modelcontextprotocol/protocolVersion": st.sampled_from(["2026-07-28", "2025-11-25", 7, None]),
        "io.modelcontextprotocol/subscriptionId": IDS,
        "io.modelcontextprotocol/logLevel": VALUES,
        "io.modelcontextprotocol/clientCapabilities": VALUES,
        "io.modelcontextprotocol/clientInfo": VALUES,
    },
)
PARAMS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {},
        optional={
            "_meta": META | VALUES,
            "progressToken": IDS,
            "requestId": IDS,
            "name": st.sampled_from(["say", "x"]) | VALUES,
            "arguments": VALUES,
            "protocolVersion": st.sampled_from(["2025-11-25", "2024-11-05"]) | VALUES,
            "capabilities": VALUES,
        },
    ),
)
MESSAGES = st.fixed_dictionaries(
    {"jsonrpc": st.sampled_from(["2.0"] * 9 + ["1.0", 2, None])},
    optional={
        "id": IDS,
        "method": METHODS | VALUES,
        "params": PARAMS,
        "result": PARAMS,
        "error": st.fixed_dictionaries({"code": IDS, "message": VALUES}) | VALUES,
        "more": VALUES,
    },
)


def encoded(value, *, ascii=True, indent=None):
    """JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(value, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")


WELL_FORMED = st.builds(encoded, MESSAGES | VALUES, ascii=st.booleans(), indent=st.sampled_from([None, None, 1]))


@st.composite
def damaged(draw):
    """A message with some of its bytes changed, doubled or missing."""
    data = bytearray(draw(WELL_FORMED))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


LINES = st.one_of(WELL_FORMED, damaged(), st.binary(max_size=60), st.sampled_from([b"[" * 5000, b'{"x":' * 5000]))
