// The norm of each head of Q and K fused with the rotation of both, forward and backward.
//
// A group of `lanes` neighbouring lanes of a warp shares a head. A lane has N elements of the first
// half of the rotating elements and the N elements that form pairs with them, 16 bytes each if the
// shape allows, so that lanes exchange only the sum of squares (backward: of products). If a lane
// has no more elements than these, as in every usual shape, the head stays in registers, and
// factors and angles stay there for all heads of a token that the lane processes. Otherwise, the
// second pass over the head reads it from the cache.
//
// Bytes at least, for `n` elements of q and k of `s` bytes: forward `2ns`, backward `3ns`, plus 4 a
// head for `rstd` and 8 for each pair of a token. The forward pass reads angles and factors once
// for up to 4 heads. The backward pass reads angles once for the heads of a token that a group of
// lanes has.
//
// expects: LDG.128 STG.128 in qk_norm_rope_forward_* qk_norm_rope_backward_*
// dynamic shared memory: 16384 in qk_norm_rope_backward_bf16_*
// dynamic shared memory: 8192 in qk_norm_rope_backward_f32_*
#include "tightrope/norm.cuh"
#include "tightrope/partials.cuh"

constexpr int THREADS = 256;
// Largest number of heads of a token that the same lanes take in the forward pass.
constexpr int HEADS = 4;

// Angles of N pairs of a token.
template <int N> struct Angles {
    Floats<N> cos, sin;

    __device__ __forceinline__ static Angles load(const float* cosines, const float* sines) {
        return {Floats<N>::load(cosines), Floats<N>::load(sines)};
    }

    // Rotates pairs by their angles, or back if `sign` is -1.
    __device__ __forceinline__ void rotate(Floats<N>& low, Floats<N>& high, float sign) const {
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float x = low[k], y = high[k], turn = sign * sin[k];
            low[k] = fmaf(x, cos[k], -(y * turn));
            high[k] = fmaf(y, cos[k], x * turn);
        }
    }
};

// Normalises and rotates up to HEADS heads of a token, starting at `x`, with a group of `lanes`
// lanes; `heads` is 0 for lanes without a head. No lane has more than N pairs, so that the loads of
// all heads are in flight at once.
template <typename T, typename Index, int N>
__device__ __forceinline__ void forward_at_once(
    const T* x, const float* weight, float offset, float eps, const float* cos, const float* sin,
    T* y, float* rstd, uint32_t heads, Index dim, Index pairs, uint32_t lanes) {
    const Index start = threadIdx.x % lanes * N, step = lanes * N;
    const bool has_pairs = heads > 0 && start < pairs;
    Vector<T, N> low[HEADS] = {}, high[HEADS] = {};
    float scale[HEADS] = {};
#pragma unroll
    for (uint32_t head = 0; head < HEADS; ++head)
        if (head < heads && has_pairs) {
            low[head] = Vector<T, N>::load(x + head * dim + start);
            high[head] = Vector<T, N>::load(x + head * dim + pairs + start);
        }
#pragma unroll
    for (uint32_t head = 0; head < HEADS; ++head) {
        const auto add = [&](const Vector<T, N>& value) {
#pragma unroll
            for (int k = 0; k < N; ++k) scale[head] += value.get(k) * value.get(k);
        };
        if (head < heads && has_pairs) add(low[head]), add(high[head]);
        for (Index i = 2 * pairs + start; i < dim; i += step)
            if (head < heads) add(Vector<T, N>::load(x + head * dim + i));
    }
#pragma unroll
    for (uint32_t head = 0; head < HEADS; ++head) {
        scale[head] =
            reciprocal_root_mean(lanes_sum(scale[head], lanes), float(dim), eps);
        if (start == 0 && head < heads) rstd[head] = scale[head];
    }
    if (has_pairs) {
        const auto low_factor = load_factors<N>(weight + start, offset);
        const auto high_factor = load_factors<N>(weight + pairs + start, offset);
        const auto angles = Angles<N>::load(cos + start, sin + start);
#pragma unroll
        for (uint32_t head = 0; head < HEADS; ++head) {
            if (head >= heads) break;
            Floats<N> a, b;
#pragma unroll
            for (int k = 0; k < N; ++k) {
                a[k] = low[head].get(k) * scale[head] * low_factor[k];
                b[k] = high[head].get(k) * scale[head] * high_factor[k];
            }
            angles.rotate(a, b, 1.0f);
            store(a, y + head * dim + start);
            store(b, y + head * dim + pairs + start);
        }
    }
    for (Index i = 2 * pairs + start; i < dim; i += step) {
        const auto factor = load_factors<N>(weight + i, offset);
#pragma unroll
        for (uint32_t head = 0; head < HEADS; ++head) {
            if (head >= heads) break;
            auto value = load<N>(x + head * dim + i);
#pragma unroll
            for (int k = 0; k < N; ++k) value[k] = value[k] * scale[head] * factor[k];
            store(value, y + head * dim + i);
        }
    }
}

