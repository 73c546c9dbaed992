"""Pipes are real here, and their other ends are held by hand."""

import functools
import hashlib
import json
import os
import pty
import select

import pytest
import trio
import trio.testing

from transports import messages
from transports.errors import INVALID_REQUEST, PARSE_ERROR, LineTooLong, LineTorn
from transports.memory import MemoryReceiver
from transports.pipe import HIGH_WATER, LOW_WATER, PipeStatistics, PipeTransport

# Seconds. Nothing in these tests takes any: past this they hang.
DEADLINE = 60
MAX_LINE = 16 * 1024 * 1024


class Receiver(MemoryReceiver):
    """Its clients can be made slow, and what it was given can be waited for."""

    def __init__(self):
        super().__init__()
        self._go = trio.Event()
        self._go.set()
        self._changed = trio.Event()

    def receive(self, message):
        super().receive(message)
        self._tell()

    def rejected(self, line, error):
        super().rejected(line, error)
        self._tell()

    def disconnected(self):
        super().disconnected()
        self._tell()

    def _tell(self):
        self._changed.set()
        self._changed = trio.Event()

    async def has(self, count):
        """Wait for so many messages and lines that are none."""
        while len(self.received) + len(self.rejections) < count:
            await self._changed.wait()
        return self.received

    async def left(self):
        """Wait until the peer has ended its stream."""
        while not self.gone:
            await self._changed.wait()

    def block(self):
        self._go = trio.Event()

    def unblock(self):
        self._go.set()

    @property
    def ready(self):
        return self._go.is_set()

    async def wait_ready(self):
        await self._go.wait()


class OtherLoop:
    """Plays the host's loop, which watches descriptors for the transport."""

    def __init__(self, nursery):
        self.watching = 0
        self._nursery = nursery

    def __call__(self, fd, callback):
        scope = trio.CancelScope()
        self.watching += 1
        self._nursery.start_soon(self._watch, fd, callback, scope)

        def stop():
            assert not scope.cancel_called, "stopped twice"
            self.watching -= 1
            scope.cancel()

        return stop

    async def _watch(self, fd, callback, scope):
        with scope:
            while not scope.cancel_called:
                await trio.lowlevel.wait_readable(fd)
                if not scope.cancel_called:
                    callback()


class Peer:
    """What is on the other side of a transport: ``stdin`` leads to it, ``stdout`` comes from it."""

    def __init__(self, nursery, watch, max_line):
        self.receiver = Receiver()
        read_fd, self.stdin = os.pipe()
        self.stdout, write_fd = os.pipe()
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        self.transport = PipeTransport(read_fd, write_fd, self.receiver, max_line, watch)
        self.error = None
        self._ended = trio.Event()
        self._rest = b""
        nursery.start_soon(self._run)

    async def _run(self):
        try:
            await self.transport.run()
        except Exception as error:
            self.error = error
        finally:
            self._ended.set()

    async def ended(self):
        """Wait until the peer's stream has ended, then for the transport to finish; raises what it raised."""
        await self.receiver.left()
        self.transport.close()
        await self._ended.wait()
        if self.error is not None:
            raise self.error

    @property
    def running(self):
        return not self._ended.is_set()

    async def write(self, data):
        view = memoryview(data)
        while view:
            await trio.lowlevel.wait_writable(self.stdin)
            view = view[os.write(self.stdin, view) :]

    async def send(self, *sent):
        await self.write(b"".join(message.encode() + b"\n" for message in sent))

    def can_write(self):
        return select.select([], [self.stdin], [], 0)[1] != []

    async def read_line(self):
        while b"\n" not in self._rest:
            self._rest += await self._read()
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    async def read_to_end(self):
        data, self._rest = self._rest, b""
        while more := await self._read(at_end=b""):
            data += more
        return data

    async def _read(self, at_end=None):
        await trio.lowlevel.wait_readable(self.stdout)
        more = os.read(self.stdout, 1024 * 1024) or at_end
        assert more is not None, "the transport has closed its end"
        return more

    def hang_up(self, name):
        """Close ``stdin`` or ``stdout``, as a process that ends does."""
        os.close(getattr(self, name))
        setattr(self, name, None)

    def close(self):
        self.transport.abort()
        for fd in (self.stdin, self.stdout):
            if fd is not None:
                os.close(fd)


