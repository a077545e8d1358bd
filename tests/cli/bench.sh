# bench and doctor --bench-kernels: llama-bench's options, table and field names, on a model of a few hundred kilobytes made here.
make_model() { python3 "$root/bench/make_model.py" "$@"; }
make_model tiny.gguf --shape tiny --type q4_0
make_model tiny8.gguf --shape tiny --type q8_0
few=(-p 16 -n 4 -r 2 --no-ceilings -q)

code bench 0 trimtab bench tiny.gguf "${few[@]}"
check bench_head grep -q '^| model  *|  *size |  *params | backend  *| threads |  *test |  *t/s |' "$scratch/out"
check bench_rows [ "$(grep -c '^| llama' "$scratch/out")" = 2 ]
check bench_pp grep -q '|  *pp16 |' "$scratch/out"
check bench_tg grep -q '|  *tg4 |' "$scratch/out"
check bench_build grep -q '^build: ' "$scratch/out"
code bench_json 0 trimtab bench -m tiny.gguf -p 16 -n 4 -r 2 -q -o json
check bench_keys json "$scratch/out" '{"build_commit","build_number","cpu_info","gpu_info","backends","model_filename","model_type","model_size","model_n_params","n_batch","n_ubatch","n_threads","type_k","type_v","n_prompt","n_gen","n_depth","test_time","avg_ns","stddev_ns","avg_ts","stddev_ts","isa","numerics","adapter","bits_per_weight","resident_bytes","peak_rss","majflt","open_ns","ttft_ns","itl_p50_ns","itl_p95_ns","bytes_per_token","ops_per_token","read_gb_s","l2_gb_s","fma_gflops","dot_gops","bandwidth_share","dot_share","samples_ns","samples_ts"} == set(d[0]) == set(d[1])'
check bench_values json "$scratch/out" 'all(len(x["samples_ns"])==2 and x["avg_ts"]>0 and x["read_gb_s"]>0 and x["dot_gops"]>0 and x["ttft_ns"]>=x["open_ns"]>0 and x["peak_rss"]>=x["resident_bytes"]>0 for x in d)'
check bench_rate json "$scratch/out" 'all(abs(x["samples_ts"][0] - 1e9*(x["n_prompt"]+x["n_gen"])/x["samples_ns"][0]) < 1e-2*x["samples_ts"][0] for x in d)'
check bench_shares json "$scratch/out" 'd[0]["dot_share"]>0 and d[0]["bandwidth_share"] is None and d[1]["bandwidth_share"]>0 and d[1]["itl_p50_ns"]>0'
code bench_json_flag 0 trimtab bench tiny.gguf "${few[@]}" --json
check bench_json_is_a_list json "$scratch/out" 'len(d)==2 and d[0]["read_gb_s"] is None'
code bench_jsonl 0 trimtab bench tiny.gguf "${few[@]}" -o jsonl
check bench_jsonl_lines bash -c "[ \$(wc -l <'$scratch/out') = 2 ] && while read -r line; do echo \"\$line\" | python3 -c 'import json,sys; json.load(sys.stdin)' || exit 1; done <'$scratch/out'"
code bench_csv 0 trimtab bench tiny.gguf "${few[@]}" -o csv
check bench_csv_shape python3 -c 'import csv,sys; r=list(csv.DictReader(open(sys.argv[1]))); sys.exit(not (len(r)==2 and r[0]["n_prompt"]=="16" and r[1]["n_gen"]=="4" and None not in r[0] and float(r[0]["avg_ts"])>0))' "$scratch/out"

