/* For x86-64 with AVX-512: sixteen lanes are one register. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define LANES_AVX512
#define KERNELS kernels_avx512
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
#include "native.h"
const tile_function kernels_avx512[KINDS] = {0};
#endif
