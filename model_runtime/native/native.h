/* What the kernels are asked, and how Python (library.py declares the same structures) asks it.
 *
 * Every size is in elements, every stride in elements from one row to the next. Python checks
 * shapes and types; nothing is checked again here. Pointers that may be NULL say so.
 */
#ifndef NATIVE_H
#define NATIVE_H

#include <stdint.h>

#if defined(__GNUC__)
#define EXPORT __attribute__((visibility("default")))
#else
#define EXPORT
#endif

/* Columns of a packed weight that lie together: [out / 64][in][64], so that one step along k reads
 * four cache lines (two in bfloat16) and the next step the ones behind them. */
#define PANEL 64

/* Rows of a tile of a product at most: they share what they read of a panel. */
#define PRODUCT_ROWS 192

/* y = x W^T + bias */
struct product {
    const float *x;
    int64_t x_stride;
    const void *weight; /* float or bfloat16 by panels, the last one filled up with zeros */
    int64_t weight_is_bf16;
    const float *bias; /* [out] or NULL */
    float *y;
    int64_t y_stride;
    int64_t rows, in, out;
    int64_t block; /* of k: sums of blocks are added up in their order */
};

/* y = norm(x) * weight (+ bias); before that x += add, in place. Where y is NULL that is all. */
struct norm {
    float *x;
    int64_t x_stride;
    const float *add; /* or NULL */
    int64_t add_stride;
    const float *weight;
    const float *bias; /* or NULL; of LayerNorm only */
    float *y;          /* may be x */
    int64_t y_stride;
    int64_t rows, width;
    float epsilon;
    int32_t centred; /* LayerNorm, else RMSNorm */
};

enum activation { SILU = 0, GELU_TANH = 1, GELU_ERF = 2 };

/* y = activation(gate) * up */
struct gated {
    const float *gate;
    int64_t gate_stride;
    const float *up; /* or NULL for 1 */
    int64_t up_stride;
    float *y;
    int64_t y_stride;
    int64_t rows, width;
    int64_t activation;
};

/* Rotates queries in place and keys on their way to their slots; values go there as they are. Of a
 * row whose keys or values are not finite, zeros are stored: a weight of 0 hides no NaN. */
struct rotation {
    float *qkv; /* [rows][(heads + 2 kv_heads) dim] */
    int64_t qkv_stride;
    const float *cosine, *sine; /* [rows][rotated], NULL where rotated is 0 */
    int64_t angle_stride;
    const float *query_norm, *key_norm; /* [dim] weights of an RMSNorm of each head, or NULL */
    const int64_t *slots;               /* [rows] */
    float *keys, *values;               /* [slots][kv_heads dim] */
    int64_t slot_stride;
    uint8_t *bad; /* [rows] becomes 1 where zeros were stored and stays elsewhere; or NULL */
    int64_t rows, heads, kv_heads, dim, rotated;
    float epsilon;
};

/* Keys of a row in the order of their positions: the far part is [0, far_count), the near one goes
 * on from there to the row itself. */
struct spans {
    int64_t near_first, near_count; /* where in slots, and how many */
    int64_t far_first, far_count;
};

struct attention {
    const float *query; /* [rows][kv_heads group dim] */
    int64_t query_stride;
    const float *keys, *values; /* [slots][kv_heads dim] */
    int64_t slot_stride;
    const int64_t *slots;
    const struct spans *spans; /* [rows] */
    float *y;
    int64_t y_stride;
    int64_t rows, kv_heads, group, dim;
    int64_t window; /* latest positions that a row sees; 0 for all */
    float scaling, softcap; /* softcap 0 for none */
};

#define MOST_DIM 256
#define MOST_GROUP 16
#define MOST_LINES 64   /* query heads of a tile's rows */
#define MOST_HEIGHT 16  /* rows of a tile */
#define ENOUGH_TILES 12 /* for the threads; with more rows tiles become higher */

/* Rows of a tile. Bits do not depend on it. */
static inline int64_t attention_height(const struct attention *p) {
    int64_t height = p->rows * p->kv_heads / ENOUGH_TILES;
    int64_t most = MOST_LINES / p->group < MOST_HEIGHT ? MOST_LINES / p->group : MOST_HEIGHT;
    return height < 1 ? 1 : height < most ? height : most;
}

/* Per row: log of the sum of exponentials, entropy, chosen columns with ranks, the largest columns. */
struct reduction {
    float *logits; /* become softcap tanh(logit / softcap) where softcap is not 0 */
    int64_t logits_stride;
    int64_t rows, vocab;
    float *log_sum;              /* [rows] */
    float *entropies;            /* [rows] - sum p log p in nats, or NULL */
    const int64_t *chosen_first; /* [rows + 1] where a row's ids begin */
    const int64_t *chosen;
    float *logprobs; /* as many as chosen */
    int64_t *ranks;  /* 1 + how many columns are greater */
    int64_t top;     /* how many largest, or 0 */
    float *top_logits;
    int64_t *top_ids; /* [rows][top], falling, equal ones by column */
    float softcap;
};

enum kind { PRODUCT, NORM, GATED, ROTATION, ATTENTION, REDUCTION, KINDS };

struct operation {
    int64_t kind;
    const void *arguments;
};

/* An operation is cut into tiles that write to different places and may run in any order. */
typedef void (*tile_function)(const void *arguments, int64_t tile);

extern const tile_function kernels_portable[KINDS], kernels_avx2[KINDS], kernels_avx512[KINDS];

enum instruction_set { PORTABLE, AVX2, AVX512, INSTRUCTION_SETS };

/* Of the arguments' sizes and of what the kernels compute: a library of other sources is not used. */
#define VERSION 1
EXPORT uint64_t native_version(void);
EXPORT int native_best(void);
EXPORT int native_threads(int threads);
EXPORT int native_run(const struct operation *operations, int64_t count, int instruction_set);

#endif
