/* Storing a net as GGUF, and finding own operators again (store.h has the layout). */
#include "models/store.h"
#include <stdio.h>

/* ------------------------------------------------------------------ writing ---- */

typedef struct storing { const tt_net *net; const tt_linop *const *ops; bool own; tt_gguf_writer *w; struct permuted *rows; } storing;
typedef struct permuted { const tt_linop *op; int64_t heads; uint64_t row_bytes; } permuted;

static const tt_linop *op_of(const storing *s, size_t i) { return s->ops && s->ops[i] ? s->ops[i] : s->net->weights[i].op; }
static bool is_standard(const tt_linop *op) { return op->dtype != TT_DTYPE_COUNT; }

static bool needs_own(const storing *s) {
    for (size_t i = 0; i < s->net->n_weights; i++) if (op_of(s, i) && !is_standard(op_of(s, i))) return true;
    return false;
}

/* Hugging Face rows in GGUF order: row 2i + j of a head is its row j D/2 + i. */
static tt_status emit_permuted(void *user, tt_gguf_emit emit, void *sink, tt_err *err) {
    const permuted *p = user;
    int64_t D = p->op->rows / p->heads;
    for (int64_t r = 0; r < p->op->rows; r++) {
        int64_t head = r / D, i = r % D / 2, j = r % 2, from = head * D + j * D / 2 + i;
        TT_TRY(emit(sink, (const uint8_t *)p->op->data + (uint64_t)from * p->row_bytes, (size_t)p->row_bytes, err));
    }
    return TT_OK;
}

static tt_status add_standard(storing *s, size_t i, const tt_linop *op, tt_err *err) {
    const tt_weight *w = &s->net->weights[i];
    const uint64_t ne[2] = {(uint64_t)op->cols, (uint64_t)op->rows};
    if (!w->permute || s->own || s->net->rope_adjacent) return tt__gguf_add_tensor(s->w, w->name, op->dtype, 2, ne, op->data, NULL, NULL, err);
    permuted *p = &s->rows[i];
    *p = (permuted){.op = op, .heads = w->permute_heads};
    TT_FAIL_IF(!tt__dtype_bytes(op->dtype, (uint64_t)op->cols, &p->row_bytes), err, TT_FAIL, "row is not whole blocks|%s", w->name);
    return tt__gguf_add_tensor(s->w, w->name, op->dtype, 2, ne, NULL, emit_permuted, p, err);
}

tt_status tt__store_add_op(tt_gguf_writer *w, const char *weight, const tt_linop *op, tt_err *err) {
    tt_segment seg[8];
    char key[96], value[256], params[128], name[96];
    int n = op->v->segments(op, seg);
    op->v->describe(op, params, sizeof params);
    snprintf(key, sizeof key, "trimtab.op.%s", weight);
    snprintf(value, sizeof value, "%s;rows=%lld;cols=%lld;%s", op->v->name, (long long)op->rows, (long long)op->cols, params);
    TT_TRY(tt__gguf_set_str(w, key, value, err));
    for (int i = 0; i < n; i++) {
        if (!seg[i].bytes) continue;                          /* GGUF has no empty tensors; operators take an absent segment as empty */
        snprintf(name, sizeof name, "%s#%s", weight, seg[i].name);
        TT_TRY(tt__gguf_add_tensor(w, name, TT_I8, 1, &seg[i].bytes, seg[i].data, NULL, NULL, err));
    }
    return TT_OK;
}

static tt_status add_weights(storing *s, tt_err *err) {
    const tt_net *net = s->net;
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_weight *w = &net->weights[i];
        const tt_linop *op = op_of(s, i);
        const uint64_t n = (uint64_t)w->cols;
        if (w->vector) TT_TRY(tt__gguf_add_tensor(s->w, w->name, TT_F32, 1, &n, w->vec, NULL, NULL, err));
        else if (is_standard(op)) TT_TRY(add_standard(s, i, op, err));
        else TT_TRY(tt__store_add_op(s->w, w->name, op, err));
    }
    const uint64_t half = (uint64_t)net->hp.head_dim / 2;
    if (net->rope_divisor) TT_TRY(tt__gguf_add_tensor(s->w, "rope_freqs.weight", TT_F32, 1, &half, net->rope_divisor, NULL, NULL, err));
    return TT_OK;
}

/* general.file_type says what most of the linear weights are. */
static tt_status set_file_type(const storing *s, tt_err *err) {
    uint64_t count[TT_DTYPE_COUNT] = {0};
    int best = TT_F32;
    bool quantized = false;
    for (size_t i = 0; i < s->net->n_weights; i++) {
        const tt_linop *op = op_of(s, i);
        if (!op || !is_standard(op)) continue;
        quantized |= tt__dtype(op->dtype)->quantized;
        if (s->net->weights[i].linear) count[op->dtype] += (uint64_t)op->rows * (uint64_t)op->cols;
    }
    for (int t = 0; t < TT_DTYPE_COUNT; t++) if (count[t] > count[best]) best = t;
    int file_type = tt__dtype((tt_dtype)best)->file_type;
    if (file_type >= 0) TT_TRY(tt__gguf_set_u32(s->w, "general.file_type", (uint32_t)file_type, err));
    return quantized ? tt__gguf_set_u32(s->w, "general.quantization_version", 2, err) : TT_OK;
}

