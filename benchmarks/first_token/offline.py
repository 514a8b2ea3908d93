"""vLLM without a server: CHECKPOINT PROMPTS RANKS. Prints a line of JSON: when the first token had
come, in seconds of the system's clock, and all tokens. By vLLM's interpreter.
"""

from __future__ import annotations

import json
import sys
import time


def main(checkpoint: str, prompts_path: str, ranks: str, tokens: str) -> None:
    from vllm import LLM, SamplingParams

    with open(prompts_path) as file:
        prompts = json.load(file)
    llm = LLM(
        checkpoint,
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=8,
        tensor_parallel_size=int(ranks),
    )
    llm.generate(prompts[:1], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    first_at = time.time()
    answers = llm.generate(
        prompts, SamplingParams(temperature=0, max_tokens=int(tokens), ignore_eos=True)
    )
    found = [list(answer.outputs[0].token_ids) for answer in answers]
    print("FOUND " + json.dumps({"first_at": first_at, "tokens": found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
