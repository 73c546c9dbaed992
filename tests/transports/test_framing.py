import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.errors import INVALID_REQUEST, LineTooLong
from transports.framing import LineFramer

LIMIT = 64

lines = st.binary(max_size=LIMIT).map(lambda line: line.replace(b"\n", b" "))
streams = st.lists(st.binary(max_size=20) | st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n"])).map(b"".join)


@st.composite
def pieces(draw, stream):
    """The stream, cut anywhere; some pieces are empty."""
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=12))
    edges = [0, *sorted(cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def outcome(parts, limit=LIMIT):
    """What comes of a stream: its lines, and what stands behind the last newline unless a line was too long."""
    framer, found = LineFramer(limit), []
    try:
        for part in parts:
            for line in framer.receive_data(part):
                found.append(line)
    except LineTooLong:
        return found, "too long"
    return found, framer.rest()


@given(streams.flatmap(lambda stream: st.tuples(st.just(stream), pieces(stream))))
def test_any_split_of_the_bytes_gives_the_same_lines(case):
    whole, parts = case
    assert outcome(parts) == outcome([whole])


@given(st.data())
def test_any_split_finds_a_line_over_the_limit_where_the_whole_does(data):
    stream = data.draw(st.lists(st.binary(max_size=LIMIT * 2), max_size=6).map(b"\n".join))
    parts = data.draw(pieces(stream))
    assert outcome(parts) == outcome([stream])


@given(st.lists(lines))
def test_lines_come_out_as_they_went_in_but_for_blank_ones(written):
    stream = b"".join(line + b"\n" for line in written)
    stripped = [line.removesuffix(b"\r") for line in written]
    assert outcome([stream]) == ([line for line in stripped if line.strip()], b"")


@given(st.lists(lines.map(lambda line: line.strip() or b"x")))
def test_carriage_return_and_newline_end_a_line_as_newline_alone_does(written):
    unix = b"".join(line + b"\n" for line in written)
    windows = b"".join(line + b"\r\n" for line in written)
    assert outcome([windows], LIMIT + 1) == outcome([unix], LIMIT + 1)


def test_only_one_carriage_return_is_taken_off_and_none_inside():
    assert outcome([b"a\rb\r\r\n"]) == ([b"a\rb\r"], b"")


@pytest.mark.parametrize("blank", [b"", b"\r", b" ", b"\t \t", b" \r"])
def test_blank_lines_are_left_out(blank):
    assert outcome([b"a\n" + blank + b"\nb\n"]) == ([b"a", b"b"], b"")


def test_a_newline_in_a_piece_of_its_own_completes_the_line():
    framer = LineFramer(LIMIT)
    assert list(framer.receive_data(b"ab")) == []
    assert framer.waiting == 2
    assert list(framer.receive_data(b"\n")) == [b"ab"]
    assert framer.waiting == 0


def test_characters_cut_in_two_come_out_whole():
    line = "käse \u2028 🧀".encode()
    assert outcome([bytes([byte]) for byte in line + b"\n"]) == ([line], b"")


def test_what_has_no_newline_at_the_end_of_the_stream_is_given_once():
    framer = LineFramer(LIMIT)
    assert list(framer.receive_data(b"whole\nto")) == [b"whole"]
    assert list(framer.receive_data(b"rn")) == []
    assert framer.rest() == b"torn"
    assert framer.rest() == b""
    assert framer.waiting == 0


@pytest.mark.parametrize(("end", "rest"), [(b"", b""), (b" \r", b""), (b"x\r", b"x")])
def test_the_rest_of_a_stream_is_a_line_like_others(end, rest):
    framer = LineFramer(LIMIT)
    assert list(framer.receive_data(b"whole\n" + end)) == [b"whole"]
    assert framer.rest() == rest


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_of_the_limit_passes_and_one_byte_more_does_not(end):
    assert outcome([b"x" * LIMIT + end])[1] != "too long"
    assert outcome([b"x" * (LIMIT + 1) + end]) == ([], "too long")


def test_lines_before_one_that_is_too_long_are_given():
    assert outcome([b"a\nb\n" + b"x" * (LIMIT + 1)]) == ([b"a", b"b"], "too long")


def test_an_endless_line_is_refused_while_it_comes_and_nothing_of_it_is_kept():
    framer = LineFramer(LIMIT)
    for _ in range(LIMIT):
        assert list(framer.receive_data(b"x")) == []
    with pytest.raises(LineTooLong, match=r"limit of 64 bytes \(max_line\)") as refused:
        list(framer.receive_data(b"x"))
    assert (refused.value.limit, refused.value.code) == (LIMIT, INVALID_REQUEST)
    assert framer.waiting == 0
    assert framer.rest() == b""


def seconds_to_frame(size, piece):
    framer = LineFramer(size)
    start = time.process_time()
    for _ in range(size // len(piece)):
        list(framer.receive_data(piece))
    [line] = framer.receive_data(b"\n")
    assert len(line) == size
    return time.process_time() - start


def test_the_cost_of_a_long_line_in_small_pieces_is_linear():
    # Quadratic cost would be 16 times as much per byte, and 10 MiB in pieces of 64 bytes would take minutes.
    piece = b"x" * 64
    small = min(seconds_to_frame(640 * 1024, piece) for _ in range(3))
    large = min(seconds_to_frame(10 * 1024 * 1024, piece) for _ in range(2))
    assert large < 16 * small * 6
