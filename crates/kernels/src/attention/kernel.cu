// Attention of variable length, causal and block-diagonal, forward and backward, without a
// tokens × tokens matrix in memory (FlashAttention-2, Dao 2023).
//
// Keys and positions are counted from the first key of the range's prefix, or of the range if it has
// none. Tiles of a range with a prefix have the rows that they would have with a copy of it, so `y`,
// `lse` and `dq` have the same bits. The block that owns keys of a prefix sums over the queries of
// their own range and then over those of each range that reads them, in order.
//
// A block owns a tile of up to 64 rows of one range and head, 16 for each warp, and streams the
// rows of the other side through shared memory with asynchronous copies. Tiles are counted from the
// start of a range, sums run in the order of rows, and no two blocks add into the same place, so
// that the bits of a range depend on the range alone. The gradient takes two kernels, one for `dq`
// and one for `dk` and `dv`, and so 7 products; a single kernel with atomic additions would take 5.
//
// Bytes at least, for n queries and m keys of h and g heads of d elements of s bytes: forward
// ds(2nh + 2mg) + 4nh, backward ds(4nh + 4mg) + 8nh. Offsets inside a tile fit 32 bits; offsets of
// rows are computed in 64 bits.
//
// Shared memory, in rows of D elements for F = 16 · WARPS and S = STREAM: forward F + 4S, backward
// 2F + 4S. With D = 128 and bf16 that is 48 KiB (3 blocks on a multiprocessor with 164 KiB) and
// 64 KiB (2 blocks). The largest size is 96 KiB, with D = 256.
//
// expects: LDGSTS.128 STG.128
// expects: LDSM HMMA in attention_*_bf16_*
// expects: LDS.128 FFMA in attention_*f32_*
// expects: LDG.128 in attention_queries_backward_*
// dynamic shared memory: 12288 in attention_forward_bf16_32
// dynamic shared memory: 24576 in attention_forward_bf16_64
// dynamic shared memory: 49152 in attention_forward_bf16_128
// dynamic shared memory: 65536 in attention_forward_bf16_256
// dynamic shared memory: 25600 in attention_forward_f32_32
// dynamic shared memory: 41984 in attention_forward_f32_64
// dynamic shared memory: 53760 in attention_forward_f32_128
// dynamic shared memory: 68096 in attention_forward_f32_256
// dynamic shared memory: 16896 in attention_*_backward_bf16_32
// dynamic shared memory: 33280 in attention_*_backward_bf16_64
// dynamic shared memory: 66048 in attention_*_backward_bf16_128
// dynamic shared memory: 98560 in attention_*_backward_bf16_256
// dynamic shared memory: 29952 in attention_*_backward_f32_32
// dynamic shared memory: 54528 in attention_*_backward_f32_64
// dynamic shared memory: 68352 in attention_*_backward_f32_128
// dynamic shared memory: 99968 in attention_*_backward_f32_256
#include "tightrope/attention.cuh"

// Sizes for a head; its number of features is rounded up to D. `dk` and `dv` of D = 256 do not fit
// into registers, so each half of their columns is computed separately, with the scores again.
template <typename T, int D> struct Sizes {
    static constexpr int WARPS = sizeof(T) == 4 && D >= 128 ? 2 : 4;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int ROWS = 16 * WARPS;
    // Number of rows in a stage of the backward pass. Tiles of the forward pass have twice as many
    // keys.
    static constexpr int STREAM = (D == 256 ? 16 : 32) * 2 / sizeof(T);
    static constexpr int COLUMNS = D < 128 ? D : 128;
    // Number of blocks on a multiprocessor that registers must allow.
    static constexpr int FORWARD_BLOCKS = D == 32 ? 4 : D == 64 ? 3 : WARPS == 2 && D == 128 ? 4 : 2;
    static constexpr int QUERIES_BLOCKS = D == 256 ? WARPS == 2 ? 2 : 1 : D == 128 ? 3 : 4;
    static constexpr int KEYS_BLOCKS = D == 256 ? WARPS == 2 ? 3 : 1 : D == 128 ? 2 : 3;
};
// Number of rows in an entry of the lists of tiles.
constexpr int TILE = 64;

