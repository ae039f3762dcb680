// Sums and maxima over the threads of a warp or a block. The order of additions is fixed.
#pragma once
#include <stdint.h>

constexpr uint32_t ALL_LANES = 0xffffffffu;

// Returns the sum over a warp, in every lane.
template <typename T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// Returns the sum over `lanes` neighbouring lanes (a power of two), in each of them. All lanes of
// the warp take part.
__device__ __forceinline__ float lanes_sum(float x, uint32_t lanes) {
    for (uint32_t distance = lanes / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// Returns the largest number of a warp, in every lane. Of a NaN and a number, it takes the number.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// Returns the sum over a block of WARPS warps, in every thread. `partial` has WARPS elements of
// shared memory and may be used again after the next barrier.
template <int WARPS, typename T> __device__ __forceinline__ T block_sum(T x, T* partial) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
    __syncthreads();
    T total = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) total += partial[warp];
    __syncthreads();
    return total;
}

// Returns the largest number of a block, in the same way as `block_sum`.
template <int WARPS> __device__ __forceinline__ float block_max(float x, float* partial) {
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
    __syncthreads();
    float largest = partial[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) largest = fmaxf(largest, partial[warp]);
    __syncthreads();
    return largest;
}