// Does the same for any number of pairs, head by head.
template <typename T, typename Index, int N>
__device__ __forceinline__ void forward(
    const T* x, const float* weight, float offset, float eps, const float* cos, const float* sin,
    T* y, float* rstd, uint32_t heads, Index dim, Index pairs, uint32_t lanes) {
    const Index start = threadIdx.x % lanes * N, step = lanes * N;
#pragma unroll 1
    for (uint32_t head = 0; head < HEADS; ++head, x += dim, y += dim) {
        // Lanes without a head stay with the others of their warp.
        const Index own_dim = head < heads ? dim : 0, own_pairs = head < heads ? pairs : 0;
        float squares = 0.0f;
        for (Index i = start; i < own_dim; i += step) {
            const auto value = load<N>(x + i);
#pragma unroll
            for (int k = 0; k < N; ++k) squares += value[k] * value[k];
        }
        const float scale = reciprocal_root_mean(lanes_sum(squares, lanes), float(dim), eps);
        if (start == 0 && head < heads) rstd[head] = scale;
        const auto normalised = [&](Index i) {
            const auto factor = load_factors<N>(weight + i, offset);
            auto value = load<N>(x + i);
#pragma unroll
            for (int k = 0; k < N; ++k) value[k] = value[k] * scale * factor[k];
            return value;
        };
        for (Index i = start; i < own_pairs; i += step) {
            auto low = normalised(i), high = normalised(pairs + i);
            Angles<N>::load(cos + i, sin + i).rotate(low, high, 1.0f);
            store(low, y + i);
            store(high, y + pairs + i);
        }
        for (Index i = 2 * pairs + start; i < own_dim; i += step) store(normalised(i), y + i);
    }
}

// Grid: `lanes` threads for each group of up to HEADS heads of the queries or keys of a token.
template <typename T, typename Index>
__device__ __forceinline__ void forward_heads(
    const T* q, const T* k, const float* q_weight, const float* k_weight, float offset, float eps,
    const float* cos, const float* sin, T* q_rotated, T* k_rotated, float* q_rstd, float* k_rstd,
    Index tokens, Index q_heads, Index k_heads, Index dim, Index pairs, uint32_t lanes) {
    const Index q_parts = (q_heads + (HEADS - 1)) / HEADS, k_parts = (k_heads + (HEADS - 1)) / HEADS;
    const Index number = Index(blockIdx.x) * (THREADS / lanes) + threadIdx.x / lanes;
    const Index token = number / (q_parts + k_parts), part = number % (q_parts + k_parts);
    const bool is_query = part < q_parts;
    const Index of_token = is_query ? q_heads : k_heads;
    const Index head = (is_query ? part : part - q_parts) * HEADS;
    const Index row = token * of_token + head;
    const uint32_t heads = token < tokens ? min(of_token - head, Index(HEADS)) : 0;
    const T* x = (is_query ? q : k) + row * dim;
    T* y = (is_query ? q_rotated : k_rotated) + row * dim;
    float* rstd = (is_query ? q_rstd : k_rstd) + row;
    const float* weight = is_query ? q_weight : k_weight;
    const float* c = cos + token * pairs;
    const float* s = sin + token * pairs;
    constexpr int N = WIDTH<T>;
    if (dim % N != 0 || pairs % N != 0)
        forward<T, Index, 1>(x, weight, offset, eps, c, s, y, rstd, heads, dim, pairs, lanes);
    else if (pairs <= lanes * N)
        forward_at_once<T, Index, N>(
            x, weight, offset, eps, c, s, y, rstd, heads, dim, pairs, lanes);
    else
        forward<T, Index, N>(x, weight, offset, eps, c, s, y, rstd, heads, dim, pairs, lanes);
}

// N elements of a head in the backward pass: the input of the norm and the gradient of the result.
template <typename T, int N> struct Part {
    Vector<T, N> x;
    Floats<N> d;
};

// Queries or keys in the backward pass.
template <typename T, typename Index> struct Side {
    T* dx;
    const T* x;
    const float* rstd;
    const float* weight;
    // Number of heads of all tokens, and of one token.
    Index rows;
    Index heads;
};

