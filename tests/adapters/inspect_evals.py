"""Evals for tests/adapters/test_inspect.py, run where inspect-ai is: `python inspect_evals.py CONFIG FOLDER [NAME...]`.

With `--pool` it plays on a pool that it has open itself, with `--fork` in a fork behind an eval too; with `--killed` it
says when an episode has begun, and stays in it. It prints what they have logged. No model is asked: `mockllm` says
what a script has for each turn, and how many tokens that was, since Inspect would fetch a tokenizer to count them.
"""

import json
import os
import sys

import anyio
from inspect_ai import Task, eval, eval_async, task
from inspect_ai.dataset import Sample
from inspect_ai.log import resolve_sample_attachments
from inspect_ai.model import ModelOutput, ModelUsage, execute_tools, get_model
from inspect_ai.solver import solver, system_message

import muxsim
from muxsim.adapters.inspect_solver import Episode, dataset, play, reward

CONFIG = os.environ.get("MUXSIM_CONFIG") or sys.argv[1]
# Of the lakes with the seeds 1 and 3 this is a way to the goal; with seed 0 it ends in a hole.
WAY = ["DOWN", "DOWN", "RIGHT", "RIGHT", "DOWN", "RIGHT"]
ROWS = [
    {"id": "goal", "seed": 1, "user_prompt_template": "Lake {size} of {{size}}:\n{observation}"},
    {"id": "hole", "seed": 0, "prompt": [{"role": "user", "content": "{observation}\nWhere to?"}], "info": {"k": 1}},
]
ROWS[0]["environment_context"] = {"size": 4}


def scripted(turns):
    """A model that calls as `turns` has it: for each turn a list of (tool, arguments), or text."""

    def outputs(messages, tools, tool_choice, config):
        turn = sum(message.role == "assistant" for message in messages)
        said = turns[turn] if turn < len(turns) else "I give up."
        output = ModelOutput.from_content("mockllm", said if isinstance(said, str) else "")
        if not isinstance(said, str):
            calls = [ModelOutput.for_tool_call("mockllm", *call).message.tool_calls[0] for call in said]
            output.choices[0].message.tool_calls = calls
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=outputs)


def walker():
    return scripted([[("lake_move", {"action": way})] for way in WAY])


@task
def frozen_lake():
    return Task(dataset=dataset(ROWS), solver=play(CONFIG, "lake"), scorer=reward(), model=walker())


@solver
def by_hand():
    """A player of somebody's own, who swallows what is raised."""

    async def solve(state, generate):
        while not state.completed:
            state = await generate(state, tool_calls="none")
            if not state.output.message.tool_calls:
                break
            try:
                messages, _ = await execute_tools(state.messages, state.tools)
            except Exception:
                break
            state.messages.extend(messages)
        return state

    return solve


@solver
def afterwards():
    async def solve(state, generate):
        state.store.set("afterwards", [len(state.tools), state.store_as(Episode).end_reason])
        return state

    return solve


def opening(env, turns, **options):
    samples = [Sample(id=env, input=options.pop("input", "Open."), metadata={"seed": 5} | options.pop("metadata", {}))]
    limit = options.pop("message_limit", None)
    solvers = [*options.pop("before", []), play(CONFIG, env, **options), afterwards()]
    return Task(dataset=samples, solver=solvers, scorer=reward(), model=scripted(turns), message_limit=limit, name=env)


OPEN = [("open", {})]
TASKS = {
    "lake": frozen_lake,
    "whole": lambda: opening("whole", [OPEN, OPEN * 3]),
    "more calls than there is to play": lambda: opening("whole", [OPEN * 6]),
    "max_steps": lambda: opening("whole", [OPEN] * 9, max_steps=3),
    "message_limit": lambda: opening("whole", [OPEN] * 9, message_limit=5),
    "no such tool": lambda: opening("whole", [[("shut", {})]] * 9, max_steps=3),
    "unfit arguments": lambda: opening("whole", [OPEN, *[[("open", {"door": [1]})]] * 9], max_steps=3),
    "one made, one refused": lambda: opening("whole", [[*OPEN, ("shut", {})]] * 9),
    "gives up": lambda: opening("whole", [OPEN, "No more."]),
    "refuse": lambda: opening("refuse", [OPEN] * 9),
    "is-error": lambda: opening("is-error", [OPEN] * 9),
    "crash": lambda: opening("crash", [OPEN] * 9),
    "swallowed": lambda: opening("crash", [OPEN] * 9, player=by_hand()),
    "by hand": lambda: opening("whole", [OPEN] * 9, player=by_hand()),
    "nan": lambda: opening("nan", [OPEN] * 9),
    "no-start": lambda: opening("no-start", [OPEN]),
    "foreign": lambda: opening("foreign", [OPEN, OPEN]),
    "own prompt": lambda: opening("whole", [OPEN], before=[system_message("Be bold.")]),
    "no such seed": lambda: opening("whole", [OPEN], metadata={"seed": -1}),
    "no such env": lambda: opening("whole", [OPEN], metadata={"env": "hole"}),
    "asks for more": lambda: opening("foreign", [OPEN], input="It is {observation}"),
}


def said_of(message):
    """The error that a model reads in place of a result."""
    error = getattr(message, "error", None)
    return error and error.message


def shown(sample):
    sample = resolve_sample_attachments(sample)
    score = (sample.scores or {}).get("reward")
    return {
        "id": sample.id,
        "error": sample.error and [sample.error.message, sample.error.traceback],
        "score": score and {"value": str(score.value), "reason": score.reason, "metadata": score.metadata},
        "messages": [[message.role, message.text, said_of(message)] for message in sample.messages],
        "afterwards": sample.store.get("afterwards"),
        "metadata": sample.metadata,
    }


def told(name, log):
    print(json.dumps([name, log.status, [shown(sample) for sample in log.samples or []]]), flush=True)


async def on_a_pool(folder):
    """On a pool of this program's own, with the eval on its loop."""
    async with muxsim.open_pool(CONFIG) as pool:
        job = Task(dataset=dataset(ROWS), solver=play(pool, "lake"), scorer=reward(), model=walker())
        (log,) = await eval_async(job, log_dir=folder, fail_on_error=False)
        told("lake", log)


@solver
def stays():
    async def solve(state, generate):
        print("begun", flush=True)
        await anyio.sleep_forever()

    return solve


def in_a_fork(folder):
    """An eval, and another one in a fork of this process, with a solver of the fork's own."""
    told("before", eval(frozen_lake(), display="none", log_dir=folder, fail_on_error=False)[0])
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        told("behind", eval(frozen_lake(), display="none", log_dir=folder, fail_on_error=False)[0])
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    folder, names = sys.argv[2], sys.argv[3:]
    if names == ["--pool"]:
        anyio.run(on_a_pool, folder, backend=os.environ["INSPECT_ASYNC_BACKEND"])
    elif names == ["--killed"]:
        eval(opening("whole", [], player=stays()), display="none", log_dir=folder)
    elif names == ["--fork"]:
        in_a_fork(folder)
    else:
        for name in names or TASKS:
            told(name, eval(TASKS[name](), display="none", log_dir=folder, fail_on_error=False)[0])
