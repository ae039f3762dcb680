// RMSNorm, forward and backward, with the residual addition fused.
//
// Some lanes of a warp (a power of two) or some warps (up to 16) share a row, so many that each
// thread has at most 16 elements. A thread accesses 16 bytes at a time and keeps its elements in
// registers from the first pass over the row to the second. It also keeps the factors of its
// features and, in the backward pass, its share of the weight's gradient there, for all rows of the
// block. Rows of more than 8192 elements, and rows that are not a multiple of 16 bytes, are read
// again in the second pass, from the cache.
//
// Bytes at least, for `n = rows · dim` elements of `s` bytes: forward `2ns` (`4ns` with a
// residual), backward `3ns` (`4ns` when it accumulates), plus 4 a row for `rstd` and 4 a feature
// for the weight. Each of up to 512 blocks (backward 256) reads the weight again, and a trained
// weight takes 8 a feature for each block. This is as much as one or two rows, while a block has 4
// rows or more, many more if there are many rows.
//
// expects: LDG.128 STG.128 in rms_norm_forward_* rms_norm_backward_*
// dynamic shared memory: 16384 in rms_norm_backward_*
#include "tightrope/norm.cuh"
#include "tightrope/partials.cuh"

// Largest number of threads in a block.
constexpr int THREADS = 512;
// Number of elements of a row that a thread holds.
constexpr int HELD = 16;

// The sum over the `threads` that share a row. All threads of the block take part; `round` counts
// the calls.
__device__ __forceinline__ float row_sum(float x, uint32_t threads, uint32_t round) {
    if (threads <= 32) return lanes_sum(x, threads);
    // There are two buffers, so that one may still be read while the other is written.
    __shared__ float partial[2][THREADS / 32];
    const uint32_t warp = threadIdx.x / 32, warps = threads / 32;
    float* sums = partial[round % 2];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) sums[warp] = x;
    __syncthreads();
    float total = 0.0f;
    for (uint32_t other = 0; other < warps; ++other) total += sums[warp / warps * warps + other];
    return total;
}

// Division of a block's rows among groups of threads, and of a row's elements among the threads of
// a group. This thread has K runs of N elements, `step` apart, from `start` on. Unless ONCE, this
// repeats until the end of the row.
template <typename Index, int N, bool ONCE> struct Share {
    static constexpr int K = ONCE ? HELD / N : 1;
    Index group, groups, start, step;

    __device__ __forceinline__ explicit Share(uint32_t threads)
        : group(threadIdx.x / threads), groups(blockDim.x / threads),
          start(threadIdx.x % threads * N), step(threads * N) {}

    // Calls f(k, i) for the first element i of every N elements of this thread below `end`.
    template <typename F> __device__ __forceinline__ void each(Index end, const F& f) const {
        for (Index from = start; from < end; from += K * step) {
#pragma unroll
            for (int k = 0; k < K; ++k)
                if (from + k * step < end) f(k, from + k * step);
            if (ONCE) break;
        }
    }
};

