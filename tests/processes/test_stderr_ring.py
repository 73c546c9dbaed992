import itertools
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.placement import child
from muxsim.placement.child import STDERR_LINE, StderrRing, signal_name

PER_SECOND = child._LOGGED_PER_SECOND
NOW = 1000.0

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(lambda text: text.replace("\n", " "))


class Log:
    """A ring and what it has reported."""

    def __init__(self, size=20):
        self.reported = []
        self.ring = StderrRing(size, self.reported.append)

    def write(self, *pieces, now=NOW):
        for piece in pieces:
            self.ring.receive_data(piece, now)

    def lines(self, *texts):
        return b"".join(f"{text}\n".encode() for text in texts)


def test_lines_are_kept_and_reported_in_order():
    log = Log()
    log.write(b"first\nsecond\n")
    assert log.ring.lines() == ("first", "second")
    assert log.reported == ["first", "second"]


@given(st.lists(texts, max_size=10), st.lists(st.integers(0, 300), max_size=8))
def test_lines_are_the_same_however_their_bytes_are_cut(written, cuts):
    stream = Log().lines(*written)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    log = Log()
    log.write(*(stream[start:end] for start, end in itertools.pairwise(edges)))
    expected = tuple(text.rstrip() for text in written if text.rstrip())
    assert log.ring.lines() == expected
    assert tuple(log.reported) == expected


def test_only_the_last_lines_are_kept():
    log = Log(size=3)
    log.write(log.lines(*range(10)))
    assert log.ring.lines() == ("7", "8", "9")


def test_blank_lines_are_left_out_and_ends_are_trimmed():
    log = Log()
    log.write(b"\n  \r\n\tindented \r\n\n")
    assert log.ring.lines() == ("\tindented",)


def test_bytes_that_are_no_text_are_shown_all_the_same():
    log = Log()
    log.write(b"caf\xe9 \xff\n")
    assert log.ring.lines() == ("caf� �",)


def test_a_long_line_is_cut():
    log = Log()
    log.write(b"x" * (STDERR_LINE * 3) + b"\nnext\n")
    assert log.ring.lines() == ("x" * STDERR_LINE, "next")


def test_a_line_without_end_takes_no_memory_C17():
    log = Log()
    for number in range(1000):
        log.write(b"x" * 65536, now=NOW + number)
        assert len(log.ring._partial) <= STDERR_LINE
    assert sum(map(len, log.ring.lines())) <= 20 * STDERR_LINE


def test_the_last_words_need_no_newline():
    log = Log()
    log.write(b"Traceback\nValueError: no")
    assert log.ring.lines() == ("Traceback",)
    log.ring.close()
    log.ring.close()
    assert log.ring.lines() == ("Traceback", "ValueError: no")
    assert log.ring.closed.is_set()


def test_a_flood_is_reported_up_to_its_rate_and_the_ring_still_has_the_last_lines_C17():
    log = Log(size=2)
    log.write(log.lines(*range(10_000)))
    assert log.reported == [str(number) for number in range(PER_SECOND)]
    assert log.ring.lines() == ("9998", "9999")


def test_what_was_left_out_is_said_before_the_next_line_that_is_not():
    log = Log()
    log.write(log.lines(*range(PER_SECOND + 7)))
    log.write(b"later\n", now=NOW + 1)
    assert log.reported[PER_SECOND:] == ["(7 lines left out here)", "later"]


def test_a_steady_flow_below_the_rate_is_reported_whole():
    log = Log()
    for number in range(PER_SECOND * 10):
        log.write(log.lines(number), now=NOW + number / (PER_SECOND * 0.9))
    assert len(log.reported) == PER_SECOND * 10


def test_a_long_pause_allows_no_more_at_once_than_a_second_does():
    log = Log()
    log.write(b"first\n")
    log.write(log.lines(*range(PER_SECOND * 5)), now=NOW + 86400)
    assert len(log.reported) == 1 + PER_SECOND


@pytest.mark.parametrize("number", range(1, 65))
def test_every_signal_has_a_name_that_says_which_it_was(number):
    name = signal_name(number)
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        assert signal.SIGRTMIN + int(name.removeprefix("SIGRTMIN+")) == number
    elif number in {one.value for one in signal.Signals}:
        assert signal.Signals[name] == number
    else:
        assert name == f"signal {number}"