def in_time(test):
    @functools.wraps(test)
    async def bounded(*arguments, **named):
        with trio.fail_after(DEADLINE):
            await test(*arguments, **named)

    return bounded


@pytest.fixture(params=["read by trio", "watched by another loop"])
def watch(request, nursery):
    return OtherLoop(nursery) if request.param.startswith("watched") else None


@pytest.fixture
async def peer_of(nursery, watch):
    """Makes a peer of a transport with the given limit, once."""
    before = os.listdir("/proc/self/fd")
    peers = []

    def make(max_line=MAX_LINE):
        peers.append(Peer(nursery, watch, max_line))
        return peers[-1]

    yield make
    for one in peers:
        one.receiver.unblock()
        one.close()
        with trio.fail_after(DEADLINE):
            await one._ended.wait()
        assert one.receiver.gone == 1
    assert watch is None or watch.watching == 0
    await trio.testing.wait_all_tasks_blocked()
    assert {*os.listdir("/proc/self/fd")} <= {*before}  # what an earlier test has left may go meanwhile


@pytest.fixture
async def peer(peer_of):
    return peer_of()


def numbered(number, size=0):
    return messages.notification("n", {"number": number, "filler": "x" * size})


def number_of(line):
    return json.loads(line)["params"]["number"]


def numbers(received):
    return [number_of(message.encode()) for message in received]


# from the peer


@in_time
async def test_messages_arrive_in_order_as_the_bytes_that_were_written(peer):
    lines = [b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"n":1.0}}', b'{ "jsonrpc" : "2.0" , "method" : "n" }']
    await peer.write(lines[0] + b"\n" + lines[1] + b"\r\n")
    assert [message.encode() for message in await peer.receiver.has(2)] == lines


@in_time
async def test_a_message_in_small_pieces_arrives_whole_C11(peer):
    message = messages.notification("n", {"text": "käse 🧀" * 10})
    data = message.encode() + b"\n"
    for start in range(0, len(data), 7):
        await peer.write(data[start : start + 7])
        await trio.testing.wait_all_tasks_blocked()
    [received] = await peer.receiver.has(1)
    assert received.encode() == message.encode()


@in_time
async def test_a_message_of_ten_mebibytes_arrives_byte_for_byte_C16(peer):
    message = numbered(1, 10 * 1024 * 1024)
    await peer.send(message, numbered(2))
    large, small = await peer.receiver.has(2)
    assert hashlib.sha256(large.encode()).digest() == hashlib.sha256(message.encode()).digest()
    assert number_of(small.encode()) == 2


@in_time
async def test_lines_that_are_no_messages_are_told_and_reading_goes_on_C12_C13_C14(peer):
    lines = [b"Listening on port 3000", b"[1]", b"null", b'{"jsonrpc":"2.0","id":1,"result":01}', b'{"id":']
    await peer.write(b"\n \n".join(lines) + b"\n")
    await peer.send(numbered(1))
    assert numbers(await peer.receiver.has(len(lines) + 1)) == [1]
    assert [line for line, _ in peer.receiver.rejections] == lines
    assert [error.code for _, error in peer.receiver.rejections] == [
        PARSE_ERROR,
        INVALID_REQUEST,
        INVALID_REQUEST,
        PARSE_ERROR,
        PARSE_ERROR,
    ]
    assert peer.transport.statistics().rejected == len(lines)


@in_time
async def test_the_end_of_the_stream_is_the_end_of_the_peer(peer):
    await peer.send(numbered(1))
    peer.hang_up("stdin")
    await peer.receiver.left()
    assert numbers(peer.receiver.received) == [1]
    assert peer.receiver.gone == 1
    assert peer.transport.statistics().torn_bytes == 0


