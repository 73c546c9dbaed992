"""Messages over a channel that takes them slowly, refuses some, or has ended."""

import errno
import os
import socket

import pytest
import trio

from muxsim.inside import wire
from muxsim.processes.outbox import Outbox

MANY = 5000  # more than a channel holds unread


@pytest.fixture
def channel():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def message(number, *fds):
    return wire.pack({"kind": "a", "number": number}, fds)


def refusing(monkeypatch, number, *, times):
    """Have the kernel take no message with this number, so often."""
    real, left = wire.send, [number] * times

    def send(channel, packet):
        if left and f'"number":{number}}}'.encode() in packet.data:
            left.pop()
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        real(channel, packet)

    monkeypatch.setattr(wire, "send", send)


async def heard(theirs, count):
    numbers = []
    with trio.fail_after(60):
        while len(numbers) < count:
            await trio.lowlevel.wait_readable(theirs)
            numbers.append(wire.receive(theirs).message["number"])
    return numbers


async def test_what_is_posted_arrives_in_its_order_however_slowly_it_is_taken(channel, nursery):
    ours, theirs = channel
    outbox = Outbox(ours)
    nursery.start_soon(outbox.run)
    for number in range(MANY):
        outbox.post(message(number))
    assert await heard(theirs, MANY) == list(range(MANY))


async def test_what_nobody_could_be_told_of_is_sent_again_and_nothing_overtakes_it(channel, nursery, monkeypatch):
    ours, theirs = channel
    refusing(monkeypatch, 1, times=3)
    outbox = Outbox(ours)
    nursery.start_soon(outbox.run)
    for number in range(4):
        outbox.post(message(number))
    assert await heard(theirs, 4) == [0, 1, 2, 3]


async def test_who_wants_to_be_told_is_and_the_rest_is_sent(channel, monkeypatch):
    ours, theirs = channel
    refusing(monkeypatch, 1, times=1)
    outbox, refused = Outbox(ours), []
    for number in range(3):
        outbox.post(message(number), refused.append)
    assert await heard(theirs, 2) == [0, 2]
    assert [error.errno for error in refused] == [errno.ENOBUFS]


@pytest.mark.parametrize("closed", [False, True])
async def test_no_descriptor_stays_open_for_a_channel_that_has_ended(channel, closed):
    ours, theirs = channel
    outbox = Outbox(ours)
    before = os.listdir("/proc/self/fd")
    if closed:
        outbox.close()
    else:
        theirs.shutdown(socket.SHUT_RDWR)
    outbox.post(message(0, os.open("/dev/null", os.O_RDONLY)))
    assert os.listdir("/proc/self/fd") == before


async def test_what_waits_when_it_is_closed_is_forgotten_with_its_descriptors(channel):
    ours, _ = channel
    outbox = Outbox(ours)
    before = os.listdir("/proc/self/fd")
    for number in range(MANY):
        outbox.post(message(number))
    outbox.post(message(MANY, os.open("/dev/null", os.O_RDONLY)))
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    outbox.close()
    assert os.listdir("/proc/self/fd") == before
