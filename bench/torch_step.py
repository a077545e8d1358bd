#!/usr/bin/env python3
"""A soft-prompt step with PyTorch and PEFT, for comparison: f32, SDPA, batch B x (K + T). Time and peak memory as JSON.
Needs torch, transformers and peft in the environment.   torch_step.py HF_DIR TEXT [-b 4 -t 256 -k 20 -r 5 --threads N]
"""
import argparse
import json
import resource
import statistics
import time

import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model")
p.add_argument("text")
for flag, default in (("-b", 4), ("-t", 256), ("-k", 20), ("-r", 5), ("--threads", 0)):
    p.add_argument(flag, type=int, default=default)
a = p.parse_args()
if a.threads:
    torch.set_num_threads(a.threads)
tokenizer = AutoTokenizer.from_pretrained(a.model)
base = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32, attn_implementation="sdpa")
model = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=a.k)).train()
adam = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=8e-3)
with open(a.text, encoding="utf-8") as f:
    ids = tokenizer(f.read(4 * 6 * a.b * a.t * (a.r + 1)), add_special_tokens=False)["input_ids"]
windows = torch.tensor(ids[: a.b * a.t * (a.r + 1)]).view(a.r + 1, a.b, a.t)
seconds = []
for batch in windows:                      # the first one is the warm-up
    start = time.perf_counter()
    model(input_ids=batch, attention_mask=torch.ones_like(batch), labels=batch).loss.backward()
    adam.step()
    adam.zero_grad()
    seconds.append(time.perf_counter() - start)
print(json.dumps({"median_s": statistics.median(seconds[1:]), "seconds": seconds[1:], "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  "threads": torch.get_num_threads(), "torch": torch.__version__}))