template <typename T, int D>
__device__ __forceinline__ void forward(
    const T* q, const T* k, const T* v, T* y, float* lse, const Range* ranges, const uint2* tiles,
    uint32_t heads, uint32_t kv_heads, uint32_t head_dim, float scale, uint32_t window,
    float softcap) {
    using S = Sizes<T, D>;
    constexpr int KEYS = 2 * S::STREAM, N = KEYS / 8;
    const uint2 tile = tiles[blockIdx.x];
    const Range range = ranges[tile.x];
    const int queries = range.query_len, first = tile.y + blockIdx.z * S::ROWS;
    if (first >= queries) return;

    extern __shared__ uint4 memory[];
    const Tile<T, D> q_tile{reinterpret_cast<T*>(memory)};
    const Tile<T, D> k_tile{q_tile.start + S::ROWS * D};
    const Tile<T, D> v_tile{k_tile.start + KEYS * D};
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* stage =
        reinterpret_cast<float*>(v_tile.start + KEYS * D) + warp * STAGE<T, N>;

    const uint32_t head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const uint32_t q_stride = heads * head_dim, kv_stride = kv_heads * head_dim;
    const uint64_t start = uint64_t(range.query_start) + first;
    q += start * q_stride + head * head_dim;
    y += start * q_stride + head * head_dim;
    lse += start * heads + head;
    const Keys keys(range);
    const uint64_t key_start = range.key_start - range.prefix_len;
    k += key_start * kv_stride + kv_head * head_dim;
    v += key_start * kv_stride + kv_head * head_dim;
    const auto fill_keys = [&](Tile<T, D> to, const T* from, int key) {
        keys.fill<KEYS, S::THREADS>(to, from, kv_stride, key, head_dim);
        commit_copies();
    };

    const Sight sight(range, window);
    const Scoring score(scale, softcap);
    const int row = warp * 16, last = min(first + S::ROWS, queries) - 1;
    // Queries of the warp and of this lane, counted from the start of the range.
    const int top_row = first + row, low_row = min(top_row + 15, queries - 1);
    const int mine[2] = {top_row + lane / 4, top_row + lane / 4 + 8};
    float top[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
    float out[D / 8][4];
    clear(out);

    const int begin = sight.first(first) / KEYS * KEYS, end = sight.last(last) + 1;
    fill<S::ROWS, S::THREADS>(q_tile, q, q_stride, queries - first, head_dim);
    fill_keys(k_tile, k, begin);
    for (int key = begin; key < end; key += KEYS) {
        await_copies<0>();
        __syncthreads();
        fill_keys(v_tile, v, key);
        const bool sees = sight.any(top_row, low_row, key, key + KEYS - 1);
        float s[N][4];
        clear(s);
        if (sees) add_product_transposed(s, q_tile, row, k_tile, head_dim);
        await_copies<0>();
        __syncthreads();
        if (key + KEYS < end) fill_keys(k_tile, k, key + KEYS);

        if (!sees) continue;
        const bool whole = sight.all(top_row, low_row, key, key + KEYS - 1);
        float largest[2] = {top[0], top[1]};
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float slope;
                s[n][i] = score(s[n][i], slope);
                if (!whole && !sight.sees(mine[i / 2], key + 8 * n + lane % 4 * 2 + i % 2))
                    s[n][i] = -INFINITY;
                largest[i / 2] = fmaxf(largest[i / 2], s[n][i]);
            }
        float reference[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            largest[r] = row_max(largest[r]);
            // If the row has seen no key yet, any finite number will do.
            reference[r] = largest[r] == -INFINITY ? 0.0f : largest[r];
            const float factor = power_of_two(top[r] - reference[r]);
            top[r] = largest[r];
            total[r] *= factor;
#pragma unroll
            for (int n = 0; n < D / 8; ++n) out[n][2 * r] *= factor, out[n][2 * r + 1] *= factor;
        }
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[n][i] = power_of_two(s[n][i] - reference[i / 2]);
                total[i / 2] += s[n][i];
            }
        add_product(out, s, v_tile, 0, stage);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        total[r] = row_sum(total[r]);
        if (lane % 4 == 0 && mine[r] < queries)
            lse[uint64_t(mine[r] - first) * heads] = fmaf(top[r], LN2, logf(total[r]));
#pragma unroll
        for (int n = 0; n < D / 8; ++n) out[n][2 * r] /= total[r], out[n][2 * r + 1] /= total[r];
    }
    store_rows(
        out, q_tile, row, y + uint64_t(row) * q_stride, q_stride, queries - first - row, 0,
        head_dim);
}