template <typename T, typename Index, int N, bool ONCE>
__device__ __forceinline__ void forward(
    const T* x, const T* add, T* sum, const float* weight, float offset, float eps, T* y,
    float* rstd, Index first, Index end, Index dim, uint32_t threads) {
    using S = Share<Index, N, ONCE>;
    const S share(threads);
    Floats<N> factor[S::K];
    const auto load_factor = [&](int k, Index i) {
        factor[k] = load_factors<N>(weight + i, offset);
    };
    if (ONCE) share.each(dim, load_factor);
    uint32_t round = 0;
    for (Index base = first; base < end; base += share.groups, ++round) {
        const Index row = base + share.group, at = row * dim;
        // Threads without a row stay with the others.
        const Index own_dim = row < end ? dim : 0;
        Vector<T, N> value[S::K], other[S::K];
        float squares = 0.0f;
        const auto load = [&](int k, Index i) {
            value[k] = Vector<T, N>::load(x + at + i);
            if (add) other[k] = Vector<T, N>::load(add + at + i);
        };
        const auto add_squares = [&](int k, Index i) {
            if (add) {
#pragma unroll
                for (int n = 0; n < N; ++n) value[k].set(n, value[k].get(n) + other[k].get(n));
                value[k].store(sum + at + i);
            }
#pragma unroll
            for (int n = 0; n < N; ++n) squares += value[k].get(n) * value[k].get(n);
        };
        if (ONCE) {
            share.each(own_dim, load);
            share.each(own_dim, add_squares);
        } else {
            share.each(own_dim, [&](int k, Index i) { load(k, i), add_squares(k, i); });
        }
        const float scale =
            reciprocal_root_mean(row_sum(squares, threads, round), float(dim), eps);
        if (share.start == 0 && row < end) rstd[row] = scale;
        share.each(own_dim, [&](int k, Index i) {
            if (!ONCE) {
                // With a residual, this reads what the same thread wrote.
                value[k] = Vector<T, N>::load((add ? sum : x) + at + i);
                load_factor(k, i);
            }
            Floats<N> result;
#pragma unroll
            for (int n = 0; n < N; ++n) result[n] = value[k].get(n) * scale * factor[k][n];
            store(result, y + at + i);
        });
    }
}

// Overwrites or adds into dx. Writes the shares of dweight into `copy`, unless it is null; no other
// threads touch the same features of this copy.
template <typename T, typename Index, int N, bool ONCE>
__device__ __forceinline__ void backward(
    const T* dy, const T* x, const float* rstd, const float* weight, float offset, T* dx,
    uint32_t accumulate, float* copy, Index first, Index end, Index dim, uint32_t threads) {
    using S = Share<Index, N, ONCE>;
    const S share(threads);
    Features<N> features[S::K];
    const auto load_factor = [&](int k, Index i) {
        features[k].factor = load_factors<N>(weight + i, offset);
    };
    const auto store_share = [&](int k, Index i) {
        if (copy) features[k].share.store(copy + i);
    };
#pragma unroll
    for (int k = 0; k < S::K; ++k) features[k].share = {};
    if (ONCE)
        share.each(dim, load_factor);
    else
        share.each(dim, store_share);
    uint32_t round = 0;
    for (Index base = first; base < end; base += share.groups, ++round) {
        const Index row = base + share.group, at = row * dim;
        // Threads without a row stay with the others.
        const Index own_dim = row < end ? dim : 0;
        const float scale = row < end ? rstd[row] : 0.0f;
        Vector<T, N> gradient[S::K], value[S::K], before[S::K];
        const auto load = [&](int k, Index i) {
            gradient[k] = Vector<T, N>::load(dy + at + i);
            value[k] = Vector<T, N>::load(x + at + i);
            if (!ONCE) load_factor(k, i);
        };
        const auto load_before = [&](int k, Index i) {
            if (accumulate) before[k] = Vector<T, N>::load(dx + at + i);
        };
        float product = 0.0f;
        const auto add_product = [&](int k, Index) {
            product += features[k].product(value[k], gradient[k]);
        };
        if (ONCE) {
            share.each(own_dim, load);
            share.each(own_dim, load_before);
            share.each(own_dim, add_product);
        } else {
            share.each(own_dim, [&](int k, Index i) { load(k, i), add_product(k, i); });
        }
        const float pull = pull_of(row_sum(product, threads, round), scale, float(dim));
        share.each(own_dim, [&](int k, Index i) {
            if (!ONCE) {
                load(k, i);
                load_before(k, i);
                if (copy) features[k].share = Floats<N>::load(copy + i);
            }
            auto result = features[k].finish(value[k], gradient[k], scale, pull);
#pragma unroll
            for (int n = 0; n < N; ++n)
                if (accumulate) result[n] = before[k].get(n) + result[n];
            store(result, dx + at + i);
            if (!ONCE) store_share(k, i);
        });
    }
    if (ONCE) share.each(dim, store_share);
}