// Processes heads from `first` on; each group of lanes takes `run` consecutive heads. Writes their
// shares of dweight into `copy`, unless it is null; no other lanes touch the same features of this
// copy. `ONCE`: no lane has more than N pairs, and each keeps their features and angles in
// registers.
template <typename T, typename Index, int N, bool ONCE>
__device__ __forceinline__ void backward(
    const Side<T, Index>& side, float offset, const float* cos, const float* sin, float* copy,
    Index dim, Index pairs, Index first, Index run, uint32_t lanes) {
    const Index start = threadIdx.x % lanes * N, step = lanes * N;
    const auto load_features = [&](Features<N>& features, Index i) {
        features.factor = load_factors<N>(side.weight + i, offset);
        features.share = {};
        // `copy` holds the share between heads.
        if (copy && (!ONCE || i >= 2 * pairs)) features.share = Floats<N>::load(copy + i);
    };
    const auto store_share = [&](const Features<N>& features, Index i) {
        if (copy) features.share.store(copy + i);
    };
    Features<N> low_features, high_features;
    low_features.share = {};
    for (Index i = start; !ONCE && i < pairs; i += step) {
        store_share(low_features, i);
        store_share(low_features, pairs + i);
    }
    for (Index i = 2 * pairs + start; i < dim; i += step) store_share(low_features, i);
    if (ONCE && start < pairs) {
        load_features(low_features, start);
        load_features(high_features, pairs + start);
    }
    Angles<N> angles;
    // No angles are loaded yet.
    Index angles_of = ~Index(0);
    first += threadIdx.x / lanes * run;
#pragma unroll 1
    for (Index row = first; row < first + run; ++row) {
        const T* x = side.x + row * dim;
        T* dx = side.dx + row * dim;
        const Index token = row / side.heads;
        // Lanes without a head stay with the others of their warp.
        const bool inside = row < side.rows;
        const Index own_dim = inside ? dim : 0, own_pairs = inside ? pairs : 0;
        const float scale = inside ? side.rstd[row] : 0.0f;
        Part<T, N> low, high;
        const auto load_pairs = [&](Index i) {
            low = {Vector<T, N>::load(x + i), load<N>(dx + i)};
            high = {Vector<T, N>::load(x + pairs + i), load<N>(dx + pairs + i)};
            if (!ONCE || token != angles_of)
                angles = Angles<N>::load(cos + token * pairs + i, sin + token * pairs + i);
            angles_of = token;
            angles.rotate(low.d, high.d, -1.0f);
            if (ONCE) return;
            load_features(low_features, i);
            load_features(high_features, pairs + i);
        };
        const auto load_other = [&](Features<N>& features, Index i) {
            load_features(features, i);
            return Part<T, N>{Vector<T, N>::load(x + i), load<N>(dx + i)};
        };
        float product = 0.0f;
        for (Index i = start; i < own_pairs; i += step) {
            load_pairs(i);
            product +=
                low_features.product(low.x, low.d) + high_features.product(high.x, high.d);
            if (ONCE) break;
        }
        for (Index i = 2 * pairs + start; i < own_dim; i += step) {
            Features<N> features;
            const auto part = load_other(features, i);
            product += features.product(part.x, part.d);
        }
        const float pull = pull_of(lanes_sum(product, lanes), scale, float(dim));
        for (Index i = start; i < own_pairs; i += step) {
            if (!ONCE) load_pairs(i);
            store(low_features.finish(low.x, low.d, scale, pull), dx + i);
            store(high_features.finish(high.x, high.d, scale, pull), dx + pairs + i);
            if (ONCE) break;
            store_share(low_features, i);
            store_share(high_features, pairs + i);
        }
        for (Index i = 2 * pairs + start; i < own_dim; i += step) {
            Features<N> features;
            const auto part = load_other(features, i);
            store(features.finish(part.x, part.d, scale, pull), dx + i);
            store_share(features, i);
        }
    }
    if (ONCE && start < pairs) {
        store_share(low_features, start);
        store_share(high_features, pairs + start);
    }
}

