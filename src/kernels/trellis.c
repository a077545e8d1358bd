/* Encoding a tile of one column (trellis.h): the Viterbi algorithm around a ring.
 *
 * Weights are taken from the last to the first, so that windows shift towards higher bits. The ring closes where the first window taken
 * keeps L - k bits of the last one. Which bits those are, the seam, is decided first: a free run over the neighbourhood of the seam, twice
 * SEAM weights, whose middle is the seam; then the whole tile with the seam given. (The paper runs the whole sequence twice;
 * beyond a few times L / k weights nothing is remembered.)
 */
#include "kernels/trellis.h"

#include "kernels/kernels.h"
#include <string.h>

enum { SEAM = 32, PAD = 16 };

typedef struct room { float *least, *spare, *x, *weight; uint8_t *from; uint16_t *state; } room;

static int64_t prefixes(int states, int bits) { return (int64_t)1 << (states - bits); }
static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

size_t tt__trellis_room(int states, int bits) {
    const size_t p = (size_t)prefixes(states, bits);
    return 2 * align64((p + PAD) * sizeof(float)) + 2 * TT_TRELLIS_MOST_TILE * sizeof(float) + align64(TT_TRELLIS_MOST_TILE * p) + TT_TRELLIS_MOST_TILE * sizeof(uint16_t);
}

static room room_in(void *memory, int states, int bits) {
    const size_t p = (size_t)prefixes(states, bits), least = align64((p + PAD) * sizeof(float));
    uint8_t *at = memory;
    room r;
    r.least = (float *)(void *)at, at += least;
    r.spare = (float *)(void *)at, at += least;
    r.x = (float *)(void *)at, at += TT_TRELLIS_MOST_TILE * sizeof(float);
    r.weight = (float *)(void *)at, at += TT_TRELLIS_MOST_TILE * sizeof(float);
    r.from = at, at += align64(TT_TRELLIS_MOST_TILE * p);
    r.state = (uint16_t *)(void *)at;
    return r;
}

void tt__trellis_values(int states, float *value) {
    for (uint32_t s = 0; s < 1u << states; s++) value[s] = (float)tt__trellis_value(s) / TT_TRELLIS_SPREAD;
}

/* Back from the bits that the last state leaves: states of weights n-1 … to; returns what the state at `to` kept of the one before it. */
static uint32_t trace(const tt_viterbi *v, uint32_t left, int64_t to, uint16_t *state) {
    const int64_t p = prefixes(v->states, v->bits);
    for (int64_t i = v->n - 1; i >= to; i--) {
        const uint32_t s = left + (uint32_t)(v->from[i * p + left] * p);
        if (state) state[i] = (uint16_t)s;
        left = s >> v->bits;
    }
    return left;
}

/* Weights last-to-first, beginning `first` weights into that order. */
static void turn(const float *x, int64_t n, int64_t first, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = x[n - 1 - (first + i) % n];
}

static uint32_t find_seam(const tt_kernels *k, tt_viterbi *v, const room *r, const float *x, const float *weight, int64_t n) {
    const int64_t half = n / 2 < SEAM ? n / 2 : SEAM, p = prefixes(v->states, v->bits);
    uint32_t best = 0;
    v->n = 2 * half;
    turn(x, n, n - half, v->n, r->x);
    turn(weight, n, n - half, v->n, r->weight);
    memset(r->least, 0, (size_t)(p + PAD) * sizeof(float));
    k->trellis_search(v);
    for (int64_t i = 1; i < p; i++)
        if (v->least[i] < v->least[best]) best = (uint32_t)i;
    return trace(v, best, half, NULL);
}

static void pack(const uint16_t *state, int64_t n, int bits, uint8_t *codes) {
    memset(codes, 0, (size_t)(n * bits / 8));
    for (int64_t i = 0; i < n; i++)
        for (int b = 0; b < bits; b++)
            codes[(i * bits + b) / 8] |= (uint8_t)((state[n - 1 - i] >> b & 1) << (i * bits + b) % 8);
}

double tt__trellis_encode(const tt_kernels *k, int states, int bits, const float *value, const float *x, const float *weight, int64_t n, void *memory,
                          uint8_t *codes, float *y) {
    const room r = room_in(memory, states, bits);
    const int64_t p = prefixes(states, bits);
    tt_viterbi v = {.states = states, .bits = bits, .x = r.x, .weight = r.weight, .value = value, .least = r.least, .spare = r.spare, .from = r.from};
    const uint32_t seam = find_seam(k, &v, &r, x, weight, n);
    double sum = 0;
    v.n = n;
    turn(x, n, 0, n, r.x);
    turn(weight, n, 0, n, r.weight);
    for (int64_t i = 0; i < p + PAD; i++) r.least[i] = i == seam ? 0.0f : 1e30f;
    v.least = r.least, v.spare = r.spare;
    k->trellis_search(&v);
    trace(&v, seam, 0, r.state);
    pack(r.state, n, bits, codes);
    for (int64_t i = 0; i < n; i++) {
        y[i] = value[r.state[n - 1 - i]];
        sum += (double)weight[i] * ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    }
    return sum;
}

uint32_t tt__trellis_window(const uint8_t *codes, int64_t n, int bits, int states, int64_t i) {
    uint32_t s = 0;
    for (int b = 0; b < states; b++) {
        const int64_t at = (i * bits + b) % (n * bits);
        s |= (uint32_t)(codes[at / 8] >> at % 8 & 1) << b;
    }
    return s;
}