code bench_lists 0 trimtab bench -m tiny.gguf -m tiny8.gguf -p 8-32*2 -n 0 -pg 8,4 -d 0,16 -t 1,2 -r 1 --no-ceilings -q --json
check bench_lists_order json "$scratch/out" '[(x["model_filename"],x["n_threads"],x["n_depth"],x["n_prompt"],x["n_gen"]) for x in d] == [(m,t,k,p,g) for m in ("tiny.gguf","tiny8.gguf") for t in (1,2) for k in (0,16) for p,g in ((8,0),(16,0),(32,0),(8,4))]'
code bench_comma 0 trimtab bench -m tiny.gguf,tiny8.gguf -p 16 -n 0 -r 1 --no-ceilings -q --json
check bench_comma_models json "$scratch/out" '[x["model_filename"] for x in d]==["tiny.gguf","tiny8.gguf"]'
code bench_repeated 0 trimtab bench tiny.gguf -p 4 -p 8 -n 0 -r 1 --no-ceilings -q --json
check bench_repeated_prompts json "$scratch/out" '[x["n_prompt"] for x in d]==[4,8]'
code bench_exact 0 trimtab bench tiny.gguf "${few[@]}" --exact --json
check bench_exact_says json "$scratch/out" 'd[0]["numerics"]=="exact" and d[0]["type_k"]=="f32"'
code bench_caches 0 trimtab bench tiny.gguf "${few[@]}" -ctk f32 -ctv f16 --run-format auto --json
check bench_caches_say json "$scratch/out" 'd[0]["type_k"]=="f32" and d[0]["type_v"]=="f16"'
code bench_cold 0 trimtab bench tiny.gguf -p 16 -n 0 -r 1 --no-warmup --no-ceilings -q --json
check bench_cold_first json "$scratch/out" 'd[0]["ttft_ns"]>=d[0]["samples_ns"][0]'
code bench_scalar 0 trimtab bench tiny.gguf "${few[@]}" --isa scalar --json
check bench_scalar_says json "$scratch/out" 'd[0]["isa"]=="scalar"'
code bench_progress 0 trimtab bench tiny.gguf -p 16 -n 4 -r 2 --no-ceilings --progress json
check bench_progress_says grep -q '"task": *"bench".*"note": *"test 1 of 2, pp16' "$scratch/err"

# What is wrong ends before anything is measured.
code bench_no_model 2 trimtab bench
code bench_unknown 2 trimtab bench tiny.gguf --n-promt 4
check bench_nearest grep -q 'did you mean --n-prompt?' "$scratch/err"
code bench_no_file 1 trimtab bench ./none.gguf
code bench_bad_number 2 trimtab bench tiny.gguf -p many
code bench_bad_range 2 trimtab bench tiny.gguf -p 64-8
code bench_endless_range 2 trimtab bench tiny.gguf -p 0-100000
code bench_bad_format 2 trimtab bench tiny.gguf -o yaml
code bench_half_pair 2 trimtab bench tiny.gguf -pg 512
code bench_nothing 2 trimtab bench tiny.gguf -p 0 -n 0
code bench_no_repetition 2 trimtab bench tiny.gguf -r 0
code bench_deep 2 trimtab bench tiny.gguf -p 16 -n 0 -d 0,500
check bench_deep_says grep -q 'longer than the model.s context (got 516 positions, expected at most 512' "$scratch/err"
check bench_deep_measures_nothing [ ! -s "$scratch/out" ]
head -c 3000 tiny.gguf >cut.gguf
code bench_cut 4 trimtab bench cut.gguf "${few[@]}"
if make_model huge.gguf --shape huge --type f32 --holes 2>/dev/null; then
    code bench_huge 7 trimtab bench huge.gguf "${few[@]}"
    check bench_huge_says grep -q 'does not fit into memory' "$scratch/err"
else
    skip bench_huge "this file system has no files of that size"
fi
rm -f huge.gguf

code doctor_kernels 0 trimtab doctor --bench-kernels --json -q
check doctor_kernels_keys json "$scratch/out" 'len(d["kernels"])>50 and all({"kernel","variant","seconds","gb_s","gop_s","bound","share","memory_gb_s","memory_share"}==set(k) for k in d["kernels"]) and len(d["ceilings"])==2'
check doctor_kernels_values json "$scratch/out" 'all(k["seconds"]>0 and 0<k["share"]<20 and k["bound"] in ("l2","fma","dot") for k in d["kernels"]) and any((k["memory_share"] or 0)>0 for k in d["kernels"])'
check doctor_kernels_names json "$scratch/out" '{"panel_rowdot","rowdot_q4_0","rowdot_sparseq","decode_q4_k","gemm_ukr","gemm","attention","quant_q8"} <= {k["kernel"] for k in d["kernels"]}'
