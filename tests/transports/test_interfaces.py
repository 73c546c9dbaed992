"""The fakes that stand in for either side of a transport."""

from transports import messages
from transports.errors import LineTooLong
from transports.memory import MemoryReceiver, MemoryTransport


def test_the_memory_transport_keeps_what_is_sent_until_it_is_closed():
    transport = MemoryTransport()
    message = messages.notification("n")
    transport.send(message, 1)
    transport.withdraw(2)
    transport.close()
    transport.send(message)
    assert transport.sent == [(message, 1)]
    assert (transport.withdrawn, transport.closed, transport.congested) == ([2], True, False)


async def test_the_memory_receiver_keeps_what_it_is_told_and_is_always_ready():
    receiver, message, error = MemoryReceiver(), messages.notification("n"), LineTooLong(1)
    assert receiver.ready
    await receiver.wait_ready()
    receiver.receive(message)
    receiver.rejected(b"x", error)
    receiver.drained()
    receiver.disconnected()
    assert (receiver.received, receiver.rejections) == ([message], [(b"x", error)])
    assert (receiver.drains, receiver.gone) == (1, 1)
