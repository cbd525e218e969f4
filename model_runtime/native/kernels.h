/* The kernels, one function a tile. Included once per instruction set, behind lanes.h.
 *
 * One rule holds the bits: what is added up in which order follows from the sizes of a row and its
 * own position alone. Never from other rows, from the thread, or from how wide registers are.
 */
#include <stddef.h>

#include "lanes.h"
#include "native.h"

/* ---- products ---------------------------------------------------------------------------------
 *
 * A tile is one panel of 64 columns for at most PRODUCT_ROWS rows. Each output is a chain of fused
 * multiply-adds along a block of k; the sums of blocks are added up in their order. Only different
 * outputs are computed side by side.
 *
 * MOST_ROWS x 64 sums (fewer columns at a time where there are 16 registers of 8) stay in registers
 * while k runs, so a weight is loaded once for MOST_ROWS rows. The rows of a tile go over the same
 * block of the panel, 32 KiB, which therefore stays in the first or second level of cache.
 *
 * A weight in bfloat16 becomes a float32 on its way to the sums where few rows use it: then memory
 * is what takes the time. For more rows a block is converted once. */
#if defined(LANES_AVX512)
#define MOST_ROWS 6
#define COLUMNS(rows) 4
#elif defined(LANES_AVX2)
#define MOST_ROWS 3
#define COLUMNS(rows) ((rows) == 1 ? 4 : 2)
#else
#define MOST_ROWS 2
#define COLUMNS(rows) 2
#endif

#define AHEAD 12           /* steps of k between the prefetch of a weight and its use */
#define FEW_ROWS 12        /* that do not pay for the conversion of a block */
#define CONVERTED_BLOCK 256 /* steps of k that are converted at once, at most */

/* The sums of one block of k for count x 16 columns of a row: added to y, or put there by the first
 * block; the last one adds the bias. */
static __attribute__((noinline)) void add_sums(const struct product *p, int64_t row, int64_t column,
                                               int64_t count, const float *found, int64_t first,
                                               int64_t stop) {
    float *y = p->y + row * p->y_stride;
    for (int64_t i = 0; i < count && column < p->out; i++, column += LANES) {
        lanes sum = lanes_load(found + i * LANES);
        if (first)
            sum = lanes_add(lanes_load_from(y, column, p->out, 0.0f), sum);
        if (p->bias && stop == p->in)
            sum = lanes_add(sum, lanes_load_from(p->bias, column, p->out, 0.0f));
        lanes_store_to(y, column, p->out, sum);
    }
}

/* Rows x columns of one block of k, whose weights begin at weight. ROWS and BF16 are constants of
 * every call, so that the sums become registers. */
INLINE void product_block(const int ROWS, const int BF16, const struct product *p, int64_t row,
                          int64_t first, int64_t stop, int64_t panel, const char *weight) {
    const int COUNT = COLUMNS(ROWS);
    const size_t size = BF16 ? sizeof(uint16_t) : sizeof(float);
    const float *x = p->x + row * p->x_stride + first;
    const int64_t steps = stop - first;
    for (int64_t column = 0; column < PANEL; column += COUNT * LANES) {
        lanes sums[MOST_ROWS * 4];
#pragma GCC unroll 24
        for (int i = 0; i < ROWS * COUNT; i++)
            sums[i] = lanes_set(0.0f);
        for (int64_t k = 0; k < steps; k++) {
            const char *at = weight + (size_t)(k * PANEL + column) * size;
            lanes w[4];
#pragma GCC unroll 4
            for (int c = 0; c < COUNT; c++) {
                const char *part = at + (size_t)(c * LANES) * size;
                if (!BF16 || c % 2 == 0)
                    __builtin_prefetch(part + (size_t)(AHEAD * PANEL) * size);
                w[c] = BF16 ? lanes_load_bf16((const void *)part) : lanes_load((const void *)part);
            }
#pragma GCC unroll 6
            for (int r = 0; r < ROWS; r++) {
                lanes input = lanes_set(x[r * p->x_stride + k]);
#pragma GCC unroll 4
                for (int c = 0; c < COUNT; c++)
                    sums[r * COUNT + c] = lanes_fma(input, w[c], sums[r * COUNT + c]);
            }
        }
        float found[MOST_ROWS * PANEL];
#pragma GCC unroll 24
        for (int i = 0; i < ROWS * COUNT; i++)
            lanes_store(found + i * LANES, sums[i]);
        for (int r = 0; r < ROWS; r++)
            add_sums(p, row + r, panel * PANEL + column, COUNT, found + r * COUNT * LANES, first,
                     stop);
    }
}

