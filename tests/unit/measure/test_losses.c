/* Files of losses: round trip, refusal of damage, and the comparison of two of them. */
#include "base/file.h"
#include "harness/tt_test.h"
#include "measure/measure.h"

static const char SHA[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/* Three documents of 4, 6 and 5 targets; the loss of target i is base(i) + shift. */
static const char *write_losses(const char *name, float shift, int32_t first_token, const char *sha) {
    tt_err err = {0};
    const char *path = tt_test_path(name);
    tt_losses_writer *w;
    TT_CHECK_OK(tt__losses_create(path, "a model", sha, true, &w, &err));
    for (uint32_t i = 0; i < 15; i++) {
        uint32_t doc = i < 4 ? 0 : i < 10 ? 1 : 2;
        tt_loss_entry e = {doc, first_token + (int32_t)i, i, 1 + 0.25f * (float)(i % 4) + shift * (float)(doc + 1)};
        TT_CHECK_OK(tt__losses_add(w, &e, 1, &err));
    }
    TT_CHECK_OK(tt__losses_commit(w, &err));
    return path;
}

TT_CASE(losses_round_trip) {
    tt_err err = {0};
    tt_losses l;
    TT_CHECK_OK(tt__losses_open(write_losses("a", 0, 100, SHA), &l, &err));
    TT_CHECK_EQ(l.n, 15);
    TT_CHECK(l.by_document);
    TT_CHECK_STR(l.data_sha256, SHA);
    TT_CHECK_STR(l.model_ref, "a model");
    tt_loss_entry e = tt__losses_at(&l, 5);
    TT_CHECK_EQ(e.doc, 1);
    TT_CHECK_EQ(e.token, 105);
    TT_CHECK_NEAR(e.loss, 1.25, 0);
    tt__losses_close(&l);
}

TT_CASE(comparison_is_paired) {
    tt_err err = {0};
    tt_paired_report r;
    TT_CHECK_OK(tt__compare_losses(write_losses("a", 0, 100, SHA), write_losses("b", 0.5f, 100, SHA), &r, &err));
    TT_CHECK_EQ(r.tokens, 15);
    TT_CHECK_EQ(r.documents, 3);
    TT_CHECK_NEAR(r.diff, (4 * 0.5 + 6 * 1.0 + 5 * 1.5) / 15, 1e-6);
    TT_CHECK_NEAR(r.nll_b - r.nll_a, r.diff, 1e-9);
    TT_CHECK(r.low < r.diff && r.diff < r.high);
    TT_CHECK_OK(tt__compare_losses(tt_test_path("a"), tt_test_path("a"), &r, &err));
    TT_CHECK_NEAR(r.diff, 0, 0);
    TT_CHECK_NEAR(r.high - r.low, 0, 0);
}

TT_CASE(other_targets_are_a_mismatch) {
    tt_err err = {0};
    tt_paired_report r;
    const char *other = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", *a = write_losses("a", 0, 100, SHA);
    TT_CHECK_FAILS(TT_MISMATCH, tt__compare_losses(a, write_losses("b", 0, 101, SHA), &r, &err));
    TT_CHECK_FAILS(TT_MISMATCH, tt__compare_losses(a, write_losses("c", 0, 100, other), &r, &err));
}

TT_CASE(damaged_losses_are_refused) {
    tt_err err = {0};
    char *bytes = NULL;
    size_t n = 0;
    TT_CHECK_OK(tt__read_file(write_losses("a", 0, 100, SHA), 1 << 20, &bytes, &n, &err));
    tt_losses l;
    for (size_t cut = 0; cut < n; cut += cut < 240 ? 1 : 16) TT_CHECK_FAILS(TT_BADFILE, tt__losses_open(tt_test_file("cut", bytes, cut), &l,
        &err));
    static const struct { size_t at; uint8_t value; const char *what; } damage[] = {{0, 'X', "magic"}, {8, 9, "version"}, {16, 200,
        "count"}, {23, 0x80, "huge count"},
                                                                                  {216 + 15, 0x7f, "infinite loss"}, {216 + 3, 1,
                                                                                      "documents out of order"}};
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        char *copy = tt__alloc(n);
        memcpy(copy, bytes, n);
        copy[damage[i].at] = (char)damage[i].value;
        if (damage[i].at == 231) copy[230] = (char)0x80;
        tt_test_note("%s", damage[i].what);
        TT_CHECK_FAILS(TT_BADFILE, tt__losses_open(tt_test_file("bad", copy, n), &l, &err));
        tt__free(copy);
    }
    tt__free(bytes);
}