// Grid: one block for each run of `rows_per_block` heads of `side`; `block` is the number of this
// block among them. Shared memory, unless `partial` is null: one copy of [dim] f32 for each group
// of lanes.
template <typename T, typename Index>
__device__ __forceinline__ void backward_heads(
    const Side<T, Index>& side, float offset, const float* cos, const float* sin, float* partial,
    Index dim, Index pairs, Index block, Index rows_per_block, uint32_t lanes) {
    extern __shared__ float copies[];
    const uint32_t groups = THREADS / lanes;
    float* copy = partial ? copies + threadIdx.x / lanes * dim : nullptr;
    const Index first = block * rows_per_block, run = rows_per_block / groups;
    constexpr int N = WIDTH<T>;
    if (dim % N != 0 || pairs % N != 0)
        backward<T, Index, 1, false>(
            side, offset, cos, sin, copy, dim, pairs, first, run, lanes);
    else if (pairs <= lanes * N)
        backward<T, Index, N, true>(
            side, offset, cos, sin, copy, dim, pairs, first, run, lanes);
    else
        backward<T, Index, N, false>(
            side, offset, cos, sin, copy, dim, pairs, first, run, lanes);
    if (partial) sum_copies(copies, groups, dim, dim, partial + Index(blockIdx.x) * dim);
}

// q, q_rotated, q_dx: [tokens, q_heads, dim]; q_rstd: [tokens, q_heads]; k likewise;
// weights: [dim]; cos, sin: [tokens, pairs]. q_dx, k_dx: the gradients of the rotated heads,
// overwritten with those of q and k. partial: [blocks, dim], overwritten, or null; the first
// `q_blocks` blocks belong to queries. lanes: a power of two, at most 32.
#define QK_NORM_ROPE(T, TYPE, INDEX, BITS)                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) qk_norm_rope_forward_##TYPE##_##BITS( \
        const T* __restrict__ q, const T* __restrict__ k, const float* __restrict__ q_weight,      \
        const float* __restrict__ k_weight, float offset, float eps,                               \
        const float* __restrict__ cos, const float* __restrict__ sin, T* __restrict__ q_rotated,   \
        T* __restrict__ k_rotated, float* __restrict__ q_rstd, float* __restrict__ k_rstd,         \
        uint64_t tokens, uint64_t q_heads, uint64_t k_heads, uint64_t dim, uint64_t pairs,         \
        uint32_t lanes) {                                                                          \
        forward_heads<T, INDEX>(                                                                   \
            q, k, q_weight, k_weight, offset, eps, cos, sin, q_rotated, k_rotated, q_rstd, k_rstd, \
            tokens, q_heads, k_heads, dim, pairs, lanes);                                          \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) qk_norm_rope_backward_##TYPE##_##BITS(\
        T* __restrict__ q_dx, T* __restrict__ k_dx, const T* __restrict__ q,                       \
        const T* __restrict__ k, const float* __restrict__ q_rstd,                                 \
        const float* __restrict__ k_rstd, const float* __restrict__ q_weight,                      \
        const float* __restrict__ k_weight, float offset, const float* __restrict__ cos,           \
        const float* __restrict__ sin, float* __restrict__ partial, uint64_t tokens,               \
        uint64_t q_heads, uint64_t k_heads, uint64_t dim, uint64_t pairs, uint64_t q_blocks,       \
        uint64_t rows_per_block, uint32_t lanes) {                                                 \
        const bool is_query = blockIdx.x < q_blocks;                                               \
        const INDEX heads = is_query ? q_heads : k_heads;                                          \
        const Side<T, INDEX> side = {                                                              \
            is_query ? q_dx : k_dx,           is_query ? q : k,     is_query ? q_rstd : k_rstd,    \
            is_query ? q_weight : k_weight, INDEX(tokens) * heads, heads};                         \
        backward_heads<T, INDEX>(                                                                  \
            side, offset, cos, sin, partial, dim, pairs,                                           \
            is_query ? blockIdx.x : blockIdx.x - q_blocks, rows_per_block, lanes);                 \
    }
FOR_FLOATS_AND_WIDTHS(QK_NORM_ROPE)

// Adds the partial sums into both gradients. Grid: y is 0 for queries and 1 for keys.
// partial: [q_blocks + k_blocks, dim]; q_dweight, k_dweight: [dim], or null.
extern "C" __global__ void __launch_bounds__(PARTIAL_THREADS) qk_norm_rope_add_partials(
    const float* __restrict__ partial, float* __restrict__ q_dweight,
    float* __restrict__ k_dweight, uint64_t q_blocks, uint64_t k_blocks, uint64_t dim) {
    if (blockIdx.y == 0 && q_dweight) add_partials(partial, q_blocks, dim, q_dweight);
    if (blockIdx.y == 1 && k_dweight)
        add_partials(partial + q_blocks * dim, k_blocks, dim, k_dweight);
}
