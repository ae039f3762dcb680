// Sums over the threads of a warp or a block. The order of additions is fixed.
#pragma once
#include <stdint.h>

constexpr uint32_t ALL_LANES = 0xffffffffu;

// The sum over a warp, in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// The sum over a block of WARPS warps, in every thread. `partial` has WARPS elements of shared
// memory and may be used again after the next barrier.
template <int WARPS> __device__ __forceinline__ float block_sum(float x, float* partial) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) total += partial[warp];
    __syncthreads();
    return total;
}
