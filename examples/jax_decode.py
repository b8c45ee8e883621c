"""A decode loop in JAX: one `lax.scan` over donated paged caches that lie by head on 8 devices.

The model is the first layer of SmolLM2 between its embedding and its head: real weights, odd text.
transformers decodes the same in torch, where `bridges` stores its keys and values. Tokens must be
equal at each step, outputs and caches within `TOLERANCE`, as sums are taken in other orders; caches
that both stores make of the same states, bit for bit.
"""

from __future__ import annotations

import functools
import os
from typing import Any

DEVICES = 8
# JAX reads this once, when it starts.
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from transformers import DynamicCache

import bridges
import functional_paged as fp

PROMPTS = ("What is the capital of France?", "Write a fable about a robot that learns to paint.")
STEPS, BLOCK_SIZE, SPARE_BLOCKS, TOLERANCE = 32, 16, 3, 1e-4


def weights_of(model: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The weights of attention by kv head, and the others.

    Eight devices do not share out three kv heads. Heads of zeros make up for it: their queries,
    keys and values are zeros, and so is what they add to the output.
    """
    weights = {name.split(".")[-2]: x for name, x in model.model.layers[0].state_dict().items()}
    weights |= {"norm": model.model.norm.weight, "head": model.lm_head.weight}
    weights |= {"embed": model.model.embed_tokens.weight}
    heads = {name: weights.pop(f"{name}_proj") for name in "qkvo"}
    heads["o"] = heads["o"].T
    shape = model.config.num_key_value_heads, -1, model.config.head_dim, model.config.hidden_size
    heads = {name: weight.reshape(shape).numpy() for name, weight in heads.items()}
    added = (0, DEVICES - shape[0]), (0, 0), (0, 0), (0, 0)
    heads = {name: np.pad(weight, added) for name, weight in heads.items()}
    return heads, {name: weight.numpy() for name, weight in weights.items()}


@functools.partial(fp.jit, donate_argnums=0, static_argnames="epsilon")
def decode(caches, heads, weights, table, angles, prompts, lengths, *, epsilon):
    """Feed each row its prompt, then what it chose; the caches, each step's outputs and choices."""
    batch, positions = len(table), table.shape[1] * BLOCK_SIZE
    whole = fp.BlockTable(table, jnp.zeros(batch, jnp.int32), jnp.arange(batch + 1) * positions)

    def norm(x, name):
        return weights[name] * x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + epsilon)

    def rotated(x, cos, sin):
        first, second = jnp.split(x, 2, axis=-1)
        return x * cos + jnp.concatenate([-second, first], axis=-1) * sin

    def step(carry, given):
        (caches, tokens), (position, angle, prompt) = carry, given
        x = weights["embed"][tokens]
        h = norm(x, "input_layernorm")
        q, k, v = (jnp.einsum("hgdm,bm->bhgd", heads[name], h) for name in "qkv")
        new = rotated(k, *angle)[:, :, 0], v[:, :, 0]
        caches = fp.store_single(caches, new, fp.BlockTable(table, jnp.full(batch, position)))
        stored = jnp.arange(positions) <= position
        keys, values = (
            jnp.where(stored[:, None, None], rows.reshape(batch, positions, *rows.shape[1:]), 0)
            for rows in fp.load_single(caches, whole, batch * positions)
        )
        scores = jnp.einsum("bhgd,bphd->bhgp", rotated(q, *angle), keys) * q.shape[-1] ** -0.5
        shares = jax.nn.softmax(jnp.where(stored, scores, -jnp.inf))
        x += jnp.einsum("bhgp,bphd,hgdm->bm", shares, values, heads["o"])
        h = norm(x, "post_attention_layernorm")
        gate, up, down = (weights[f"{name}_proj"].T for name in ("gate", "up", "down"))
        out = norm(x + (jax.nn.silu(h @ gate) * (h @ up)) @ down, "norm")
        chosen = jnp.argmax(out @ weights["head"].T, axis=-1).astype(jnp.int32)
        return (caches, jnp.where(position + 1 < lengths, prompt, chosen)), (out, chosen)

    steps = jnp.arange(len(prompts) - 1, dtype=jnp.int32), angles, prompts[1:]
    (caches, _), by_step = jax.lax.scan(step, (caches, prompts[0]), steps)
    return caches, by_step