// Also computes delta[t,h] = Σ_d dy · y, which `backward_keys` reads.
template <typename T, int D>
__device__ __forceinline__ void backward_queries(
    const T* dy, const T* y, const float* lse, const T* q, const T* k, const T* v, float* delta,
    T* dq, const Range* ranges, const uint2* tiles, uint32_t heads, uint32_t kv_heads,
    uint32_t head_dim, float scale, uint32_t window, float softcap) {
    using S = Sizes<T, D>;
    constexpr int N = S::STREAM / 8, CHUNK = Tile<T, D>::CHUNK, CHUNKS = Tile<T, D>::CHUNKS;
    const uint2 tile = tiles[blockIdx.x];
    const Range range = ranges[tile.x];
    const int queries = range.query_len, first = tile.y + blockIdx.z * S::ROWS;
    if (first >= queries) return;

    extern __shared__ uint4 memory[];
    const Tile<T, D> q_tile{reinterpret_cast<T*>(memory)};
    const Tile<T, D> dy_tile{q_tile.start + S::ROWS * D};
    T* stages = dy_tile.start + S::ROWS * D;
    const auto k_tile = [&](int stage) { return Tile<T, D>{stages + 2 * stage * S::STREAM * D}; };
    const auto v_tile = [&](int stage) {
        return Tile<T, D>{stages + (2 * stage + 1) * S::STREAM * D};
    };
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* staging = reinterpret_cast<float*>(stages + 4 * S::STREAM * D) + warp * STAGE<T, N>;

    const uint32_t head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const uint32_t q_stride = heads * head_dim, kv_stride = kv_heads * head_dim;
    const uint64_t start = uint64_t(range.query_start) + first;
    const uint64_t q_at = start * q_stride + head * head_dim, lse_at = start * heads + head;
    const Keys keys(range);
    const uint64_t key_start = range.key_start - range.prefix_len;
    k += key_start * kv_stride + kv_head * head_dim;
    v += key_start * kv_stride + kv_head * head_dim;
    const auto fill_stage = [&](int stage, int key) {
        keys.fill<S::STREAM, S::THREADS>(k_tile(stage), k, kv_stride, key, head_dim);
        keys.fill<S::STREAM, S::THREADS>(v_tile(stage), v, kv_stride, key, head_dim);
        commit_copies();
    };

    const Sight sight(range, window);
    const Scoring score(scale, softcap);
    const int row = warp * 16, last = min(first + S::ROWS, queries) - 1;
    const int begin = sight.first(first) / S::STREAM * S::STREAM, end = sight.last(last) + 1;
    fill<S::ROWS, S::THREADS>(q_tile, q + q_at, q_stride, queries - first, head_dim);
    fill<S::ROWS, S::THREADS>(dy_tile, dy + q_at, q_stride, queries - first, head_dim);
    fill_stage(0, begin);
    await_copies<0>();
    __syncthreads();

    const int top_row = first + row, low_row = min(top_row + 15, queries - 1);
    const int mine[2] = {top_row + lane / 4, top_row + lane / 4 + 8};
    float logs[2] = {0.0f, 0.0f}, deltas[2] = {0.0f, 0.0f};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int at = mine[r] - first;
        if (mine[r] < queries) {
            logs[r] = lse[lse_at + uint64_t(at) * heads] * LOG2E;
            const T* from = y + q_at + uint64_t(at) * q_stride;
            if (head_dim % CHUNK == 0) {
#pragma unroll 1
                for (int c = lane % 4; c < CHUNKS && c * CHUNK < head_dim; c += 4) {
                    const auto left = Vector<T, CHUNK>::load(dy_tile.chunk(at, c));
                    const auto right = Vector<T, CHUNK>::load(from + c * CHUNK);
#pragma unroll
                    for (int i = 0; i < CHUNK; ++i) deltas[r] += left.get(i) * right.get(i);
                }
            } else {
#pragma unroll 1
                for (int c = lane % 4; c < head_dim; c += 4)
                    deltas[r] += to_float(*dy_tile.at(at, c)) * to_float(from[c]);
            }
        }
        deltas[r] = row_sum(deltas[r]);
        if (lane % 4 == 0 && mine[r] < queries)
            delta[lse_at + uint64_t(at) * heads] = deltas[r];
    }

    float out[D / 8][4];
    clear(out);
    for (int key = begin, stage = 0; key < end; key += S::STREAM, stage ^= 1) {
        if (key + S::STREAM < end) {
            fill_stage(stage ^ 1, key + S::STREAM);
            await_copies<1>();
        } else {
            await_copies<0>();
        }
        __syncthreads();
        if (sight.any(top_row, low_row, key, key + S::STREAM - 1)) {
            float s[N][4], d[N][4];
            clear(s);
            clear(d);
            add_product_transposed(s, q_tile, row, k_tile(stage), head_dim);
            add_product_transposed(d, dy_tile, row, v_tile(stage), head_dim);
            const bool whole = sight.all(top_row, low_row, key, key + S::STREAM - 1);
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float slope;
                    float p = power_of_two(score(s[n][i], slope) - logs[i / 2]);
                    if (!whole && !sight.sees(mine[i / 2], key + 8 * n + lane % 4 * 2 + i % 2))
                        p = 0.0f;
                    s[n][i] = p * (d[n][i] - deltas[i / 2]) * slope;
                }
            add_product(out, s, k_tile(stage), 0, staging);
        }
        __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[n][i] *= scale;
    store_rows(
        out, q_tile, row, dq + q_at + uint64_t(row) * q_stride, q_stride, queries - first - row, 0,
        head_dim);
}