@in_time
async def test_a_torn_tail_is_dropped_and_counted_C10(peer):
    await peer.write(numbered(1).encode() + b"\n" + b'{"jsonrpc"')
    await peer.receiver.has(1)
    peer.hang_up("stdin")
    await peer.receiver.left()
    assert numbers(peer.receiver.received) == [1]
    assert peer.transport.statistics().torn_bytes == 10
    [(line, error)] = peer.receiver.rejections
    assert (line, type(error)) == (b'{"jsonrpc"', LineTorn)


@in_time
async def test_a_message_that_an_indenting_printer_wrote_over_several_lines_is_one(peer):
    said = [{"jsonrpc": "2.0", "id": id, "result": {"content": [{}, []], "text": "{\n}"}} for id in (1, 2, 3)]
    printed = [json.dumps(said[0], indent=2), json.dumps(said[1], indent="\t").replace("\n", "\r\n")]
    printed += [json.dumps(said[2:], indent=1)]
    await peer.write("\n".join(printed).encode() + b"\n" + numbered(4).encode() + b"\n")
    received = await peer.receiver.has(4)
    assert [json.loads(message.encode()) for message in received[:3]] == said
    assert b"\n" not in b"".join(message.encode() for message in received)
    assert number_of(received[3].encode()) == 4
    assert peer.receiver.rejections == []


@pytest.mark.parametrize("between", [b"Listening", b'"id": 1', b"}", b"", b' "x": 1\n]', b" xxx\n" * 1000])
@in_time
async def test_lines_that_only_look_like_the_beginning_of_a_message_keep_back_none(peer_of, between):
    peer = peer_of(max_line=4000)
    await peer.write(b"{\n" + between + b"\n" + numbered(1).encode() + b"\n")
    await peer.receiver.has(1)
    await peer.write(b"{\n  " + numbered(2).encode() + b"\n")
    while len(peer.receiver.received) < 2:
        await peer.receiver.has(len(peer.receiver.received) + len(peer.receiver.rejections) + 1)
    assert numbers(peer.receiver.received) == [1, 2]
    assert peer.receiver.rejections


@in_time
async def test_lines_that_wait_for_the_rest_of_a_message_are_bounded_by_what_they_take_in_memory(peer_of):
    peer = peer_of(max_line=4000)
    await peer.write(b"{\n" + b" x\n" * 100)
    await peer.receiver.has(1)
    line, _ = peer.receiver.rejections[0]
    assert 1 < line.count(b"\n") < 100


@in_time
async def test_lines_that_wait_for_the_rest_of_a_message_are_told_of_though_a_message_is_all_that_comes(peer):
    await peer.write(b"{\n" + numbered(1).encode())
    peer.hang_up("stdin")
    await peer.receiver.left()
    assert numbers(peer.receiver.received) == [1]
    assert [line for line, _ in peer.receiver.rejections] == [b"{"]


@pytest.mark.parametrize("is_whole", [True, False])
@in_time
async def test_a_message_over_several_lines_may_be_the_last_without_a_newline_or_torn(peer, is_whole):
    printed = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {}}, indent=2).encode()
    await peer.write(printed if is_whole else printed[:-1])
    peer.hang_up("stdin")
    await peer.receiver.left()
    assert [message.id for message in peer.receiver.received] == ([7] if is_whole else [])
    assert (peer.transport.statistics().torn_bytes > 0) is not is_whole
    assert all(type(error) is LineTorn for _, error in peer.receiver.rejections)


@pytest.mark.parametrize("form", [b"%b", b"\xef\xbb\xbf%b", b"[%b]", b"%b\r", b"\x0c\xc2\xa0%b\xe3\x80\x80\x00"])
@in_time
async def test_a_message_needs_no_newline_at_the_end_of_the_stream(peer, form):
    await peer.write(form % messages.result(1, {}).encode())
    peer.hang_up("stdin")
    await peer.receiver.left()
    assert [message.id for message in peer.receiver.received] == [1]
    assert peer.transport.statistics().torn_bytes == 0
    assert peer.receiver.rejections == []


