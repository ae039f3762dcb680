// RMSNorm, forward and backward, with the residual addition fused.
//
// A row is shared by `warps` warps of a block of 8: 1 where rows are short (the norm of each head),
// 8 where they are long. Each thread moves 16 bytes at a time if `dim` allows. Every row comes from
// memory once: the second pass over it, at most 64 KiB, meets the L1 or L2 cache.
//
// Bytes at least, for `n = rows · dim` elements of `s` bytes: forward `2ns` (`4ns` with a residual),
// backward `3ns` (`4ns` when it accumulates), plus 4 a row for `rstd` and 4 a feature for the weight.
//
// expects: LDG.128 STG.128 in rms_norm_forward_* rms_norm_backward_*
// dynamic shared memory: 32768 in rms_norm_backward_*
#include "tightrope/element.cuh"
#include "tightrope/reduce.cuh"

constexpr int THREADS = 256;

// The sum over the threads that share a row.
__device__ __forceinline__ float row_sum(float x, uint32_t warps) {
    __shared__ float partial[THREADS / 32];
    return warps == 1 ? warp_sum(x) : block_sum<THREADS / 32>(x, partial);
}

template <typename T, typename Index, int N>
__device__ __forceinline__ void forward(
    const T* x, const T* add, T* sum, const float* weight, float offset, float eps, T* y,
    float* rstd, Index row, Index dim, uint32_t warps) {
    const Index first = row * dim;
    const Index lane = threadIdx.x % (warps * 32);
    const T* source = add ? sum : x;
    float squares = 0.0f;
    for (Index i = lane * N; i < dim; i += warps * 32 * N) {
        auto value = Vector<T, N>::load(x + first + i);
        if (add) {
            const auto other = Vector<T, N>::load(add + first + i);
#pragma unroll
            for (int k = 0; k < N; ++k) value.set(k, value.get(k) + other.get(k));
            value.store(sum + first + i);
        }
#pragma unroll
        for (int k = 0; k < N; ++k) squares += value.get(k) * value.get(k);
    }
    // Rounded as IEEE 754 has it, unlike `rsqrtf`.
    const float scale = 1.0f / sqrtf(row_sum(squares, warps) / float(dim) + eps);
    if (lane == 0) rstd[row] = scale;
    for (Index i = lane * N; i < dim; i += warps * 32 * N) {
        // What this thread wrote itself, if there is a residual.
        const auto value = Vector<T, N>::load(source + first + i);
        const auto factor = Floats<N>::load(weight + i);
        Vector<T, N> result;
#pragma unroll
        for (int k = 0; k < N; ++k)
            result.set(k, value.get(k) * scale * (factor[k] + offset));
        result.store(y + first + i);
    }
}

// Overwrites or adds into dx; adds this row's share into `dweight`, which only this thread's
// columns of this group's copy in shared memory are touched by.
template <typename T, typename Index, int N>
__device__ __forceinline__ void backward(
    const T* dy, const T* x, float scale, const float* weight, float offset, T* dx,
    uint32_t accumulate, float* dweight, Index row, Index dim, uint32_t warps) {
    const Index first = row * dim;
    const Index lane = threadIdx.x % (warps * 32);
    float product = 0.0f;
    for (Index i = lane * N; i < dim; i += warps * 32 * N) {
        const auto gradient = Vector<T, N>::load(dy + first + i);
        const auto value = Vector<T, N>::load(x + first + i);
        const auto factor = Floats<N>::load(weight + i);
#pragma unroll
        for (int k = 0; k < N; ++k)
            product += gradient.get(k) * (factor[k] + offset) * value.get(k);
    }
    // `x · pull` is `n · mean_h(g · n)`.
    const float pull = row_sum(product, warps) * scale / float(dim) * scale;
    for (Index i = lane * N; i < dim; i += warps * 32 * N) {
        const auto gradient = Vector<T, N>::load(dy + first + i);
        const auto value = Vector<T, N>::load(x + first + i);
        const auto factor = Floats<N>::load(weight + i);
        Vector<T, N> result;
        if (accumulate) result = Vector<T, N>::load(dx + first + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float g = gradient.get(k) * (factor[k] + offset);
            const float change = scale * (g - value.get(k) * pull);
            result.set(k, accumulate ? result.get(k) + change : change);
        }
        result.store(dx + first + i);
        if (dweight) {
            auto share = Floats<N>::load(dweight + i);
#pragma unroll
            for (int k = 0; k < N; ++k) share[k] += gradient.get(k) * scale * value.get(k);
            share.store(dweight + i);
        }
    }
}

