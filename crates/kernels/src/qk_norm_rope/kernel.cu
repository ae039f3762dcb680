// The norm of each head of Q and K fused with the rotation of both, forward and backward.
//
// A head is shared by `lanes` neighbouring lanes of a warp. A lane has N elements of the first half
// of what rotates and the N that form pairs with them, 16 bytes each if the shape allows, so that
// nothing but the sum of squares (backward: of products) passes between lanes. Where a lane has no
// more than these, which is every usual shape, a head stays in registers; else the second pass over
// it meets the cache.
//
// Bytes at least, for `n` elements of q and k of `s` bytes: forward `2ns`, backward `3ns`, plus 4 a
// head for `rstd` and 8 for each pair of a token.
#include "tightrope/element.cuh"
#include "tightrope/reduce.cuh"

constexpr int THREADS = 256;

// The sum over `lanes` neighbouring lanes, a power of two, in each of them. All lanes of the warp
// take part.
__device__ __forceinline__ float lanes_sum(float x, uint32_t lanes) {
    for (uint32_t distance = lanes / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

template <int N, typename T> __device__ __forceinline__ Floats<N> load(const T* from) {
    const auto value = Vector<T, N>::load(from);
    Floats<N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result[k] = value.get(k);
    return result;
}

template <int N, typename T> __device__ __forceinline__ void store(const Floats<N>& value, T* to) {
    Vector<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result.set(k, value[k]);
    result.store(to);
}

// Turns pairs by their angles, or with `sign` -1 back.
template <int N>
__device__ __forceinline__ void rotate(
    Floats<N>& low, Floats<N>& high, const float* cos, const float* sin, float sign) {
    const auto c = Floats<N>::load(cos);
    const auto s = Floats<N>::load(sin);
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const float x = low[k], y = high[k], turn = sign * s[k];
        low[k] = fmaf(x, c[k], -(y * turn));
        high[k] = fmaf(y, c[k], x * turn);
    }
}

// One head, of which this is lane `lane` of `lanes`; `dim` and `pairs` are 0 for lanes without one.
// `ONCE`: no lane has more than N pairs.
template <typename T, typename Index, int N, bool ONCE>
__device__ __forceinline__ void forward(
    const T* x, const float* weight, float offset, float eps, const float* cos, const float* sin,
    T* y, float* rstd, Index dim, Index pairs, Index lane, Index lanes) {
    const Index start = lane * N, step = lanes * N;
    Floats<N> low, high;
    const auto load_pairs = [&](Index i) {
        low = load<N>(x + i);
        high = load<N>(x + pairs + i);
    };
    float squares = 0.0f;
    const auto add = [&](const Floats<N>& value) {
#pragma unroll
        for (int k = 0; k < N; ++k) squares += value[k] * value[k];
    };
    for (Index i = start; i < pairs; i += step) {
        load_pairs(i);
        add(low);
        add(high);
        if (ONCE) break;
    }
    for (Index i = 2 * pairs + start; i < dim; i += step) add(load<N>(x + i));
    // Rounded as IEEE 754 has it, unlike `rsqrtf`.
    const float scale = 1.0f / sqrtf(lanes_sum(squares, lanes) / float(dim) + eps);
    if (lane == 0 && dim > 0) *rstd = scale;
    const auto normalise = [&](Floats<N>& value, Index i) {
        const auto factor = Floats<N>::load(weight + i);
#pragma unroll
        for (int k = 0; k < N; ++k) value[k] *= scale * (factor[k] + offset);
    };
    for (Index i = start; i < pairs; i += step) {
        if (!ONCE) load_pairs(i);
        normalise(low, i);
        normalise(high, pairs + i);
        rotate(low, high, cos + i, sin + i, 1.0f);
        store(low, y + i);
        store(high, y + pairs + i);
        if (ONCE) break;
    }
    for (Index i = 2 * pairs + start; i < dim; i += step) {
        auto value = load<N>(x + i);
        normalise(value, i);
        store(value, y + i);
    }
}

// Grid: `lanes` threads for each head of each token, queries and keys.
template <typename T, typename Index>
__device__ __forceinline__ void forward_heads(
    const T* q, const T* k, const float* q_weight, const float* k_weight, float offset, float eps,
    const float* cos, const float* sin, T* q_rotated, T* k_rotated, float* q_rstd, float* k_rstd,
    Index tokens, Index q_heads, Index k_heads, Index dim, Index pairs, uint32_t lanes) {
    const Index number = Index(blockIdx.x) * (THREADS / lanes) + threadIdx.x / lanes;
    const Index token = number / (q_heads + k_heads);
    const Index head = number % (q_heads + k_heads);
    const bool is_query = head < q_heads;
    const Index row = is_query ? token * q_heads + head : token * k_heads + head - q_heads;
    const T* x = (is_query ? q : k) + row * dim;
    T* y = (is_query ? q_rotated : k_rotated) + row * dim;
    float* rstd = (is_query ? q_rstd : k_rstd) + row;
    const float* weight = is_query ? q_weight : k_weight;
    const float* c = cos + token * pairs;
    const float* s = sin + token * pairs;
    const Index own_dim = token < tokens ? dim : 0, own_pairs = token < tokens ? pairs : 0;
    const Index lane = threadIdx.x % lanes;
    constexpr int N = WIDTH<T>;
    if (dim % N != 0 || pairs % N != 0)
        forward<T, Index, 1, false>(
            x, weight, offset, eps, c, s, y, rstd, own_dim, own_pairs, lane, lanes);
    else if (pairs <= lanes * N)
        forward<T, Index, N, true>(
            x, weight, offset, eps, c, s, y, rstd, own_dim, own_pairs, lane, lanes);
    else
        forward<T, Index, N, false>(
            x, weight, offset, eps, c, s, y, rstd, own_dim, own_pairs, lane, lanes);
}

// N features in the backward pass: the factor of each, and a share of its `dweight`, which lies in
// `copy` where it is not at hand.
template <int N> struct Features {
    Floats<N> factor;
    Floats<N> share;

    __device__ __forceinline__ void load(const float* weight, float offset, const float* copy) {
        factor = Floats<N>::load(weight);
        if (copy) share = Floats<N>::load(copy);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            factor[k] += offset;
            if (!copy) share[k] = 0.0f;
        }
    }
};