// Scores are transposed here: rows are keys, columns are queries.
template <typename T, int D>
__device__ __forceinline__ void backward_keys(
    const T* dy, const float* lse, const T* q, const T* k, const T* v, const float* delta, T* dk,
    T* dv, const Range* ranges, const uint2* tiles, uint32_t heads, uint32_t kv_heads,
    uint32_t head_dim, float scale, uint32_t window, float softcap) {
    using S = Sizes<T, D>;
    constexpr int N = S::STREAM / 8, PARTS = TILE / S::ROWS;
    const uint2 tile = tiles[blockIdx.x];
    const uint32_t part = blockIdx.z % PARTS * S::ROWS;
    // The range whose queries are summed; at first that of the keys.
    Range range = ranges[tile.x];
    const int first = range.prefix_len + tile.y + part, keys = range.prefix_len + range.key_len;
    const int column = blockIdx.z / PARTS * S::COLUMNS;
    if (first >= keys || column >= head_dim) return;

    extern __shared__ uint4 memory[];
    const Tile<T, D> k_tile{reinterpret_cast<T*>(memory)};
    const Tile<T, D> v_tile{k_tile.start + S::ROWS * D};
    T* stages = v_tile.start + S::ROWS * D;
    const auto q_tile = [&](int stage) { return Tile<T, D>{stages + 2 * stage * S::STREAM * D}; };
    const auto dy_tile = [&](int stage) {
        return Tile<T, D>{stages + (2 * stage + 1) * S::STREAM * D};
    };
    // For each stage: log-sum-exp, then delta.
    float* statistics = reinterpret_cast<float*>(stages + 4 * S::STREAM * D);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* staging = statistics + 4 * S::STREAM + warp * STAGE<T, N>;

    const uint32_t kv_head = blockIdx.y, group = heads / kv_heads, head = kv_head * group;
    const uint32_t q_stride = heads * head_dim, kv_stride = kv_heads * head_dim;
    const auto key_row = [&](const Range& range, uint2 tile) {
        return (uint64_t(range.key_start) + tile.y + part) * kv_stride + kv_head * head_dim;
    };
    const auto fill_stage = [&](int stage, uint32_t head, int query) {
        const uint64_t start = uint64_t(range.query_start) + query;
        const uint64_t at = start * q_stride + head * head_dim;
        const int rows = int(range.query_len) - query;
        fill<S::STREAM, S::THREADS>(q_tile(stage), q + at, q_stride, rows, head_dim);
        fill<S::STREAM, S::THREADS>(dy_tile(stage), dy + at, q_stride, rows, head_dim);
        for (int i = threadIdx.x; i < 2 * S::STREAM; i += S::THREADS) {
            const int r = i % S::STREAM;
            const float* from = i < S::STREAM ? lse : delta;
            const uint64_t offset = (start + r) * heads + head;
            copy_async_4(
                statistics + 2 * stage * S::STREAM + i, r < rows ? from + offset : from, r < rows);
        }
        commit_copies();
    };

    const Scoring score(scale, softcap);
    const int row = warp * 16, last = min(first + S::ROWS, keys) - 1;
    const int top_row = first + row, low_row = min(top_row + 15, keys - 1);
    const int mine[2] = {top_row + lane / 4, top_row + lane / 4 + 8};
    const uint64_t from = key_row(range, tile);
    fill<S::ROWS, S::THREADS>(k_tile, k + from, kv_stride, keys - first, head_dim);
    fill<S::ROWS, S::THREADS>(v_tile, v + from, kv_stride, keys - first, head_dim);
    commit_copies();
    float k_out[S::COLUMNS / 8][4], v_out[S::COLUMNS / 8][4];
    clear(k_out);
    clear(v_out);
    // Only ranges without prefix are read by others.
    for (uint32_t reader = range.prefix_len == 0 ? range.reader : 0;; reader = range.reader) {
        const Sight sight(range, window);
        const int queries = range.query_len;
        // Range of the queries that see some key of the tile.
        const int begin = max(first - sight.ahead, 0) / S::STREAM * S::STREAM;
        const int end =
            int(max(min(int64_t(last) - sight.ahead + sight.window, int64_t(queries)), int64_t(0)));
        const uint32_t steps = end > begin ? (end - begin + S::STREAM - 1) / S::STREAM : 0;
        if (steps > 0) fill_stage(0, head, begin);
        for (uint32_t i = 0; i < group * steps; ++i) {
            const int stage = i % 2, query = begin + i % steps * S::STREAM;
            if (i + 1 < group * steps) {
                const int next = begin + (i + 1) % steps * S::STREAM;
                fill_stage(stage ^ 1, head + (i + 1) / steps, next);
                await_copies<1>();
            } else {
                await_copies<0>();
            }
            __syncthreads();
            const int last_query = min(query + S::STREAM, queries) - 1;
            if (top_row <= low_row && sight.any(query, last_query, top_row, low_row)) {
                float s[N][4], d[N][4];
                clear(s);
                clear(d);
                add_product_transposed(s, k_tile, row, q_tile(stage), head_dim);
                add_product_transposed(d, v_tile, row, dy_tile(stage), head_dim);
                const bool whole = query + S::STREAM <= queries &&
                                   sight.all(query, last_query, top_row, low_row);
                const float* logs = statistics + 2 * stage * S::STREAM;
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const int at = 8 * n + lane % 4 * 2 + i % 2;
                        float slope;
                        float p = power_of_two(score(s[n][i], slope) - logs[at] * LOG2E);
                        if (!whole &&
                            !(query + at < queries && sight.sees(query + at, mine[i / 2])))
                            p = 0.0f;
                        s[n][i] = p;
                        d[n][i] = p * (d[n][i] - logs[S::STREAM + at]) * slope;
                    }
                add_product(v_out, s, dy_tile(stage), column, staging);
                add_product(k_out, d, q_tile(stage), column, staging);
            }
            __syncthreads();
        }
        if (reader == 0) break;
        range = ranges[reader];
    }
    await_copies<0>();
    __syncthreads();