// Grid: one group of `warps` warps for each row.
template <typename T, typename Index>
__device__ __forceinline__ void forward_rows(
    const T* x, const T* add, T* sum, const float* weight, float offset, float eps, T* y,
    float* rstd, Index rows, Index dim, uint32_t warps) {
    const Index groups = THREADS / 32 / warps;
    const Index row = Index(blockIdx.x) * groups + threadIdx.x / (warps * 32);
    if (row >= rows) return;
    if (dim % WIDTH<T> == 0)
        forward<T, Index, WIDTH<T>>(
            x, add, sum, weight, offset, eps, y, rstd, row, dim, warps);
    else
        forward<T, Index, 1>(x, add, sum, weight, offset, eps, y, rstd, row, dim, warps);
}

// Grid: one block for each run of `rows_per_block` rows. Shared memory, unless `partial` is null:
// one copy of [dim] f32 for each group.
template <typename T, typename Index>
__device__ __forceinline__ void backward_rows(
    const T* dy, const T* x, const float* rstd, const float* weight, float offset, T* dx,
    uint32_t accumulate, float* partial, Index rows, Index dim, Index rows_per_block,
    uint32_t warps) {
    extern __shared__ float copies[];
    const uint32_t groups = THREADS / 32 / warps;
    const uint32_t group = threadIdx.x / (warps * 32);
    if (partial) {
        for (Index i = threadIdx.x; i < groups * dim; i += THREADS) copies[i] = 0.0f;
        __syncthreads();
    }
    float* copy = partial ? copies + group * dim : nullptr;
    const Index first = Index(blockIdx.x) * rows_per_block;
    const Index end = min(first + rows_per_block, rows);
    for (Index row = first + group; row < end; row += groups) {
        if (dim % WIDTH<T> == 0)
            backward<T, Index, WIDTH<T>>(
                dy, x, rstd[row], weight, offset, dx, accumulate, copy, row, dim, warps);
        else
            backward<T, Index, 1>(
                dy, x, rstd[row], weight, offset, dx, accumulate, copy, row, dim, warps);
    }
    if (partial) {
        __syncthreads();
        for (Index i = threadIdx.x; i < dim; i += THREADS) {
            float total = 0.0f;
            for (uint32_t from = 0; from < groups; ++from) total += copies[from * dim + i];
            partial[Index(blockIdx.x) * dim + i] = total;
        }
    }
}

// x, add, sum, y, dy, dx: [rows, dim]; weight: [dim]; rstd: [rows]. Without a residual `add` is
// null. partial: [blocks, dim], overwritten.
#define RMS_NORM(T, TYPE, INDEX, BITS)                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_forward_##TYPE##_##BITS(        \
        const T* __restrict__ x, const T* __restrict__ add, T* sum,                                \
        const float* __restrict__ weight, float offset, float eps, T* __restrict__ y,              \
        float* __restrict__ rstd, uint64_t rows, uint64_t dim, uint32_t warps) {                   \
        forward_rows<T, INDEX>(                                                                    \
            x, add, sum, weight, offset, eps, y, rstd, rows, dim, warps);                          \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_backward_##TYPE##_##BITS(       \
        const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ rstd,         \
        const float* __restrict__ weight, float offset, T* __restrict__ dx, uint32_t accumulate,   \
        float* __restrict__ partial, uint64_t rows, uint64_t dim, uint64_t rows_per_block,         \
        uint32_t warps) {                                                                          \
        backward_rows<T, INDEX>(                                                                   \
            dy, x, rstd, weight, offset, dx, accumulate, partial, rows, dim, rows_per_block,       \
            warps);                                                                                \
    }
FOR_FLOATS_AND_WIDTHS(RMS_NORM)

// Adds the partial sums into dweight, in order. Grid: one thread for each feature.
// partial: [blocks, dim]; dweight: [dim].
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_add_partials(
    const float* __restrict__ partial, float* __restrict__ dweight, uint64_t blocks, uint64_t dim) {
    const uint64_t i = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= dim) return;
    float total = dweight[i];
    for (uint64_t block = 0; block < blocks; ++block) total += partial[block * dim + i];
    dweight[i] = total;
}
