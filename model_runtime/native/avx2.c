/* For x86-64 with AVX2 and FMA: sixteen lanes are two registers. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define LANES_AVX2
#define KERNELS kernels_avx2
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
#include "native.h"
const tile_function kernels_avx2[KINDS] = {0};
#endif
