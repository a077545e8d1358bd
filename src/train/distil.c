/* Student and teacher on one batch (distil.h). */
#include "train/distil.h"

static tt_status check_job(const tt_distil *d, tt_err *err) {
    const tt_net *student = d->job->student, *teacher = d->job->teacher;
    int64_t positions = d->o.rows + d->o.positions + d->o.length;
    TT_FAIL_IF(positions > student->hp.n_ctx, err, TT_USAGE, "tab and text are longer than the model's context|tokens + length|%lld|at most %lld",
               (long long)positions, (long long)student->hp.n_ctx);
    if (!d->o.kl) return TT_OK;
    TT_FAIL_IF(!teacher, err, TT_USAGE, "loss=kl needs a teacher||none||name the dense model with --teacher, or use loss=ce");
    TT_FAIL_IF(teacher->hp.n_vocab != student->hp.n_vocab, err, TT_USAGE, "teacher has another vocabulary|--teacher|%lld tokens|%lld",
               (long long)teacher->hp.n_vocab, (long long)student->hp.n_vocab);
    TT_FAIL_IF(d->o.length > teacher->hp.n_ctx, err, TT_USAGE, "length is larger than the teacher's context|length|%lld|at most %lld",
               (long long)d->o.length, (long long)teacher->hp.n_ctx);
    return TT_OK;
}

/* The fullest keep policy within max_ram; the teacher's runner and the buffers count. The very fullest is taken only when max_ram is given
 * and holds it: it saves one product of a layer, some percent of a step, for a quarter of the memory. */
static tt_status open_runners(tt_distil *d, tt_err *err) {
    static const char *const names[] = {[TT_KEEP_BOUNDARY] = "block inputs", [TT_KEEP_ATTENTION] = "block inputs and attention",
                                        [TT_KEEP_MOST] = "all activations but one of a gate's", [TT_KEEP_ALL] = "all activations"};
    int64_t tokens = d->o.batch * d->o.length, rows = d->o.rows + tokens, dt = d->o.kl && !d->o.topk ? d->job->teacher->hp.n_embd : 0;
    uint64_t others = (uint64_t)(2 * rows * d->d + tokens * dt) * sizeof(float) + d->o.others;
    if (d->o.kl) {
        tt_runner_options o = {.max_rows = tokens};
        TT_TRY(tt__runner_create(d->ctx, d->job->teacher, &o, &d->teacher, err));
        others += tt__runner_bytes(d->teacher);
    }
    for (int keep = !d->o.trains ? TT_KEEP_BOUNDARY : d->job->max_ram ? TT_KEEP_ALL : TT_KEEP_MOST;; keep--) {
        tt_runner_options o = {.max_rows = rows, .backward = true, .keep = (tt_keep)keep, .weights = d->o.weights};
        TT_TRY(tt__runner_create(d->ctx, d->job->student, &o, &d->student, err));
        uint64_t own = tt__runner_bytes(d->student) + (d->o.trains ? tt__runner_loss_bytes(d->student, d->o.kl && !d->o.topk) : 0);
        uint64_t bytes = own + others, most = d->job->max_ram ? d->job->max_ram : (uint64_t)1 << 30;
        if (bytes <= most) {
            tt__log(d->ctx, TT_LOG_INFO, "tune: keeps %s for the backward pass: %.0f MiB beside the weights (student %.0f, teacher %.0f)",
                    names[keep], (double)bytes / 1048576, (double)own / 1048576,
                    d->teacher ? (double)tt__runner_bytes(d->teacher) / 1048576 : 0);
            break;
        }
        TT_FAIL_IF(keep == TT_KEEP_BOUNDARY, err, TT_RESOURCE,
                   "a training step does not fit|max-ram|%.0f MiB needed|%.0f MiB|raise max-ram, or lower batch or length",
                   (double)bytes / 1048576, (double)most / 1048576);
        tt__runner_free(d->student);
        d->student = NULL;
    }
    TT_TRY(tt__new(&d->X, (size_t)(rows * d->d), sizeof(float), "input rows", err));
    TT_TRY(tt__new(&d->dX, (size_t)(rows * d->d), sizeof(float), "gradient rows", err));
    if (dt) TT_TRY(tt__new(&d->H, (size_t)(tokens * dt), sizeof(float), "the teacher's rows", err));
    return tt__new(&d->target, (size_t)rows, sizeof *d->target, "targets", err);
}

static tt_status open_cache(tt_distil *d, tt_err *err) {
    if (!d->o.kl || !d->o.topk) return TT_OK;
    tt_teacher_options o = {.k = d->o.topk, .batch = d->o.batch, .length = d->o.length, .temperature = d->o.temperature > 0 ? d->o.temperature : 1};
    size_t targets = (size_t)(d->o.batch * (d->o.length - 1));
    TT_TRY(tt__teacher_open(d->ctx, &o, d->job, d->teacher, &d->cache, err));
    d->o.topk = tt__teacher_k(d->cache);
    TT_TRY(tt__new(&d->top, targets * (size_t)d->o.topk, sizeof *d->top, "the teacher's tokens", err));
    TT_TRY(tt__new(&d->top_logp, targets * (size_t)d->o.topk, sizeof(float), "the teacher's tokens", err));
    return tt__new(&d->rest_logp, targets, sizeof(float), "the teacher's tokens", err);
}

