import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, JSONRPCResponse
from pydantic import ValidationError

from muxsim.mcpgym.streams import FileOut, Incoming, Outgoing

REQUEST = JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/list")


async def lines(*texts):
    for text in texts:
        yield text


async def test_a_line_that_is_no_message_is_told_and_the_next_one_comes():
    incoming = Incoming(lines("{", '{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}', "[]"))
    first, second, third = [item async for item in incoming]
    assert isinstance(first, ValidationError)
    assert second == SessionMessage(REQUEST)
    assert isinstance(third, ValidationError)


async def test_the_end_of_the_lines_is_the_end_of_the_stream():
    async with Incoming(lines('{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}')) as incoming:
        assert await incoming.receive() == SessionMessage(REQUEST)
        with pytest.raises(anyio.EndOfStream):
            await incoming.receive()


async def test_a_message_goes_out_as_one_line_with_what_was_set():
    out = Out()
    async with Outgoing(out) as outgoing:
        await outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={"text": "a\nb"})))
    assert out.texts == ['{"jsonrpc":"2.0","id":1,"result":{"text":"a\\nb"}}\n']
    assert out.drained  # it may be the last thing that this process does


async def test_what_nobody_reads_is_dropped_with_a_warning(caplog):
    class Gone(Out):
        async def write(self, text):
            raise BrokenPipeError

        async def drain(self):
            raise BrokenPipeError

    async with Outgoing(Gone()) as outgoing:
        with pytest.raises(anyio.BrokenResourceError):  # which the SDK takes for the end of the connection
            await outgoing.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={})))
    assert "nobody reads stdout any more" in caplog.text


class Out:
    def __init__(self):
        self.texts = []
        self.drained = False

    async def write(self, text):
        self.texts.append(text)

    async def drain(self):
        self.drained = True


async def test_texts_of_several_tasks_get_into_a_file_whole(tmp_path):
    wanted = [letter * 100_000 + "\n" for letter in "abcdef"]
    with (tmp_path / "out").open("w") as file:
        out = FileOut(anyio.wrap_file(file))
        async with anyio.create_task_group() as tasks:
            for text in wanted:
                tasks.start_soon(out.write, text)
        assert sorted((tmp_path / "out").read_text().splitlines(keepends=True)) == wanted
