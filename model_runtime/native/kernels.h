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

INLINE int all_finite(const float *x, int64_t width) {
    lanes sum = lanes_set(0.0f);
    for (int64_t i = 0; i < width; i += LANES)
        sum = lanes_fma(lanes_load_from(x, i, width, 0.0f), lanes_set(0.0f), sum);
    return lanes_sum(sum) == 0.0f;
}

static void rotation_tile(const void *arguments, int64_t row) {
    const struct rotation *p = arguments;
    const int64_t angles = row * p->angle_stride, width = p->kv_heads * p->dim;
    const float *cosine = p->rotated ? p->cosine + angles : NULL;
    const float *sine = p->rotated ? p->sine + angles : NULL;
    float *at = p->qkv + row * p->qkv_stride;
    const size_t rest = (size_t)(p->dim - p->rotated);
    for (int64_t head = 0; head < p->heads; head++, at += p->dim) {
        if (p->query_norm)
            rms_norm(at, at, p->query_norm, p->dim, p->epsilon);
        rotate(at, at, cosine, sine, p->rotated / 2);
    }
    float *keys = p->keys + p->slots[row] * p->slot_stride, *key = keys;
    for (int64_t head = 0; head < p->kv_heads; head++, at += p->dim, key += p->dim) {
        if (p->key_norm)
            rms_norm(at, at, p->key_norm, p->dim, p->epsilon);
        rotate(at, key, cosine, sine, p->rotated / 2);
        memcpy(key + p->rotated, at + p->rotated, rest * sizeof(float));
    }
    float *values = p->values + p->slots[row] * p->slot_stride;
    memcpy(values, at, (size_t)width * sizeof(float));
    if (!all_finite(keys, width) || !all_finite(values, width)) {
        memset(keys, 0, (size_t)width * sizeof(float));
        memset(values, 0, (size_t)width * sizeof(float));
        if (p->bad)
            p->bad[row] = 1;
    }
}

/* ---- attention --------------------------------------------------------------------------------
 *
 * A tile is some consecutive rows and one head of keys; a row's query head is a line of it. A row's
 * keys come in blocks of 64 counted from the first position of its far part, then of its near part,
 * and a line holds its peak, sum and weighted values from block to block. Where the blocks of
 * neighbouring rows name the same slots, their lines go through the block together, so that its
 * keys and values are read once: 64 keys of 64 columns are 16 KiB. A key that a line does not see
 * has the weight 0 and changes no bit; a block in which a row sees none is left out, which is the
 * same. So neither neighbours nor where the far part ends decide about bits, as long as it ends
 * with a block. */
#define KEYS 64
#define MANY_LINES 12 /* from which on it pays to transpose keys */

#if defined(LANES_AVX512)
#define SCORED_LINES 4 /* at a time */
#define WEIGHTED_LINES 4
#define WEIGHTED_COLUMNS 4
#elif defined(LANES_AVX2)
#define SCORED_LINES 2
#define WEIGHTED_LINES 3
#define WEIGHTED_COLUMNS 2
#else
#define SCORED_LINES 1
#define WEIGHTED_LINES 1
#define WEIGHTED_COLUMNS 2
#endif

struct lines {
    const float *query[MOST_LINES];
    float peak[MOST_LINES], fade[MOST_LINES];
    float total[MOST_LINES][LANES]; /* of weights, by key modulo 16 */
    float scores[MOST_LINES][KEYS]; /* of the block at hand, then its weights */
    float weighted[MOST_LINES * MOST_DIM];
};

/* What a row sees of its block of that number. */
struct block {
    const int64_t *slots;
    int64_t count, unseen; /* keys, of which so many lie before the window */
};

INLINE int64_t blocks_before(const struct spans *spans, int64_t position) {
    int64_t far = (spans->far_count + KEYS - 1) / KEYS, near = position - spans->far_count;
    return near < 0 ? position / KEYS : far + near / KEYS;
}

INLINE int64_t before_window(const struct attention *p, const struct spans *spans) {
    int64_t unseen = p->window ? spans->far_count + spans->near_count - p->window : 0;
    return unseen > 0 ? unseen : 0;
}

