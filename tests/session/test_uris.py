"""What a URI resolves to, against the parsers that servers use."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AnyUrl, TypeAdapter, ValidationError

from muxsim.session import uris
from session.agents import nearly_control

_URL = TypeAdapter(AnyUrl)


def parsed(uri):
    """The URI as pydantic has it, None if it has none."""
    try:
        return _URL.validate_python(uri)
    except ValidationError:
        return None


@given(nearly_control)
@example("con\ttrol://reward")
@example("control\n://reward")
@example("\x01control://reward")
def test_what_is_plain_is_the_same_url_to_a_whatwg_parser_and_not_on_the_control_plane(uri):
    plain = uris.plain(uri)
    url = parsed(uri)
    if plain is None:
        return
    assert not uris.is_control(plain)
    if url is not None:
        assert url.scheme != "control"
        again = parsed(plain)
        assert str(again) == str(url), "the judged form is what was asked for"


@given(nearly_control)
def test_whatever_a_whatwg_parser_takes_for_the_control_plane_is_known_for_it(uri):
    url = parsed(uri)
    if url is not None and url.scheme == "control":
        assert uris.plain(uri) is None
        assert uris.is_control(uri)


@given(st.lists(nearly_control, min_size=1, max_size=40))
def test_what_is_plain_is_plain_once_more(candidates):
    for uri in candidates:
        plain = uris.plain(uri)
        assert plain is None or uris.plain(plain) == plain


@pytest.mark.parametrize(
    "uri",
    [
        "file:///map",
        "https://example.org/a?b=c#d",
        "memo:today",
        "Memo://Today",
        "urn:isbn:1",
        "urn:control:1",
        "file:///{path}",
    ],
)
def test_a_plain_url_is_left_as_it_is(uri):
    assert uris.plain(uri) == uri
    assert not uris.may_become_control(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "url:control://reward",
        "view-source:Control:/reward",
        "jar:file:control://reward!/",
        "blob:%63ontrol:%2f%2freward",
    ],
)
def test_a_url_around_one_of_the_control_plane_is_of_it(uri):
    assert uris.plain(uri) is None
    assert uris.is_control(uri)


@pytest.mark.parametrize(
    "uri", ["", "reward", "//reward", "/reward", "{scheme}://reward", "con{x}trol://reward", "é:x"]
)
def test_what_has_no_scheme_written_out_is_no_plain_url(uri):
    assert uris.plain(uri) is None


@pytest.mark.parametrize(
    "template", ["{scheme}://reward", "{+uri}", "c{rest}", "con{x}trol://{part}", "control:{rest}"]
)
def test_a_template_with_an_expansion_on_the_control_plane_is_of_it(template):
    assert uris.may_become_control(template)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_javascript_and_this_agree_on_what_is_on_the_control_plane():
    """`new URL` is what servers in JavaScript ask."""
    candidates = [
        before + "".join(pieces) + "://" + rest
        for before in ("", "\t", "\x01", " \x00", "\xa0", "\ufeff", "x:", "//")
        for pieces in (
            ["control"],
            ["con", "\t", "trol"],
            ["con", "\r\n", "trol"],
            ["con", "\x00", "trol"],
            ["CONTROL"],
        )
        for rest in ("reward", "%72eward", "reward\x1f ", "a/../reward")
    ]
    script = (
        "const read = s => { try { return new URL(s).protocol } catch { return null } };"
        "console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8')).map(read)))"
    )
    out = subprocess.run(
        ["node", "-e", script], input=json.dumps(candidates), capture_output=True, text=True, check=True
    )
    for uri, protocol in zip(candidates, json.loads(out.stdout), strict=True):
        if protocol == "control:":
            assert uris.plain(uri) is None, uri
            assert uris.is_control(uri), uri