INLINE void product_rows(const int BF16, const struct product *p, int64_t row, int64_t rows,
                         int64_t first, int64_t stop, int64_t panel, const char *weight) {
    switch (rows) {
    case 1: product_block(1, BF16, p, row, first, stop, panel, weight); break;
    case 2: product_block(2, BF16, p, row, first, stop, panel, weight); break;
#if MOST_ROWS >= 3
    case 3: product_block(3, BF16, p, row, first, stop, panel, weight); break;
#endif
#if MOST_ROWS >= 6
    case 4: product_block(4, BF16, p, row, first, stop, panel, weight); break;
    case 5: product_block(5, BF16, p, row, first, stop, panel, weight); break;
    case 6: product_block(6, BF16, p, row, first, stop, panel, weight); break;
#endif
    }
}

static void product_tile(const void *arguments, int64_t tile) {
    const struct product *p = arguments;
    const int64_t panels = (p->out + PANEL - 1) / PANEL, panel = tile % panels;
    const int64_t parts = (p->rows + PRODUCT_ROWS - 1) / PRODUCT_ROWS, part = tile / panels;
    const int64_t begin = p->rows * part / parts, rows = p->rows * (part + 1) / parts - begin;
    const int64_t groups = (rows + MOST_ROWS - 1) / MOST_ROWS; /* of even heights: 4 + 3, not 6 + 1 */
    const size_t size = p->weight_is_bf16 ? sizeof(uint16_t) : sizeof(float);
    _Alignas(64) float converted[CONVERTED_BLOCK * PANEL];
    for (int64_t first = 0; first < p->in; first += p->block) {
        int64_t stop = p->in - first < p->block ? p->in : first + p->block;
        const char *weight = (const char *)p->weight + (size_t)((panel * p->in + first) * PANEL) * size;
        int is_bf16 = p->weight_is_bf16 != 0;
        if (is_bf16 && rows > FEW_ROWS && stop - first <= CONVERTED_BLOCK) {
            for (int64_t i = 0; i < (stop - first) * PANEL; i += LANES)
                lanes_store(converted + i, lanes_load_bf16((const uint16_t *)weight + i));
            weight = (const char *)converted;
            is_bf16 = 0;
        }
        for (int64_t group = 0; group < groups; group++) {
            int64_t row = begin + rows * group / groups, next = begin + rows * (group + 1) / groups;
            if (is_bf16)
                product_rows(1, p, row, next - row, first, stop, panel, weight);
            else
                product_rows(0, p, row, next - row, first, stop, panel, weight);
        }
    }
}

/* ---- norms ------------------------------------------------------------------------------------ */

INLINE float sum_of_squares(const float *x, int64_t width, float centre) {
    lanes sum = lanes_set(0.0f), middle = lanes_set(centre);
    for (int64_t i = 0; i < width; i += LANES) {
        lanes off = lanes_sub(lanes_load_from(x, i, width, centre), middle);
        sum = lanes_fma(off, off, sum);
    }
    return lanes_sum(sum);
}

INLINE void rms_norm(const float *x, float *y, const float *weight, int64_t width, float epsilon) {
    float mean = sum_of_squares(x, width, 0.0f) / (float)width;
    lanes scale = lanes_set(1.0f / sqrtf(mean + epsilon));
    for (int64_t i = 0; i < width; i += LANES) {
        lanes scaled = lanes_mul(lanes_load_from(x, i, width, 0.0f), scale);
        lanes_store_to(y, i, width, lanes_mul(scaled, lanes_load_from(weight, i, width, 0.0f)));
    }
}

INLINE void layer_norm(const float *x, float *y, const struct norm *p) {
    lanes sum = lanes_set(0.0f);
    for (int64_t i = 0; i < p->width; i += LANES)
        sum = lanes_add(sum, lanes_load_from(x, i, p->width, 0.0f));
    float mean = lanes_sum(sum) / (float)p->width;
    float variance = sum_of_squares(x, p->width, mean) / (float)p->width;
    lanes scale = lanes_set(1.0f / sqrtf(variance + p->epsilon));
    for (int64_t i = 0; i < p->width; i += LANES) {
        lanes off = lanes_sub(lanes_load_from(x, i, p->width, 0.0f), lanes_set(mean));
        lanes scaled = lanes_mul(off, scale), weight = lanes_load_from(p->weight, i, p->width, 0.0f);
        lanes bias = p->bias ? lanes_load_from(p->bias, i, p->width, 0.0f) : lanes_set(0.0f);
        lanes_store_to(y, i, p->width, lanes_fma(scaled, weight, bias));
    }
}