INLINE struct block block_of(const struct attention *p, int64_t row, int64_t number) {
    const struct spans *spans = p->spans + row;
    int64_t far = (spans->far_count + KEYS - 1) / KEYS, near = number - far;
    struct block block;
    block.unseen = before_window(p, spans);
    if (near < 0) {
        block.slots = p->slots + spans->far_first + number * KEYS;
        block.count = spans->far_count - number * KEYS;
        block.unseen -= number * KEYS;
    } else {
        block.slots = p->slots + spans->near_first + near * KEYS;
        block.count = spans->near_count - near * KEYS;
        block.unseen -= spans->far_count + near * KEYS;
    }
    block.count = block.count < KEYS ? block.count : KEYS;
    if (block.unseen >= block.count)
        block.count = 0;
    return block;
}

/* Whether the shorter of two blocks is the beginning of the other. */
INLINE int same_keys(const struct block *a, const struct block *b) {
    int64_t count = a->count < b->count ? a->count : b->count;
    return count > 0 && (a->slots == b->slots ||
                         !memcmp(a->slots, b->slots, (size_t)count * sizeof *a->slots));
}

/* Scores of sixteen keys for one line, which read the keys as they lie. Lane i of a key's products
 * adds up columns i, i + 16, ...; lanes are added up as in lanes_sum. */
INLINE lanes scores_of(int64_t dim, const float *query, const float *const *keys) {
    lanes_half sums[LANES];
#pragma GCC unroll 16
    for (int key = 0; key < LANES; key++) {
        lanes sum = lanes_mul(lanes_load(query), lanes_load(keys[key]));
        for (int64_t i = LANES; i < dim; i += LANES)
            sum = lanes_fma(lanes_load(query + i), lanes_load(keys[key] + i), sum);
        sums[key] = lanes_halve(sum);
    }
    return lanes_sums(sums);
}

/* The same for more lines: sixteen keys lie transposed, so that each has a lane to itself, and what
 * were lanes 0 and 8 above, and so on, are now two vectors. The order of the sums is the same. */
#define SCORES                                                                                   \
    const int ROWS, int64_t dim, const float *const *query, const float *columns, int64_t lane,  \
        lanes *sums
