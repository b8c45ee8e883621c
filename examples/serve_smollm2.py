"""SmolLM2 answers a dozen questions as a server does, from one small paged KV cache.

Requests come and go between forward passes (continuous batching). One that begins like another that
is running shares its blocks. When the blocks run out, the request that came last is preempted: it
gives back its blocks, and begins again later with what it has written so far. In the end each text
must be what the model writes for that prompt alone, with transformers' own cache.

    python examples/serve_smollm2.py
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import torch
from smollm2 import load_model

from bridges.blocks import OutOfBlocks, Row
from bridges.transformers import PagedCache

MAX_BATCH = 6
TOPICS = ("rain", "bees", "time", "salt", "snow", "maps", "ice", "fog", "art", "zoos", "sun", "sea")


@dataclass
class Request:
    """What was asked, what is written so far, and the row of the cache while it is running."""

    name: str
    prompt: list[int]
    written: list[int] = field(default_factory=list)
    row: Row = field(default_factory=Row)


def serve(
    model: Any, cache: PagedCache, requests: list[Request], max_new_tokens: int, eos: int
) -> Counter:
    """Answer all requests; return how often each thing happened."""
    blocks, waiting, running, happened = cache.allocator, deque(requests), [], Counter()

    def tell(what: str, request: Request, detail: str) -> None:
        happened[what] += 1
        print(f"pass {happened['passes']:2}: {request.name} {what}, {detail}")

    while waiting or running:
        if waiting and len(running) < MAX_BATCH:  # one a pass, so that the next finds its blocks
            request = waiting.popleft()
            request.row = blocks.add(request.prompt + request.written)
            running.append(request)
            happened["shared"] += len(request.row.blocks)
            tell("admitted", request, f"{len(request.row.blocks)} blocks are shared")
        while True:
            # A prompt, or the one token after it: whatever the cache does not have yet.
            tokens = {r.row: (r.prompt + r.written)[r.row.length :] for r in running}
            try:
                inputs = cache.step(tokens)
                break
            except OutOfBlocks as error:
                if len(running) == 1:
                    raise
                request = running.pop()
                blocks.release(request.row)
                waiting.appendleft(request)
                tell("preempted", request, str(error))
        with torch.no_grad():
            logits = model(**inputs, past_key_values=cache).logits[:, -1]
        happened["passes"] += 1
        for request, token in zip(tuple(running), logits.argmax(dim=-1).tolist(), strict=True):
            request.written.append(token)
            if token == eos or len(request.written) == max_new_tokens:
                running.remove(request)
                blocks.release(request.row)
                tell("finished", request, f"{len(request.written)} tokens are written")
    return happened


def run(
    model: Any, tokenizer: Any, *, num_blocks: int, block_size: int, max_new_tokens: int
) -> tuple[Counter, list[Request]]:
    """Explain `TOPICS`, and compare each text with the model's own for that prompt alone."""
    requests = []
    for topic in TOPICS:
        chat = [{"role": "user", "content": f"Explain {topic} to a child."}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
        requests.append(Request(topic, list(prompt["input_ids"])))
    cache = PagedCache(model.config, num_blocks=num_blocks, block_size=block_size)
    happened = serve(model, cache, requests, max_new_tokens, tokenizer.eos_token_id)
    assert len(cache.allocator.free) == num_blocks
    for request in requests:
        inputs, prompt_len = torch.tensor([request.prompt]), len(request.prompt)
        alone = model.generate(inputs, do_sample=False, max_new_tokens=max_new_tokens)
        assert request.written == alone[0, prompt_len:].tolist(), request.name
    return happened, requests


def main() -> None:
    """Run the example."""
    # A batch of another size rounds otherwise; in float64 that is far less than tokens are apart.
    model, tokenizer = load_model("float64")
    happened, requests = run(model, tokenizer, num_blocks=28, block_size=8, max_new_tokens=24)
    for request in requests:
        print(f"> {request.name}\n{tokenizer.decode(request.written, True).strip()}\n")
    print(*(f"{what} {count}" for what, count in happened.items()), sep=", ")
    print("Each text is what the model writes for its prompt alone.")


if __name__ == "__main__":
    main()
