"""Messages and descriptors over a channel."""

import contextlib
import os
import resource
import socket

import pytest

from muxsim.inside.wire import Packet, pack, receive, send

NULL = os.open("/dev/null", os.O_RDWR)


@pytest.fixture
def channel():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_a_message_arrives_with_its_descriptors(channel):
    packet = pack({"kind": "spawn", "ref": 1, "odd": "\udcff"}, [os.dup(NULL), os.dup(NULL)])
    send(channel[0], packet)
    packet.close()
    received = receive(channel[1])
    assert received.message == {"kind": "spawn", "ref": 1, "odd": "\udcff"}
    assert received.complete
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in received.fds] == ["/dev/null"] * 2
    assert not any(os.get_inheritable(fd) for fd in received.fds)
    Packet(b"", tuple(received.fds)).close()


def test_a_message_too_long_for_a_packet_travels_beside_it(channel):
    message = {"kind": "spawn", "ref": 7, "env": {"BIG": "x" * 1_000_000}}
    packet = pack(message, [os.dup(NULL)])
    assert len(packet.data) < 100
    send(channel[0], packet)
    packet.close()
    received = receive(channel[1])
    assert received.message == message
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in received.fds] == ["/dev/null"]
    Packet(b"", tuple(received.fds)).close()


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_message_whose_descriptors_found_no_room_says_so_and_whose_it_was_H1(channel, size):
    packet = pack({"kind": "spawn", "ref": 7, "env": "x" * size}, [os.dup(NULL) for _ in range(3)])
    send(channel[0], packet)
    packet.close()
    with no_more_descriptors(but=1):
        received = receive(channel[1])
    assert not received.complete
    assert received.message["ref"] == 7
    Packet(b"", tuple(received.fds)).close()


@contextlib.contextmanager
def no_more_descriptors(*, but):
    held = os.dup(NULL)  # the lowest number that is free
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(held)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + but, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_end_of_the_channel_is_a_message_of_none(channel):
    channel[0].close()
    assert receive(channel[1]).message is None


def test_an_empty_channel_does_not_block(channel):
    with pytest.raises(BlockingIOError):
        receive(channel[1])