INLINE void add_every_16th(SCORES) {
    lanes keys = lanes_load(columns + lane * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        sums[r] = lanes_mul(lanes_set(query[r][lane]), keys);
    for (int64_t i = lane + LANES; i < dim; i += LANES) {
        keys = lanes_load(columns + i * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
            sums[r] = lanes_fma(lanes_set(query[r][i]), keys, sums[r]);
    }
}
#define ADD_BOTH(name, half, step)                                                               \
    INLINE void name(SCORES) {                                                                   \
        lanes other[SCORED_LINES];                                                               \
        half(ROWS, dim, query, columns, lane, sums);                                             \
        half(ROWS, dim, query, columns, lane + (step), other);                                   \
        for (int r = 0; r < ROWS; r++)                                                           \
            sums[r] = lanes_add(sums[r], other[r]);                                              \
    }
ADD_BOTH(add_every_8th, add_every_16th, 8)
ADD_BOTH(add_every_4th, add_every_8th, 4)
ADD_BOTH(add_every_2nd, add_every_4th, 2)
ADD_BOTH(add_every, add_every_2nd, 1)

INLINE void scores_of_lines(const int ROWS, int64_t dim, struct lines *lines, int64_t line,
                            const float *columns, int64_t key) {
    lanes sums[SCORED_LINES];
    add_every(ROWS, dim, lines->query + line, columns, 0, sums);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        lanes_store(lines->scores[line + r] + key, sums[r]);
}

INLINE void scores_of_sixteen(int64_t dim, struct lines *lines, int64_t first, int64_t stop,
                              const float *const *keys, int64_t key) {
    int64_t line = first;
    if (stop - first >= MANY_LINES) {
        float columns[MOST_DIM * LANES];
        for (int64_t i = 0; i < dim; i += LANES)
            lanes_transpose(keys, i, columns + i * LANES);
        for (; line + SCORED_LINES <= stop; line += SCORED_LINES)
            scores_of_lines(SCORED_LINES, dim, lines, line, columns, key);
        for (; line < stop; line++)
            scores_of_lines(1, dim, lines, line, columns, key);
    }
    for (; line < stop; line++)
        lanes_store(lines->scores[line] + key, scores_of(dim, lines->query[line], keys));
}

/* Scales and caps the scores of a line, takes away those of keys that it does not see; returns the
 * highest. */
INLINE float cap_scores(const struct attention *p, float *scores, const struct block *block,
                        int64_t count) {
    static const float numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const lanes nothing = lanes_set(-INFINITY);
    lanes highest = nothing;
    for (int64_t key = 0; key < count; key += LANES) {
        lanes score = lanes_mul(lanes_load(scores + key), lanes_set(p->scaling));
        if (p->softcap > 0) {
            score = lanes_tanh(lanes_div(score, lanes_set(p->softcap)));
            score = lanes_mul(score, lanes_set(p->softcap));
        }
        if (block->unseen > key || block->count < key + LANES) {
            lanes number = lanes_add(lanes_load(numbers), lanes_set((float)key));
            lanes behind = lanes_add(number, lanes_set(1.0f));
            score = lanes_where_above(lanes_set((float)block->unseen), number, nothing, score);
            score = lanes_where_above(behind, lanes_set((float)block->count), nothing, score);
        }
        highest = lanes_max(highest, score);
        lanes_store(scores + key, score);
    }
    return lanes_peak(highest);
}

/* Scores become exponentials below the peak so far; what was added up before fades to it. */
INLINE void weights_of(const struct attention *p, struct lines *lines, int64_t first, int64_t stop,
                       const struct block *of, int64_t count) {
    float *peaks = lines->peak, *fades = lines->fade;
    for (int64_t line = first; line < stop; line++) {
        float peak = cap_scores(p, lines->scores[line], of + line / p->group, count);
        fades[line] = peaks[line];
        peaks[line] = peak > peaks[line] ? peak : peaks[line];
    }
    for (int64_t line = first; line < stop; line += LANES) {
        lanes peak = lanes_load_from(peaks, line, stop, 0.0f);
        lanes before = lanes_load_from(fades, line, stop, 0.0f);
        lanes_store_to(fades, line, stop, lanes_exp(lanes_sub(before, peak)));
    }
    for (int64_t line = first; line < stop; line++) {
        lanes sum = lanes_set(0.0f), peak = lanes_set(peaks[line]);
        for (int64_t key = 0; key < count; key += LANES) {
            lanes weight = lanes_exp(lanes_sub(lanes_load(lines->scores[line] + key), peak));
            lanes_store(lines->scores[line] + key, weight);
            sum = lanes_add(sum, weight);
        }
        lanes total = lanes_load(lines->total[line]);
        lanes_store(lines->total[line], lanes_fma(total, lanes_set(fades[line]), sum));
    }
}

/* Adds weighted values to ROWS lines, COLUMNS x 16 of their columns, in the order of keys. */
INLINE void add_values(const int ROWS, const int COLUMNS, const struct attention *p,
                       struct lines *lines, int64_t line, const float *const *values,
                       int64_t column, int64_t count) {
    lanes sums[WEIGHTED_LINES * WEIGHTED_COLUMNS];
    float *weighted = lines->weighted + line * p->dim + column;
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        lanes fade = lanes_set(lines->fade[line + r]);
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; c++)
            sums[r * COLUMNS + c] = lanes_mul(lanes_load(weighted + r * p->dim + c * LANES), fade);
    }
    for (int64_t key = 0; key < count; key++) {
        lanes value[WEIGHTED_COLUMNS];
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; c++)
            value[c] = lanes_load(values[key] + column + c * LANES);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            lanes weight = lanes_set(lines->scores[line + r][key]);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; c++)
                sums[r * COLUMNS + c] = lanes_fma(weight, value[c], sums[r * COLUMNS + c]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; c++)
            lanes_store(weighted + r * p->dim + c * LANES, sums[r * COLUMNS + c]);
}

INLINE void add_columns(const int ROWS, const struct attention *p, struct lines *lines,
                        int64_t line, const float *const *values, int64_t count) {
    const int64_t wide = WEIGHTED_COLUMNS * LANES;
    int64_t column = 0;
    for (; column + wide <= p->dim; column += wide)
        add_values(ROWS, WEIGHTED_COLUMNS, p, lines, line, values, column, count);
    for (; column < p->dim; column += LANES)
        add_values(ROWS, 1, p, lines, line, values, column, count);
}

