#!/usr/bin/env python3
"""Does PEFT read our tabs as we do, and we PEFT's? Both score the same targets in f32; the loss of every one of them must agree within 1e-3 nats, their
mean within 1e-4.

  peft_check.py MODEL.gguf HF_DIR TEXT --trimtab build/trimtab [--tab FOLDER …] [-c 128] [--chunks 4] [--theirs]

HF_DIR holds the same weights dequantized to f32 (trimtab convert MODEL.gguf HF_DIR --outtype f32). FOLDER is a tab written by `trimtab tune`; without
any, untrained ones of each kind are written first. --theirs: tabs made and saved by PEFT are read by us too. JSON on stdout, exit code 1 when a
difference is too large. Needs torch, transformers and peft in the environment.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

MOST, MEAN = 1e-3, 1e-4
KINDS = {"prompt": "prompt(tokens=16,steps=0)", "prefix": "prefix(tokens=16,steps=0)", "lora": "lora(r=4,steps=0)"}
THEIRS = {"prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=12), "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=12),
          "lora": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, init_lora_weights=False, target_modules=["q_proj", "k_proj", "down_proj"])}


def windows(a):
    tokenizer = AutoTokenizer.from_pretrained(a.hf)
    with open(a.text, encoding="utf-8", newline="") as f:
        ids = torch.tensor(tokenizer(f.read(), add_special_tokens=False)["input_ids"])
    return ids[: a.c * a.chunks].view(a.chunks, a.c)


@torch.no_grad()
def peft_losses(model, batch):
    """Rows c/2 … c-2 of each window; virtual tokens come in front and are not counted."""
    out, c = [], batch.shape[1]
    for y in batch:
        logits = model(input_ids=y[None], attention_mask=torch.ones(1, c, dtype=torch.long)).logits[0, -c:]
        out.append(torch.nn.functional.cross_entropy(logits[c // 2 : c - 1].float(), y[c // 2 + 1 :], reduction="none"))
    return torch.cat(out).double().numpy()


def our_losses(a, tab):
    """The same targets: llama.cpp's."""
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "losses")
        cmd = [a.trimtab, "perplexity", "-m", a.model, "-f", a.text, "-c", str(a.c), "--chunks", str(a.chunks), "--exact", "--as-llama-cpp", "--save-losses", path]
        subprocess.run(cmd + (["--adapter", tab] if tab else []), stdout=subprocess.DEVNULL, check=True)
        entry = np.dtype([("doc", "<u4"), ("token", "<i4"), ("position", "<u4"), ("loss", "<f4")])
        return np.fromfile(path, dtype=entry, offset=216)["loss"].astype(np.float64)


def untrained(a, kind, folder):
    subprocess.run([a.trimtab, "tune", "-m", a.model, "--method", KINDS[kind], "--data", a.text, "-o", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def dense(a):
    return AutoModelForCausalLM.from_pretrained(a.hf, dtype=torch.float32).eval()


def compare(x, y):
    d = np.abs(x - y)
    return {"targets": len(x), "trimtab": x.mean(), "peft": y.mean(), "mean_difference": x.mean() - y.mean(), "largest_difference": d.max()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "hf", "text"):
        p.add_argument(name)
    p.add_argument("--trimtab", default="build/trimtab")
    p.add_argument("--tab", action="append", default=[])
    p.add_argument("--theirs", action="store_true")
    p.add_argument("-c", type=int, default=128)
    p.add_argument("--chunks", type=int, default=4)
    a = p.parse_args()
    batch = windows(a)
    rows = {"no tab": compare(our_losses(a, None), peft_losses(dense(a), batch))}
    with tempfile.TemporaryDirectory() as tmp:
        for tab in a.tab or [untrained(a, kind, os.path.join(tmp, kind)) for kind in KINDS]:
            rows["ours: " + os.path.basename(tab)] = compare(our_losses(a, tab), peft_losses(PeftModel.from_pretrained(dense(a), tab).eval(), batch))
        for kind, config in THEIRS.items() if a.theirs else ():
            torch.manual_seed(1)
            model, folder = get_peft_model(dense(a), config).eval(), os.path.join(tmp, "their_" + kind)
            model.save_pretrained(folder)
            rows["PEFT's: " + kind] = compare(our_losses(a, folder), peft_losses(model, batch))
    print(json.dumps(rows, indent=2))
    sys.exit(any(r["largest_difference"] > MOST or abs(r["mean_difference"]) > MEAN for r in rows.values()))


if __name__ == "__main__":
    main()
