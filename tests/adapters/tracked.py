# ruff: noqa: PLC0415 - each tracker takes a while to import, and is imported by what needs it
"""Run in an environment that has the trackers: tells them of episodes, and reads back what they have.

tracked.py read FOLDER      what `muxsim rollout --track` has left, as JSON by tracker
tracked.py track CONFIG     the same from Python, with runs of the user's own
"""

import json
import os
import sqlite3
import sys
from pathlib import Path

FOLDER = Path(os.environ["TRACKED"])


def records(data, block=32768):
    """The records of a log as LevelDB writes it, behind 7 bytes: in blocks, each record in one part or several."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of it, or its last part
            yield whole
            whole = b""


def of_wandb():
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = FOLDER.glob("wandb/offline-run-*/run-*.wandb")
    told, configured = {}, set()
    for data in records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        configured |= {item.key for item in record.run.config.update}
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for name in items.keys() - {"_step", "_runtime", "_timestamp"}:
            told.setdefault(name, []).append([int(items["_step"]), json.loads(items[name])])
    return told, sorted(configured)


def of_trackio():
    (file,) = (file for file in FOLDER.glob("trackio/*.db"))
    told = {}
    with sqlite3.connect(file) as database:
        for step, metrics in database.execute("select step, metrics from metrics order by step, id"):
            for name, value in json.loads(metrics).items():
                told.setdefault(name, []).append([step, value])
        configured = [json.loads(one) for (one,) in database.execute("select config from configs")]
    return told, sorted(configured[0])


def of_mlflow():
    from mlflow import MlflowClient

    client = MlflowClient()
    (experiment,) = [one for one in client.search_experiments() if one.name == "lakes"]
    (run,) = client.search_runs([experiment.experiment_id])
    told = {
        name: [[one.step, one.value] for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert run.info.status == "FINISHED", run.info.status
    return told, sorted(run.data.params)


def of_tensorboard():
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    (folder,) = {file.parent for file in FOLDER.rglob("events.out.tfevents.*")}
    read = EventAccumulator(str(folder), size_guidance={TENSORS: 0})
    read.Reload()
    told = {name: [[one.step, one.value] for one in read.Scalars(name)] for name in read.Tags()["scalars"]}
    for name in read.Tags()["tensors"]:
        told[name] = [[one.step, float(make_ndarray(one.tensor_proto))] for one in read.Tensors(name)]
    return told, []


def read():
    return {one.__name__.removeprefix("of_"): one() for one in (of_wandb, of_trackio, of_mlflow, of_tensorboard)}


def track(config):
    import anyio
    import mlflow
    import trackio
    import wandb
    from tensorboard.summary import Writer

    import muxsim
    from muxsim.adapters.trackers import track as tracker
    from muxsim.rollouts import RandomPolicy

    run = wandb.init(project="lakes", config={"mine": 1})
    trackio.init(project="lakes", config={"mine": 1})
    mlflow.set_experiment("lakes")
    writer = Writer(str(FOLDER / "board"))

    async def play():
        rows = [{"env": "frozen_lake", "seed": seed} for seed in range(3)]
        watchers = [tracker(log) for log in (run, trackio.log, mlflow.log_metrics, writer)]
        async with muxsim.open_pool(config) as pool:
            await muxsim.rollout(pool, rows, policy=RandomPolicy(), max_steps=3, max_concurrent=1, watchers=watchers)

    with mlflow.start_run():
        mlflow.log_param("mine", 1)
        anyio.run(play)
    run.finish()
    trackio.finish()
    writer.close()


if __name__ == "__main__":
    if sys.argv[1] == "track":
        track(sys.argv[2])
    print("\n" + json.dumps(read()))
