/* Sampled text on a tiny model: openings, turns, ends, packing, nucleus, and a run that is saved and taken up anywhere. */
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "text/tokenizer.h"
#include "train/selftext.h"

enum { N = 11, LEN = 40 };

typedef struct bench { tt_ctx *ctx; tt_gguf *g; tt_net *net; tt_tokenizer *tok; } bench;

static bench make(int threads) {
    tt_err err = {0};
    bench b = {.ctx = tt_test_ctx(threads, NULL)};
    const char *path = tt_test_path("tiny.gguf");
    tiny_write(path, 5, 0, false);
    TT_CHECK_OK(tt__gguf_open(path, &b.g, &err));
    TT_CHECK_OK(tt__net_from_gguf(b.ctx, b.g, false, &b.net, &err));
    TT_CHECK_OK(tt__tokenizer_from_gguf(b.g, &b.tok, &err));
    return b;
}

static void drop(bench *b) {
    tt__net_free(b->net);
    tt__tokenizer_free(b->tok);
    tt__gguf_close(b->g);
}

typedef struct result { int32_t ids[N * LEN]; int64_t len[N], turn[N], drawn; } result;

/* Saved after every `every` steps and taken up by a new sampler; 0: in one go. */
static result sample(const bench *b, const tt_selftext_options *o, int every) {
    tt_err err = {0};
    result r = {0};
    tt_selftext *s = NULL;
    const char *dir = tt_test_path("state");
    TT_CHECK_OK(tt__remove_tree(dir, &err));
    TT_CHECK_OK(tt__mkdirs(dir, &err));
    TT_CHECK_OK(tt__selftext_create(b->ctx, b->net, b->tok, o, r.ids, &s, &err));
    for (int i = 1; !tt__selftext_done(s); i++) {
        TT_CHECK_OK(tt__selftext_step(s, &err));
        if (!every || i % every) continue;
        TT_CHECK_OK(tt__selftext_save(s, dir, &err));
        tt__selftext_free(s);
        memset(r.ids, 0, sizeof r.ids);
        TT_CHECK_OK(tt__selftext_create(b->ctx, b->net, b->tok, o, r.ids, &s, &err));
        TT_CHECK_OK(tt__selftext_load(s, dir, &err));
    }
    for (int64_t i = 0; i < N; i++) r.len[i] = tt__selftext_length(s, i), r.turn[i] = tt__selftext_turn(s, i);
    r.drawn = tt__selftext_drawn(s);
    tt__selftext_free(s);
    return r;
}

/* Tokens of sequences that are over; what lies behind their end means nothing. */
static bool same(const result *a, const result *b) {
    bool ok = a->drawn == b->drawn && !memcmp(a->len, b->len, sizeof a->len) && !memcmp(a->turn, b->turn, sizeof a->turn);
    for (int64_t i = 0; i < N && ok; i++) ok = !memcmp(a->ids + i * LEN, b->ids + i * LEN, (size_t)a->len[i] * sizeof *a->ids);
    return ok;
}

TT_CASE(a_run_that_is_taken_up_anywhere_and_any_number_of_threads_give_the_same) {
    bench one = make(1), two = make(2);
    tt_selftext_options o = tt__selftext_options(N, LEN, 3);
    static const tt_kvtype types[] = {TT_KV_F16, TT_KV_F32};
    for (int ends = 0; ends < 2; ends++)
        for (int t = 0; t < 2; t++) {
            o.ends = ends, o.cache = types[t], o.group = 5;
            result whole = sample(&one, &o, 0), pieces = sample(&one, &o, 3), threads = sample(&two, &o, 7);
            TT_CHECK(same(&whole, &pieces));
            TT_CHECK(same(&whole, &threads));
            for (int64_t i = 0; i < N && !ends; i++) TT_CHECK_EQ(whole.len[i], LEN);
        }
    drop(&one);
    drop(&two);
}

/* Draws depend on seed, sequence and position alone, so the group matters only through last bits of logits: here it does not. */
TT_CASE(an_end_token_ends_a_sequence_and_changes_no_other) {
    bench b = make(1);
    tt_selftext_options o = tt__selftext_options(N, LEN, 3);
    result plain = sample(&b, &o, 0);
    o.ends = true;
    result ended = sample(&b, &o, 0);
    int ends = 0;
    for (int64_t i = 0; i < N; i++) {
        int64_t n = 1;
        while (n < LEN && !tt__tokenizer_is_end(b.tok, plain.ids[i * LEN + n])) n++;
        TT_CHECK_EQ(ended.len[i], n);
        TT_CHECK(!memcmp(plain.ids + i * LEN, ended.ids + i * LEN, (size_t)n * sizeof *plain.ids));
        ends += n < LEN;
    }
    tt_test_note("%d of %d sequences ended early", ends, N);
    drop(&b);
}