// N elements of a head in the backward pass: what was normalised, and the gradient of the result.
template <int N> struct Part {
    Floats<N> x;
    Floats<N> d;

    __device__ __forceinline__ float product(const Features<N>& features) const {
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < N; ++k) sum += d[k] * features.factor[k] * x[k];
        return sum;
    }

    // The gradient of x. `x · pull` is `n · mean_h(g · n)`.
    __device__ __forceinline__ Floats<N> finish(
        Features<N>& features, float scale, float pull) const {
        Floats<N> dx;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            dx[k] = scale * (d[k] * features.factor[k] - x[k] * pull);
            features.share[k] += d[k] * scale * x[k];
        }
        return dx;
    }
};

// Queries or keys in the backward pass.
template <typename T, typename Index> struct Side {
    T* dx;
    const T* x;
    const float* rstd;
    const float* weight;
    // Of all tokens, and of one.
    Index rows;
    Index heads;
};

// The heads `first .. end`, in turn. Adds their shares of dweight into `copy`, unless it is null;
// no other lanes touch the same features of this copy. `ONCE`: no lane has more than N pairs, and
// keeps their features in registers.
template <typename T, typename Index, int N, bool ONCE>
__device__ __forceinline__ void backward(
    const Side<T, Index>& side, float offset, const float* cos, const float* sin, float* copy,
    Index dim, Index pairs, Index first, Index end, uint32_t lanes) {
    const Index start = threadIdx.x % lanes * N, step = lanes * N;
    const auto load_features = [&](Features<N>& features, Index i) {
        features.load(side.weight + i, offset, copy ? copy + i : nullptr);
    };
    const auto store_features = [&](const Features<N>& features, Index i) {
        if (copy) features.share.store(copy + i);
    };
    Features<N> low_features, high_features;
    if (ONCE && start < pairs) {
        load_features(low_features, start);
        load_features(high_features, pairs + start);
    }
    for (Index base = first; base < end; base += THREADS / lanes) {
        const Index row = base + threadIdx.x / lanes;
        const T* x = side.x + row * dim;
        T* dx = side.dx + row * dim;
        const Index angles = row / side.heads * pairs;
        // Lanes without a head go along with the others of their warp.
        const Index own_dim = row < end ? dim : 0, own_pairs = row < end ? pairs : 0;
        const float scale = row < end ? side.rstd[row] : 0.0f;
        Part<N> low, high;
        const auto load_pairs = [&](Index i) {
            low = {load<N>(x + i), load<N>(dx + i)};
            high = {load<N>(x + pairs + i), load<N>(dx + pairs + i)};
            rotate(low.d, high.d, cos + angles + i, sin + angles + i, -1.0f);
            if (ONCE) return;
            load_features(low_features, i);
            load_features(high_features, pairs + i);
        };
        const auto load_other = [&](Features<N>& features, Index i) {
            load_features(features, i);
            return Part<N>{load<N>(x + i), load<N>(dx + i)};
        };
        float product = 0.0f;
        for (Index i = start; i < own_pairs; i += step) {
            load_pairs(i);
            product += low.product(low_features) + high.product(high_features);
            if (ONCE) break;
        }
        for (Index i = 2 * pairs + start; i < own_dim; i += step) {
            Features<N> features;
            product += load_other(features, i).product(features);
        }
        const float pull = lanes_sum(product, lanes) * scale / float(dim) * scale;
        for (Index i = start; i < own_pairs; i += step) {
            if (!ONCE) load_pairs(i);
            store(low.finish(low_features, scale, pull), dx + i);
            store(high.finish(high_features, scale, pull), dx + pairs + i);
            if (ONCE) break;
            store_features(low_features, i);
            store_features(high_features, pairs + i);
        }
        for (Index i = 2 * pairs + start; i < own_dim; i += step) {
            Features<N> features;
            store(load_other(features, i).finish(features, scale, pull), dx + i);
            store_features(features, i);
        }
    }
    if (ONCE && start < pairs) {
        store_features(low_features, start);
        store_features(high_features, pairs + start);
    }
}

