// The gradient of a parameter is a sum over all rows, computed in three steps: a group of threads
// adds its rows, a block adds its groups, and a separate kernel adds the blocks. The order of all
// additions depends on the shape alone.
#pragma once
#include "tightrope/reduce.cuh"

// Computes to[i] = Σ_g copies[g · stride + i] with a block, over `groups` copies in shared memory.
template <typename Index>
__device__ __forceinline__ void sum_copies(
    const float* copies, uint32_t groups, uint32_t stride, Index features, float* to) {
    __syncthreads();
    for (Index i = threadIdx.x; i < features; i += blockDim.x) {
        float total = 0.0f;
        for (uint32_t group = 0; group < groups; ++group) total += copies[group * stride + i];
        to[i] = total;
    }
}

// Number of features of a block that adds partial sums, and number of threads for each feature.
constexpr int PARTIAL_COLUMNS = 32;
constexpr int PARTIAL_SLICES = 32;
constexpr int PARTIAL_THREADS = PARTIAL_COLUMNS * PARTIAL_SLICES;

// Computes to[i] += Σ_b partial[b, i]: one thread adds the blocks slice, slice + 32, …, and then
// `warp_sum` adds the slices. Grid: x: one block of PARTIAL_THREADS for each PARTIAL_COLUMNS
// features.
__device__ __forceinline__ void add_partials(
    const float* partial, uint64_t blocks, uint64_t features, float* to) {
    __shared__ float sums[PARTIAL_SLICES][PARTIAL_COLUMNS + 1];
    const uint32_t column = threadIdx.x % PARTIAL_COLUMNS, slice = threadIdx.x / PARTIAL_COLUMNS;
    const uint64_t first = uint64_t(blockIdx.x) * PARTIAL_COLUMNS;
    float total = 0.0f;
    if (first + column < features) {
#pragma unroll 4
        for (uint64_t block = slice; block < blocks; block += PARTIAL_SLICES)
            total += partial[block * features + first + column];
    }
    sums[slice][column] = total;
    __syncthreads();
    // From here on, a warp has one feature, and each lane has one slice of it.
    total = warp_sum(sums[column][slice]);
    if (column == 0 && first + slice < features) to[first + slice] += total;
}
