/* Sixteen float32 lanes, whatever the registers hold.
 *
 * The same sixteen lanes are one register of AVX-512, two of AVX2, or an array of C floats. Every
 * operation here is one that IEEE 754 rounds correctly, lane by lane, so its bits are the same in
 * all three; what adds lanes up does so in one order. Nothing else may compute in the kernels, and
 * the compiler must not contract a product and a sum into a fused operation by itself
 * (-ffp-contract=off): where one is fused, lanes_fma says so.
 *
 * Included once per instruction set, with LANES_AVX512, LANES_AVX2 or neither defined. NaNs stay
 * NaNs everywhere, but their sign and payload are the processor's.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) ||   \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "with -ffast-math, or a part of it, bits would depend on the compiler"
#endif
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16 is about half precision alone */
#error "float32 is computed in more than float32 here"
#endif
_Static_assert(sizeof 1.0 == sizeof(double), "constants of double are rounded to float32 here");

#define LANES 16
#define INLINE static inline __attribute__((always_inline, unused))

#if defined(LANES_AVX512)

#include <immintrin.h>
typedef __m512 lanes;

INLINE lanes lanes_set(float a) { return _mm512_set1_ps(a); }
INLINE lanes lanes_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void lanes_store(float *p, lanes a) { _mm512_storeu_ps(p, a); }
INLINE lanes lanes_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }
INLINE lanes lanes_sub(lanes a, lanes b) { return _mm512_sub_ps(a, b); }
INLINE lanes lanes_mul(lanes a, lanes b) { return _mm512_mul_ps(a, b); }
INLINE lanes lanes_div(lanes a, lanes b) { return _mm512_div_ps(a, b); }
INLINE lanes lanes_fma(lanes a, lanes b, lanes c) { return _mm512_fmadd_ps(a, b, c); }
/* a > b ? a : b, so b where either is a NaN. */
INLINE lanes lanes_max(lanes a, lanes b) { return _mm512_max_ps(a, b); }
INLINE lanes lanes_min(lanes a, lanes b) { return _mm512_min_ps(a, b); }
/* a > b ? yes : no */
INLINE lanes lanes_where_above(lanes a, lanes b, lanes yes, lanes no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
}
/* One bit a lane: a > b. */
INLINE unsigned lanes_above(lanes a, lanes b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
/* bfloat16 is the upper half of a float32, so nothing is rounded. */
INLINE lanes lanes_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
/* The low bits of a become a float's exponent: see lanes_exp. */
INLINE lanes lanes_exponent(lanes a, int32_t bias) {
    __m512i bits = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(bias));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23));
}
INLINE lanes lanes_abs(lanes a) { return _mm512_abs_ps(a); }
INLINE float lanes_first(lanes a) { return _mm512_cvtss_f32(a); }
/* Lane k of the result is lanes_sum of a[k]: the same pairs are added, of all sixteen at once. What
 * has to be done for each by itself is lanes_halve. */
typedef lanes lanes_half;
INLINE lanes_half lanes_halve(lanes a) { return a; }
INLINE lanes lanes_sums(const lanes_half *a) {
    __m512 four[4], two[2];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) { /* of a[k], a[k + 4], a[k + 8], a[k + 12] */
        __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(a[k], a[k + 4], 0x44),
                                   _mm512_shuffle_f32x4(a[k], a[k + 4], 0xee));
        __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(a[k + 8], a[k + 12], 0x44),
                                    _mm512_shuffle_f32x4(a[k + 8], a[k + 12], 0xee));
        four[k] = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88),
                                _mm512_shuffle_f32x4(low, high, 0xdd));
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
        __m512d one = _mm512_castps_pd(four[2 * k]), other = _mm512_castps_pd(four[2 * k + 1]);
        two[k] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(one, other)),
                               _mm512_castpd_ps(_mm512_unpackhi_pd(one, other)));
    }
    return _mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88),
                         _mm512_shuffle_ps(two[0], two[1], 0xdd));
}
INLINE __m512 four_of(const float *const *rows, int64_t at) { /* rows 0, 4, 8 and 12 */
    __m512 four = _mm512_castps128_ps512(_mm_loadu_ps(rows[0] + at));
    four = _mm512_insertf32x4(four, _mm_loadu_ps(rows[4] + at), 1);
    four = _mm512_insertf32x4(four, _mm_loadu_ps(rows[8] + at), 2);
    return _mm512_insertf32x4(four, _mm_loadu_ps(rows[12] + at), 3);
}
/* Sixteen columns of sixteen rows: out[16 c + r] = rows[r][at + c] */
INLINE void lanes_transpose(const float *const *rows, int64_t at, float *out) {
    for (int64_t c = 0; c < LANES; c += 4) {
        __m512 a = four_of(rows, at + c), b = four_of(rows + 1, at + c);
        __m512 d = four_of(rows + 2, at + c), e = four_of(rows + 3, at + c);
        __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
        __m512d de = _mm512_castps_pd(_mm512_unpacklo_ps(d, e));
        lanes_store(out + c * LANES, _mm512_castpd_ps(_mm512_unpacklo_pd(ab, de)));
        lanes_store(out + (c + 1) * LANES, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, de)));
        ab = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
        de = _mm512_castps_pd(_mm512_unpackhi_ps(d, e));
        lanes_store(out + (c + 2) * LANES, _mm512_castpd_ps(_mm512_unpacklo_pd(ab, de)));
        lanes_store(out + (c + 3) * LANES, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, de)));
    }
}
/* Lanes 0..7 against 8..15, then 0..3 against 4..7, then pairs, then the last two. */
#define FOLD(name, op512, op256, op128, ops)                                                     \
    INLINE float name(lanes a) {                                                                 \
        __m256 lo = _mm512_castps512_ps256(a);                                                   \
        __m256 hi = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));            \
        __m256 eight = op256(lo, hi);                                                            \
        __m128 four = op128(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));     \
        __m128 two = op128(four, _mm_movehl_ps(four, four));                                     \
        return _mm_cvtss_f32(ops(two, _mm_shuffle_ps(two, two, 1)));                             \
    }