@torch.no_grad()
def run(model: Any, prompts: list[list[int]], steps: int) -> list[list[int]]:
    """The tokens of a model of one layer; an AssertionError where JAX and torch differ."""
    config, batch, width = model.config, len(prompts), -(-steps // BLOCK_SIZE)
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    fed = np.zeros((steps + 1, batch), np.int32)
    for row, prompt in enumerate(prompts):
        fed[: len(prompt), row] = prompt[: steps + 1]
    num_blocks, kv_heads = batch * width + SPARE_BLOCKS, config.num_key_value_heads
    table = np.random.default_rng(0).permutation(num_blocks)[SPARE_BLOCKS:]
    table = table.reshape(batch, width).astype(np.int32)

    spread = functools.partial(NamedSharding, Mesh(np.array(jax.devices()[:DEVICES]), ("heads",)))
    by_head = spread(PartitionSpec(None, "heads"))
    poison = np.full((num_blocks, DEVICES, BLOCK_SIZE, config.head_dim), np.nan, np.float32)
    given, mirror = (tuple(jax.device_put(poison.copy(), by_head) for _ in "kv") for _ in "12")
    paged = tuple(torch.from_numpy(poison[:, :kv_heads].copy()) for _ in "kv")
    heads, weights = weights_of(model)
    angles = model.model.rotary_emb(torch.zeros(1), torch.arange(steps)[None])
    others = weights, table, tuple(part[0].numpy() for part in angles), fed, lengths
    others = jax.device_put(others, spread(PartitionSpec()))
    heads = jax.device_put(heads, spread(PartitionSpec("heads")))
    caches, by_step = decode(given, heads, *others, epsilon=config.rms_norm_eps)
    assert all(cache.is_deleted() for cache in given)
    assert all(cache.sharding.is_equivalent_to(by_head, 4) for cache in caches)

    own, added = DynamicCache(config=config), ((0, 0), (0, DEVICES - kv_heads), (0, 0))
    for position, (output, token) in enumerate(zip(*map(np.asarray, by_step), strict=True)):
        now = torch.from_numpy(fed[position])[:, None]
        hidden = model.model(input_ids=now, past_key_values=own).last_hidden_state[:, -1]
        chosen = model.lm_head(hidden).argmax(-1).numpy()
        np.testing.assert_allclose(output, hidden, 0, TOLERANCE, err_msg=f"output {position}")
        np.testing.assert_array_equal(token, chosen, f"tokens of step {position}")
        fed[position + 1] = np.where(position + 1 < lengths, fed[position + 1], chosen)
        layer: Any = own.layers[0]
        states = layer.keys[:, :, -1], layer.values[:, :, -1]
        spec = fp.BlockTable(table, np.full(batch, position, np.int32))
        bridges.store_single_(paged, states, spec.map(torch.from_numpy))
        wide = tuple(np.pad(rows.numpy(), added) for rows in states)
        mirror = fp.store_single_donated(mirror, wide, spec)
    for scanned, copy, want in zip(caches, mirror, map(np.asarray, paged), strict=True):
        scanned, copy = (np.asarray(cache)[:, :kv_heads] for cache in (scanned, copy))
        np.testing.assert_allclose(scanned, want, 0, TOLERANCE, err_msg="caches")
        np.testing.assert_array_equal(copy.view(np.int32), want.view(np.int32), "bits of caches")
    return fed.T.tolist()


if __name__ == "__main__":
    from smollm2 import load_model

    model, tokenizer = load_model("float32")
    model.config.num_hidden_layers, model.model.layers = 1, model.model.layers[:1]
    rows = run(model, [tokenizer(prompt)["input_ids"] for prompt in PROMPTS], STEPS)
    print(*map(repr, tokenizer.batch_decode(rows)), sep="\n")
    print(f"{STEPS} steps of {len(rows)} rows in one scan, caches by head on {DEVICES} devices.")
    print(f"Tokens equal torch's; outputs and caches, within {TOLERANCE}.")
    print("Caches that JAX and torch made of the same states are equal bit for bit.")
