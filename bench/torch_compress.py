#!/usr/bin/env python3
"""A plain SparseGPT and GPTQ with PyTorch, for comparison: f32, calibration layer by layer, one Hessian per distinct input, blocks of 128 columns
as in the papers' code, symmetric codes in groups of 64. Time of calibration and compression, and peak memory, as JSON.
Needs torch and transformers.   torch_compress.py HF_DIR TEXT [--sparsity 0.5] [--bits 4] [--samples 64] [--length 512]
--sparsity 0 is GPTQ, --bits 0 is SparseGPT without rounding, both together the joint option.
"""
import argparse
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model")
p.add_argument("text")
p.add_argument("--sparsity", type=float, default=0.5)
p.add_argument("--layers", type=int, default=0, help="stop after so many layers (0: all)")
for flag, default in (("--bits", 4), ("--group", 64), ("--block", 128), ("--samples", 64), ("--length", 512), ("--batch", 4)):
    p.add_argument(flag, type=int, default=default)
a = p.parse_args()
INPUTS = {"qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "o": ("self_attn.o_proj",), "gate_up": ("mlp.gate_proj", "mlp.up_proj"), "down": ("mlp.down_proj",)}


def factor(H):
    """Upper U with H^-1 = U^T U, the Hessian damped by a hundredth of its mean diagonal."""
    H = H + 0.01 * H.diagonal().mean() * torch.eye(H.shape[0])
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)


def rounded(w, scale):
    return torch.clamp(torch.round(w / scale), -(2 ** (a.bits - 1)), 2 ** (a.bits - 1) - 1) * scale


def compress(W, U):
    """W [rows, columns] in place, a column at a time; the columns of a block first, then one product for the rest."""
    for i1 in range(0, W.shape[1], a.block):
        i2 = min(i1 + a.block, W.shape[1])
        w, u, errors = W[:, i1:i2].clone(), U[i1:i2, i1:i2], torch.zeros(W.shape[0], i2 - i1)
        mask = torch.zeros_like(w, dtype=torch.bool)
        if a.sparsity:
            score = w**2 / u.diagonal() ** 2
            mask = score <= score.flatten().kthvalue(int(score.numel() * a.sparsity)).values
        for c in range(i2 - i1):
            if a.bits and c % a.group == 0:
                scale = (w[:, c : c + a.group] * ~mask[:, c : c + a.group]).abs().amax(1, keepdim=True).clamp_min(1e-10) / (2 ** (a.bits - 1) - 1)
            q = w[:, c].masked_fill(mask[:, c], 0)
            if a.bits:
                q = rounded(q, scale[:, 0])
            e = (w[:, c] - q) / u[c, c]
            w[:, c:] -= e[:, None] * u[c, c:]
            w[:, c], errors[:, c] = q, e
        W[:, i1:i2] = w
        W[:, i2:] -= errors @ U[i1:i2, i2:]


def collector(H):
    def hook(_, inputs):
        x = inputs[0].reshape(-1, H.shape[0])
        H.addmm_(x.T, x, alpha=2 / (a.samples * a.length))

    return hook


@torch.no_grad()
def main():
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    with open(a.text, encoding="utf-8") as f:
        ids = tokenizer(f.read(8 * a.samples * a.length), add_special_tokens=False)["input_ids"]
    start = time.perf_counter()
    batches = torch.tensor(ids[: a.samples * a.length]).view(-1, a.batch, a.length)
    position = torch.arange(a.length)[None]
    hidden = [model.model.embed_tokens(b) for b in batches]
    rotary = model.model.rotary_emb(hidden[0], position)
    layers = model.model.layers[: a.layers or None]
    for layer in layers:
        sums, hooks = {}, []
        for name, modules in INPUTS.items():
            n = layer.get_submodule(modules[0]).in_features
            sums[name] = torch.zeros(n, n)
            hooks.append(layer.get_submodule(modules[0]).register_forward_pre_hook(collector(sums[name])))
        run = lambda x: layer(x, position_embeddings=rotary)
        for x in hidden:
            run(x)
        for hook in hooks:
            hook.remove()
        for name, modules in INPUTS.items():
            U = factor(sums[name])
            for m in modules:
                compress(layer.get_submodule(m).weight.data, U)
        for i, x in enumerate(hidden):
            y = run(x)
            hidden[i] = y[0] if isinstance(y, tuple) else y
    print(json.dumps({"seconds": time.perf_counter() - start, "layers": len(layers), "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                      "threads": torch.get_num_threads(), "torch": torch.__version__}))


main()
