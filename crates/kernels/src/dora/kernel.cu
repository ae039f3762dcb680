// What DoRA needs besides products: columns times a gain, forward and backward, and the norms of
// the rows of W + s·B·A from products with its factors.
//
// Bytes at least, for [rows, columns] elements of s bytes: forward 2s an element (3s when it adds),
// backward 3s an element, and 8 for each column and run of 256 rows; norms 4 · (2r + 4) for each
// row of W. Each row or strip reads the gain again, from the cache. Arithmetic in f32.
//
// expects: LDG.128 STG.128 in dora_scale_columns_* dora_scale_backward_*
#include "tightrope/element.cuh"
#include "tightrope/partials.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

template <typename T, typename Index, int N>
__device__ __forceinline__ void scale_row(
    const T* z, const float* gain, const float* bias, float alpha, uint32_t adds, T* y,
    Index columns) {
    for (Index i = threadIdx.x * N; i < columns; i += THREADS * N) {
        auto value = load<N>(z + i);
        if (gain) {
            const auto factor = Floats<N>::load(gain + i);
#pragma unroll
            for (int k = 0; k < N; ++k) value[k] *= alpha * factor[k];
        } else {
#pragma unroll
            for (int k = 0; k < N; ++k) value[k] *= alpha;
        }
        if (bias) {
            const auto start = Floats<N>::load(bias + i);
#pragma unroll
            for (int k = 0; k < N; ++k) value[k] += start[k];
        }
        if (adds) {
            const auto start = load<N>(y + i);
#pragma unroll
            for (int k = 0; k < N; ++k) value[k] += start[k];
        }
        store(value, y + i);
    }
}

// A warp covers 16 bytes for each of its lanes, and warp w takes rows w, w + 8, … of the run. Then
// the warps' sums are added in order.
template <typename T, typename Index, int N>
__device__ __forceinline__ void backward(
    const T* dy, const T* z, const float* gain, const float* norm, T* dz, float* partial,
    Index count, Index columns, Index run) {
    __shared__ __align__(16) float strip_sums[WARPS][32 * N];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Index column = (Index(blockIdx.y) * 32 + lane) * N;
    const Index first = Index(blockIdx.x) * run;
    const Index end = min(first + run, count);
    Floats<N> total = {};
    if (column < columns) {
        const auto factor = Floats<N>::load(gain + column);
        for (Index row = first + warp; row < end; row += WARPS) {
            const Index at = row * columns + column;
            auto value = load<N>(dy + at);
            const auto other = load<N>(z + at);
#pragma unroll
            for (int k = 0; k < N; ++k) {
                total[k] += value[k] * other[k];
                value[k] *= factor[k];
            }
            store(value, dz + at);
        }
        const auto length = Floats<N>::load(norm + column);
#pragma unroll
        for (int k = 0; k < N; ++k) total[k] /= length[k];
    }
    total.store(strip_sums[warp] + lane * N);
    const Index strip = Index(blockIdx.y) * 32 * N;
    sum_copies(
        strip_sums[0], WARPS, 32 * N, min(columns - strip, Index(32 * N)),
        partial + Index(blockIdx.x) * columns + strip);
}

// z, y: [rows, columns]; gain, bias: [columns] or null. Grid: one block for each row.
//
// dy, z, dz: [count, columns]; partial: [blocks along x, columns], overwritten. Grid: x: one block
// for each run of `run` rows; y: one for each strip of 32 · 16 bytes of columns, or of 32 columns
// if `columns` does not allow that.
#define DORA(T, TYPE, INDEX, BITS)                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) dora_scale_columns_##TYPE##_##BITS(      \
        const T* __restrict__ z, const float* __restrict__ gain, const float* __restrict__ bias,   \
        float alpha, uint32_t adds, T* __restrict__ y, uint64_t columns) {                         \
        const INDEX width = columns, at = INDEX(blockIdx.x) * width;                               \
        if (width % WIDTH<T> == 0)                                                                 \
            scale_row<T, INDEX, WIDTH<T>>(z + at, gain, bias, alpha, adds, y + at, width);         \
        else                                                                                       \
            scale_row<T, INDEX, 1>(z + at, gain, bias, alpha, adds, y + at, width);                \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) dora_scale_backward_##TYPE##_##BITS(     \
        const T* __restrict__ dy, const T* __restrict__ z, const float* __restrict__ gain,         \
        const float* __restrict__ norm, T* __restrict__ dz, float* __restrict__ partial,           \
        uint64_t count, uint64_t columns, uint64_t run) {                                          \
        if (columns % WIDTH<T> == 0)                                                               \
            backward<T, INDEX, WIDTH<T>>(dy, z, gain, norm, dz, partial, count, columns, run);     \
        else                                                                                       \
            backward<T, INDEX, 1>(dy, z, gain, norm, dz, partial, count, columns, run);            \
    }
FOR_FLOATS_AND_WIDTHS(DORA)

// partial: [runs, columns]; sums: [columns], added into.
extern "C" __global__ void __launch_bounds__(PARTIAL_THREADS) dora_add_partials(
    const float* __restrict__ partial, float* __restrict__ sums, uint64_t runs, uint64_t columns) {
    add_partials(partial, runs, columns, sums);
}

// squares, magnitude, norm, gain: [outputs]; b: [outputs, rank]; u: [rank, outputs]; c:
// [rank, rank]. Grid: one thread for each of `outputs`.
extern "C" __global__ void __launch_bounds__(THREADS) dora_row_norms(
    const float* __restrict__ squares, const float* __restrict__ b, const float* __restrict__ u,
    const float* __restrict__ c, const float* __restrict__ magnitude, float scale,
    float* __restrict__ norm, float* __restrict__ gain, uint64_t outputs, uint64_t rank) {
    const uint64_t j = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (j >= outputs) return;
    const float* row = b + j * rank;
    float cross = 0.0f, square = 0.0f;
    for (uint64_t p = 0; p < rank; ++p) {
        float inner = 0.0f;
        for (uint64_t q = 0; q < rank; ++q) inner = fmaf(c[p * rank + q], row[q], inner);
        cross = fmaf(row[p], u[p * outputs + j], cross);
        square = fmaf(row[p], inner, square);
    }
    // Rounding may leave a row that cancels just below zero; NaN stays.
    float sum = fmaf(scale, 2.0f * cross + scale * square, squares[j]);
    sum = sum < 0.0f ? 0.0f : sum;
    norm[j] = sqrtf(sum);
    gain[j] = magnitude[j] / norm[j];
}
