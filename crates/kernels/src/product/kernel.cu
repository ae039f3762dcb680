// Kernels that products need besides cuBLASLt: dropout of the rows that a product reads, dropout of
// a term before it is added to the result, and sums of columns.
//
// Bytes at least, for [rows, columns] elements of s bytes: dropout of rows 2s an element and 8 a
// row; dropout of a term 4 + s an element (4 + 2s when it is added), and 8 a row; sums of columns s
// an element, and 8 for each column and run of 256 rows. Arithmetic in f32.
//
// expects: LDG.128 in product_dropout_f32_* product_dropout_bf16_* product_column_sums_*
// expects: STG.128 in product_dropout_f32_* product_dropout_bf16_* product_dropout_term_f32_*
// expects: LDG.64 STG.64 in product_dropout_term_bf16_*
#include "tightrope/element.cuh"
#include "tightrope/partials.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// The mask that `Dropout` in dropout.rs defines. `salt` is already mixed.
struct Mask {
    uint64_t salt;
    const uint32_t* keys;
    uint32_t threshold;
    float factor;
};

// The token's part of the hash of its elements.
struct TokenState {
    uint32_t low, high;
};

__device__ __forceinline__ TokenState token_state(const Mask& mask, uint64_t token) {
    const auto key = Vector<uint32_t, 2>::load(mask.keys + 2 * token);
    uint64_t z = mask.salt ^ (uint64_t(key.element[0]) | uint64_t(key.element[1]) << 32);
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return {uint32_t(z), uint32_t(z >> 32)};
}

// Returns the factor of element `i` of the token: 0 if it is dropped.
__device__ __forceinline__ float kept(const Mask& mask, TokenState state, uint32_t i) {
    uint32_t h = i * 0x9e3779b9u + state.low;
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h ^= state.high;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    h ^= h >> 16;
    return h < mask.threshold ? 0.0f : mask.factor;
}

template <typename T, typename Index, int N>
__device__ __forceinline__ void dropout_row(
    const T* x, T* dropped, const Mask& mask, TokenState state, Index columns) {
    for (Index i = threadIdx.x * N; i < columns; i += THREADS * N) {
        auto value = load<N>(x + i);
#pragma unroll
        // Elements are multiplied, not selected, so that NaN passes through dropped elements too.
        for (int k = 0; k < N; ++k) value[k] *= kept(mask, state, uint32_t(i) + k);
        store(value, dropped + i);
    }
}

template <typename T, typename Index, int N>
__device__ __forceinline__ void dropout_term_row(
    const float* term, T* c, uint32_t accumulate, const Mask& mask, TokenState state,
    Index columns) {
    for (Index i = threadIdx.x * N; i < columns; i += THREADS * N) {
        const auto change = Floats<N>::load(term + i);
        Floats<N> result;
        if (accumulate) result = load<N>(c + i);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float factor = kept(mask, state, uint32_t(i) + k);
            // The compiler must not choose for each index width whether to round in between.
            result[k] = accumulate ? fmaf(change[k], factor, result[k]) : change[k] * factor;
        }
        store(result, c + i);
    }
}

// Sums the columns of a run of rows. A warp covers 16 bytes for each of its lanes, and warp w takes
// rows w, w + 8, … of the run. Then the warps' sums are added in order.
template <typename T, typename Index, int N>
__device__ __forceinline__ void column_sums(
    const T* rows, float* partial, Index count, Index columns, Index run) {
    __shared__ __align__(16) float strip_sums[WARPS][32 * N];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Index column = (Index(blockIdx.y) * 32 + lane) * N;
    const Index first = Index(blockIdx.x) * run;
    const Index end = min(first + run, count);
    Floats<N> total = {};
    if (column < columns) {
#pragma unroll 4
        for (Index row = first + warp; row < end; row += WARPS) {
            const auto value = Vector<T, N>::load(rows + row * columns + column);
#pragma unroll
            for (int k = 0; k < N; ++k) total[k] += value.get(k);
        }
    }
    total.store(strip_sums[warp] + lane * N);
    const Index strip = Index(blockIdx.y) * 32 * N;
    sum_copies(
        strip_sums[0], WARPS, 32 * N, min(columns - strip, Index(32 * N)),
        partial + Index(blockIdx.x) * columns + strip);
}

// x: [tokens, columns]; keys: [tokens, 2]; dropped, term: [rows, columns], for the tokens from
// `first` on. c: [tokens, columns], overwritten or added into. Grid: one block for each row.
//
// rows: [count, columns]; partial: [blocks along x, columns], overwritten. Grid: x: one block for
// each run of `run` rows; y: one for each strip of 32 · 16 bytes of columns, or of 32 columns if
// `columns` does not allow that.
#define PRODUCT(T, TYPE, INDEX, BITS)                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) product_dropout_##TYPE##_##BITS(         \
        const T* __restrict__ x, T* __restrict__ dropped, uint64_t salt,                           \
        const uint32_t* __restrict__ keys, uint32_t threshold, float factor, uint64_t first,       \
        uint64_t columns) {                                                                        \
        const Mask mask = {salt, keys, threshold, factor};                                         \
        const INDEX token = INDEX(first) + blockIdx.x, width = columns;                            \
        const auto state = token_state(mask, token);                                               \
        const T* from = x + token * width;                                                         \
        T* to = dropped + INDEX(blockIdx.x) * width;                                               \
        if (width % WIDTH<T> == 0)                                                                 \
            dropout_row<T, INDEX, WIDTH<T>>(from, to, mask, state, width);                         \
        else                                                                                       \
            dropout_row<T, INDEX, 1>(from, to, mask, state, width);                                \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS)                                          \
        product_dropout_term_##TYPE##_##BITS(                                                      \
            const float* __restrict__ term, T* __restrict__ c, uint32_t accumulate,                \
            uint64_t salt, const uint32_t* __restrict__ keys, uint32_t threshold, float factor,    \
            uint64_t first, uint64_t columns) {                                                    \
        const Mask mask = {salt, keys, threshold, factor};                                         \
        const INDEX token = INDEX(first) + blockIdx.x, width = columns;                            \
        const auto state = token_state(mask, token);                                               \
        const float* from = term + INDEX(blockIdx.x) * width;                                      \
        T* to = c + token * width;                                                                 \
        constexpr int N = COMMON_WIDTH<float, T>;                                                  \
        if (width % N == 0)                                                                        \
            dropout_term_row<T, INDEX, N>(from, to, accumulate, mask, state, width);               \
        else                                                                                       \
            dropout_term_row<T, INDEX, 1>(from, to, accumulate, mask, state, width);               \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) product_column_sums_##TYPE##_##BITS(     \
        const T* __restrict__ rows, float* __restrict__ partial, uint64_t count, uint64_t columns, \
        uint64_t run) {                                                                            \
        if (columns % WIDTH<T> == 0)                                                               \
            column_sums<T, INDEX, WIDTH<T>>(rows, partial, count, columns, run);                   \
        else                                                                                       \
            column_sums<T, INDEX, 1>(rows, partial, count, columns, run);                          \
    }
FOR_FLOATS_AND_WIDTHS(PRODUCT)

// partial: [runs, columns]; sums: [columns], added into.
extern "C" __global__ void __launch_bounds__(PARTIAL_THREADS) product_add_partials(
    const float* __restrict__ partial, float* __restrict__ sums, uint64_t runs, uint64_t columns) {
    add_partials(partial, runs, columns, sums);
}
