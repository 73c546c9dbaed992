"""Trains a model with TRL's GRPO to play an environment of muxsim, as examples/train_grpo/README.md says."""

import argparse
from pathlib import Path
from typing import Any

from datasets import Dataset
from tiny import CONTEXT, tiny_model
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

from muxsim.adapters.trl_environment import TRLEnvironment, environment

EXAMPLES = Path(__file__).parent.parent / "muxsim.toml"
QUESTION = "Play until it is over."


def main() -> None:
    options = parsed()
    set_seed(0)
    game = environment(options.source, options.env, max_calls=options.max_calls)
    rows = [{"prompt": [{"role": "user", "content": QUESTION}], "seed": seed} for seed in range(options.seeds)]
    how = on_a_gpu(options) if options.model else on_a_cpu(options, game)
    trainer = GRPOTrainer(**how, train_dataset=Dataset.from_list(rows), environment_factory=game)
    trainer.train()
    trainer.save_model(options.output)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default=str(EXAMPLES), help="a config file, or the URL of a muxsim")
    parser.add_argument("--env", default="blackjack")
    parser.add_argument("--model", help="one that calls tools, such as Qwen/Qwen3-1.7B; else a tiny one, made here")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--generations", type=int, default=8, help="episodes of one seed, which are compared")
    parser.add_argument("--seeds", type=int, default=256, help="how many seeds there are")
    parser.add_argument("--max-calls", type=int, default=30, help="calls of an episode")
    parser.add_argument("--vllm-memory", type=float, default=0.4, help="vLLM's share of a GPU's memory")
    parser.add_argument("--output", default="runs/grpo", help="where the model goes")
    return parser.parse_args()


def common(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "output_dir": options.output,
        "max_steps": options.steps,
        "num_generations": options.generations,
        "max_tool_calling_iterations": options.max_calls,
        "logging_steps": 1,
        "save_strategy": "no",
    }


def on_a_gpu(options: argparse.Namespace) -> dict[str, Any]:
    """For a model of a few billion parameters on one GPU of 80 GB, which generates with vLLM and trains in turn."""
    args = GRPOConfig(
        **common(options),
        use_vllm=True,
        vllm_mode="colocate",
        vllm_enable_sleep_mode=True,
        vllm_gpu_memory_utilization=options.vllm_memory,
        per_device_train_batch_size=options.generations,
        gradient_accumulation_steps=8,
        learning_rate=1e-6,
        max_completion_length=4096,
        temperature=1.0,
        beta=0.0,
        bf16=True,
        gradient_checkpointing=True,
        chat_template_kwargs={"enable_thinking": False},
        log_completions=True,
        report_to="all",
    )
    return {"model": options.model, "args": args}


def on_a_cpu(options: argparse.Namespace, game: type[TRLEnvironment]) -> dict[str, Any]:
    """For the tiny model."""
    model, tokenizer, generation = tiny_model(game)
    args = GRPOConfig(
        **common(options),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=options.generations,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        max_completion_length=CONTEXT // 2,
        generation_kwargs=generation,
        report_to="none",
        disable_tqdm=True,
    )
    return {"model": model, "processing_class": tokenizer, "args": args}


if __name__ == "__main__":
    main()
