"""What is told of an episode in a line."""

from __future__ import annotations

from muxsim.rollouts.data.trajectory import first_and_last

OF_NODE = """\
file:///game/server.js:13
  throw new Error("the map is missing");
        ^

Error: the map is missing
    at step (file:///game/server.js:13:9) {
  code: 'ENOENT'
}

Node.js v20.20.2
"""


def test_an_error_in_one_line_has_what_happened_and_what_was_said_last():
    assert first_and_last("it exited") == "it exited"
    assert first_and_last("it exited; it said: no map\nTraceback\nno map") == "it exited; it said: no map"
    assert first_and_last(f"it exited\n{OF_NODE}") == "it exited … Error: the map is missing"
