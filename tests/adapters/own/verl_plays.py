"""Run by test_verl with verl installed: its own worker plays rows by muxsim's agent loop, with a scripted model."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_module
from tiny import calls_of, tokenizer_with
from transformers import Qwen3Config
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.experimental.agent_loop.tool_parser import ToolParser
from verl.protocol import DataProto
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

import muxsim
from muxsim.adapters.trl_environment import environment
from muxsim.adapters.verl_loop import for_parser
from muxsim.rollouts.environments.environment import Tool

ENV = "blackjack"
SEEDS = (0, 1, 6)  # one is lost at once, one is won
ACTIONS = ("HIT", "STICK")  # no more than one card
LOOP = """
- name: cards
  _target_: muxsim.adapters.verl_loop.MuxsimAgentLoop
  source: {source}
  env: {env}
"""
NUMBERS = Tool("go", "", {"type": "object", "properties": {"far": {"type": "integer"}, "why": {"type": "string"}}})
IN_XML = "<tool_call>\n<function=go>\n<parameter=far>\n3\n</parameter>\n<parameter=why>\n3\n</parameter>\n</function>\n"


class Player(LLMServerClient):
    """Says one of its replies after the other, and with which weights, as verl's servers do."""

    def __init__(self, config, replies):
        super().__init__(config)
        self.replies, self.turns = replies, Counter()

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        reply = self.replies[self.turns[request_id]]
        self.turns[request_id] += 1
        step = dict.fromkeys(("global_steps", "min_global_steps", "max_global_steps"), self.turns[request_id])
        return TokenOutput(token_ids=reply, log_probs=[-0.5] * len(reply), num_preempted=1, extra_fields=step)


def main(source, folder):
    calls = calls_of(environment(source, ENV))
    tokenizer = tokenizer_with(calls)
    config = configured(source, folder, tokenizer)
    replies = [f"{call}<|im_end|>" for action in ACTIONS for call in calls if action in call]
    worker = AgentLoopWorker(config, Player(config, [tokenizer.encode(reply) for reply in replies]))
    played = asyncio.run(worker.generate_sequences(rows(SEEDS)))
    tokens = played.batch
    extra = played.non_tensor_batch
    return {
        "rewards": tokens["rm_scores"].sum(1).tolist(),
        "written": [
            tokenizer.decode(ids[mask.bool()])
            for ids, mask in zip(tokens["responses"], tokens["response_mask"], strict=True)
        ],
        "read": [
            tokenizer.decode(ids[mask.bool()])
            for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"], strict=True)
        ],
        "sampled": [-2 * one for one in tokens["rollout_log_probs"].sum(1).tolist()],
        "model": tokens["response_mask"].sum(1).tolist(),
        "turns": extra["__num_turns__"].tolist(),
        "seeds": extra["muxsim_seed"].tolist(),
        "steps": [list(pair) for pair in zip(extra["min_global_steps"], extra["max_global_steps"], strict=True)],
        "preempted": [metrics["num_preempted"] for metrics in played.meta_info["metrics"]],
        "replies": replies,
        "refused": refused(worker),
        "arguments": asyncio.run(numbers(tokenizer)),
        "expected": asyncio.run(expected(source)),
    }


def configured(source, folder, tokenizer):
    """verl's config for training by PPO, with a model that has no weights."""
    tokenizer.save_pretrained(folder / "model")
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    Qwen3Config(architectures=["Qwen3ForCausalLM"], **special).save_pretrained(folder / "model")
    (folder / "loops.yaml").write_text(LOOP.format(source=source, env=ENV))
    rollout = "actor_rollout_ref.rollout"
    wanted = [
        f"{rollout}.name=vllm",
        f"{rollout}.agent.agent_loop_config_path={folder / 'loops.yaml'}",
        f"actor_rollout_ref.model.path={folder / 'model'}",
        "data.max_prompt_length=2048",
        "data.max_response_length=1024",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=wanted)


def rows(seeds):
    def column(values):
        made = np.empty(len(values), dtype=object)
        made[:] = values
        return made

    return DataProto.from_single_dict(
        {
            "raw_prompt": column([[{"role": "user", "content": "Play."}] for _ in seeds]),
            "agent_name": column(["cards" for _ in seeds]),
            "extra_info": column([{"seed": seed} for seed in seeds]),
        }
    )


def refused(worker):
    """What comes of a batch of which one row cannot be played."""
    try:
        asyncio.run(worker.generate_sequences(rows(["no seed"])))
    except ValueError as error:
        return str(error)
    return None


async def numbers(tokenizer):
    """The arguments of a call in XML, in which nothing tells a number from a word."""
    parser = ToolParser.get_tool_parser("qwen3_coder", tokenizer)
    _, [call] = await parser.extract_tool_calls(tokenizer.encode(IN_XML), [for_parser(NUMBERS)])
    return json.loads(call.arguments)


async def expected(source):
    """The same episodes without verl."""
    found = []
    async with muxsim.open_pool(source) as pool:
        for seed in SEEDS:
            session = await pool.open(ENV, seed)
            told, calls, over = [session.opened.initial_state["observation"]], 0, False
            while not over:
                result = await session.call("step", {"action": ACTIONS[calls]})
                calls, over = calls + 1, result.control.terminated
                told.append(result.content[0]["text"])
            # A model does not hear what ends an episode.
            found.append({"seed": seed, "reward": await session.earned(), "calls": calls, "told": told[:-1]})
            await session.close()
    return found


if __name__ == "__main__":
    source, folder = sys.argv[1], Path(sys.argv[2])
    (folder / "told.json").write_text(json.dumps(main(source, folder)))
