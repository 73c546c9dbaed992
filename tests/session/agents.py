"""What agents may try: hypothesis strategies for the lines that they send."""

from __future__ import annotations

import json

from hypothesis import strategies as st

FULLWIDTH_C, LONG_S, KELVIN = "\uff43", "\u017f", "\u212a"
_ODD = st.sampled_from(
    list("\t\n\r\x00\x01\x1f \x7f\x85\xa0\u200b\u2028\ufeff\u00ad%\\/:@#?{}.c" + FULLWIDTH_C + LONG_S + KELVIN)
)
_SPELLED = st.sampled_from(
    ["control", "CONTROL", "Control", "con", "trol", "%63ontrol", FULLWIDTH_C + "ontrol", "file", "x", ""]
)
_REST = st.sampled_from(
    ["://", ":", ":/", ":///", ":\\\\", "%3a//", "\uff1a//", "reward", "status", "//reward", "a/../reward", "///map"]
)
nearly_control = st.lists(st.one_of(_ODD, _SPELLED, _REST), max_size=8).map("".join)
uris = st.one_of(
    st.sampled_from(
        [
            "control://reward",
            "con\ttrol://reward",
            "control\n://reward",
            "\x01control://reward",
            "CONTROL://reward",
            "{scheme}://reward",
            "reward",
            "//reward",
            "file:///map",
        ]
    ),
    nearly_control,
)
METHODS = [
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "resources/list",
    "resources/templates/list",
    "completion/complete",
    "prompts/get",
    "tools/call",
    "tools/list",
    "subscriptions/listen",
    "initialize",
    "ping",
    "no/such",
]


def _spellings(name):
    """A name as it is, and as those who match without case may take it too."""
    return st.sampled_from([name, name.upper(), name.title(), f" {name}", name.replace("s", LONG_S)])


def _object(members):
    """JSON of an object from pairs, among which a name may be twice."""
    return st.lists(members, max_size=4).map(
        lambda pairs: "{" + ", ".join(f"{name}: {value}" for name, value in pairs) + "}"
    )


def _member(name, values):
    return st.tuples(_spellings(name).map(json.dumps), values)


_uri = uris.map(json.dumps)
_meta = _object(
    st.one_of(
        _member("muxsim/control", st.just("true")),
        _member("progressToken", st.just("7")),
        _member("io.modelcontextprotocol/protocolVersion", st.just('"2026-07-28"')),
        _member("io.modelcontextprotocol/clientCapabilities", st.just("{}")),
        _member("vendor/key", st.just('"x"')),
    )
)
_ref = _object(st.one_of(_member("type", st.just('"ref/resource"')), _member("uri", _uri), _member("name", _uri)))
_filter = _object(
    st.one_of(
        _member("resourceSubscriptions", st.lists(uris, max_size=3).map(json.dumps)),
        _member("resourcesListChanged", st.just("true")),
    )
)
_params = st.one_of(
    _object(
        st.one_of(
            _member("uri", st.one_of(_uri, st.sampled_from(["7", "null", '["control://reward"]']))),
            _member("_meta", _meta),
            _member("ref", _ref),
            _member("argument", st.just('{"name": "part", "value": ""}')),
            _member("name", st.sampled_from(['"look"', '"control://reward"'])),
            _member("notifications", _filter),
            _member("params", st.just('{"uri": "control://reward"}')),
        )
    ),
    st.lists(uris, max_size=2).map(json.dumps),
)
_methods = st.sampled_from(METHODS).flatmap(_spellings).map(json.dumps)


@st.composite
def lines(draw):
    """A line of JSON, most often a request that is nearly well formed."""
    members = ['"jsonrpc": "2.0"']
    if draw(st.integers(0, 9)):
        members.append(f'"id": {draw(st.integers(1, 3))}')
    members.append(f'"method": {json.dumps(draw(st.sampled_from(METHODS)))}')
    for _ in range(draw(st.integers(0, 2))):
        name = draw(_spellings("params"))
        members.append(f"{json.dumps(name)}: {draw(_params)}")
    if not draw(st.integers(0, 3)):
        members.append(f"{json.dumps(draw(_spellings('method')))}: {draw(_methods)}")
    order = draw(st.permutations(members)) if draw(st.booleans()) else members
    return ("{" + ", ".join(order) + "}").encode()