#elif defined(LANES_AVX2)

#include <immintrin.h>
typedef struct {
    __m256 lo, hi;
} lanes;

#define BOTH(expression_lo, expression_hi) ((lanes){expression_lo, expression_hi})
INLINE lanes lanes_set(float a) { return BOTH(_mm256_set1_ps(a), _mm256_set1_ps(a)); }
INLINE lanes lanes_load(const float *p) { return BOTH(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
INLINE void lanes_store(float *p, lanes a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
#define PAIR(name, op)                                                                           \
    INLINE lanes name(lanes a, lanes b) { return BOTH(op(a.lo, b.lo), op(a.hi, b.hi)); }
PAIR(lanes_add, _mm256_add_ps)
PAIR(lanes_sub, _mm256_sub_ps)
PAIR(lanes_mul, _mm256_mul_ps)
PAIR(lanes_div, _mm256_div_ps)
PAIR(lanes_max, _mm256_max_ps)
PAIR(lanes_min, _mm256_min_ps)
INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return BOTH(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
INLINE lanes lanes_where_above(lanes a, lanes b, lanes yes, lanes no) {
    return BOTH(_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ)),
                _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)));
}
INLINE unsigned lanes_above(lanes a, lanes b) {
    unsigned lo = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ));
    unsigned hi = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ));
    return lo | hi << 8;
}
INLINE __m256 half_of_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE lanes lanes_load_bf16(const uint16_t *p) { return BOTH(half_of_bf16(p), half_of_bf16(p + 8)); }
INLINE __m256 half_exponent(__m256 a, int32_t bias) {
    __m256i bits = _mm256_add_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(bias));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
