// Embedding: the gather of rows (forward), and the scatter of gradients (backward) in the order of
// the tokens.
//
// Gather, bytes at least: the rows of the table that occur, `tokens · hidden` elements of y, 4 a
// token.
//
// Scatter: a stable radix sort, 8 bits a pass, sorts token numbers by id, so that the rows of dy
// that belong to one row of the table are in the order of the tokens. A warp then sums a run of
// equal ids in registers, 16 bytes of the table a lane, and touches the table once: 8 bytes a
// feature for each id that occurs, and dy once. The sort costs 3 launches a pass and about 20 bytes
// a token. A vocabulary of up to 2^16 takes two passes, one of up to 2^24 three. A sum has one
// fixed order, so that a run is as slow as its warp, which has eight rows of dy in flight at a
// time.
//
// expects: LDG.128 STG.128 in embedding_forward_f32_f32_* embedding_forward_*f16_bf16_*
// expects: LDG.128 STG.64 in embedding_forward_f32_bf16_*
// expects: LDG.64 STG.128 in embedding_forward_*f16_f32_*
// expects: LDG.128 STG.128 in embedding_backward_* embedding_sum_counts
// expects: LDG.64 in embedding_backward_bf16_*
#include "tightrope/element.cuh"
#include "tightrope/reduce.cuh"

// Number of warps in a block.
constexpr uint32_t WARPS = 8;
// Number of rows of dy that a warp has in flight at a time.
constexpr int AHEAD = 8;

template <typename T, typename Y, typename Index, int N>
__device__ __forceinline__ void gather(
    const T* row, float scale, Y* y, Index hidden) {
    for (Index i = (Index(blockIdx.y) * 32 + threadIdx.x) * N; i < hidden;
         i += Index(gridDim.y) * 32 * N) {
        auto value = load<N>(row + i);
#pragma unroll
        for (int k = 0; k < N; ++k) value[k] *= scale;
        store(value, y + i);
    }
}

// Grid: x: one warp (y of the block) for each token; y: 32 · N features at a time, in a grid-stride
// loop.
template <typename T, typename Y, typename Index>
__device__ __forceinline__ void forward(
    const uint32_t* ids, const T* table, float scale, Y* y, Index tokens, uint64_t vocabulary,
    Index hidden) {
    const Index token = Index(blockIdx.x) * WARPS + threadIdx.y;
    if (token >= tokens) return;
    const uint32_t id = ids[token];
    if (id >= vocabulary) __trap();
    const T* row = table + Index(id) * hidden;
    y += token * hidden;
    constexpr int N = COMMON_WIDTH<T, Y>;
    if (hidden % N == 0)
        gather<T, Y, Index, N>(row, scale, y, hidden);
    else
        gather<T, Y, Index, 1>(row, scale, y, hidden);
}

// Positions of the sorted order that a warp sees at a time: 32, one for each lane.
struct Window {
    uint32_t first;
    uint32_t token;
    uint32_t id;
    bool inside;

    __device__ __forceinline__ static Window at(
        uint32_t first, const uint32_t* order, const uint32_t* ids, uint32_t tokens) {
        Window window = {first, 0, 0, tokens - first > threadIdx.x};
        if (window.inside) {
            window.token = order[first + threadIdx.x];
            window.id = ids[window.token];
        }
        return window;
    }
};

// Sums the runs that begin in a window; `column` is the lane's first feature.
template <typename T, typename Index, int N>
__device__ __forceinline__ void sum_runs(
    const Window& window, uint32_t starts, const uint32_t* order, const uint32_t* ids,
    const T* dy, float scale, float* dtable, uint32_t tokens, Index column, Index hidden) {
    // Lanes beyond the last feature read the first columns of dy, but do not touch the table.
    const bool inside = column < hidden;
    if (!inside) column = 0;
    while (starts) {
        const uint32_t start = __ffs(starts) - 1;
        starts &= starts - 1;
        const uint32_t id = __shfl_sync(ALL_LANES, window.id, start);
        float* row = dtable + Index(id) * hidden + column;
        Floats<N> total = {};
        if (inside) total = Floats<N>::load(row);
        Window now = window;
        uint32_t from = start;
        for (;;) {
            // Equal ids are adjacent, and no id of this run is before its start.
            const uint32_t count = __popc(__ballot_sync(ALL_LANES, now.inside && now.id == id));
            const uint32_t* tokens_of_run = order + now.first + from;
            const auto load = [&](uint32_t k) {
                return Vector<T, N>::load(dy + tokens_of_run[k] * hidden + column);
            };
            const auto add = [&](const Vector<T, N>& gradient) {
#pragma unroll
                for (int n = 0; n < N; ++n) total[n] = fmaf(scale, gradient.get(n), total[n]);
            };
            uint32_t k = 0;
            for (; k + AHEAD <= count; k += AHEAD) {
                Vector<T, N> gradient[AHEAD];
#pragma unroll
                for (int a = 0; a < AHEAD; ++a) gradient[a] = load(k + a);
#pragma unroll
                for (int a = 0; a < AHEAD; ++a) add(gradient[a]);
            }
            for (; k < count; ++k) add(load(k));
            if (from + count < 32 || tokens - now.first <= 32) break;
            now = Window::at(now.first + 32, order, ids, tokens);
            from = 0;
        }
        if (inside) total.store(row);
    }
}

