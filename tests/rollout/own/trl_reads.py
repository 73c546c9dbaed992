"""Run by test_trainers_read with TRL installed: its trainers, and `datasets`, on what a run was exported as."""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict, load_from_disk
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from muxsim.rollouts import RunFolder, export_rows, load_dataset, token_rows
from muxsim.rollouts.data.dataset import dataset_from_rows
from muxsim.rollouts.data.rows import DatasetError

QUIET = {"use_cpu": True, "bf16": False, "save_strategy": "no", "report_to": "none", "logging_steps": 1, "max_steps": 1}
WORDS = 64


def main(run, folder):
    run, folder = RunFolder(run), Path(folder)
    told = {"folders": {}, "sft": fine_tune(run, folder), "grpo": learn(run, folder), "rows": rows_of(folder)}
    for form in ("chat", "tokens", "trl", "verl"):
        export_rows(run, folder / form, rows=form, table="datasets")
        told["folders"][form] = load_from_disk(folder / form)[0]
    export_rows(run, folder / "none", table="datasets", min_reward=1e9)
    none = load_from_disk(folder / "none")
    told["none"] = [len(none), none.features == load_from_disk(folder / "chat").features]
    print(json.dumps(told))


def tiny():
    set_seed(1)
    config = GPT2Config(vocab_size=WORDS, n_positions=64, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    words = {"<end>": 0, **{f"w{number}": number for number in range(1, WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    return GPT2LMHeadModel(config), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="<end>"
    )


def fine_tune(run, folder):
    """The labels that a stock SFTTrainer computes its loss of, and its loss."""
    export_rows(run, folder / "sft", rows="sft", table="datasets")
    model, tokenizer = tiny()
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        args=SFTConfig(output_dir=folder / "out", per_device_train_batch_size=8, **QUIET),
        train_dataset=load_from_disk(folder / "sft"),
    )
    (batch,) = trainer.get_train_dataloader()
    trainer.train()
    rows = sorted(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True))
    return {"rows": rows, "loss": trainer.state.log_history[0]["loss"]}


def learn(run, folder):
    """What a stock GRPOTrainer takes for sampled, of a group whose rollouts are a run's."""
    model, tokenizer = tiny()
    before = [weights.clone() for weights in model.parameters()]
    seen = []

    def rollout(prompts, trainer):
        rows = list(token_rows(run.trajectories(), "trl", bare=True))[: len(prompts)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def reward(completions, completion_ids, **rest):
        return [float(len(ids)) for ids in completion_ids]

    class Trainer(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            seen.append({name: inputs[name].tolist() for name in ("prompt_ids", "completion_ids", "tool_mask")})
            return super()._compute_loss(model, inputs)

    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        args=GRPOConfig(
            output_dir=folder / "out",
            num_generations=2,
            per_device_train_batch_size=2,
            max_completion_length=32,
            learning_rate=1e-2,
            **QUIET,
        ),
        train_dataset=Dataset.from_list([{"prompt": "w1 w2"}] * 2),
        reward_funcs=reward,
        rollout_func=rollout,
    )
    trainer.train()
    changed = any(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    return {**seen[0], "changed": changed}


def rows_of(folder):
    """Rows of `datasets`, saved, loaded and handed over."""
    rows = [{"id": name, "prompt": [{"role": "user", "content": "Go."}], "info": {"n": 1}} for name in ("a", "b")]
    DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[:1])}).save_to_disk(folder / "saved")
    Dataset.from_list(rows).save_to_disk(folder / "plain")
    Dataset.from_list(rows).to_parquet(folder / "hub" / "train.parquet")
    read = {
        "split": load_dataset(folder / "saved", split="train"),
        "saved": load_dataset(folder / "plain"),
        "hub": load_dataset(f"hf:{folder / 'hub'}", split="train[:2]"),
        "object": dataset_from_rows(Dataset.from_list(rows)),
    }
    return {
        **{name: [[row.id, row.prompt, row.info] for row in one.rows] for name, one in read.items()},
        "faults": [fault(folder / "saved"), fault(folder / "saved", split="dev"), fault(f"hf:{folder / 'nowhere'}")],
    }


def fault(*arguments, **options):
    try:
        load_dataset(*arguments, **options)
    except DatasetError as error:
        return str(error)
    return ""


main(*sys.argv[1:])