INLINE void prefetch(const float *at, int64_t dim) {
    for (int64_t i = 0; i < dim; i += LANES)
        __builtin_prefetch(at + i, 0, 2);
}

/* Lines of rows that share the keys of a block; of[row] says what each of them sees. The block that
 * comes next is on its way meanwhile, wherever its slots lie. */
static void attend_block(const struct attention *p, struct lines *lines, int64_t first,
                         int64_t stop, const struct block *of, const struct block *longest,
                         const struct block *next, int64_t offset) {
    const float *keys[KEYS], *values[KEYS];
    const int64_t count = longest->count, filled = (count + LANES - 1) / LANES * LANES;
    for (int64_t key = 0; key < filled; key++) { /* filled up with the last one */
        int64_t at = longest->slots[key < count ? key : count - 1] * p->slot_stride + offset;
        keys[key] = p->keys + at;
        values[key] = p->values + at;
    }
    for (int64_t key = 0; key < filled; key += LANES) {
        for (int64_t i = key; i < key + LANES && i < next->count; i++)
            prefetch(p->keys + next->slots[i] * p->slot_stride + offset, p->dim);
        if (p->dim == 64) /* a constant, for the commonest heads */
            scores_of_sixteen(64, lines, first, stop, keys + key, key);
        else
            scores_of_sixteen(p->dim, lines, first, stop, keys + key, key);
        for (int64_t i = key; i < key + LANES && i < next->count; i++)
            prefetch(p->values + next->slots[i] * p->slot_stride + offset, p->dim);
    }
    weights_of(p, lines, first, stop, of, filled);
    for (int64_t line = first; line < stop;) {
        int64_t rows = stop - line < WEIGHTED_LINES ? stop - line : WEIGHTED_LINES;
        switch (rows) {
        case 1: add_columns(1, p, lines, line, values, count); break;
#if WEIGHTED_LINES >= 2
        case 2: add_columns(2, p, lines, line, values, count); break;
        case 3: add_columns(3, p, lines, line, values, count); break;
#endif
#if WEIGHTED_LINES >= 4
        case 4: add_columns(4, p, lines, line, values, count); break;
#endif
        }
        line += rows;
    }
}

/* Block by block, runs of rows that share it. */
static void attend_rows(const struct attention *p, struct lines *lines, int64_t row, int64_t rows,
                        int64_t offset) {
    int64_t number = INT64_MAX, last = 0;
    for (int64_t r = row; r < row + rows; r++) {
        const struct spans *spans = p->spans + r;
        int64_t first = blocks_before(spans, before_window(p, spans));
        int64_t own = blocks_before(spans, spans->far_count + spans->near_count - 1);
        number = first < number ? first : number;
        last = own > last ? own : last;
    }
    for (; number <= last; number++) {
        struct block of[MOST_LINES];
        for (int64_t r = 0; r < rows; r++)
            of[r] = block_of(p, row + r, number);
        struct block later = block_of(p, row, number + 1);
        for (int64_t first = 0, stop; first < rows; first = stop) {
            struct block longest = of[first];
            for (stop = first + 1; stop < rows && same_keys(&longest, of + stop); stop++)
                if (of[stop].count > longest.count)
                    longest = of[stop];
            if (longest.count > 0)
                attend_block(p, lines, first * p->group, stop * p->group, of, &longest,
                             stop < rows ? of + stop : &later, offset);
        }
    }
}