static void norm_tile(const void *arguments, int64_t row) {
    const struct norm *p = arguments;
    float *x = p->x + row * p->x_stride;
    if (p->add) {
        const float *add = p->add + row * p->add_stride;
        for (int64_t i = 0; i < p->width; i += LANES) {
            lanes sum = lanes_add(lanes_load_from(x, i, p->width, 0.0f),
                                  lanes_load_from(add, i, p->width, 0.0f));
            lanes_store_to(x, i, p->width, sum);
        }
    }
    if (!p->y)
        return;
    float *y = p->y + row * p->y_stride;
    if (p->centred)
        layer_norm(x, y, p);
    else
        rms_norm(x, y, p->weight, p->width, p->epsilon);
}

/* ---- activations ------------------------------------------------------------------------------
 *
 * SiLU is g / (1 + exp(-g)). The tanh form of GELU is the same with another exponent, since
 * (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), which loses nothing where tanh u is close to -1.
 * The erf form takes erfc(z) = exp(-z^2) t p(t) with t = 1 / (1 + 0.3 z) for z = |g| / sqrt 2, p fitted
 * for the least relative error, 2e-8, up to z = 9.5: g erfc(z) / 2 is GELU of -|g|, and what GELU of
 * |g| falls short of |g|. */
INLINE lanes gelu_erf(lanes g) {
    lanes z = lanes_mul(lanes_abs(g), lanes_set(0.707106781f));
    lanes one = lanes_set(1.0f), zero = lanes_set(0.0f);
    lanes t = lanes_div(one, lanes_fma(z, lanes_set(0.3f), one));
    lanes p = lanes_set(-0.129434192f);
    p = lanes_fma(p, t, lanes_set(0.485096991f));
    p = lanes_fma(p, t, lanes_set(-0.511227551f));
    p = lanes_fma(p, t, lanes_set(0.546396295f));
    p = lanes_fma(p, t, lanes_set(-0.0936320972f));
    p = lanes_fma(p, t, lanes_set(0.21443663f));
    p = lanes_fma(p, t, lanes_set(0.148482344f));
    p = lanes_fma(p, t, lanes_set(0.170691946f));
    p = lanes_fma(p, t, lanes_set(0.169189614f));
    lanes below = lanes_exp(lanes_sub(zero, lanes_mul(z, z)));
    lanes half = lanes_mul(lanes_mul(g, lanes_set(0.5f)), lanes_mul(below, lanes_mul(p, t)));
    return lanes_where_above(g, zero, lanes_sub(g, half), half);
}

INLINE lanes activated(lanes g, int64_t activation) {
    if (activation == GELU_ERF)
        return gelu_erf(g);
    lanes exponent = lanes_sub(lanes_set(0.0f), g);
    if (activation == GELU_TANH) {
        lanes cubed = lanes_mul(lanes_mul(g, g), g);
        lanes inner = lanes_fma(cubed, lanes_set(0.044715f), g);
        exponent = lanes_mul(inner, lanes_set(-1.59576912f)); /* -2 sqrt(2 / pi) */
    }
    return lanes_div(g, lanes_add(lanes_exp(exponent), lanes_set(1.0f)));
}

static void gated_tile(const void *arguments, int64_t row) {
    const struct gated *p = arguments;
    const float *gate = p->gate + row * p->gate_stride, *up = p->up + row * p->up_stride;
    float *y = p->y + row * p->y_stride;
    for (int64_t i = 0; i < p->width; i += LANES) {
        lanes value = activated(lanes_load_from(gate, i, p->width, 0.0f), p->activation);
        if (p->up)
            value = lanes_mul(value, lanes_load_from(up, i, p->width, 0.0f));
        lanes_store_to(y, i, p->width, value);
    }
}

/* ---- rotation ---------------------------------------------------------------------------------
 *
 * The first half of what is rotated goes with the second, as in the models of the Llama family.
 * Products are rounded before they are added, as torch does it. */
