"""What a killed, starved or misled run leaves behind.

    campaign.py TRIMTAB SCRATCH CORPUS SCALE [PART…]

SCRATCH/files holds what make_tiny.c writes; SCALE 1 is what `make check` runs. Parts:

    kills    a signal at a uniformly drawn moment; the same command again ends with the bytes of an undisturbed run
    points   SIGKILL at the k-th write, fsync, rename, open; the same
    faults   the k-th call of a kind fails, once or from then on: a documented exit code, one line, old or new file, nothing beside it
    disk     a full file system, a limit on the size of files
    files    damaged models, tokenizers, adapters, recipes, texts, states

Moments and places are drawn with a fixed seed, so that a failure can be had again. Each case is one line; the last line adds up.
"""
import concurrent.futures, hashlib, itertools, json, os, random, resource, shutil, signal, struct, subprocess, sys, threading, time

TRIMTAB, SCRATCH, CORPUS, SCALE = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
FILES = os.path.join(SCRATCH, "files")
TINY, TEXT, OTHER, LONG = (os.path.join(FILES, n) for n in ("tiny.gguf", "text.txt", "other.txt", "long.txt"))
SMALL, HF, TAB, OLD_TAB = (os.path.join(FILES, n) for n in ("small.gguf", "hf", "tab", "old_tab"))
WORKERS = max(1, min(4, len(os.sched_getaffinity(0))))
DOCUMENTED = {0, 1, 2, 3, 4, 5, 6, 7, 130, 143}
JOINT = "sparsegpt(sparsity=0.5,bits=4)"
PROMPT = "prompt(tokens=8,steps=%d,batch=2,length=64,valid_every=10)"
COMMON = ["-t", "1", "--deterministic", "-q"]

counts = {"passed": 0, "failed": 0, "skipped": 0}
lock = threading.Lock()
serial = itertools.count()
runs = 0


# ---------------------------------------------------------------- running and looking ----

class Result:
    def __init__(self, code, out, err): self.code, self.out, self.err = code, out, err
    def lines(self): return self.err.decode("utf-8", "replace").splitlines()


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TRIMTAB_", "TT_", "HF_"))}
    env.update(LC_ALL="C.UTF-8", HF_HUB_OFFLINE="1")
    env.update(XDG_CONFIG_HOME=os.path.join(SCRATCH, "config"), TRIMTAB_CACHE=os.path.join(SCRATCH, "cache"))
    env.update(more)
    return env


def run(args, cwd, before=None, limit=60, **env):
    global runs
    with lock: runs += 1
    try:
        p = subprocess.run([TRIMTAB, *args], cwd=cwd, env=environment(**env), stdin=subprocess.DEVNULL, capture_output=True, timeout=limit,
                           preexec_fn=before)
        return Result(p.returncode, p.stdout, p.stderr)
    except subprocess.TimeoutExpired:
        return Result("hangs", b"", b"")


def bytes_of(path):
    """None, or a hash of a file, or of a folder's names and files."""
    if not os.path.exists(path): return None
    if os.path.isfile(path): return hashlib.sha256(open(path, "rb").read()).hexdigest()
    return tuple(sorted((n, bytes_of(os.path.join(path, n))) for n in os.listdir(path)))


def left_over(folder, allowed):
    """What lies in a folder that should not: anything not allowed, and temporaries within the allowed folders."""
    found = [n for n in os.listdir(folder) if n not in allowed]
    for name in allowed:
        for at, _, names in os.walk(os.path.join(folder, name)):
            found += [os.path.join(at, n) for n in names if n.endswith(".tmp")]
    return found