#pragma unroll
    for (int n = 0; n < S::COLUMNS / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) k_out[n][i] *= scale;
    const uint2 place = opaque(tiles)[blockIdx.x];
    const Range own = opaque(ranges)[place.x];
    const uint64_t to = key_row(own, place) + uint64_t(row) * kv_stride;
    const int rows = int(own.key_len - place.y - part) - row;
    store_rows(k_out, k_tile, row, dk + to, kv_stride, rows, column, head_dim);
    store_rows(v_out, v_tile, row, dv + to, kv_stride, rows, column, head_dim);
}

// q, y, dy, dq: [queries, heads, head_dim]; k, v, dk, dv: [keys, kv_heads, head_dim]; lse, delta:
// [queries, heads]; ranges: [ranges, 7]; tiles: [tiles, 2], a range and the first row of a tile of
// 64. A softcap of 0 means none. Grid: tiles × heads (of queries or of keys) × parts of a tile, and
// for `backward_keys` × parts of the columns.
#define ATTENTION(T, TYPE, D)                                                                      \
    extern "C" __global__ void __launch_bounds__(Sizes<T, D>::THREADS, Sizes<T, D>::FORWARD_BLOCKS)\
        attention_forward_##TYPE##_##D(                                                            \
            const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,             \
            T* __restrict__ y, float* __restrict__ lse, const uint32_t* __restrict__ ranges,       \
            const uint32_t* __restrict__ tiles, uint32_t heads, uint32_t kv_heads,                 \
            uint32_t head_dim, float scale, uint32_t window, float softcap) {                      \
        forward<T, D>(                                                                             \
            q, k, v, y, lse, reinterpret_cast<const Range*>(ranges),                               \
            reinterpret_cast<const uint2*>(tiles), heads, kv_heads, head_dim, scale, window,       \
            softcap);                                                                              \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(Sizes<T, D>::THREADS, Sizes<T, D>::QUERIES_BLOCKS)\
        attention_queries_backward_##TYPE##_##D(                                                   \
            const T* __restrict__ dy, const T* __restrict__ y, const float* __restrict__ lse,      \
            const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,             \
            float* __restrict__ delta, T* __restrict__ dq, const uint32_t* __restrict__ ranges,    \
            const uint32_t* __restrict__ tiles, uint32_t heads, uint32_t kv_heads,                 \
            uint32_t head_dim, float scale, uint32_t window, float softcap) {                      \
        backward_queries<T, D>(                                                                    \
            dy, y, lse, q, k, v, delta, dq, reinterpret_cast<const Range*>(ranges),                \
            reinterpret_cast<const uint2*>(tiles), heads, kv_heads, head_dim, scale, window,       \
            softcap);                                                                              \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(Sizes<T, D>::THREADS, Sizes<T, D>::KEYS_BLOCKS)   \
        attention_keys_backward_##TYPE##_##D(                                                      \
            const T* __restrict__ dy, const float* __restrict__ lse, const T* __restrict__ q,      \
            const T* __restrict__ k, const T* __restrict__ v, const float* __restrict__ delta,     \
            T* __restrict__ dk, T* __restrict__ dv, const uint32_t* __restrict__ ranges,           \
            const uint32_t* __restrict__ tiles, uint32_t heads, uint32_t kv_heads,                 \
            uint32_t head_dim, float scale, uint32_t window, float softcap) {                      \
        backward_keys<T, D>(                                                                       \
            dy, lse, q, k, v, delta, dk, dv, reinterpret_cast<const Range*>(ranges),               \
            reinterpret_cast<const uint2*>(tiles), heads, kv_heads, head_dim, scale, window,       \
            softcap);                                                                              \
    }
#define EVERY_HEAD_SIZE(T, TYPE)                                                                   \
    ATTENTION(T, TYPE, 32)                                                                         \
    ATTENTION(T, TYPE, 64)                                                                         \
    ATTENTION(T, TYPE, 128)                                                                        \
    ATTENTION(T, TYPE, 256)
EVERY_HEAD_SIZE(float, f32)
EVERY_HEAD_SIZE(__nv_bfloat16, bf16)