INLINE void rotate(const float *x, float *y, const float *cosine, const float *sine, int64_t half) {
    for (int64_t i = 0; i < half; i += LANES) {
        lanes a = lanes_load_from(x, i, half, 0.0f), b = lanes_load_from(x + half, i, half, 0.0f);
        lanes low = lanes_sub(lanes_mul(a, lanes_load_from(cosine, i, half, 0.0f)),
                              lanes_mul(b, lanes_load_from(sine, i, half, 0.0f)));
        lanes high = lanes_add(lanes_mul(b, lanes_load_from(cosine + half, i, half, 0.0f)),
                               lanes_mul(a, lanes_load_from(sine + half, i, half, 0.0f)));
        lanes_store_to(y, i, half, low);
        lanes_store_to(y + half, i, half, high);
    }
}

static void rotation_tile(const void *arguments, int64_t row) {
    const struct rotation *p = arguments;
    const float *cosine = p->cosine + row * p->angle_stride, *sine = p->sine + row * p->angle_stride;
    float *at = p->qkv + row * p->qkv_stride;
    const size_t rest = (size_t)(p->dim - p->rotated);
    for (int64_t head = 0; head < p->heads; head++, at += p->dim) {
        if (p->query_norm)
            rms_norm(at, at, p->query_norm, p->dim, p->epsilon);
        rotate(at, at, cosine, sine, p->rotated / 2);
    }
    float *key = p->keys + p->slots[row] * p->slot_stride;
    for (int64_t head = 0; head < p->kv_heads; head++, at += p->dim, key += p->dim) {
        if (p->key_norm)
            rms_norm(at, at, p->key_norm, p->dim, p->epsilon);
        rotate(at, key, cosine, sine, p->rotated / 2);
        memcpy(key + p->rotated, at + p->rotated, rest * sizeof(float));
    }
    float *value = p->values + p->slots[row] * p->slot_stride;
    memcpy(value, at, (size_t)(p->kv_heads * p->dim) * sizeof(float));
}

/* ---- attention --------------------------------------------------------------------------------
 *
 * A tile is one row and one head of keys, with the query heads that share it. A part's keys come in
 * blocks of 64, counted from the first key that the row sees in it: 64 keys of 64 columns are 16
 * KiB, so keys and values of a block stay in the first level of cache for all heads. */
#define KEYS 64

struct part {
    float peak[MOST_GROUP], total[MOST_GROUP];
    float weighted[MOST_GROUP][MOST_DIM];
};

INLINE void scores_of(const struct attention *p, const float *query, const float *const *keys,
                      int64_t count, float *scores) {
    for (int64_t key = 0; key < KEYS; key++)
        scores[key] = -INFINITY;
    for (int64_t key = 0; key < count; key++) {
        lanes sum = lanes_set(0.0f);
        for (int64_t i = 0; i < p->dim; i += LANES)
            sum = lanes_fma(lanes_load(query + i), lanes_load(keys[key] + i), sum);
        scores[key] = lanes_sum(sum) * p->scaling;
    }
    for (int64_t key = 0; p->softcap > 0 && key < count; key += LANES) {
        lanes capped = lanes_div(lanes_load(scores + key), lanes_set(p->softcap));
        capped = lanes_mul(lanes_tanh(capped), lanes_set(p->softcap));
        lanes_store_to(scores, key, count, capped);
    }
}

/* Columns of values, weighted, added to what is there in the order of keys. COUNT sums at a time, so
 * that one need not wait for the other. */