INLINE lanes lanes_exponent(lanes a, int32_t bias) {
    return BOTH(half_exponent(a.lo, bias), half_exponent(a.hi, bias));
}
INLINE lanes lanes_abs(lanes a) {
    __m256 sign = _mm256_set1_ps(-0.0f);
    return BOTH(_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi));
}
INLINE float lanes_first(lanes a) { return _mm256_cvtss_f32(a.lo); }
typedef __m256 lanes_half;
INLINE lanes_half lanes_halve(lanes a) { return _mm256_add_ps(a.lo, a.hi); }
INLINE __m256 half_sums(const lanes_half *a) {
    __m256 four[4], two[2];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++)
        four[k] = _mm256_add_ps(_mm256_permute2f128_ps(a[k], a[k + 4], 0x20),
                                _mm256_permute2f128_ps(a[k], a[k + 4], 0x31));
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
        __m256d one = _mm256_castps_pd(four[2 * k]), other = _mm256_castps_pd(four[2 * k + 1]);
        two[k] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(one, other)),
                               _mm256_castpd_ps(_mm256_unpackhi_pd(one, other)));
    }
    return _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88),
                         _mm256_shuffle_ps(two[0], two[1], 0xdd));
}
INLINE lanes lanes_sums(const lanes_half *a) { return BOTH(half_sums(a), half_sums(a + 8)); }
INLINE __m256 two_of(const float *const *rows, int64_t at) { /* rows 0 and 4 */
    __m256 two = _mm256_castps128_ps256(_mm_loadu_ps(rows[0] + at));
    return _mm256_insertf128_ps(two, _mm_loadu_ps(rows[4] + at), 1);
}
INLINE void lanes_transpose(const float *const *rows, int64_t at, float *out) {
    for (int64_t r = 0; r < LANES; r += 8, rows += 8, out += 8)
        for (int64_t c = 0; c < LANES; c += 4) {
            __m256 a = two_of(rows, at + c), b = two_of(rows + 1, at + c);
            __m256 d = two_of(rows + 2, at + c), e = two_of(rows + 3, at + c);
            __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
            __m256d de = _mm256_castps_pd(_mm256_unpacklo_ps(d, e));
            float *y = out + c * LANES;
            _mm256_storeu_ps(y, _mm256_castpd_ps(_mm256_unpacklo_pd(ab, de)));
            _mm256_storeu_ps(y + LANES, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, de)));
            ab = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
            de = _mm256_castps_pd(_mm256_unpackhi_ps(d, e));
            _mm256_storeu_ps(y + 2 * LANES, _mm256_castpd_ps(_mm256_unpacklo_pd(ab, de)));
            _mm256_storeu_ps(y + 3 * LANES, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, de)));
        }
}
#define FOLD(name, op512, op256, op128, ops)                                                     \
    INLINE float name(lanes a) {                                                                 \
        __m256 eight = op256(a.lo, a.hi);                                                        \
        __m128 four = op128(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));     \
        __m128 two = op128(four, _mm_movehl_ps(four, four));                                     \
        return _mm_cvtss_f32(ops(two, _mm_shuffle_ps(two, two, 1)));                             \
    }

#else

typedef struct {
    float at[LANES];
} lanes;

#define EACH(expression)                                                                         \
    lanes y;                                                                                     \
    for (int i = 0; i < LANES; i++)                                                              \
        y.at[i] = (expression);                                                                  \
    return y
INLINE float of_bits(uint32_t bits) {
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}
INLINE uint32_t bits_of(float a) {
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}
INLINE lanes lanes_set(float a) { EACH(a); }
INLINE lanes lanes_load(const float *p) { EACH(p[i]); }
INLINE void lanes_store(float *p, lanes a) { memcpy(p, a.at, sizeof a.at); }
INLINE lanes lanes_add(lanes a, lanes b) { EACH(a.at[i] + b.at[i]); }
INLINE lanes lanes_sub(lanes a, lanes b) { EACH(a.at[i] - b.at[i]); }
INLINE lanes lanes_mul(lanes a, lanes b) { EACH(a.at[i] * b.at[i]); }
INLINE lanes lanes_div(lanes a, lanes b) { EACH(a.at[i] / b.at[i]); }
INLINE lanes lanes_fma(lanes a, lanes b, lanes c) { EACH(fmaf(a.at[i], b.at[i], c.at[i])); }
INLINE lanes lanes_max(lanes a, lanes b) { EACH(a.at[i] > b.at[i] ? a.at[i] : b.at[i]); }
INLINE lanes lanes_min(lanes a, lanes b) { EACH(a.at[i] < b.at[i] ? a.at[i] : b.at[i]); }
INLINE lanes lanes_where_above(lanes a, lanes b, lanes yes, lanes no) {
    EACH(a.at[i] > b.at[i] ? yes.at[i] : no.at[i]);
}
INLINE unsigned lanes_above(lanes a, lanes b) {
    unsigned above = 0;
    for (int i = 0; i < LANES; i++)
        above |= (unsigned)(a.at[i] > b.at[i]) << i;
    return above;
}
INLINE lanes lanes_load_bf16(const uint16_t *p) { EACH(of_bits((uint32_t)p[i] << 16)); }
INLINE lanes lanes_exponent(lanes a, int32_t bias) {
    EACH(of_bits((bits_of(a.at[i]) + (uint32_t)bias) << 23));
}
INLINE lanes lanes_abs(lanes a) { EACH(fabsf(a.at[i])); }
INLINE float lanes_first(lanes a) { return a.at[0]; }
typedef lanes lanes_half;
INLINE lanes_half lanes_halve(lanes a) { return a; }
INLINE void lanes_transpose(const float *const *rows, int64_t at, float *out) {
    for (int64_t i = 0; i < LANES * LANES; i++)
        out[i] = rows[i % LANES][at + i / LANES];
}
#define FOLD(name, op512, op256, op128, ops)                                                     \
    INLINE float name(lanes a) {                                                                 \
        for (int half = LANES / 2; half; half /= 2)                                              \
            for (int i = 0; i < half; i++)                                                       \
                a.at[i] = ops(a.at[i], a.at[i + half]);                                          \
        return a.at[0];                                                                          \
    }
