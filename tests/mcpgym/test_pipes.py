import fcntl
import io
import itertools
import os
import socket

import pytest
import trio
from harness import cancelled_once_it_waits
from hypothesis import given
from hypothesis import strategies as st

from muxsim.mcpgym import pipes
from muxsim.mcpgym.pipes import LineCutter, PipeReader, PipeWriter, without_blocking

LONG = 10 * 2**20

# What bytes over a wire are made of, if one wants to get lines and UTF-8 wrong.
BYTES = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"{}", "é".encode(), "\u2028".encode(), b"\xf0\x9f", b"\x80", b"\xff", b""])
).map(b"".join)


@pytest.fixture
def pipe():
    """Both ends, non-blocking, as files that may be closed twice."""
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with open(reading, "rb", buffering=0) as out, open(writing, "wb", buffering=0) as into:
        yield out, into


def cut(pieces):
    cutter = LineCutter()
    return [line for piece in pieces for line in cutter.feed(piece)] + cutter.last()


@given(BYTES, st.lists(st.integers(0, 40)))
def test_lines_are_those_of_a_text_file_however_they_arrive(data, cuts):
    places = [0, *sorted(place for place in cuts if place < len(data)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    file = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace", newline="\n")
    assert cut(pieces) == [line.removesuffix("\n") for line in file]


def test_a_long_line_is_joined_once():
    cutter = LineCutter()
    pieces = [b"x" * 1000 for _ in range(LONG // 1000)]
    joined = []
    cutter._pieces = Counted(joined)
    assert [line for piece in pieces for line in cutter.feed(piece)] == []
    assert joined == []
    assert cutter.feed(b"\n") == ["x" * 1000 * len(pieces)]
    assert len(joined) == 1


class Counted(list):
    """Tells how often somebody went through all of it."""

    def __init__(self, gone_through):
        super().__init__()
        self.gone_through = gone_through

    def __iter__(self):
        self.gone_through.append(len(self))
        return super().__iter__()


async def test_lines_are_read_as_they_come_and_the_last_needs_no_newline(pipe):
    reader, writing = PipeReader(pipe[0].fileno()), pipe[1]
    with trio.fail_after(60):
        writing.write(b"one\ntwo\nthr")
        assert [await anext(reader), await anext(reader)] == ["one", "two"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, writing.write, b"ee\nfour")
            assert await anext(reader) == "three"
        writing.close()
        assert [line async for line in reader] == ["four"]
        assert [line async for line in reader] == []


async def test_what_others_can_do_without_waiting_is_done_before_the_lines_end(pipe):
    done = []

    async def answer():
        for number in range(100):
            await trio.lowlevel.checkpoint()
            done.append(number)

    pipe[1].close()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            nursery.start_soon(trio.sleep_forever)
            assert [line async for line in PipeReader(pipe[0].fileno())] == []
            assert len(done) == 100
            nursery.cancel_scope.cancel()


async def test_lines_end_though_others_never_rest(pipe, monkeypatch):
    async def run_for_ever():
        while True:
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr(pipes, "_ANSWERING", 0.05)
    pipe[1].close()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_for_ever)
            assert [line async for line in PipeReader(pipe[0].fileno())] == []
            nursery.cancel_scope.cancel()


async def test_a_long_line_goes_into_a_full_pipe_as_it_empties_while_others_run_on(pipe, monkeypatch):
    reading, writing = pipe
    writes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda *given: writes.append(1) or write(*given))
    received = []

    async def read_slowly():
        for _ in range(20):
            await trio.lowlevel.checkpoint()  # nobody reads, and the loop goes on
        waiting = len(writes)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        assert len(writes) == waiting  # no spinning
        async for line in PipeReader(reading.fileno()):
            received.append(line)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            await PipeWriter(writing.fileno()).write("é" * (LONG // 2) + "\n")
            await PipeWriter(writing.fileno()).write("next\n")
            writing.close()
    assert received == ["é" * (LONG // 2), "next"]


async def test_lines_of_several_tasks_go_out_whole(pipe):
    reading, writing = pipe
    writer = PipeWriter(writing.fileno())
    wanted = [letter * (LONG // 20) for letter in "abcdef"]

    async def write_all():
        async with trio.open_nursery() as nursery:
            for line in wanted:
                nursery.start_soon(writer.write, line + "\n")
        writing.close()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_all)
            received = [line async for line in PipeReader(reading.fileno())]
    assert sorted(received) == wanted


@pytest.mark.parametrize("following", [["next\n"], []])
async def test_the_rest_of_a_line_whose_writer_was_cancelled_goes_out_with_what_follows(pipe, following):
    reading, writing = pipe
    writer = PipeWriter(writing.fileno())

    async def write_on():
        for line in following:
            await writer.write(line)
        await writer.drain()
        writing.close()

    with trio.fail_after(60):
        assert await cancelled_once_it_waits(writer.write, "x" * LONG + "\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_on)
            received = [line async for line in PipeReader(reading.fileno())]
    assert received == ["x" * LONG, *(line.strip() for line in following)]


async def test_a_pipe_that_nobody_reads_is_an_error(pipe):
    reading, writing = pipe
    reading.close()
    with pytest.raises(BrokenPipeError):
        await PipeWriter(writing.fileno()).write("line\n")


def test_who_shares_the_pipe_does_not_find_it_non_blocking():
    ends = os.pipe()
    again = [without_blocking(end, flags) for end, flags in zip(ends, (os.O_RDONLY, os.O_WRONLY), strict=True)]
    try:
        assert [os.get_blocking(end) for end in (*ends, *again)] == [True, True, False, False]
        assert all(fcntl.fcntl(end, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for end in again)
        os.write(again[1], b"through\n")
        assert os.read(ends[0], 100) == b"through\n"
    finally:
        for end in (*ends, *again):
            os.close(end)


def test_the_end_is_seen_through_the_other_descriptor():
    reading, writing = os.pipe()
    again = without_blocking(reading, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            os.read(again, 1)
        os.close(writing)
        assert os.read(again, 1) == b""
    finally:
        os.close(reading)
        os.close(again)


def test_what_is_no_pipe_is_left_to_threads(tmp_path):
    with open(tmp_path / "file", "w+b") as file, socket.socket() as wire, open(os.devnull, "rb") as null:
        for other in (file, wire, null):
            assert without_blocking(other.fileno(), os.O_RDONLY) is None


def test_a_pipe_that_cannot_be_opened_once_more_is_left_to_threads(monkeypatch):
    def refuse(*_):
        raise PermissionError

    reading, writing = os.pipe()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            assert without_blocking(reading, os.O_RDONLY) is None
    finally:
        os.close(reading)
        os.close(writing)