static void attention_tile(const void *arguments, int64_t tile) {
    const struct attention *p = arguments;
    const int64_t height = attention_height(p), row = tile / p->kv_heads * height;
    const int64_t rows = p->rows - row < height ? p->rows - row : height;
    const int64_t kv_head = tile % p->kv_heads, at = kv_head * p->group * p->dim;
    struct lines lines;
    for (int64_t line = 0; line < rows * p->group; line++) {
        lines.query[line] = p->query + (row + line / p->group) * p->query_stride + at +
                            line % p->group * p->dim;
        lines.peak[line] = -1e30f; /* finite, so that nothing fades to nothing, not to a NaN */
        lanes_store(lines.total[line], lanes_set(0.0f));
    }
    memset(lines.weighted, 0, sizeof(float) * (size_t)(rows * p->group * p->dim));
    attend_rows(p, &lines, row, rows, kv_head * p->dim);
    for (int64_t line = 0; line < rows * p->group; line++) {
        float *y = p->y + (row + line / p->group) * p->y_stride + at + line % p->group * p->dim;
        const float *weighted = lines.weighted + line * p->dim;
        lanes total = lanes_set(lanes_sum(lanes_load(lines.total[line])));
        for (int64_t i = 0; i < p->dim; i += LANES) { /* a zero's sign may come from unseen keys */
            lanes mean = lanes_div(lanes_load(weighted + i), total);
            lanes_store(y + i, lanes_add(mean, lanes_set(0.0f)));
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

#define CHUNK 1024 /* columns whose exponentials are added up in float32: 4 KiB of a row */
#define LOWEST -3.4028234e38f

INLINE void cap_logits(float *logits, int64_t count, float softcap) {
    for (int64_t i = 0; i < count; i += LANES) {
        lanes capped = lanes_div(lanes_load_from(logits, i, count, 0.0f), lanes_set(softcap));
        capped = lanes_mul(lanes_tanh(capped), lanes_set(softcap));
        lanes_store_to(logits, i, count, capped);
    }
}

/* Finite, even of columns that are minus infinity, of which differences are no numbers. */
INLINE float highest_of(const float *logits, int64_t count) {
    lanes highest[4];
    int64_t i = 0;
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++)
        highest[c] = lanes_set(LOWEST);
    for (; i + 4 * LANES <= count; i += 4 * LANES)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++)
            highest[c] = lanes_max(highest[c], lanes_load(logits + i + c * LANES));
    for (; i < count; i += LANES)
        highest[0] = lanes_max(highest[0], lanes_load_from(logits, i, count, LOWEST));
    highest[0] = lanes_max(lanes_max(highest[0], highest[1]), lanes_max(highest[2], highest[3]));
    return lanes_peak(highest[0]);
}

/* Chunk by chunk, so that a row comes once from beyond the first level of cache. Exponentials are
 * those below the chunk's peak; sums are brought to the highest peak so far. A NaN reaches the
 * total through its own exponential, and so does plus infinity, which is its own peak. */
INLINE float log_sum_of(float *logits, int64_t vocab, float softcap) {
    float peak = LOWEST;
    double total = 0;
    for (int64_t first = 0; first < vocab; first += CHUNK) {
        float *chunk = logits + first;
        int64_t count = vocab - first < CHUNK ? vocab - first : CHUNK;
        if (softcap > 0)
            cap_logits(chunk, count, softcap);
        float before = peak, own = highest_of(chunk, count);
        peak = own > peak ? own : peak;
        lanes sum = lanes_set(0.0f);
        for (int64_t i = 0; i < count; i += LANES) {
            lanes below = lanes_sub(lanes_load_from(chunk, i, count, -INFINITY), lanes_set(own));
            sum = lanes_add(sum, lanes_exp(below));
        }
        total *= (double)lanes_first(lanes_exp(lanes_set(before - peak)));
        total += (double)lanes_sum(sum) * (double)lanes_first(lanes_exp(lanes_set(own - peak)));
    }
    return total > 0 && total < INFINITY ? (float)((double)peak + log_of(total)) : NAN;
}

/* A column of probability 0 adds nothing: what it would be multiplied with is bounded. */
INLINE float entropy_of(const float *logits, int64_t vocab, float log_sum) {
    double total = 0;
    for (int64_t first = 0; first < vocab; first += CHUNK) {
        int64_t stop = vocab - first < CHUNK ? vocab : first + CHUNK;
        lanes sum = lanes_set(0.0f);
        for (int64_t i = first; i < stop; i += LANES) {
            lanes logit = lanes_load_from(logits, i, stop, -INFINITY);
            lanes logprob = lanes_sub(logit, lanes_set(log_sum));
            lanes bounded = lanes_max(lanes_set(-1e4f), logprob);
            sum = lanes_fma(lanes_exp(logprob), bounded, sum);
        }
        total -= (double)lanes_sum(sum);
    }
    return (float)total;
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
    float *logits = p->logits + row * p->logits_stride;
    float log_sum = log_sum_of(logits, p->vocab, p->softcap);
    p->log_sum[row] = log_sum;
    if (p->entropies)
        p->entropies[row] = entropy_of(logits, p->vocab, log_sum);
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