def fresh(name):
    folder = os.path.join(SCRATCH, "work", name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def one_line(verb, r):
    """Why the error of a failed run is not what it should be, or None."""
    lines = r.lines()
    if r.code not in DOCUMENTED: return f"exit {r.code}: {r.err[-300:]!r}"
    if len(lines) != 1 or not lines[0].startswith(f"trimtab {verb}: "): return f"exit {r.code}, standard error is {lines!r}"
    return None


def case(name, problems, detail=""):
    problems = [p for p in problems if p]
    with lock: counts["failed" if problems else "passed"] += 1
    print(f"{'FAILED' if problems else 'ok    '}  {name}{': ' + detail if detail else ''}")
    for p in problems[:8]: print(f"    failed: {p}")
    if len(problems) > 8: print(f"    and {len(problems) - 8} more")
    sys.stdout.flush()


def skip(name, why):
    counts["skipped"] += 1
    print(f"skipped {name}: {why}")


def in_parallel(work, items):
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool: return list(pool.map(work, items))


# ---------------------------------------------------------------- kills ----

def self_args(samples):
    return ["compress", TINY, "out", "--recipe", JOINT, "--samples", str(samples), "--length", "64", "--json", *COMMON]
def compress_args(samples, text=TEXT):
    return ["compress", TINY, "out", "--recipe", JOINT, "--data", text, "--samples", str(samples), "--length", "128", "--json", *COMMON]
def tune_args(steps):
    return ["tune", SMALL, "out", "--teacher", TINY, "--data", TEXT, "--method", PROMPT % steps, "--json", *COMMON]


def undisturbed(args, name, **env):
    folder = fresh(name)
    start = time.monotonic()
    r = run(args, folder, **env)
    seconds = time.monotonic() - start
    if r.code != 0 or left_over(folder, ["out"]):
        sys.exit(f"an undisturbed run fails: {args}: {r.code} {r.err!r} {os.listdir(folder)}")
    return bytes_of(os.path.join(folder, "out")), seconds


went_on = []                                                # whether runs after a kill began in the middle


def go_on(args, folder, wanted, **env):
    """Repeats the command; why the end is not that of an undisturbed run, or None. A run that was killed behind its last action is done."""
    if not os.path.exists(os.path.join(folder, "out")) or any(os.path.exists(os.path.join(folder, n)) for n in ("out.state", "out.state.lock")):
        r = run(args, folder, **env)
        stands = os.path.exists(os.path.join(folder, "out")) and r.code == 2 and b"output exists" in r.err   # killed at its last act
        if not stands and (r.code != 0 or r.err): return f"the same command again: exit {r.code} {r.err[-300:]!r}, {os.listdir(folder)}"
        if not stands: went_on.append(json.loads(r.out)["resumed"])
    if bytes_of(os.path.join(folder, "out")) != wanted: return "other bytes than an undisturbed run"
    more = left_over(folder, ["out"])
    return f"left: {more}" if more else None


def strike(args, folder, after, sig, **env):
    """Starts the command and sends a signal: (code, standard error)."""
    global runs
    with lock: runs += 1
    p = subprocess.Popen([TRIMTAB, *args], cwd=folder, env=environment(**env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    time.sleep(after)
    p.send_signal(sig)
    err = p.communicate(timeout=60)[1]
    return p.returncode, err


def struck_badly(verb, sig, code, err):
    """SIGTERM and SIGINT before main has begun end the process as the system does; before the work has begun, without a word."""
    if code == 0 or code == -sig: return None
    if sig == signal.SIGKILL: return f"exit {code} after SIGKILL"
    if code != 128 + sig: return f"exit {code} after {sig.name}: {err[-300:]!r}"
    text = err.decode()
    fits = text.startswith(f"trimtab {verb}: ") and text.count("\n") == 1 and "repeat the command to go on" in text
    return f"says {text!r}" if text and not fits else None


def kill_campaign(name, make, size):
    """The work is doubled until a run is long enough to be hit."""
    args, env, rng = make(size), {"TT_SAVE_SECONDS": "0.02"}, random.Random(name)
    verb = args[0]
    wanted, seconds = undisturbed(args, f"kills-{name}", **env)
    while seconds < 0.25 and size < 20000:
        size *= 2
        args = make(size)
        wanted, seconds = undisturbed(args, f"kills-{name}", **env)
    went_on.clear()
    signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT]
    jobs = [(i, [rng.uniform(0, seconds)] + [rng.uniform(0, 0.03)] * (i % 3 == 0), signals[i % 5]) for i in range(int(40 * SCALE))]
    inside = []

    def one(job):
        i, moments, sig = job
        folder, problems = fresh(f"kills-{name}-{i}"), []
        for moment in moments:                              # every third run is struck again as it goes on
            if os.path.exists(os.path.join(folder, "out")): break
            code, err = strike(args, folder, moment, sig, **env)
            if code != 0: inside.append(i)
            problems.append(struck_badly(verb, sig, code, err))
        problems.append(go_on(args, folder, wanted, **env))
        shutil.rmtree(folder)
        return [f"{sig.name} after {', '.join('%.3f' % m for m in moments)} s: {p}" for p in problems if p]

    problems = sum(in_parallel(one, jobs), [])
    if len(set(inside)) < len(jobs) // 2: problems.append(f"only {len(set(inside))} of {len(jobs)} runs were hit")
    if sum(went_on) < len(jobs) // 3: problems.append(f"only {sum(went_on)} runs went on from a state")
    case(f"kills_{name}", problems, f"{len(jobs)} runs of {seconds:.2f} s, {len(inside)} signals inside, "
         f"{sum(went_on)} of {len(went_on)} went on from a state")


def count_of(args, kind, folder, **env):
    """How many calls of a kind a run makes: the largest k at which a kill still kills."""
    def killed(k):
        for n in os.listdir(folder):
            path = os.path.join(folder, n)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        return run(args, folder, TT_FAULT=f"{kind}:{k}:kill", **env).code == -signal.SIGKILL
    low, high = 0, 1
    while killed(high): low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if killed(middle) else (low, middle)
    return low


def sample(n, first, last, drawn, rng):
    """Places 1 … n: the first, the last, some drawn."""
    if n <= first + last + drawn: return list(range(1, n + 1))
    middle = rng.sample(range(first + 1, n - last + 1), drawn)
    return list(range(1, first + 1)) + sorted(middle) + list(range(n - last + 1, n + 1))


def replaced_points(job):
    """A verb without a state, killed at a place while it replaces an older result: old or new, and the same command again makes the new one."""
    args, out = job["args"] + ["--force"], job["out"]
    folder = fresh("replaced-" + out)
    old_from = HF if out == "out" else TINY
    def prepare_old(at): (shutil.copytree if os.path.isdir(old_from) else shutil.copy)(old_from, os.path.join(at, out))
    prepare_old(folder)
    old = bytes_of(os.path.join(folder, out))
    r = run(args, folder)
    wanted, problems, hits = bytes_of(os.path.join(folder, out)), [], 0
    if r.code != 0 or left_over(folder, [out]): problems.append(f"undisturbed: exit {r.code} {r.err!r}, {os.listdir(folder)}")
    for kind in ("write", "fsync", "rename", "open"):
        for k in range(1, 40):
            folder = fresh(f"replaced-{out}-{kind}-{k}")
            prepare_old(folder)
            if run(args, folder, TT_FAULT=f"{kind}:{k}:kill").code != -signal.SIGKILL: break
            hits += 1
            if bytes_of(os.path.join(folder, out)) not in (old, wanted): problems.append(f"{kind} {k}: neither the old nor the new one")
            again = run(args, folder)
            if again.code != 0 or bytes_of(os.path.join(folder, out)) != wanted:
                problems.append(f"{kind} {k}: the same command again: exit {again.code} {again.err!r}")
            elif left_over(folder, [out]): problems.append(f"{kind} {k}: left {left_over(folder, [out])}")
            shutil.rmtree(folder)
    case(f"kill_points_{args[0]}_{'file' if '.' in out else 'folder'}", problems, f"{hits} places")


def kill_points(verb, args):
    rng, env = random.Random(verb), {"TT_SAVE_SECONDS": "0"}
    wanted, _ = undisturbed(args, f"points-{verb}", **env)
    def one_kind(kind):
        n = count_of(args, kind, fresh(f"points-{verb}-{kind}"), **env)
        return kind, n, sample(n, int(6 * SCALE), 9, int(9 * SCALE), rng)
    places = in_parallel(one_kind, ["write", "fsync", "rename", "open"])

    def one(job):
        kind, k = job
        folder = fresh(f"points-{verb}-{kind}-{k}")
        code = run(args, folder, TT_FAULT=f"{kind}:{k}:kill", **env).code
        problem = go_on(args, folder, wanted, **env)
        shutil.rmtree(folder)
        if code != -signal.SIGKILL: return f"{kind} {k}: exit {code}"
        return f"{kind} {k}: {problem}" if problem else None

    jobs = [(kind, k) for kind, _, ks in places for k in ks]
    case(f"kill_points_{verb}", in_parallel(one, jobs), ", ".join(f"{len(ks)} of {n} {kind}" for kind, n, ks in places))


# ---------------------------------------------------------------- faults ----

def writing(args): return {"args": args, "out": "out", "words": lambda out: None}
def printing(args, words=lambda out: out): return {"args": args, "out": None, "words": words}
def estimate(out): return [l for l in out.splitlines() if l.startswith(b"Final estimate")]

def conversions():
    """To a folder and to a file."""
    return [writing(["convert", TINY, "-o", "out", "--outtype", "f16", "-q"]),
            writing(["convert", HF, "-o", "out.gguf", "--outtype", "q8_0", "-q"]) | {"out": "out.gguf"}]


def fault_verbs():
    return [
        printing(["show", TINY, "--kv", "--tensors", "-q"]),
        printing(["tokenize", TINY, "-f", OTHER, "-q"]),
        printing(["tokenize", HF, "-p", "the small tab steers", "--json", "-q"]),
        printing(["run", SMALL, "--raw", "-p", "the tab", "-n", "4", "--temp", "0", "--adapter", TAB, "-t", "2", "-q"]),
        printing(["perplexity", SMALL, "-f", OTHER, "--adapter", TAB, "-c", "128", "--chunks", "2", "-t", "2", "-q"], estimate),
        writing(["perplexity", SMALL, "-f", OTHER, "-c", "128", "--chunks", "2", "--save-losses", "out", "-t", "1", "-q"]),
        *conversions(),
        writing(compress_args(8)), writing(["compress", TINY, "out", "Q8_0", *COMMON]),
        writing(tune_args(4)),
    ]


def look(job, r, folder, wanted, old, stuck):
    """Why what a run with a fault left is not allowed, or None. `stuck`: nothing can be removed, so temporaries stay until the next run."""
    verb, out = job["args"][0], job["out"]
    more = [n for n in left_over(folder, [out, out + ".state"] if out else []) if not (stuck and r.code != 0 and n.endswith(".tmp"))]
    if more: return f"left: {more} (exit {r.code})"
    if r.code != 0:
        if out and bytes_of(os.path.join(folder, out)) not in (old, wanted[0]): return f"exit {r.code}, neither the old nor the new file"
        return one_line(verb, r) or (None if r.code in (1, 7) else f"exit {r.code}: {r.err!r}")
    if r.err: return f"succeeds and says {r.err[-300:]!r}"
    if out and bytes_of(os.path.join(folder, out)) != wanted[0]: return "succeeds with another file"
    if job["words"](r.out) != wanted[1]: return f"succeeds with other words: {r.out[-200:]!r}"
    return None


def fault_loop(job):
    verb, out, rng = job["args"][0], job["out"], random.Random(" ".join(job["args"]))
    label = "_".join([verb] + [w for w in job["args"] if w in ("Q8_0", "--save-losses", HF)]).replace("--", "").replace(HF, "folder")
    folder = fresh(f"faults-{label}")
    r = run(job["args"], folder)
    if r.code != 0: sys.exit(f"an undisturbed run fails: {job['args']}: {r.err!r}")
    wanted = (bytes_of(os.path.join(folder, out)) if out else None, job["words"](r.out))
    kinds = ["alloc", "open", "read", "write", "fsync", "rename", "mmap", "close", "thread"]
    numbers = dict(zip(kinds, in_parallel(lambda k: count_of(job["args"], k, fresh(f"faults-{label}-{k}")), kinds)))
    old_file = out and os.path.isfile(os.path.join(folder, out))
    seen = {}

    def one(place):
        kind, k, mode = place
        here, args, old = fresh(f"faults-{label}-{kind}-{k}-{mode}"), job["args"], None
        if out and k % 2:                                   # every other run finds an older result and may replace it
            path = os.path.join(here, out)
            shutil.copy(OTHER, path) if old_file else shutil.copytree(HF if verb == "convert" else OLD_TAB, path)
            args, old = args + ["--force"] * (verb != "perplexity"), bytes_of(path)
        r = run(args, here, TT_FAULT=f"{kind}:{k}:{mode}")
        with lock: seen[r.code] = seen.get(r.code, 0) + 1
        problem = look(job, r, here, wanted, old, (kind, mode) == ("rename", "on"))
        if not problem and r.code != 0 and out:
            again = run(args, here)
            stands = again.code == 2 and b"output exists" in again.err
            if not stands and (again.code != 0 or again.err): problem = f"the run after it: exit {again.code} {again.err[-300:]!r}"
            elif bytes_of(os.path.join(here, out)) != wanted[0]: problem = "the run after it writes other bytes"
            elif left_over(here, [out]): problem = f"the run after it leaves {left_over(here, [out])}"
        shutil.rmtree(here)
        return f"{kind}:{k}:{mode}: {problem}" if problem else None

    first, drawn = int(12 * SCALE) if SCALE < 2 else 30, int(8 * SCALE)
    places = [(kind, k, mode) for kind in kinds for k in sample(numbers[kind], first, 5, drawn, rng) for mode in ("once", "on")]
    problems = in_parallel(one, places)
    calls, exits = (" ".join(f"{k} {n}" for k, n in numbers.items() if n)), " ".join(f"{c}x{n}" for c, n in sorted(seen.items(), key=str))
    case(f"faults_{label}", problems, f"{len(places)} runs, calls {calls}, exits {exits}")


# ---------------------------------------------------------------- no room ----

def size_limit(n):
    def before(): resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))       # the program itself must not die of SIGXFSZ
    return before