tt_status tt__distil_open(tt_ctx *ctx, const tt_distil_options *o, tt_train_job *job, tt_distil *out, tt_err *err) {
    *out = (tt_distil){.ctx = ctx, .job = job, .o = *o, .d = job->student->hp.n_embd};
    tt_status st = check_job(out, err);
    if (st == TT_OK) st = open_runners(out, err);
    if (st == TT_OK) st = open_cache(out, err);
    if (st != TT_OK) tt__distil_close(out);
    return st;
}

void tt__distil_close(tt_distil *d) {
    tt__teacher_close(d->cache);
    tt__free(d->top);
    tt__free(d->top_logp);
    tt__free(d->rest_logp);
    tt__runner_free(d->student);
    tt__runner_free(d->teacher);
    tt__free(d->X);
    tt__free(d->dX);
    tt__free(d->H);
    tt__free(d->target);
    *d = (tt_distil){0};
}

/* The teacher's rows that have a target, without gaps: the last of each sequence goes. */
static void drop_last_rows(float *H, int64_t S, int64_t T, int64_t d) {
    for (int64_t s = 1; s < S; s++) memmove(H + s * (T - 1) * d, H + s * T * d, (size_t)((T - 1) * d) * sizeof *H);
}

static tt_status ask_cache(tt_distil *d, const int32_t *ids, int64_t S, tt_loss *spec, tt_err *err) {
    TT_TRY(tt__teacher_rows(d->cache, ids, S, d->top, d->top_logp, d->rest_logp, err));
    spec->kind = TT_LOSS_TOPK;
    spec->k = d->o.topk;
    spec->top_id = d->top, spec->top_logp = d->top_logp, spec->rest_logp = d->rest_logp;
    return TT_OK;
}

static tt_status ask_teacher(tt_distil *d, const int32_t *ids, int64_t S, bool bf16, tt_loss *spec, tt_err *err) {
    const tt_net *t = d->job->teacher;
    tt__runner_set_bf16(d->teacher, bf16);
    TT_TRY(tt__run_hidden(d->teacher, S, d->o.length, ids, d->H, err));
    drop_last_rows(d->H, S, d->o.length, t->hp.n_embd);
    spec->kind = TT_LOSS_KL;
    spec->teacher_H = d->H;
    spec->teacher_head = t->weights[t->output].op;
    return TT_OK;
}

static void aim(tt_distil *d, const int32_t *ids, int64_t P, int64_t n) {
    int64_t T = d->o.length;
    for (int64_t i = 0; i < P; i++) d->target[i] = -1;
    for (int64_t i = 0; i < n; i++) d->target[P + i] = i % T == T - 1 ? -1 : ids[i + 1];
}

tt_status tt__distil_prepare(tt_distil *d, const int32_t *const *windows, size_t n, tt_err *err) {
    return d->cache ? tt__teacher_prepare(d->cache, windows, n, err) : TT_OK;
}

tt_status tt__distil_loss(tt_distil *d, const int32_t *ids, int64_t S, const tt_distil_want *want, double *loss, tt_err *err) {
    int64_t T = d->o.length, P = d->o.rows;
    tt_loss spec = {.kind = TT_LOSS_CE, .target = d->target, .temperature = (float)d->o.temperature};
    bool bf16 = d->o.bf16 && (want->rows || want->hooks || (want->prefix && want->prefix->dk));
    aim(d, ids, P, S * T);
    tt__runner_set_bf16(d->student, bf16);
    if (d->o.kl) TT_TRY(d->cache ? ask_cache(d, ids, S, &spec, err) : ask_teacher(d, ids, S, bf16, &spec, err));
    TT_TRY(tt__run_embed(d->student, ids, S * T, d->X + P * d->d, err));
    return tt__run_loss_train(d->student, P, S, T, d->X, &spec, want->hooks, want->prefix, loss, NULL, want->rows ? d->dX : NULL, err);
}

void tt__distil_done(tt_distil *d) {
    if (d->cache) tt__teacher_done(d->cache);
}

tt_status tt__distil_next(tt_distil *d, const int32_t *ids, int64_t S, const tt_train_prefix *prefix, bool bare, double *loss, tt_err *err) {
    int64_t T = d->o.length, P = bare ? 0 : d->o.rows;
    tt_loss spec = {.kind = TT_LOSS_CE, .target = d->target};
    aim(d, ids, P, S * T);
    tt__runner_set_bf16(d->student, false);
    TT_TRY(tt__run_embed(d->student, ids, S * T, d->X + P * d->d, err));
    return tt__run_loss_train(d->student, P, S, T, d->X, &spec, NULL, bare ? NULL : prefix, loss, NULL, NULL, err);
}
