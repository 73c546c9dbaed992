"""Plays sessions with private folders, as whoever runs this and where they may: `private_play.py DATA [KEY=VALUE …]`.

A program of its own, for tests that are root and want to see how it is for others. Says in JSON what it has seen.
"""

import glob
import json
import os
import sys
from pathlib import Path

import trio
from start.playing import starts

from muxsim.observe.events import NotPrivate
from processes.enclosed import enclosed_sessions


async def play(here, data, key, zygote):
    """What two sessions see of the folder's one file once the first has written to it, and beside it."""
    name = f"{key}-{zygote}"
    one, two = [await here.open(name=name, zygote=zygote, fields={key: (data,)}) for _ in range(2)]
    state = str(Path(data, "state"))
    written = await one.value("keep_text", path=state, text="own")
    await one.value("keep_text", path=state + "-beside", text="own")
    await one.value("run_program", argv=["rm", "-r", str(Path(data, "folder"))])
    seen = {
        "forks": starts(here.pool, "fork"),
        "written": written.get("result", written.get("error")),
        "own": (await one.value("read_file", path=state)).get("result"),
        "other": (await two.value("read_file", path=state)).get("result"),
        "beside": sorted((await one.value("listing", path=data))["result"]),
        "mounted": (await one.value("listing", path=str(Path(data, "folder")))).get("result"),
        "user": os.stat(f"/proc/{two.pid}").st_uid,
        "capabilities": await capabilities(two),
    }
    for client in (one, two):
        client.session.end("test", "it is over")
        await client.session.wait_ended()
    return seen


async def capabilities(client):
    status = (await client.value("read_file", path="/proc/self/status"))["result"]
    return next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))


async def main():
    data, key = sys.argv[1:]
    async with enclosed_sessions() as here:
        seen = {way: await play(here, data, key, way == "fork") for way in ("fresh", "fork")}
        seen["told"] = [event.instead for event in here.events(NotPrivate)]
        seen["why"] = [event.why for event in here.events(NotPrivate)]
    seen["left"] = os.listdir(os.environ["TMPDIR"])
    seen["mounted"] = glob.glob("*", root_dir=os.path.join(data, "folder"))
    seen["data"] = sorted(os.listdir(data))
    print(json.dumps(seen))


trio.run(main)