// Grid: x: one warp (y of the block) for each 32 positions of the order; y: 32 · N features at a
// time, in a grid-stride loop.
template <typename T, typename Index>
__device__ __forceinline__ void backward(
    const uint32_t* ids, const uint32_t* order, const T* dy, float scale, float* dtable,
    uint32_t tokens, Index hidden) {
    const uint64_t first = (uint64_t(blockIdx.x) * WARPS + threadIdx.y) * 32;
    if (first >= tokens) return;
    const Window window = Window::at(uint32_t(first), order, ids, tokens);
    uint32_t before = __shfl_up_sync(ALL_LANES, window.id, 1);
    if (threadIdx.x == 0 && first > 0) before = ids[order[first - 1]];
    const bool begins = first + threadIdx.x == 0 || window.id != before;
    const uint32_t starts = __ballot_sync(ALL_LANES, window.inside && begins);
    constexpr int N = COMMON_WIDTH<T, float>;
    const Index lane = Index(blockIdx.y) * 32 + threadIdx.x, lanes = Index(gridDim.y) * 32;
    // All lanes of a warp run the same number of iterations.
    if (hidden % N == 0)
        for (Index i = lane; i - threadIdx.x < hidden / N; i += lanes)
            sum_runs<T, Index, N>(
                window, starts, order, ids, dy, scale, dtable, tokens, i * N, hidden);
    else
        for (Index i = lane; i - threadIdx.x < hidden; i += lanes)
            sum_runs<T, Index, 1>(
                window, starts, order, ids, dy, scale, dtable, tokens, i, hidden);
}

// ids: [tokens]; table, dtable: [vocabulary, hidden]; y, dy: [tokens, hidden]; order: [tokens], the
// token numbers sorted by id. An id outside the vocabulary causes a trap.
#define FORWARD(T, TABLE, Y, TYPE, INDEX, BITS)                                                    \
    extern "C" __global__ void __launch_bounds__(WARPS * 32)                                       \
        embedding_forward_##TABLE##_##TYPE##_##BITS(                                               \
            const uint32_t* __restrict__ ids, const T* __restrict__ table, float scale,            \
            Y* __restrict__ y, uint64_t tokens, uint64_t vocabulary, uint64_t hidden) {            \
        forward<T, Y, INDEX>(                                                                      \
            ids, table, scale, y, INDEX(tokens), vocabulary, INDEX(hidden));                       \
    }
#define EMBEDDING(T, TYPE, INDEX, BITS)                                                            \
    FORWARD(float, f32, T, TYPE, INDEX, BITS)                                                      \
    FORWARD(__nv_bfloat16, bf16, T, TYPE, INDEX, BITS)                                             \
    FORWARD(__half, f16, T, TYPE, INDEX, BITS)                                                     \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, 3)                                    \
        embedding_backward_##TYPE##_##BITS(                                                        \
        const uint32_t* __restrict__ ids, const uint32_t* __restrict__ order,                      \
        const T* __restrict__ dy, float scale, float* __restrict__ dtable, uint32_t tokens,        \
        uint64_t hidden) {                                                                         \
        backward<T, INDEX>(ids, order, dy, scale, dtable, tokens, INDEX(hidden));                  \
    }
FOR_FLOATS_AND_WIDTHS(EMBEDDING)

// One pass of the sort goes from `order` (null: the tokens in their own order) to `sorted`, by 8
// bits of the id. It counts the digits of each tile, sums up the counts and writes the tokens of
// each tile to their places.
constexpr uint32_t DIGITS = 256;

// Token and digit of a lane; the digit is `DIGITS` beyond the end of the tile.
struct Item {
    uint32_t token;
    uint32_t digit;

    __device__ __forceinline__ static Item at(
        const uint32_t* ids, const uint32_t* order, uint64_t position, uint64_t end,
        uint64_t vocabulary, uint32_t shift) {
        if (position >= end) return {0, DIGITS};
        const uint32_t token = order ? order[position] : uint32_t(position);
        const uint32_t id = ids[token];
        if (id >= vocabulary) __trap();
        return {token, id >> shift & (DIGITS - 1)};
    }
};