INLINE void add_values(const int COUNT, float *weighted, float fade, const float *weights,
                       const float *const *values, int64_t column, int64_t count) {
    lanes sums[4];
#pragma GCC unroll 4
    for (int c = 0; c < COUNT; c++)
        sums[c] = lanes_mul(lanes_load(weighted + c * LANES), lanes_set(fade));
    for (int64_t key = 0; key < count; key++) {
        lanes weight = lanes_set(weights[key]);
#pragma GCC unroll 4
        for (int c = 0; c < COUNT; c++)
            sums[c] = lanes_fma(weight, lanes_load(values[key] + column + c * LANES), sums[c]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < COUNT; c++)
        lanes_store(weighted + c * LANES, sums[c]);
}

/* Scores become exponentials below the peak so far; what was added up before is scaled to it. */
INLINE void add_block(const struct attention *p, struct part *part, int64_t head, float *scores,
                      const float *const *values, int64_t count) {
    lanes highest = lanes_load(scores);
    for (int64_t key = LANES; key < KEYS; key += LANES)
        highest = lanes_max(highest, lanes_load(scores + key));
    float peak = lanes_peak(highest);
    peak = peak > part->peak[head] ? peak : part->peak[head];
    float fade[LANES];
    lanes faded = lanes_exp(lanes_set(part->peak[head] - peak)), sum = lanes_set(0.0f);
    for (int64_t key = 0; key < KEYS; key += LANES) {
        lanes weight = lanes_exp(lanes_sub(lanes_load(scores + key), lanes_set(peak)));
        lanes_store(scores + key, weight);
        sum = lanes_add(sum, weight);
    }
    lanes_store(fade, faded);
    part->peak[head] = peak;
    part->total[head] = fmaf(part->total[head], fade[0], lanes_sum(sum));
    int64_t column = 0;
    for (; column + 4 * LANES <= p->dim; column += 4 * LANES)
        add_values(4, part->weighted[head] + column, fade[0], scores, values, column, count);
    for (; column < p->dim; column += LANES)
        add_values(1, part->weighted[head] + column, fade[0], scores, values, column, count);
}

INLINE void attend_to(const struct attention *p, struct part *part, const float *query,
                      const int64_t *slots, int64_t count, int64_t offset) {
    float scores[KEYS];
    const float *keys[KEYS], *values[KEYS];
    for (int64_t head = 0; head < p->group; head++) {
        part->peak[head] = -1e30f; /* finite, so that an empty part fades to nothing, not to NaN */
        part->total[head] = 0.0f;
        memset(part->weighted[head], 0, sizeof(float) * (size_t)p->dim);
    }
    for (int64_t first = 0; first < count; first += KEYS) {
        int64_t some = count - first < KEYS ? count - first : KEYS;
        for (int64_t key = 0; key < some; key++) {
            keys[key] = p->keys + slots[first + key] * p->slot_stride + offset;
            values[key] = p->values + slots[first + key] * p->slot_stride + offset;
            if (first + KEYS + key < count) { /* of the next block, wherever its slots lie */
                int64_t later = slots[first + KEYS + key] * p->slot_stride + offset;
                for (int64_t i = 0; i < p->dim; i += LANES) {
                    __builtin_prefetch(p->keys + later + i, 0, 2);
                    __builtin_prefetch(p->values + later + i, 0, 2);
                }
            }
        }
        for (int64_t head = 0; head < p->group; head++) {
            scores_of(p, query + head * p->dim, keys, some, scores);
            add_block(p, part, head, scores, values, some);
        }
    }
}

static void attention_tile(const void *arguments, int64_t tile) {
    const struct attention *p = arguments;
    const int64_t row = tile / p->kv_heads, kv_head = tile % p->kv_heads;
    const int64_t at = kv_head * p->group * p->dim, offset = kv_head * p->dim;
    const struct spans *spans = p->spans + row;
    const float *query = p->query + row * p->query_stride + at;
    float *y = p->y + row * p->y_stride + at;
    /* Keys before the window are left out: of the far part first, then of the near one. */
    int64_t unseen = p->window ? spans->far_count + spans->near_count - p->window : 0;
    int64_t far_skip = unseen < 0 ? 0 : unseen < spans->far_count ? unseen : spans->far_count;
    int64_t near_skip = unseen > spans->far_count ? unseen - spans->far_count : 0;
    struct part near, far;
    attend_to(p, &near, query, p->slots + spans->near_first + near_skip,
              spans->near_count - near_skip, offset);
    attend_to(p, &far, query, p->slots + spans->far_first + far_skip, spans->far_count - far_skip,
              offset);
    for (int64_t head = 0; head < p->group; head++, y += p->dim) {
        float peak = near.peak[head] > far.peak[head] ? near.peak[head] : far.peak[head];
        lanes of_near = lanes_exp(lanes_set(near.peak[head] - peak));
        lanes of_far = lanes_exp(lanes_set(far.peak[head] - peak));
        lanes total = lanes_mul(lanes_set(near.total[head]), of_near);
        total = lanes_fma(lanes_set(far.total[head]), of_far, total);
        for (int64_t i = 0; i < p->dim; i += LANES) {
            lanes sum = lanes_mul(lanes_load(near.weighted[head] + i), of_near);
            sum = lanes_fma(lanes_load(far.weighted[head] + i), of_far, sum);
            lanes_store(y + i, lanes_div(sum, total));
        }
    }
}

/* ---- reduction of logits ---------------------------------------------------------------------- */

/* log(x) of a positive finite x, in float64 without a library whose bits depend on the processor:
 * x = 2^e m with m in [0.7, 1.42), log m = 2 artanh((m - 1) / (m + 1)) by its series. */
INLINE double log_of(double x) {
    int exponent;
    double m = frexp(x, &exponent);
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    double s = (m - 1) / (m + 1), z = s * s, sum = 0;
    for (int term = 23; term >= 1; term -= 2)
        sum = sum * z + 1.0 / term;
    return exponent * 0.69314718055994531 + 2 * s * sum;
}

#define CHUNK 1024 /* columns whose exponentials are added up in float32 */

INLINE float log_sum_of(const float *logits, int64_t vocab) {
    lanes highest = lanes_set(-INFINITY);
    for (int64_t i = 0; i < vocab; i += LANES) /* a NaN stays, as the second of the two */
        highest = lanes_max(highest, lanes_load_from(logits, i, vocab, -INFINITY));
    float peak = lanes_peak(highest);
    double total = 0;
    for (int64_t first = 0; first < vocab; first += CHUNK) {
        int64_t stop = vocab - first < CHUNK ? vocab : first + CHUNK;
        lanes sum = lanes_set(0.0f);
        for (int64_t i = first; i < stop; i += LANES) {
            lanes below = lanes_sub(lanes_load_from(logits, i, stop, -INFINITY), lanes_set(peak));
            sum = lanes_add(sum, lanes_exp(below));
        }
        total += (double)lanes_sum(sum);
    }
    return total > 0 && total < INFINITY ? (float)((double)peak + log_of(total)) : NAN;
}

INLINE int64_t greater(const float *logits, int64_t vocab, float than) {
    int64_t count = 0;
    for (int64_t i = 0; i < vocab; i += LANES) {
        lanes some = lanes_load_from(logits, i, vocab, -INFINITY);
        count += __builtin_popcount(lanes_above(some, lanes_set(than)));
    }
    return count;
}

/* Keeps the largest so far in falling order; columns come ascending, so of equals the first stays
 * in front. Nearly all groups of 16 hold nothing greater than the last one kept. */
INLINE void largest(const float *logits, int64_t vocab, int64_t top, float *values, int64_t *ids) {
    int64_t kept = 0;
    for (int64_t i = 0; i < vocab; i += LANES) {
        lanes least = lanes_set(kept < top ? -INFINITY : values[top - 1]);
        lanes some = lanes_load_from(logits, i, vocab, -INFINITY);
        unsigned above = lanes_above(some, least);
        if (kept < top) /* minus infinity counts until the list is full */
            above = vocab - i < LANES ? (1u << (vocab - i)) - 1 : (1u << LANES) - 1;
        for (; above; above &= above - 1) {
            int64_t id = i + __builtin_ctz(above);
            float value = logits[id];
            if (kept == top && !(value > values[top - 1]))
                continue;
            int64_t at = kept < top ? kept++ : top - 1;
            for (; at && values[at - 1] < value; at--) {
                values[at] = values[at - 1];
                ids[at] = ids[at - 1];
            }
            values[at] = value;
            ids[at] = id;
        }
    }
}

static void reduction_tile(const void *arguments, int64_t row) {
    const struct reduction *p = arguments;
    const float *logits = p->logits + row * p->logits_stride;
    float log_sum = log_sum_of(logits, p->vocab);
    p->log_sum[row] = log_sum;
    for (int64_t i = p->chosen_first[row]; i < p->chosen_first[row + 1]; i++) {
        float logit = logits[p->chosen[i]];
        p->logprobs[i] = logit - log_sum;
        p->ranks[i] = 1 + greater(logits, p->vocab, logit);
    }
    if (p->top)
        largest(logits, p->vocab, p->top, p->top_logits + row * p->top, p->top_ids + row * p->top);
}

const tile_function KERNELS[KINDS] = {
    [PRODUCT] = product_tile,     [NORM] = norm_tile,           [GATED] = gated_tile,
    [ROTATION] = rotation_tile,   [ATTENTION] = attention_tile, [REDUCTION] = reduction_tile,
};
