/* The mixes of llama.cpp, so that `trimtab compress MODEL OUT Q4_K_M` gives each tensor the type that llama-quantize gives it
 * (weights.md A8, "Mixes"; ECOSYSTEM 3.3 for the fallbacks of rows that are not whole blocks).
 *
 *     more(i, n)   i < n/8 or i >= 7n/8 or (i - n/8) % 3 = 2, for layer i of n: the layers that get more bits
 */
#include "engine/mix.h"

#include <string.h>
#include <strings.h>

typedef enum part { PART_OTHER, PART_V, PART_O, PART_DOWN, PART_HEAD } part;
typedef enum where { EVERY, MORE, FIRST_2, FIRST_4, FIRST_8TH, FIRST_16TH, MANY_QUERY_HEADS } where;
typedef struct rule { const char *mix; part part; where where; tt_dtype type; } rule;

static const tt_mix mixes[] = {
    {"F32", TT_F32}, {"F16", TT_F16}, {"BF16", TT_BF16}, {"Q4_0", TT_Q4_0}, {"Q4_1", TT_Q4_1}, {"Q5_0", TT_Q5_0}, {"Q5_1", TT_Q5_1}, {"Q8_0", TT_Q8_0},
    {"Q2_K", TT_Q2_K}, {"Q3_K_S", TT_Q3_K}, {"Q3_K_M", TT_Q3_K}, {"Q3_K_L", TT_Q3_K}, {"Q4_K_S", TT_Q4_K}, {"Q4_K_M", TT_Q4_K}, {"Q5_K_S", TT_Q5_K},
    {"Q5_K_M", TT_Q5_K}, {"Q6_K", TT_Q6_K}, {"IQ4_NL", TT_IQ4_NL},
};
static const char *const aliases[][2] = {{"Q3_K", "Q3_K_M"}, {"Q4_K", "Q4_K_M"}, {"Q5_K", "Q5_K_M"}};

/* The first rule that holds decides; none: the base type. */
static const rule rules[] = {
    {"Q2_K", PART_V, MANY_QUERY_HEADS, TT_Q4_K}, {"Q2_K", PART_V, EVERY, TT_Q3_K}, {"Q2_K", PART_DOWN, EVERY, TT_Q3_K}, {"Q2_K", PART_O, EVERY, TT_Q3_K},
    {"Q3_K_M", PART_V, FIRST_2, TT_Q5_K}, {"Q3_K_M", PART_V, EVERY, TT_Q4_K}, {"Q3_K_M", PART_DOWN, FIRST_16TH, TT_Q5_K}, {"Q3_K_M", PART_DOWN, EVERY, TT_Q4_K},
    {"Q3_K_M", PART_O, EVERY, TT_Q4_K},
    {"Q3_K_L", PART_V, EVERY, TT_Q5_K}, {"Q3_K_L", PART_DOWN, EVERY, TT_Q5_K}, {"Q3_K_L", PART_O, EVERY, TT_Q5_K},
    {"Q4_K_S", PART_V, FIRST_4, TT_Q5_K}, {"Q4_K_S", PART_DOWN, FIRST_8TH, TT_Q5_K},
    {"Q4_K_M", PART_V, MORE, TT_Q6_K}, {"Q4_K_M", PART_DOWN, MORE, TT_Q6_K},
    {"Q5_K_M", PART_V, MORE, TT_Q6_K}, {"Q5_K_M", PART_DOWN, MORE, TT_Q6_K},
    {"IQ4_NL", PART_V, MANY_QUERY_HEADS, TT_Q5_K}, {"IQ4_NL", PART_DOWN, FIRST_8TH, TT_Q5_K},
};

const tt_mix *tt__mix_find(const char *name) {
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcasecmp(name, aliases[i][0])) name = aliases[i][1];
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++)
        if (!strcasecmp(name, mixes[i].name)) return &mixes[i];
    return NULL;
}

const char *tt__mix_nearest(const char *name) {
    const char *names[sizeof mixes / sizeof *mixes];
    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) names[i] = mixes[i].name;
    return tt__nearest(name, names, sizeof mixes / sizeof *mixes);
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static part part_of(const tt_net *net, size_t i) {
    const char *name = net->weights[i].name;
    if (i == net->output) return PART_HEAD;
    if (ends_with(name, "attn_v.weight")) return PART_V;
    if (ends_with(name, "attn_output.weight")) return PART_O;
    return ends_with(name, "ffn_down.weight") ? PART_DOWN : PART_OTHER;
}

static bool holds(where w, const tt_net *net, int64_t i) {
    int64_t n = net->hp.n_layer;
    switch (w) {
    case MORE: return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case FIRST_2: return i < 2;
    case FIRST_4: return i < 4;
    case FIRST_8TH: return i < n / 8;
    case FIRST_16TH: return i < n / 16;
    case MANY_QUERY_HEADS: return net->hp.n_head / net->hp.n_head_kv >= 4;
    default: return true;
    }
}

/* Rows of 576 do not hold blocks of 256: the next type with blocks of 32, or F16. */
tt_dtype tt__mix_fitting(tt_dtype t, int64_t cols) {
    if (cols % tt__dtype(t)->block == 0) return t;
    switch (t) {
    case TT_Q2_K: case TT_Q3_K: t = TT_Q4_0; break;
    case TT_Q4_K: t = TT_Q5_0; break;
    case TT_Q5_K: t = TT_Q5_1; break;
    case TT_Q6_K: t = TT_Q8_0; break;
    default: break;
    }
    return cols % tt__dtype(t)->block == 0 ? t : TT_F16;
}

tt_dtype tt__mix_type(const tt_mix *mix, const tt_net *net, size_t i, tt_dtype *wanted) {
    const tt_weight *w = &net->weights[i];
    part p = part_of(net, i);
    *wanted = mix->base;
    if (!tt__dtype(mix->base)->quantized) return mix->base;
    if (p == PART_HEAD && mix->base != TT_Q8_0) *wanted = TT_Q6_K;
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        if (!strcmp(rules[r].mix, mix->name) && rules[r].part == p && holds(rules[r].where, net, w->layer)) {
            *wanted = rules[r].type;
            break;
        }
    return tt__mix_fitting(*wanted, w->cols);
}