def no_room(name, args, out, folder, before=None):
    """An older file is there; a run without room leaves it and says 7. (exit code, why not or None)"""
    path = os.path.join(folder, out)
    for n in os.listdir(folder):
        p = os.path.join(folder, n)
        shutil.rmtree(p) if os.path.isdir(p) else os.remove(p)
    open(path, "w").write("old")
    old = bytes_of(path)
    r = run(args + ["--force"] * (args[0] != "perplexity"), folder, before)
    if r.code == 0: return 0, None
    more = left_over(folder, [out, out + ".state"])
    if r.code != 7: return r.code, f"{name}: exit {r.code}: {r.err!r}"
    if bytes_of(path) != old: return 7, f"{name}: the old file is gone"
    return 7, f"{name}: left {more}" if more else one_line(args[0], r)


def disk():
    jobs = [("compress", ["compress", TINY, "out", "Q8_0", *COMMON], "out"), ("compress_joint", compress_args(16), "out"),
            ("convert", ["convert", TINY, "-o", "out.gguf", "--outtype", "f16", "-q"], "out.gguf"),
            ("losses", ["perplexity", TINY, "-f", TEXT, "-c", "128", "--save-losses", "out", "-t", "1", "-q"], "out")]
    for name, args, out in jobs:
        folder = fresh(f"limit-{name}")
        got = [no_room(f"at most {n} bytes", args, out, folder, size_limit(n)) for n in (0, 1000, 4096, 30000)]
        odd = [] if any(c == 7 for c, _ in got) else ["nothing failed"]
        case(f"file_size_limit_{name}", [why for _, why in got] + odd, f"exits {[c for c, _ in got]}")
    small = os.path.join(SCRATCH, "small")
    os.makedirs(small, exist_ok=True)
    for name, args, out in jobs:
        got = []
        for kib in (8, 20, 36, 52, 64, 100, 160, 4000):
            mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", small]
            if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
                skip(f"full_disk_{name}", "no right to mount a small file system")
                break
            try: got.append(no_room(f"{kib} KiB", args, out, small))
            finally: subprocess.run(["umount", small], check=True)
        if not got: continue
        odd = [] if got[-1][0] == 0 and got[0][0] == 7 else ["one end did not come out"]
        case(f"full_disk_{name}", [why for _, why in got] + odd, f"exits {[c for c, _ in got]}")
    full = open("/dev/full", "w")
    p = subprocess.run([TRIMTAB, "show", TINY, "-q"], stdout=full, stderr=subprocess.PIPE, env=environment())
    case("full_output", [one_line("show", Result(p.returncode, b"", p.stderr)) or (None if p.returncode == 7 else f"exit {p.returncode}")])


