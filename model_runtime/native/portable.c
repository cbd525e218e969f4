/* For every processor: sixteen lanes are an array, and a fused multiply-add is C's fmaf. */
#define KERNELS kernels_portable
#include "kernels.h"
