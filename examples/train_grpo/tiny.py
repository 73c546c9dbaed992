"""A model of random weights and its tokenizer, made on the spot: enough to train with on a CPU, and for a test.

Each call that an environment's tools allow is one token. So even a model that knows nothing makes calls, all of which
mean something, and what it learns is which.
"""

import inspect
import itertools
import json
from collections.abc import Iterable
from typing import Any, get_args

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl.chat_template_utils import qwen3_chat_template

CONTEXT = 8192
PIECES = 2000


def calls_of(environment: type) -> list[str]:
    """Every call of the environment's tools, as Qwen's models write them. Their arguments must be finitely many."""
    calls = []
    for name, method in inspect.getmembers(environment, inspect.isfunction):
        if name.startswith("_") or name in ("reset", "get_reward"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        for values in itertools.product(*(get_args(parameter.annotation) for parameter in parameters)):
            arguments = dict(zip((parameter.name for parameter in parameters), values, strict=True))
            call = json.dumps({"name": method.__name__, "arguments": arguments})
            calls.append(f"<tool_call>\n{call}\n</tool_call>")
    return calls


def tokenizer_with(calls: Iterable[str]) -> PreTrainedTokenizerFast:
    """Pieces of the words of Qwen's chat template, what that needs, and a token for each call."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=PIECES, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator([qwen3_chat_template, *calls], trainer)
    tokenizer.add_special_tokens([AddedToken(one) for one in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(call, normalized=False) for call in calls])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=qwen3_chat_template,
        model_max_length=CONTEXT,
        padding_side="left",
    )


def tiny_model(*environments: type) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast, dict[str, Any]]:
    """The model, its tokenizer, and how it is to generate: calls, and an end of the turn, and no other words."""
    calls = [call for environment in environments for call in calls_of(environment)]
    tokenizer = tokenizer_with(calls)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=CONTEXT,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    wanted = {tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(calls)}
    return model, tokenizer, {"suppress_tokens": [one for one in range(len(tokenizer)) if one not in wanted]}
