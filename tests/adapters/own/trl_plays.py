"""Run by test_trl_itself with TRL installed: a stock GRPOTrainer with two environments, and what AsyncGRPO does."""

import json
import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import torch
from datasets import Dataset
from tiny import tiny_model
from transformers import set_seed
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer

from muxsim.adapters.trl_environment import environment


def main(config, output):
    lake, cards = (environment(config, env, max_calls=6) for env in ("frozen_lake", "blackjack"))
    schemas = [get_json_schema(lake.lake_move), get_json_schema(cards.step)]
    told = {"schemas": schemas, "elsewhere": elsewhere(lake), "steps": train(lake, cards, output)}
    for one in (lake, cards):
        one.close()
    print(json.dumps(told))


def train(lake, cards, output):
    """Two real steps over two environments; what TRL logged, and whether the weights have changed."""
    set_seed(2)
    model, tokenizer, generation = tiny_model(lake, cards)
    before = [weights.clone() for weights in model.parameters()]
    breaking(cards)
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=GRPOConfig(
            output_dir=output,
            use_cpu=True,
            bf16=False,
            max_steps=2,
            num_generations=4,
            per_device_train_batch_size=8,
            learning_rate=1e-2,
            max_completion_length=2048,
            max_tool_calling_iterations=6,
            generation_kwargs=generation,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_list(
            [
                {"prompt": [{"role": "user", "content": "Play."}], "environment": env, "seed": seed}
                for seed in (1, 2)
                for env in ("frozen_lake", "blackjack")
            ]
        ),
        environment_factory={"frozen_lake": lake, "blackjack": cards},
    )
    trainer.train()
    changed = any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    return {"logged": trainer.state.log_history, "changed": changed, "rewards": REWARDS}


REWARDS = []


def breaking(cards):
    """Have the first episode of cards that is scored be a broken one, and note all that come."""
    earned = cards.get_reward

    def get_reward(self):
        if not REWARDS:
            self._broke("torn by the test")
        REWARDS.append(earned(self))
        return REWARDS[-1]

    cards.get_reward = get_reward


def elsewhere(lake):
    """An episode in a spawned process, in threads of a pool, as the worker of AsyncGRPOTrainer has it."""
    pickle.dumps({"environment_factory": {"frozen_lake": lake}})
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(played, (lake,))


def played(lake):
    with ThreadPoolExecutor(2) as threads:
        one = lake()
        began = threads.submit(lambda: one.reset(seed=3, prompt=[{"role": "user", "content": "Play."}])).result()
        moved = threads.submit(lambda: one.lake_move(action="DOWN")).result()
        reward = threads.submit(one.get_reward).result()
    lake.close()
    return [began, moved, reward]


if __name__ == "__main__":
    main(*sys.argv[1:])