#define _mm_add_ss(a, b) ((a) + (b))
#define _mm_max_ss(a, b) ((a) > (b) ? (a) : (b))

#endif

FOLD(lanes_sum, _mm512_add_ps, _mm256_add_ps, _mm_add_ps, _mm_add_ss)
FOLD(lanes_peak, _mm512_max_ps, _mm256_max_ps, _mm_max_ps, _mm_max_ss)
#if !defined(LANES_AVX512) && !defined(LANES_AVX2)
INLINE lanes lanes_sums(const lanes_half *a) { EACH(lanes_sum(a[i])); }
#endif

/* The first n of sixteen floats, the other lanes filled. */
static __attribute__((noinline, unused)) lanes lanes_load_part(const float *p, int64_t n, float filling) {
    float part[LANES];
    for (int i = 0; i < LANES; i++)
        part[i] = i < n ? p[i] : filling;
    return lanes_load(part);
}

/* Sixteen floats of a row of n from i on; fewer at its end. */
INLINE lanes lanes_load_from(const float *row, int64_t i, int64_t n, float filling) {
    return n - i >= LANES ? lanes_load(row + i) : lanes_load_part(row + i, n - i, filling);
}

static __attribute__((noinline, unused)) void lanes_store_part(float *p, int64_t n, lanes a) {
    float part[LANES];
    lanes_store(part, a);
    for (int64_t i = 0; i < n; i++)
        p[i] = part[i];
}

INLINE void lanes_store_to(float *row, int64_t i, int64_t n, lanes a) {
    if (n - i >= LANES) {
        lanes_store(row + i, a);
        return;
    }
    lanes_store_part(row + i, n - i, a);
}

/* exp(x) within 1.1 units in the last place; 0 below -87, infinite above 88.73.
 *
 * x = n log 2 + r with |r| <= log(2) / 2. Adding 1.5 * 2^23 rounds to an integer, which then lies
 * in the low bits of the sum. log 2 is cut in two, of which the first has few enough bits that its
 * product with n is exact. exp(r) = 1 + r + r^2 q(r), q fitted for the least relative error.
 * 2^n is applied as 2 * 2^(n - 1), since 2^128 is no float.
 */
INLINE lanes lanes_exp(lanes x) {
    const lanes shift = lanes_set(12582912.0f);
    lanes bounded = lanes_max(lanes_set(-87.5f), lanes_min(lanes_set(89.5f), x));
    lanes shifted = lanes_fma(bounded, lanes_set(1.44269504f), shift);
    lanes n = lanes_sub(shifted, shift);
    lanes r = lanes_fma(n, lanes_set(-0.69140625f), bounded);
    r = lanes_fma(n, lanes_set(-0.00174093056f), r);
    lanes q = lanes_set(0.00139505399f);
    q = lanes_fma(q, r, lanes_set(0.00836891793f));
    q = lanes_fma(q, r, lanes_set(0.0416662051f));
    q = lanes_fma(q, r, lanes_set(0.166665186f));
    q = lanes_fma(q, r, lanes_set(0.50000001f));
    lanes y = lanes_fma(lanes_mul(r, r), q, r);
    y = lanes_add(y, lanes_set(1.0f));
    return lanes_mul(lanes_add(y, y), lanes_exponent(shifted, 126));
}

/* tanh(x): an odd polynomial below 0.625, 1 - 2 / (exp(2|x|) + 1) with the sign of x above. */
INLINE lanes lanes_tanh(lanes x) {
    const lanes one = lanes_set(1.0f), two = lanes_set(2.0f), zero = lanes_set(0.0f);
    lanes size = lanes_abs(x), z = lanes_mul(x, x);
    lanes p = lanes_set(-0.00571704213f);
    p = lanes_fma(p, z, lanes_set(0.0206505845f));
    p = lanes_fma(p, z, lanes_set(-0.0537434971f));
    p = lanes_fma(p, z, lanes_set(0.133314913f));
    p = lanes_fma(p, z, lanes_set(-0.333332839f));
    lanes small = lanes_fma(lanes_mul(p, z), x, x);
    lanes divisor = lanes_add(lanes_exp(lanes_mul(two, size)), one);
    lanes large = lanes_sub(one, lanes_div(two, divisor));
    large = lanes_where_above(zero, x, lanes_sub(zero, large), large);
    return lanes_where_above(size, lanes_set(0.625f), large, small);
}
