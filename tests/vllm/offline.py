"""The yardstick: vLLM's own offline loop over the bodies of requests, tokens per second. Runs in its environment.

    .venv-vllm/bin/python tests/vllm/offline.py MODEL BODIES.json '{"max_model_len": 8192, ...}'

After loading and a first warm-up batch, which are not counted, it prints "ready"; then for every line "FIRST LAST" on
standard input it does those prompts (vLLM remembers what it has seen, so each is asked once) and prints one line of
JSON: prompts, tokens in and out, seconds. So a round of it can be paired with a round of what it is compared with.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

WARM_UP = 4  # requests that are not counted


def main(model: str, bodies_path: str, options: str) -> None:
    from vllm import LLM, SamplingParams

    bodies = json.loads(Path(bodies_path).read_text())
    llm = LLM(model=model, media_io_kwargs={"video": {"num_frames": -1}}, **json.loads(options))
    messages = [body["messages"] for body in bodies]
    sampling = [
        SamplingParams(
            max_tokens=body["max_tokens"], temperature=body["temperature"], top_p=body["top_p"], seed=body["seed"]
        )
        for body in bodies
    ]
    llm.chat(messages[:WARM_UP], sampling[:WARM_UP], use_tqdm=False)
    print("ready", flush=True)
    for line in sys.stdin:
        part = slice(*map(int, line.split()))
        began = time.monotonic()
        answers = llm.chat(messages[part], sampling[part], use_tqdm=False)
        seconds = time.monotonic() - began
        told = {
            "prompts": len(answers),
            "tokens_in": sum(len(answer.prompt_token_ids) for answer in answers),
            "tokens_out": sum(len(answer.outputs[0].token_ids) for answer in answers),
            "seconds": seconds,
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