@in_time
async def test_each_message_of_a_batch_of_answers_is_a_message_and_what_is_none_is_rejected_alone(peer):
    batch = b'[%b, {"id":5,"result":1}, {"jsonrpc":"2.0","id":6,"result":{}}]\n' % numbered(1).encode()
    alone = b"[%b]" % numbered(7).encode()
    await peer.write(batch + b"[1, {}]\n" + alone + b"\n")
    await peer.send(numbered(2))
    first, answer, last = [one for one in await peer.receiver.has(6) if one]
    assert (numbers([first, last]), answer.id) == ([1, 2], 6)
    assert [line for line, _ in peer.receiver.rejections] == [b'{"id":5,"result":1}', b"[1, {}]", alone]


@pytest.mark.parametrize("end", [b"", b"\n"])
@in_time
async def test_a_line_over_the_limit_ends_the_reading_C15(peer_of, end):
    peer = peer_of(max_line=1000)
    await peer.send(numbered(1))
    await peer.write(b"x" * 1001 + end)
    await peer.receiver.left()
    assert numbers(peer.receiver.received) == [1]
    [(line, error)] = peer.receiver.rejections
    assert (line, type(error), error.limit) == (b"", LineTooLong, 1000)
    assert peer.receiver.gone == 1
    assert peer.transport.statistics().torn_bytes == 0


@in_time
async def test_while_the_receiver_is_behind_the_peer_is_not_read_C26(peer):
    peer.receiver.block()
    await peer.send(numbered(1))
    await peer.receiver.has(1)
    await trio.testing.wait_all_tasks_blocked()
    while peer.can_write():
        os.write(peer.stdin, numbered(2).encode() + b"\n")
    await trio.testing.wait_all_tasks_blocked()
    assert not peer.can_write()
    assert len(peer.receiver.received) == 1
    peer.receiver.unblock()
    await peer.receiver.has(100)
    await trio.testing.wait_all_tasks_blocked()
    assert peer.can_write()


@in_time
async def test_a_receiver_that_is_behind_again_and_again_misses_nothing(peer):
    for number in range(1, 6):
        peer.receiver.block()
        await peer.send(numbered(number))
        await peer.receiver.has(number)
        await trio.testing.wait_all_tasks_blocked()
        peer.receiver.unblock()
    assert numbers(peer.receiver.received) == [1, 2, 3, 4, 5]


@in_time
async def test_the_end_of_the_stream_is_told_even_while_the_receiver_is_behind(peer):
    peer.receiver.block()
    await peer.send(numbered(1))
    await peer.receiver.has(1)
    await trio.testing.wait_all_tasks_blocked()
    peer.receiver.unblock()
    await trio.testing.wait_all_tasks_blocked()
    peer.receiver.block()
    peer.hang_up("stdin")
    await peer.receiver.left()


@in_time
async def test_an_error_in_the_receiver_comes_out_of_run(peer):
    def fail(message):
        raise LookupError("a bug in the receiver")

    peer.receiver.receive = fail
    await peer.send(numbered(1))
    with pytest.RaisesGroup(LookupError):
        await peer.ended()
    assert peer.receiver.gone == 1


# to the peer


@in_time
async def test_what_is_sent_is_written_at_once_as_one_line(peer):
    peer.transport.send(numbered(1))
    assert select.select([peer.stdout], [], [], 0)[0]
    peer.transport.send(messages.result("a", {}), "about is for others")
    assert number_of(await peer.read_line()) == 1
    assert await peer.read_line() == b'{"jsonrpc":"2.0","id":"a","result":{}}'


@in_time
async def test_what_a_full_pipe_does_not_take_is_queued_in_order_C29(peer):
    many = 500
    for number in range(many):
        peer.transport.send(numbered(number, 1000))
    assert peer.transport.statistics().queued_bytes > 0
    assert [number_of(await peer.read_line()) for _ in range(many)] == list(range(many))
    await trio.testing.wait_all_tasks_blocked()
    assert peer.transport.statistics() == PipeStatistics(0, many, 0, 0, 0)


@in_time
async def test_a_message_of_ten_mebibytes_is_written_byte_for_byte(peer):
    message = numbered(1, 10 * 1024 * 1024)
    peer.transport.send(message)
    peer.transport.send(numbered(2))
    line = await peer.read_line()
    assert hashlib.sha256(line).digest() == hashlib.sha256(message.encode()).digest()
    assert number_of(await peer.read_line()) == 2