# ---------------------------------------------------------------- damaged files ----

def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f: f.write(data if isinstance(data, bytes) else data.encode())
    return path


def patched(data, at, piece): return data[:at] + piece + data[at + len(piece):]


def tensor_at(data, name):
    """Where the entry of a tensor goes on behind its name: u32 dims, u64 each, u32 type, u64 offset."""
    key = struct.pack("<Q", len(name)) + name
    at = data.index(key) + len(key)
    dims = struct.unpack_from("<I", data, at)[0]
    return at, at + 4, at + 4 + 8 * dims, at + 8 + 8 * dims


def bad_models():
    good = open(TINY, "rb").read()
    n_dims, dims, kind, offset = tensor_at(good, b"blk.1.ffn_up.weight")
    other = tensor_at(good, b"blk.0.ffn_up.weight")[3]
    u32, u64 = (lambda x: struct.pack("<I", x)), (lambda x: struct.pack("<Q", x))
    models = {
        "empty": b"", "magic": patched(good, 0, b"GGUG"), "version": patched(good, 4, u32(99)), "only_header": good[:24],
        "many_tensors": patched(good, 8, u64(1 << 60)), "many_keys": patched(good, 16, u64(1 << 60)),
        "one_tensor_more": patched(good, 8, u64(struct.unpack_from("<Q", good, 8)[0] + 1)),
        "long_key": patched(good, 24, u64(1 << 62)), "many_dims": patched(good, n_dims, u32(1 << 30)),
        "huge_dim": patched(good, dims, u64(1 << 62)),
        "zero_dim": patched(good, dims, u64(0)), "unknown_type": patched(good, kind, u32(4096)), "other_type": patched(good, kind, u32(8)),
        "far_offset": patched(good, offset, u64(1 << 40)),
        "wrapping_offset": patched(good, offset, u64((1 << 64) - 32)), "odd_offset": patched(good, offset, u64(3)),
        "overlapping": patched(good, offset, good[other:other + 8]),
        "same_name": good.replace(b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight"),
        "missing_tensor": good.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_ux.weight"),
        "layers": None, "text": b"this is not a model\n" * 100, "zeros": bytes(len(good)),
    }
    key = b"llama.block_count"
    models["layers"] = patched(good, good.index(key) + len(key) + 4, u32(4000000000))
    for share in (0.02, 0.1, 0.5, 0.9, 0.999): models[f"cut_{share}"] = good[:int(share * len(good))]
    return {name: write(os.path.join(FILES, "bad", name + ".gguf"), data) for name, data in models.items()}


def bad_folders():
    """Copies of the Hugging Face folder with one file spoiled."""
    def text(name): return open(os.path.join(HF, name), "rb").read()
    tok, conf, tensors = text("tokenizer.json"), text("config.json"), text("model.safetensors")
    head = struct.unpack_from("<Q", tensors)[0]
    index = json.loads(tensors[8:8 + head])
    names = [n for n in index if n != "__metadata__"]
    def with_index(change):
        changed = json.loads(json.dumps(index))
        change(changed)
        raw = json.dumps(changed).encode()
        return struct.pack("<Q", len(raw)) + raw + tensors[8 + head:]
    spoil = {
        "tokenizer_cut": ("tokenizer.json", tok[:len(tok) // 2]), "tokenizer_text": ("tokenizer.json", b"no"),
        "tokenizer_deep": ("tokenizer.json", b"[" * 100000),
        "tokenizer_list": ("tokenizer.json", b"[]"), "tokenizer_no_model": ("tokenizer.json", b"{}"),
        "tokenizer_empty": ("tokenizer.json", b""),
        "tokenizer_huge_id": ("tokenizer.json", tok.replace(b'"!":', b'"!":99999999', 1) if b'"!":' in tok else b"{"),
        "config_cut": ("config.json", conf[:len(conf) // 2]), "config_list": ("config.json", b"[1]"), "config_empty": ("config.json", b""),
        "config_layers": ("config.json", json.dumps(json.loads(conf) | {"num_hidden_layers": 4000000000}).encode()),
        "config_negative": ("config.json", json.dumps(json.loads(conf) | {"hidden_size": -32}).encode()),
        "config_zero_heads": ("config.json", json.dumps(json.loads(conf) | {"num_attention_heads": 0}).encode()),
        "tensors_cut": ("model.safetensors", tensors[:len(tensors) // 2]), "tensors_empty": ("model.safetensors", b""),
        "tensors_long_head": ("model.safetensors", struct.pack("<Q", 1 << 60) + tensors[8:]),
        "tensors_head_text": ("model.safetensors", tensors[:8] + b"x" * head + tensors[8 + head:]),
        "tensors_overlap": ("model.safetensors", with_index(lambda d: d[names[1]].update(data_offsets=d[names[0]]["data_offsets"]))),
        "tensors_huge": ("model.safetensors", with_index(lambda d: d[names[0]].update(shape=[1 << 40, 1 << 40]))),
        "tensors_missing": ("model.safetensors", with_index(lambda d: d.update({"other": d.pop(names[2])}))),
        "tensors_type": ("model.safetensors", with_index(lambda d: d[names[0]].update(dtype="F99"))),
    }
    folders = {}
    for name, (file, data) in spoil.items():
        folders[name] = os.path.join(FILES, "bad", name)
        shutil.copytree(HF, folders[name])
        write(os.path.join(folders[name], file), data)
    return folders


def bad_adapters():
    conf, tensors = (open(os.path.join(TAB, n), "rb").read() for n in ("adapter_config.json", "adapter_model.safetensors"))
    config = json.loads(conf)
    head = struct.unpack_from("<Q", tensors)[0]
    values = len(tensors) - 8 - head
    spoil = {
        "config_cut": ("adapter_config.json", conf[:len(conf) // 2]), "config_empty": ("adapter_config.json", b""),
        "config_list": ("adapter_config.json", b"[]"),
        "lora": ("adapter_config.json", json.dumps(config | {"peft_type": "LORA"}).encode()),
        "many_tokens": ("adapter_config.json", json.dumps(config | {"num_virtual_tokens": 1 << 40}).encode()),
        "negative": ("adapter_config.json", json.dumps(config | {"num_virtual_tokens": -1}).encode()),
        "width": ("adapter_config.json", json.dumps(config | {"token_dim": 64}).encode()),
        "tensors_cut": ("adapter_model.safetensors", tensors[:-100]), "tensors_empty": ("adapter_model.safetensors", b""),
        "tensors_nan": ("adapter_model.safetensors", tensors[:8 + head] + struct.pack("<f", float("nan")) * (values // 4)),
        "tensors_head": ("adapter_model.safetensors", struct.pack("<Q", 1 << 60) + tensors[8:]),
    }
    folders = {}
    for name, (file, data) in spoil.items():
        folders[name] = os.path.join(FILES, "bad", "tab_" + name)
        shutil.copytree(TAB, folders[name])
        write(os.path.join(folders[name], file), data)
    return folders


def refuse(verb, args, codes, what):
    """Exit with one of the codes, one line, nothing written; why not, or None."""
    folder = fresh("bad-%d" % next(serial))
    r = run([verb, *args, "-q"], folder)
    why = one_line(verb, r) if r.code != 0 else "succeeds"
    if not why and r.code not in codes: why = f"exit {r.code}: {r.err.decode('utf-8', 'replace').strip()}"
    if not why and os.listdir(folder): why = f"wrote {os.listdir(folder)}"
    shutil.rmtree(folder)
    return f"{verb} {what}: {why}" if why else None


def model_verbs(model):
    few = ["--data", TEXT, "--samples", "4", "--length", "64"]
    learn = ["out", "--data", TEXT, "--method", PROMPT % 2, "--teacher"]
    return [("show", [model]), ("tokenize", [model, "the"]), ("run", [model, "--raw", "-p", "the", "-n", "2"]),
            ("convert", [model, "-o", "out.gguf", "--outtype", "f32"]), ("perplexity", [model, "-f", OTHER, "-c", "128"]),
            ("compress", [model, "out", "Q8_0"]), ("compress", [model, "out", "--recipe", JOINT, *few]),
            ("tune", [model, *learn, TINY]), ("tune", [SMALL, *learn, model])]


def damaged_models():
    models, folders = bad_models(), bad_folders()
    jobs = []
    for name, path in list(models.items()) + list(folders.items()):
        for verb, args in model_verbs(path):
            if name.startswith(("missing", "tensors_missing")) and verb in ("show", "convert", "tokenize"): continue
            if name.startswith("tokenizer") and verb in ("show", "convert", "compress"): continue
            jobs.append((verb, args, {4}, name))
    for name, group in (("models", models), ("folders", folders)):
        mine = [j for j in jobs if j[3] in group]
        case(f"damaged_{name}", in_parallel(lambda j: refuse(*j), mine), f"{len(group)} files, {len(mine)} runs")


def corpus_models():
    """The seeds of the fuzz targets: whatever they are, no verb crashes, and nothing stays when it fails."""
    seeds = [os.path.join(CORPUS, "gguf", n) for n in sorted(os.listdir(os.path.join(CORPUS, "gguf")))]
    def one(seed):
        problems = []
        for verb, args in (("show", ["--kv", "--tensors"]), ("convert", ["-o", "out.gguf"]), ("compress", ["out.gguf", "Q8_0"])):
            folder = fresh("seed-" + os.path.basename(seed))
            link = os.path.join(folder, "in.gguf")
            shutil.copy(seed, link)
            r = run([verb, link, *args, "-q"], folder)
            os.remove(link)
            if r.code == 0: continue
            why = one_line(verb, r) or (None if r.code in (3, 4) else f"exit {r.code}: {r.err!r}")
            why = why or (f"wrote {os.listdir(folder)}" if os.listdir(folder) else None)
            if why: problems.append(f"{seed} {verb}: {why}")
        return problems
    if SCALE < 2: seeds = seeds[::3]
    case("seeds", sum(in_parallel(one, seeds), []), f"{len(seeds)} seeds, 3 verbs")


def damaged_rest():
    problems = []
    for name, folder in bad_adapters().items():
        for verb, args in (("run", [SMALL, "--raw", "-p", "the", "-n", "2"]), ("perplexity", [SMALL, "-f", OTHER, "-c", "128"])):
            problems.append(refuse(verb, [*args, "--adapter", folder], {4, 5} if name == "width" else {4}, "adapter " + name))
    case("damaged_adapters", problems)

    recipes = {"cut": "sparsegpt(sparsity=0.5", "unknown": "sparsegtp", "knob": "sparsegpt(sparsty=0.5)", "range": "sparsegpt(sparsity=2)",
               "text": "x" * 100000, "bytes": b"\xff\xfe\0\1", "nothing": "",
               "deep": "(" * 5000, "nul": b"rtn\0(bits=4)", "many": "+".join(["rtn"] * 5000)}
    problems = []
    for name, text in recipes.items():
        path = write(os.path.join(FILES, "bad", "recipe_" + name), text)
        problems.append(refuse("compress", [TINY, "out", "--recipe", path, "--data", TEXT], {4}, "recipe file " + name))
        if not isinstance(text, str): continue
        codes = {4} if name == "text" else {2}
        problems.append(refuse("compress", [TINY, "out", "--recipe", text, "--data", TEXT], codes, "recipe " + name))
        problems.append(refuse("tune", [SMALL, "out", "--method", text, "--data", TEXT], codes, "method " + name))
    case("damaged_recipes", problems)

    texts = {"empty.txt": b"", "short.txt": b"the", "cut.jsonl": b'{"text": "the tab"}\n{"text": "the', "other.jsonl": b'{"words": 1}\n',
             "numbers.jsonl": b'{"text": 7}\n', "bytes.jsonl": b"\xff\xfe\0\n", "deep.jsonl": b"[" * 100000 + b"\n"}
    problems = []
    for name, data in texts.items():
        path, codes = write(os.path.join(FILES, "bad", name), data), {4} if name.endswith("jsonl") else {1, 2, 4}
        problems.append(refuse("compress", [TINY, "out", "--recipe", JOINT, "--data", path], codes, "text " + name))
        problems.append(refuse("tune", [SMALL, "out", "--data", path, "--teacher", TINY, "--method", PROMPT % 2], codes, "text " + name))
        if name == "short.txt": continue
        problems.append(refuse("perplexity", [SMALL, "-f", path, "-c", "128", "--documents"], codes, "text " + name))
    os.mkfifo(os.path.join(FILES, "bad", "pipe"))
    os.mkdir(os.path.join(FILES, "bad", "nothing"))
    for name in ("pipe", "nothing", "absent"):
        path = os.path.join(FILES, "bad", name)
        problems.append(refuse("tune", [SMALL, "out", "--data", path, "--teacher", TINY, "--method", PROMPT % 2], {1, 2, 4}, "text " + name))
        problems.append(refuse("perplexity", [SMALL, "-f", path, "-c", "128"], {1, 2, 4}, "text " + name))
    case("damaged_texts", problems)


def damaged_states():
    """A state that is damaged or of another run is not gone on with: the end is that of an undisturbed run."""
    for args in (compress_args(8), tune_args(8)):
        verb, problems, env = args[0], [], {"TT_SAVE_SECONDS": "0"}
        wanted, _ = undisturbed(args, f"states-{verb}", **env)
        n = count_of(args, "write", fresh(f"states-{verb}"), **env)
        for i in range(12):
            folder = fresh(f"states-{verb}-{i}")
            run(args, folder, TT_FAULT=f"write:{n * (i % 3 + 1) // 4}:kill", **env)
            state = os.path.join(folder, "out.state")
            for path in sorted(os.path.join(at, name) for at, _, names in os.walk(state) for name in names):
                name = os.path.basename(path)
                data = open(path, "rb").read()
                if i // 3 == 0: write(path, data[:len(data) // 2])
                elif i // 3 == 1: write(path, b"")
                elif i // 3 == 2: write(path, b"\xff" * len(data))
                else: os.remove(path) if name != "state.json" else None
            r = run(args, folder, **env)
            more = left_over(folder, ["out"])
            if r.code != 0: problems.append(f"state {i}: exit {r.code} {r.err!r}")
            elif bytes_of(os.path.join(folder, "out")) != wanted: problems.append(f"state {i}: other bytes")
            elif more: problems.append(f"state {i}: left {more} {os.listdir(state) if os.path.isdir(state) else ''}")
        case(f"damaged_states_{verb}", problems)


# ---------------------------------------------------------------- the whole ----

def prepare():
    def must(*args):
        r = run([*args, "-q"], FILES)
        if r.code != 0: sys.exit(f"cannot prepare: {args}: {r.err!r}")
    must("compress", TINY, SMALL, "--recipe", JOINT, "--data", TEXT, "--samples", "8", "--length", "64")
    must("tune", SMALL, TAB, "--teacher", TINY, "--data", TEXT, "--method", PROMPT % 4)
    must("convert", TINY, "-o", HF)
    must("tune", SMALL, OLD_TAB, "--data", TEXT, "--method", "prompt(tokens=3,steps=0,loss=ce)")


def main():
    parts = sys.argv[5:] or ["kills", "points", "faults", "disk", "files"]
    prepare()
    started = time.monotonic()
    def lap(what): print(f"# {what}: {time.monotonic() - started:.0f} s, {runs} runs")
    if "kills" in parts:
        kill_campaign("compress", lambda n: compress_args(n, LONG), 400)
        kill_campaign("compress_self", self_args, 16)
        kill_campaign("tune", tune_args, 100)
        lap("kills")
    if "points" in parts:
        kill_points("compress", compress_args(8))
        kill_points("compress_self", self_args(4))
        kill_points("tune", tune_args(12))
        in_parallel(replaced_points, conversions())
        lap("points")
    if "faults" in parts:
        for job in fault_verbs(): fault_loop(job)
        lap("faults")
    if "disk" in parts: disk(), lap("disk")
    if "files" in parts: damaged_models(), corpus_models(), damaged_rest(), damaged_states(), lap("files")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    sys.exit(1 if counts["failed"] else 0)


main()