// Grid: one block for each run of `rows_per_block` heads of `side`, of which this is block `block`.
// Shared memory, unless `partial` is null: one copy of [dim] f32 for each group of lanes.
template <typename T, typename Index>
__device__ __forceinline__ void backward_heads(
    const Side<T, Index>& side, float offset, const float* cos, const float* sin, float* partial,
    Index dim, Index pairs, Index block, Index rows_per_block, uint32_t lanes) {
    extern __shared__ float copies[];
    const uint32_t groups = THREADS / lanes;
    if (partial) {
        for (Index i = threadIdx.x; i < groups * dim; i += THREADS) copies[i] = 0.0f;
        __syncthreads();
    }
    float* copy = partial ? copies + threadIdx.x / lanes * dim : nullptr;
    const Index first = block * rows_per_block;
    const Index end = min(first + rows_per_block, side.rows);
    constexpr int N = WIDTH<T>;
    if (dim % N != 0 || pairs % N != 0)
        backward<T, Index, 1, false>(
            side, offset, cos, sin, copy, dim, pairs, first, end, lanes);
    else if (pairs <= lanes * N)
        backward<T, Index, N, true>(
            side, offset, cos, sin, copy, dim, pairs, first, end, lanes);
    else
        backward<T, Index, N, false>(
            side, offset, cos, sin, copy, dim, pairs, first, end, lanes);
    if (partial) {
        __syncthreads();
        for (Index i = threadIdx.x; i < dim; i += THREADS) {
            float total = 0.0f;
            for (uint32_t from = 0; from < groups; ++from) total += copies[from * dim + i];
            partial[Index(blockIdx.x) * dim + i] = total;
        }
    }
}

// q, q_rotated, q_dx: [tokens, q_heads, dim]; q_rstd: [tokens, q_heads]; k likewise; weights: [dim];
// cos, sin: [tokens, pairs]. q_dx, k_dx: the gradients of what was rotated, overwritten with those
// of q and k. partial: [blocks, dim], overwritten, of queries in the first `q_blocks` blocks; or
// null. lanes: a power of two, at most 32.
#define QK_NORM_ROPE(T, TYPE, INDEX, BITS)                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) qk_norm_rope_forward_##TYPE##_##BITS(    \
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
    extern "C" __global__ void __launch_bounds__(THREADS) qk_norm_rope_backward_##TYPE##_##BITS(   \
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

constexpr int COLUMNS = 32;
constexpr int SLICES = 32;

// Adds the partial sums into both gradients, in a fixed order: `SLICES` threads for each feature,
// then their sums. Grid: a block for each `COLUMNS` features; y is 0 for queries and 1 for keys.
// partial: [q_blocks + k_blocks, dim]; q_dweight, k_dweight: [dim], or null.
extern "C" __global__ void __launch_bounds__(COLUMNS* SLICES) qk_norm_rope_add_partials(
    const float* __restrict__ partial, float* __restrict__ q_dweight,
    float* __restrict__ k_dweight, uint64_t q_blocks, uint64_t k_blocks, uint64_t dim) {
    __shared__ float sums[SLICES][COLUMNS + 1];
    float* dweight = blockIdx.y == 0 ? q_dweight : k_dweight;
    if (!dweight) return;
    const uint64_t first = blockIdx.y == 0 ? 0 : q_blocks;
    const uint64_t blocks = blockIdx.y == 0 ? q_blocks : k_blocks;
    const uint32_t column = threadIdx.x % COLUMNS, slice = threadIdx.x / COLUMNS;
    const uint64_t i = uint64_t(blockIdx.x) * COLUMNS + column;
    float total = 0.0f;
    if (i < dim)
        for (uint64_t block = slice; block < blocks; block += SLICES)
            total += partial[(first + block) * dim + i];
    sums[slice][column] = total;
    __syncthreads();
    // Now a warp has a feature, and a lane a slice of it.
    total = warp_sum(sums[column][slice]);
    const uint64_t feature = uint64_t(blockIdx.x) * COLUMNS + slice;
    if (column == 0 && feature < dim) dweight[feature] += total;
}