@pytest.mark.parametrize("room", [0, 1])
@in_time
async def test_a_pipe_with_hardly_any_room_takes_what_it_can(peer, room):
    # Whole pages first, then bytes into the last of them: a pipe counts its pages.
    message = numbered(1)
    filled = 65536 - len(message.encode()) - room
    os.write(peer.transport._write_fd.number, b"x" * (filled - 1) + b"\n")
    peer.transport.send(message)
    assert len(await peer.read_line()) == filled - 1
    assert number_of(await peer.read_line()) == 1


@in_time
async def test_a_peer_that_does_not_read_congests_and_drains_as_it_reads(peer):
    number = 0
    while not peer.transport.congested:
        assert peer.transport.statistics().queued_bytes <= HIGH_WATER
        peer.transport.send(numbered(number, 10_000))
        number += 1
    assert peer.receiver.drains == 0
    for expected in range(number):
        assert number_of(await peer.read_line()) == expected
        if peer.transport.congested:
            assert peer.transport.statistics().queued_bytes >= LOW_WATER
    await trio.testing.wait_all_tasks_blocked()
    assert not peer.transport.congested
    assert peer.receiver.drains == 1


@in_time
async def test_sending_waits_for_nobody_and_can_itself_be_waited_for(peer):
    await peer.transport.wait_sent()
    message = numbered(1, 1024 * 1024)
    peer.transport.send(message)
    sent = trio.Event()
    async with trio.open_nursery() as nursery:

        async def wait():
            await peer.transport.wait_sent()
            sent.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not sent.is_set()
        await peer.read_line()
    assert sent.is_set()


# ends


@in_time
async def test_closing_sends_the_end_after_what_is_queued_and_reading_goes_on(peer):
    peer.transport.send(numbered(1, 1024 * 1024))
    peer.transport.close()
    peer.transport.close()
    peer.transport.send(numbered(2))
    written = await peer.read_to_end()
    assert number_of(written) == 1
    assert written.count(b"\n") == 1
    await peer.send(numbered(3))
    assert numbers(await peer.receiver.has(1)) == [3]
    assert peer.receiver.gone == 0
    peer.hang_up("stdin")
    await peer.ended()
    assert peer.transport.statistics().sent == 1


@in_time
async def test_closing_an_idle_transport_sends_the_end_at_once(peer):
    peer.transport.close()
    assert await peer.read_to_end() == b""
    assert peer.running


@in_time
async def test_a_peer_that_has_ended_its_own_stream_gets_all_that_is_sent_before_this_side_is_closed(peer):
    peer.hang_up("stdin")
    await peer.receiver.left()
    peer.transport.send(numbered(1, HIGH_WATER * 2))
    assert number_of(await peer.read_line()) == 1
    await peer.transport.wait_sent()
    assert peer.receiver.drains == 1
    assert peer.running
    peer.transport.close()
    await peer.ended()
    assert await peer.read_to_end() == b""


@in_time
async def test_a_peer_that_has_ended_both_its_streams_is_done_with_at_the_next_write(peer):
    peer.hang_up("stdin")
    peer.hang_up("stdout")
    await peer.receiver.left()
    peer.transport.send(numbered(1))
    await peer._ended.wait()


@pytest.mark.parametrize("queued", [0, 1024 * 1024])
@in_time
async def test_a_peer_that_reads_no_more_is_heard_to_the_end_and_has_gone_then_C9(peer, queued):
    if queued:
        peer.transport.send(numbered(0, queued))
        await trio.testing.wait_all_tasks_blocked()
    await peer.send(*(numbered(number) for number in range(1, 4)))
    peer.hang_up("stdout")
    assert not peer.transport.is_read()
    peer.transport.send(numbered(0))
    await peer.ended()
    assert numbers(peer.receiver.received) == [1, 2, 3]
    assert peer.receiver.gone == 1
    assert peer.transport.statistics().queued_bytes == 0