static tt_status set_identity(const storing *s, const tt_gguf *source, tt_err *err) {
    static const char *const rewritten[] = {"trimtab.op.", "trimtab.schema", "trimtab.architecture", "trimtab.rope_adjacent", NULL};
    const char *arch = s->net->arch->name;
    TT_TRY(tt__gguf_set_str(s->w, "general.architecture", s->own ? "trimtab" : arch, err));
    if (source) TT_TRY(tt__gguf_writer_copy_kv(s->w, source, rewritten, err));
    else TT_TRY(s->net->arch->to_gguf(&s->net->hp, s->w, err));
    TT_TRY(tt__gguf_set_str(s->w, "general.architecture", s->own ? "trimtab" : arch, err));
    TT_TRY(set_file_type(s, err));
    if (!s->own) return TT_OK;
    TT_TRY(tt__gguf_set_u32(s->w, "trimtab.schema", 1, err));
    TT_TRY(tt__gguf_set_str(s->w, "trimtab.architecture", arch, err));
    return tt__gguf_set_bool(s->w, "trimtab.rope_adjacent", s->net->rope_adjacent, err);
}

tt_status tt__store_gguf(const tt_net *net, const tt_linop *const *ops, const tt_gguf *source,
                         tt_status (*prepare)(void *user, tt_gguf_writer *w, tt_err *err), void *user,
                         const char *const *extra, const char *path, uint64_t *file_bytes, tt_err *err) {
    storing s = {.net = net, .ops = ops};
    tt_status st;
    s.own = needs_own(&s);
    TT_TRY_GOTO(tt__gguf_writer_create(&s.w, err));
    TT_TRY_GOTO(tt__new(&s.rows, net->n_weights, sizeof *s.rows, "writing a model", err));
    TT_TRY_GOTO(set_identity(&s, source, err));
    if (prepare) TT_TRY_GOTO(prepare(user, s.w, err));
    for (size_t i = 0; extra && extra[i]; i += 2) TT_TRY_GOTO(tt__gguf_set_str(s.w, extra[i], extra[i + 1], err));
    TT_TRY_GOTO(add_weights(&s, err));
    if (file_bytes) *file_bytes = tt__gguf_writer_bytes(s.w);
    TT_TRY_GOTO(tt__gguf_writer_save(s.w, path, err));
done:
    tt__gguf_writer_free(s.w);
    tt__free(s.rows);
    return st;
}

/* ------------------------------------------------------------------ loading ---- */

/* "NAME;rows=R;cols=C;PARAMS" cut at the semicolons, in place. */
static bool cut_description(char *text, char *part[4]) {
    for (int i = 0; i < 4; i++) {
        part[i] = text;
        text = i < 3 ? strchr(text, ';') : NULL;
        if (i < 3) {
            if (!text) return false;
            *text++ = 0;
        }
    }
    return true;
}

static bool says(const char *part, const char *key, int64_t want) {
    int64_t v;
    size_t n = strlen(key);
    return !strncmp(part, key, n) && tt__parse_i64(part + n, &v) && v == want;
}

/* The segments of a weight, in the order of the file. */
static int find_segments(const tt_gguf *g, const char *weight, tt_segment out[8]) {
    size_t len = strlen(weight);
    int n = 0;
    for (size_t i = 0; i < tt__gguf_n_tensors(g); i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(g, i);
        if (strncmp(t->name, weight, len) != 0 || t->name[len] != '#') continue;
        if (n == 8 || t->type != TT_I8 || t->n_dims != 1) return -1;
        out[n++] = (tt_segment){t->name + len + 1, t->data, t->bytes};
    }
    return n;
}

tt_status tt__store_find_op(const tt_gguf *g, const char *weight, int64_t rows, int64_t cols, tt_stored *out, tt_err *err) {
    char key[96], text[sizeof out->params], *part[4];
    const char *value = NULL;
    size_t n = 0;
    out->v = NULL;
    snprintf(key, sizeof key, "trimtab.op.%s", weight);
    if (!tt__gguf_has(g, key)) return TT_OK;
    TT_TRY(tt__gguf_str(g, key, true, &value, &n, err));
    TT_FAIL_IF(n >= sizeof text, err, TT_BADFILE, "operator description is too long|%s|%zu bytes", key, n);
    memcpy(text, value, n);
    text[n] = 0;
    TT_FAIL_IF(strlen(text) != n || !cut_description(text, part), err, TT_BADFILE, "bad operator description|%s|%.100s|NAME;rows=R;cols=C;PARAMS", key, text);
    TT_FAIL_IF(!says(part[1], "rows=", rows) || !says(part[2], "cols=", cols), err, TT_BADFILE, "operator has the wrong shape|%s|%s, %s|rows=%lld, cols=%lld", key,
               part[1], part[2], (long long)rows, (long long)cols);
    const tt_linop_vtable *v = tt__linop_find(part[0]);
    TT_FAIL_IF(!v, err, TT_BADFILE, "this build lacks an operator|%s|%s||a newer trimtab may have it", key, part[0]);
    out->n_seg = find_segments(g, weight, out->seg);
    TT_FAIL_IF(out->n_seg < 0, err, TT_BADFILE, "bad operator segments|%s||at most 8 one-dimensional I8 tensors", key);
    memcpy(out->params, part[3], strlen(part[3]) + 1);
    out->v = v;
    return TT_OK;
}

tt_status tt__store_load_op(tt_ctx *ctx, const tt_gguf *g, const char *weight, int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    tt_stored s;
    *out = NULL;
    TT_TRY(tt__store_find_op(g, weight, rows, cols, &s, err));
    if (!s.v) return TT_OK;
    tt_status st = s.v->load(ctx, s.params, rows, cols, s.seg, s.n_seg, out, err);
    return st == TT_OK ? st : tt__err_at(err, st, "%s", weight);
}
