// Conversion of elements to another type. Each thread converts 16 bytes of the wider type.
//
// Bytes at least, for n elements: n times the sizes of both types. Numbers pass through f32, which
// holds every number of the other types, and are rounded to nearest, ties to even. A thread
// computes a single offset, in 64 bits for all shapes.
//
// expects: LDG.128 STG.128 in cast_f16_bf16
// expects: LDG.128 STG.64 in cast_f32_*
// expects: LDG.64 STG.128 in cast_*_f32
#include "tightrope/element.cuh"

constexpr int THREADS = 256;

template <typename From, typename To>
__device__ __forceinline__ void cast(const From* from, To* to, uint64_t elements) {
    constexpr int N = COMMON_WIDTH<From, To>;
    const uint64_t first = (uint64_t(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements) {
        store(load<N>(from + first), to + first);
    } else {
        for (uint64_t i = first; i < elements; ++i) to[i] = from_float<To>(to_float(from[i]));
    }
}

// Grid: one thread for each 4 elements, or 8 if neither type is f32. from, to: [elements].
#define CAST(FROM, FROM_NAME, TO, TO_NAME)                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) cast_##FROM_NAME##_##TO_NAME(            \
        const FROM* __restrict__ from, TO* __restrict__ to, uint64_t elements) {                   \
        cast(from, to, elements);                                                                  \
    }
CAST(float, f32, __nv_bfloat16, bf16)
CAST(__nv_bfloat16, bf16, float, f32)
CAST(__half, f16, float, f32)
CAST(__half, f16, __nv_bfloat16, bf16)
