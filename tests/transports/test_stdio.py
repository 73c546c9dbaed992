import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

pytestmark = pytest.mark.children

PROGRAM = [sys.executable, str(Path(__file__).with_name("claims_stdio.py"))]
REQUESTS = (
    b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"n":1.0}}\nno message\n{"jsonrpc":"2.0","id":"2","method":"m"}\n'
)


async def run(*arguments, sent=REQUESTS):
    with trio.fail_after(60):
        return await trio.run_process(
            [*PROGRAM, *arguments], stdin=sent, capture_stdout=True, capture_stderr=True, check=False
        )


async def test_nothing_but_messages_is_on_stdout_while_it_is_claimed():
    done = await run()
    before, *lines, after = done.stdout.splitlines()
    assert (before, after) == (b"before", b"after")
    assert lines[0] == b'{"jsonrpc":"2.0","id":1,"result":{"n":1.0}}'
    assert [json.loads(line)["id"] for line in lines] == [1, None, "2"]
    assert "error" in json.loads(lines[1])


async def test_whatever_else_is_printed_goes_to_stderr():
    done = await run()
    for source in ("print", "a C library", "a child"):
        assert done.stderr.count(f"noise of {source}\n".encode()) == 2


async def test_nothing_else_reads_from_the_clients_stdin_or_inherits_it():
    done = await run()
    assert done.stderr.count(b"stdin has b''\n") == 2
    # ls itself opens the folder.
    assert done.stderr.count(b"0 1 2 3\n") == 2


async def test_both_streams_are_given_back_after_an_error_too():
    done = await run("fail")
    assert done.returncode != 0
    assert b"TransportError: on purpose" in done.stderr
    assert done.stdout.splitlines()[-1] == b"after"


async def test_the_streams_are_given_back_as_they_were_blocking_or_not():
    # The mode belongs to the open file, so that a terminal's would stay changed for the shell that started us.
    stdin, requests = os.pipe()
    answers, stdout = os.pipe()
    with os.fdopen(requests, "wb", 0) as requests, os.fdopen(answers, "rb", 0) as answers:
        try:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    where = {"stdin": stdin, "stdout": stdout, "stderr": subprocess.DEVNULL}
                    process = await nursery.start(partial(trio.run_process, PROGRAM, **where))
                    requests.write(REQUESTS)
                    await read_until(answers, b'"id":"2"')
                    assert not os.get_blocking(stdout)
                    requests.close()
            assert process.returncode == 0
            assert os.get_blocking(stdin)
            assert os.get_blocking(stdout)
        finally:
            os.close(stdin)
            os.close(stdout)


async def read_until(file, text):
    data = b""
    while text not in data:
        await trio.lowlevel.wait_readable(file)
        data += file.read(65536)