// Grid: one warp (y of the block) for each tile. counts: [DIGITS, tiles], overwritten.
extern "C" __global__ void __launch_bounds__(WARPS * 32) embedding_count_ids(
    const uint32_t* __restrict__ ids, const uint32_t* __restrict__ order,
    uint32_t* __restrict__ counts, uint32_t tokens, uint64_t vocabulary, uint32_t tile,
    uint32_t tiles, uint32_t shift) {
    __shared__ uint32_t count_of_warp[WARPS][DIGITS];
    uint32_t* count = count_of_warp[threadIdx.y];
    const uint32_t index = blockIdx.x * WARPS + threadIdx.y;
    if (index >= tiles) return;
    for (uint32_t digit = threadIdx.x; digit < DIGITS; digit += 32) count[digit] = 0;
    __syncwarp();
    const uint64_t first = uint64_t(index) * tile, end = min(first + tile, uint64_t(tokens));
    for (uint64_t position = first + threadIdx.x; position < end; position += 32)
        atomicAdd(&count[Item::at(ids, order, position, end, vocabulary, shift).digit], 1u);
    __syncwarp();
    for (uint32_t digit = threadIdx.x; digit < DIGITS; digit += 32)
        counts[digit * tiles + index] = count[digit];
}

// Replaces each count by the sum of those before it. Grid: one block of 1024 threads, each of which
// takes 4 counts at a time. `entries` is a multiple of 4.
extern "C" __global__ void __launch_bounds__(1024) embedding_sum_counts(
    uint32_t* __restrict__ counts, uint32_t entries) {
    __shared__ uint32_t warp_totals[32];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t before = 0;
    for (uint32_t first = 0; first < entries; first += 4096) {
        const uint32_t i = first + threadIdx.x * 4;
        uint4 own = {0, 0, 0, 0};
        if (i < entries) own = *reinterpret_cast<const uint4*>(counts + i);
        const uint32_t total = own.x + own.y + own.z + own.w;
        uint32_t sum = total;
#pragma unroll
        for (uint32_t distance = 1; distance < 32; distance *= 2) {
            const uint32_t other = __shfl_up_sync(ALL_LANES, sum, distance);
            if (lane >= distance) sum += other;
        }
        if (lane == 31) warp_totals[warp] = sum;
        __syncthreads();
        uint32_t all = 0, earlier = 0;
        for (uint32_t other = 0; other < 32; ++other) {
            if (other == warp) earlier = all;
            all += warp_totals[other];
        }
        __syncthreads();
        if (i < entries) {
            const uint32_t a = before + earlier + sum - total;
            const uint4 sums = {a, a + own.x, a + own.x + own.y, a + own.x + own.y + own.z};
            *reinterpret_cast<uint4*>(counts + i) = sums;
        }
        before += all;
    }
}

// Grid: one warp (y of the block) for each tile. places: [DIGITS, tiles], the position in `sorted`
// at which the tokens of a tile with a digit begin; sorted: [tokens], overwritten.
extern "C" __global__ void __launch_bounds__(WARPS * 32) embedding_order_tokens(
    const uint32_t* __restrict__ ids, const uint32_t* __restrict__ order,
    const uint32_t* __restrict__ places, uint32_t* __restrict__ sorted, uint32_t tokens,
    uint64_t vocabulary, uint32_t tile, uint32_t tiles, uint32_t shift) {
    __shared__ uint32_t next_of_warp[WARPS][DIGITS];
    uint32_t* next = next_of_warp[threadIdx.y];
    const uint32_t index = blockIdx.x * WARPS + threadIdx.y;
    if (index >= tiles) return;
    for (uint32_t digit = threadIdx.x; digit < DIGITS; digit += 32)
        next[digit] = places[digit * tiles + index];
    __syncwarp();
    const uint64_t begin = uint64_t(index) * tile, end = min(begin + tile, uint64_t(tokens));
    for (uint64_t first = begin; first < end; first += 32) {
        const Item item = Item::at(ids, order, first + threadIdx.x, end, vocabulary, shift);
        const uint32_t equal = __match_any_sync(ALL_LANES, item.digit);
        const uint32_t earlier = __popc(equal & ((1u << threadIdx.x) - 1));
        if (item.digit < DIGITS) sorted[next[item.digit] + earlier] = item.token;
        __syncwarp();
        if (item.digit < DIGITS && earlier == 0) next[item.digit] += __popc(equal);
        __syncwarp();
    }
}