@in_time
async def test_whoever_waits_for_a_peer_that_reads_no_more_is_let_go(peer):
    peer.transport.send(numbered(1, HIGH_WATER * 2))
    assert peer.transport.congested
    await trio.testing.wait_all_tasks_blocked()
    peer.hang_up("stdout")
    await peer.transport.wait_sent()
    assert not peer.transport.congested
    assert peer.receiver.drains == 1
    await peer.ended()


@pytest.mark.parametrize("queued", [0, HIGH_WATER * 2])
@in_time
async def test_aborting_ends_everything_at_once(peer, queued):
    peer.transport.send(numbered(1, queued))
    await trio.testing.wait_all_tasks_blocked()
    peer.transport.abort()
    peer.transport.abort()
    await peer.ended()
    assert peer.receiver.gone == 1
    assert not peer.transport.congested
    peer.transport.send(numbered(2))
    peer.transport.close()
    assert peer.transport.statistics().queued_bytes == 0
    with pytest.raises(BrokenPipeError):
        os.write(peer.stdin, b"x")


@in_time
async def test_aborting_while_the_receiver_is_behind_ends_the_reading(peer):
    peer.receiver.block()
    await peer.send(numbered(1))
    await peer.receiver.has(1)
    peer.transport.abort()
    peer.receiver.unblock()
    await peer.ended()


@in_time
async def test_a_receiver_may_abort_from_within(peer):
    received = []

    def abort(message):
        received.append(message)
        peer.transport.abort()

    peer.receiver.receive = abort
    await peer.send(numbered(1))
    await peer.ended()
    assert numbers(received) == [1]


@in_time
async def test_a_pipe_says_whether_its_other_end_is_open(peer):
    assert peer.transport.is_read()
    peer.transport.send(numbered(1, 1024 * 1024))
    assert peer.transport.is_read()
    peer.hang_up("stdout")
    assert not peer.transport.is_read()
    peer.transport.abort()
    assert not peer.transport.is_read()


@in_time
async def test_a_transport_shows_its_descriptors_and_its_queue(peer):
    shown = f"<PipeTransport in={peer.transport._read_fd.number} out={peer.transport._write_fd.number}"
    assert repr(peer.transport) == f"{shown} 0 bytes queued>"
    peer.transport.close()
    assert repr(peer.transport) == f"{shown} closed>"


@in_time
async def test_the_counters_count_each_way(peer):
    await peer.send(numbered(1), numbered(2))
    await peer.write(b"no message\n")
    await peer.receiver.has(3)
    peer.transport.send(numbered(3))
    assert peer.transport.statistics() == PipeStatistics(2, 1, 1, 0, 0)


# what is no pipe


async def run_on(read_fd, write_fd, watch):
    receiver = Receiver()
    transport = PipeTransport(read_fd, write_fd, receiver, watch=watch)
    transport.send(numbered(1))
    transport.close()
    await transport.run()
    transport.abort()
    assert receiver.gone == 1
    return receiver


@in_time
async def test_files_can_stand_in_for_pipes(watch, tmp_path):
    asked, answered = tmp_path / "asked", tmp_path / "answered"
    asked.write_bytes(b"".join(numbered(number).encode() + b"\n" for number in range(5)))
    written = os.open(answered, os.O_WRONLY | os.O_CREAT)
    receiver = await run_on(os.open(asked, os.O_RDONLY), written, watch)
    assert numbers(receiver.received) == [0, 1, 2, 3, 4]
    assert number_of(answered.read_bytes()) == 1


@in_time
async def test_the_null_device_is_a_peer_that_has_gone_and_takes_everything(watch):
    null = os.open(os.devnull, os.O_RDWR)
    receiver = await run_on(null, os.dup(null), watch)
    assert receiver.received == []


@in_time
async def test_a_terminal_that_is_closed_is_a_peer_that_has_gone(nursery, watch):
    main, terminal = pty.openpty()
    os.write(main, numbered(1).encode() + b"\n")
    receiver = Receiver()
    transport = PipeTransport(terminal, os.dup(terminal), receiver, watch=watch)
    nursery.start_soon(transport.run)
    assert numbers(await receiver.has(1)) == [1]
    os.close(main)
    while not receiver.gone:
        await trio.testing.wait_all_tasks_blocked(0.001)
    transport.abort()
