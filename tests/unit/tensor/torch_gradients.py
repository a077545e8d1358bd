"""Gradients of every case of test_gradients.c by PyTorch's autograd in f64. Called by that test; exit 77: PyTorch is not installed."""
import json, sys
try:
    import torch
except ImportError:
    sys.exit(77)

case = json.load(open(sys.argv[1]))
P, S, T, H, HKV, D = (case["shape"][k] for k in ("P", "S", "T", "H", "Hkv", "D"))
f64 = dict(dtype=torch.float64)
INV = torch.tensor(case["inv_freq"], **f64)
POS = torch.tensor([*range(P)] + S * [*range(P, P + T)], **f64)
W = [torch.tensor(w, **f64) for w in case["weights"]]
GAIN = [torch.tensor(g, **f64) for g in case["gains"]]


def norm(x, g):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * GAIN[g][: x.shape[1]]


def rope(x, adjacent):
    angle = (POS[:, None] * INV)[:, None, :]
    c, s = torch.cos(angle), torch.sin(angle)
    x = x.view(len(x), H, D)
    a, b = (x[..., 0::2], x[..., 1::2]) if adjacent else (x[..., : D // 2], x[..., D // 2 :])
    pair = a * c - b * s, b * c + a * s
    return (torch.stack(pair, -1) if adjacent else torch.cat(pair, -1)).reshape(len(x), H * D)


def attention(q, k, v):
    out = []
    for s in [-1, *range(S)]:                      # the prefix by itself, then each sequence behind it
        rows = list(range(P)) + ([] if s < 0 else list(range(P + s * T, P + (s + 1) * T)))
        heads = lambda m, n: m[rows].view(len(rows), n, D).transpose(0, 1).repeat_interleave(H // n, 0)
        score = 0.35 * heads(q, H) @ heads(k, HKV).transpose(1, 2)
        score = score.masked_fill(torch.ones_like(score, dtype=torch.bool).triu(1), -torch.inf)
        y = (score.softmax(-1) @ heads(v, HKV)).transpose(0, 1).reshape(len(rows), H * D)
        out.append(y if s < 0 else y[P:])
    return torch.cat(out)


OPS = {
    ("rmsnorm", "plain"): lambda x: norm(x, 0),
    ("rmsnorm", "odd width"): lambda x: norm(x, 0),
    ("rmsnorm", "beside a residual"): lambda x: x + norm(x, 1),
    ("prep", "shared by two operators"): lambda x: x @ W[0].T + x @ W[1].T,
    ("linear", "Q8_0"): lambda x: x @ W[1].T,
    ("linear", "fewer outputs"): lambda x: x @ W[2].T,
    ("rope", "halves"): lambda x: rope(x, False),
    ("rope", "neighbours"): lambda x: rope(x, True),
    ("attention", "grouped heads, prefix rows"): attention,
    ("silu_mul", "plain"): lambda a, b: torch.nn.functional.silu(a) * b,
    ("add", "two inputs"): lambda a, b: a + b,
    ("add", "one input twice"): lambda a: a + a,
    ("copy", "plain"): lambda a: a.clone(),
}

bad = 0
for c in case["cases"]:
    x = [torch.tensor(v, **f64).view(P + S * T, -1).requires_grad_() for v in c["x"]]
    y = OPS[c["op"], c["what"]](*x)
    (y * torch.tensor(c["w"], **f64).view_as(y)).sum().backward()
    want, got = x[c["wrt"]].grad, torch.tensor(c["dx"], **f64).view_as(x[c["wrt"]])
    error = ((got - want).abs().max() / want.abs().max()).item()
    if not error < 1e-5:
        bad += 1
        print(f"{c['op']} ({c['what']}), input {c['wrt']}: relative error {error:.3g}")
sys.exit(1 if bad else 0)
