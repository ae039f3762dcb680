// The rotation of Q and K, in place, forward and backward (with the opposite sign of the sine).
//
// A thread rotates the same N pairs of up to 4 heads of a token, so that it reads cosines and sines
// once for all of them. It moves 16 bytes at a time if the shape allows, otherwise one element. It
// always takes N elements of the first half of the rotating elements and N of the second, whether
// elements of the two halves form pairs (halves) or neighbours do (interleaved), so that a warp's
// accesses leave no gaps.
//
// Bytes at least, for `n` rotating elements of q and k of `s` bytes: `2ns`, plus 8 for each pair of
// a token. Arithmetic in f32 with the roundings of the CPU.
//
// expects: LDG.128 STG.128
#include "tightrope/element.cuh"

constexpr int THREADS = 256;

template <typename Index> struct Shape {
    Index tokens;
    Index q_heads;
    Index k_heads;
    // Number of elements from one token to the next.
    Index q_stride;
    Index k_stride;
    Index head_dim;
    Index pairs;
    // Number of threads that share the same pairs of a token; each rotates every `groups`-th head.
    Index groups;
};

// Returns a thread's N angles of a token: N consecutive ones, or with EITHER, N / 2 for each half
// of the rotating elements.
template <int N, bool EITHER, typename Index>
__device__ __forceinline__ Floats<N> load_angles(const float* table, Index first, Index pairs) {
    if constexpr (EITHER) {
        const auto low = Floats<N / 2>::load(table + first / 2);
        const auto high = Floats<N / 2>::load(table + (pairs + first) / 2);
        Floats<N> angles;
#pragma unroll
        for (int i = 0; i < N; ++i) angles[i] = i < N / 2 ? low[i] : high[i - N / 2];
        return angles;
    } else {
        return Floats<N>::load(table + first);
    }
}

template <typename T, typename Index, int N, bool INTERLEAVED>
__device__ __forceinline__ void rotate(
    T* q, T* k, const float* cos, const float* sin, float sign, const Shape<Index>& shape) {
    const Index chunks = shape.pairs / N;
    const Index item = Index(blockIdx.x) * THREADS + threadIdx.x;
    const Index token = item / chunks / shape.groups;
    if (token >= shape.tokens) return;
    const Index first = item % chunks * N;
    constexpr bool EITHER = INTERLEAVED && N > 1;
    constexpr bool NEIGHBOURS = INTERLEAVED && N == 1;
    const auto c = load_angles<N, EITHER>(cos + token * shape.pairs, first, shape.pairs);
    auto s = load_angles<N, EITHER>(sin + token * shape.pairs, first, shape.pairs);
#pragma unroll
    for (int i = 0; i < N; ++i) s[i] *= sign;
    const Index heads = shape.q_heads + shape.k_heads;
    for (Index head = item / chunks % shape.groups; head < heads; head += shape.groups) {
        const bool is_query = head < shape.q_heads;
        const Index row = token * (is_query ? shape.q_stride : shape.k_stride);
        const Index start = row + (is_query ? head : head - shape.q_heads) * shape.head_dim;
        T* const low = (is_query ? q : k) + (start + (NEIGHBOURS ? 2 * first : first));
        T* const high = low + (NEIGHBOURS ? 1 : shape.pairs);
        Floats<N> part[2] = {load<N>(low), load<N>(high)};
#pragma unroll
        for (int i = 0; i < N; ++i) {
            // Places of the pair among the 2N elements.
            const int a = INTERLEAVED ? 2 * i : i, b = INTERLEAVED ? 2 * i + 1 : N + i;
            const float x = part[a / N][a % N], y = part[b / N][b % N];
            part[a / N][a % N] = fmaf(x, c[i], -(y * s[i]));
            part[b / N][b % N] = fmaf(y, c[i], x * s[i]);
        }
        store(part[0], low);
        store(part[1], high);
    }
}

template <typename T, typename Index, int N>
__device__ __forceinline__ void rotate_pairs(
    T* q, T* k, const float* cos, const float* sin, float sign, uint32_t interleaved,
    const Shape<Index>& shape) {
    if (interleaved)
        rotate<T, Index, N, true>(q, k, cos, sin, sign, shape);
    else
        rotate<T, Index, N, false>(q, k, cos, sin, sign, shape);
}

// Grid: one thread for each `pairs_per_thread` pairs, each group and each token.
// q: [tokens, q_stride], k: [tokens, k_stride]; their rotating elements are overwritten.
// cos, sin: [tokens, pairs]. sign: 1 forward, -1 backward. pairs_per_thread: 1, or the number of
// elements in 16 bytes if it divides `pairs`, `head_dim` and both strides.
#define ROPE_ROTATE(T, TYPE, INDEX, BITS)                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) rope_rotate_##TYPE##_##BITS(             \
        T* __restrict__ q, T* __restrict__ k, const float* __restrict__ cos,                       \
        const float* __restrict__ sin, float sign, uint32_t interleaved, uint64_t tokens,          \
        uint64_t q_heads, uint64_t k_heads, uint64_t q_stride, uint64_t k_stride,                  \
        uint64_t head_dim, uint64_t pairs, uint64_t groups, uint64_t pairs_per_thread) {           \
        const Shape<INDEX> shape = {                                                               \
            INDEX(tokens),   INDEX(q_heads),  INDEX(k_heads), INDEX(q_stride),                     \
            INDEX(k_stride), INDEX(head_dim), INDEX(pairs),   INDEX(groups)};                      \
        if (pairs_per_thread == 1)                                                                 \
            rotate_pairs<T, INDEX, 1>(q, k, cos, sin, sign, interleaved, shape);                   \
        else                                                                                       \
            rotate_pairs<T, INDEX, WIDTH<T>>(q, k, cos, sin, sign, interleaved, shape);            \
    }
FOR_FLOATS_AND_WIDTHS(ROPE_ROTATE)