TT_CASE(openings_stand_at_the_begin_and_a_turn_behind_the_first_end) {
    bench b = make(1);
    int32_t ids[] = {'a', 'b', 'c', 'd', 'e', 'f'}, turn[] = {'X', 'Y', 'Z'};
    size_t start[] = {0, 2, 6};
    tt_tokens openings = {.n_docs = 2, .n = 6, .ids = ids, .start = start};
    tt_selftext_options o = tt__selftext_options(N, LEN, 3);
    o.openings = &openings, o.turn = turn, o.n_turn = 3, o.ends = true, o.temperature = 3;
    result r = sample(&b, &o, 4);
    int turns = 0;
    int64_t drawn = 0;
    for (int64_t i = 0; i < N; i++) {
        int64_t n = i % 2 ? 4 : 2, at = r.turn[i], have = at < 0 ? 0 : r.len[i] - at < 3 ? r.len[i] - at : 3;
        TT_CHECK(!memcmp(r.ids + i * LEN, ids + start[i % 2], (size_t)n * sizeof *ids));
        TT_CHECK(at < 0 || (at > n && tt__tokenizer_is_end(b.tok, r.ids[i * LEN + at - 1])));
        if (at > 0) TT_CHECK(!memcmp(r.ids + i * LEN + at, turn, (size_t)have * sizeof *turn));
        turns += at > 0;
        drawn += r.len[i] - n - have;
    }
    TT_CHECK_EQ(r.drawn, drawn);
    tt_test_note("%d turns", turns);
    drop(&b);
}

TT_CASE(a_tiny_nucleus_is_greedy_and_a_full_one_changes_nothing_of_value) {
    bench b = make(1);
    tt_selftext_options o = tt__selftext_options(N, LEN, 9);
    o.temperature = 0;
    result greedy = sample(&b, &o, 0);
    o.temperature = 1, o.top_p = 1e-9;
    result nucleus = sample(&b, &o, 0);
    TT_CHECK(same(&greedy, &nucleus));
    o.top_p = 0.5;
    result half = sample(&b, &o, 0);
    TT_CHECK(!same(&greedy, &half));
    drop(&b);
}

TT_CASE(bad_settings_and_bad_states_are_refused) {
    bench b = make(1);
    tt_err err = {0};
    tt_selftext *s = NULL;
    int32_t ids[N * LEN] = {0};
    tt_selftext_options o = tt__selftext_options(N, LEN, 3);
    o.length = 1;
    TT_CHECK_FAILS(TT_USAGE, tt__selftext_create(b.ctx, b.net, b.tok, &o, ids, &s, &err));
    o.length = TINY_CTX + 1;
    TT_CHECK_FAILS(TT_USAGE, tt__selftext_create(b.ctx, b.net, b.tok, &o, ids, &s, &err));
    o.length = LEN, o.temperature = -1;
    TT_CHECK_FAILS(TT_USAGE, tt__selftext_create(b.ctx, b.net, b.tok, &o, ids, &s, &err));
    o.temperature = 1;
    const char *dir = tt_test_path("bad");
    TT_CHECK_OK(tt__mkdirs(dir, &err));
    TT_CHECK_OK(tt__selftext_create(b.ctx, b.net, b.tok, &o, ids, &s, &err));
    for (int i = 0; i < 5; i++) TT_CHECK_OK(tt__selftext_step(s, &err));
    TT_CHECK_OK(tt__selftext_save(s, dir, &err));
    char path[600];
    snprintf(path, sizeof path, "%s/self.ids", dir);
    int32_t foreign[N * LEN] = {[3] = 1 << 30};
    TT_CHECK_OK(tt__write_file(path, foreign, sizeof foreign, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__selftext_load(s, dir, &err));
    TT_CHECK_OK(tt__write_file(path, foreign, 12, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__selftext_load(s, dir, &err));
    tt__selftext_free(s);
    drop(&b);
}