// Grid: one block for each run of `rows_per_block` rows. A block has `threads` threads for each row
// that it processes at once; `threads` is a power of two up to 32, or a multiple of 32.
template <typename T, typename Index>
__device__ __forceinline__ void forward_rows(
    const T* x, const T* add, T* sum, const float* weight, float offset, float eps, T* y,
    float* rstd, Index rows, Index dim, Index rows_per_block, uint32_t threads) {
    const Index first = Index(blockIdx.x) * rows_per_block;
    const Index end = min(first + rows_per_block, rows);
    if (dim % WIDTH<T> != 0)
        forward<T, Index, 1, false>(
            x, add, sum, weight, offset, eps, y, rstd, first, end, dim, threads);
    else if (dim <= threads * HELD)
        forward<T, Index, WIDTH<T>, true>(
            x, add, sum, weight, offset, eps, y, rstd, first, end, dim, threads);
    else
        forward<T, Index, WIDTH<T>, false>(
            x, add, sum, weight, offset, eps, y, rstd, first, end, dim, threads);
}

// Grid: the same as for `forward_rows`. Shared memory, unless `partial` is null or a block
// processes one row at a time: one copy of [dim] f32 for each row that it processes at once.
template <typename T, typename Index>
__device__ __forceinline__ void backward_rows(
    const T* dy, const T* x, const float* rstd, const float* weight, float offset, T* dx,
    uint32_t accumulate, float* partial, Index rows, Index dim, Index rows_per_block,
    uint32_t threads) {
    extern __shared__ float copies[];
    const uint32_t groups = blockDim.x / threads;
    const Index first = Index(blockIdx.x) * rows_per_block;
    const Index end = min(first + rows_per_block, rows);
    if (partial) partial += Index(blockIdx.x) * dim;
    float* copy = partial && groups > 1 ? copies + threadIdx.x / threads * dim : partial;
    if (dim % WIDTH<T> != 0)
        backward<T, Index, 1, false>(
            dy, x, rstd, weight, offset, dx, accumulate, copy, first, end, dim, threads);
    else if (dim <= threads * HELD)
        backward<T, Index, WIDTH<T>, true>(
            dy, x, rstd, weight, offset, dx, accumulate, copy, first, end, dim, threads);
    else
        backward<T, Index, WIDTH<T>, false>(
            dy, x, rstd, weight, offset, dx, accumulate, copy, first, end, dim, threads);
    if (partial && groups > 1) sum_copies(copies, groups, dim, dim, partial);
}

// x, add, sum, y, dy, dx: [rows, dim]; weight: [dim]; rstd: [rows]. Without a residual `add` is
// null. partial: [blocks, dim], overwritten, or null.
#define RMS_NORM(T, TYPE, INDEX, BITS)                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_forward_##TYPE##_##BITS(        \
        const T* __restrict__ x, const T* __restrict__ add, T* sum,                                \
        const float* __restrict__ weight, float offset, float eps, T* __restrict__ y,              \
        float* __restrict__ rstd, uint64_t rows, uint64_t dim, uint64_t rows_per_block,            \
        uint32_t threads) {                                                                        \
        forward_rows<T, INDEX>(                                                                    \
            x, add, sum, weight, offset, eps, y, rstd, rows, dim, rows_per_block, threads);        \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_backward_##TYPE##_##BITS(       \
        const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ rstd,         \
        const float* __restrict__ weight, float offset, T* __restrict__ dx, uint32_t accumulate,   \
        float* __restrict__ partial, uint64_t rows, uint64_t dim, uint64_t rows_per_block,         \
        uint32_t threads) {                                                                        \
        backward_rows<T, INDEX>(                                                                   \
            dy, x, rstd, weight, offset, dx, accumulate, partial, rows, dim, rows_per_block,       \
            threads);                                                                              \
    }
FOR_FLOATS_AND_WIDTHS(RMS_NORM)

// partial: [blocks, dim]; dweight: [dim], added into.
extern "C" __global__ void __launch_bounds__(PARTIAL_THREADS) rms_norm_add_partials(
    const float* __restrict__ partial, float* __restrict__ dweight, uint64_t blocks, uint64_t dim) {
    add_partials(partial, blocks, dim, dweight);
}
