#!/usr/bin/env python3
"""Does PEFT read our tabs as we do, and we PEFT's? Both score the same targets in f32; the mean losses must agree within 1e-3 nats per token.

  peft_check.py MODEL.gguf HF_DIR TEXT --trimtab build/trimtab [--tab FOLDER] [-c 256] [--chunks 4]

HF_DIR holds the same weights dequantized to f32 (trimtab convert MODEL.gguf HF_DIR --outtype f32). FOLDER is a tab written by `trimtab tune`; without
it an untrained one is written first. A second tab is made and saved by PEFT. JSON on stdout, exit code 1 when a difference is too large.
Needs torch, transformers and peft in the environment.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

LIMIT = 1e-3


def windows(a):
    tokenizer = AutoTokenizer.from_pretrained(a.hf)
    with open(a.text, encoding="utf-8", newline="") as f:
        ids = torch.tensor(tokenizer(f.read(), add_special_tokens=False)["input_ids"])
    return ids[: a.c * a.chunks].view(a.chunks, a.c)


@torch.no_grad()
def peft_nll(model, batch):
    """Mean over rows c/2 … c-2 of each window; the virtual tokens come in front and are not counted."""
    total, n, c = 0.0, 0, batch.shape[1]
    for y in batch:
        logits = model(input_ids=y[None], attention_mask=torch.ones(1, c, dtype=torch.long)).logits[0, -c:]
        loss = torch.nn.functional.cross_entropy(logits[c // 2 : c - 1].float(), y[c // 2 + 1 :], reduction="none").double()
        total, n = total + loss.sum().item(), n + len(loss)
    return total / n


def our_nll(a, tab):
    cmd = [a.trimtab, "perplexity", "-m", a.model, "-f", a.text, "-c", str(a.c), "--chunks", str(a.chunks), "--exact", "--json"] + (["--adapter", tab] if tab else [])
    return json.loads(subprocess.run(cmd, stdout=subprocess.PIPE, check=True).stdout)["nll"]


def untrained(a, folder):
    subprocess.run([a.trimtab, "tune", "-m", a.model, "--method", "prompt(tokens=16,steps=0)", "--data", a.text, "-o", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "hf", "text"):
        p.add_argument(name)
    p.add_argument("--trimtab", default="build/trimtab")
    p.add_argument("--tab")
    p.add_argument("-c", type=int, default=256)
    p.add_argument("--chunks", type=int, default=4)
    a = p.parse_args()
    batch = windows(a)
    rows = {}
    with tempfile.TemporaryDirectory() as tmp:
        ours = a.tab or untrained(a, os.path.join(tmp, "ours"))
        base = AutoModelForCausalLM.from_pretrained(a.hf, dtype=torch.float32).eval()
        rows["no tab"] = (our_nll(a, None), peft_nll(base, batch))
        rows["our tab"] = (our_nll(a, ours), peft_nll(PeftModel.from_pretrained(base, ours).eval(), batch))
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(a.hf, dtype=torch.float32).eval()
        theirs = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=12)).eval()
        theirs.save_pretrained(os.path.join(tmp, "theirs"))
        rows["PEFT's tab"] = (our_nll(a, os.path.join(tmp, "theirs")), peft_nll(theirs, batch))
    out = {name: {"trimtab": x, "peft": y, "difference": x - y} for name, (x, y) in rows.items()}
    print(json.dumps(out, indent=2))
    sys.exit(any(abs(r["difference"]) > LIMIT for r in out.values()))


if __name__ == "__main__":
    main()
