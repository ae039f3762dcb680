// The sum of squares of several tensors: one launch for each, and one for the total.
//
// A block sums a chunk of a tensor in f64, 16 bytes a thread at a time; in f64 the squares of f32
// numbers are exact and never overflow. One block then adds the sums of the chunks. The order of
// all additions depends on the lengths alone. Bytes at least: 4 an element (bf16: 2). Each element takes one
// conversion and one multiply-add in f64. Where f64 runs at 1/64 of the rate of f32, the memory
// traffic hides them, unless memory is faster than 1 TB/s.
//
// expects: LDG.128 DFMA in sum_of_squares_chunks*
#include "tightrope/element.cuh"
#include "tightrope/reduce.cuh"

constexpr int THREADS = 256;
constexpr int TOTAL_THREADS = 1024;
// Number of loads that a thread has in flight at a time.
constexpr int AHEAD = 4;

__device__ __forceinline__ void add_square(double& sum, float x) {
    sum = fma(double(x), double(x), sum);
}

template <typename T>
__device__ __forceinline__ void sum_chunk(
    const T* x, uint64_t elements, uint64_t chunk, double* sums) {
    constexpr int N = WIDTH<T>;
    const uint64_t first = blockIdx.x * chunk;
    x += first;
    elements = min(elements - first, chunk);
    const auto load = [&](uint64_t i) { return __ldg(reinterpret_cast<const uint4*>(x + i)); };
    double sum[4] = {};
    const auto add = [&](const uint4& bytes) {
        const auto& value = reinterpret_cast<const Vector<T, N>&>(bytes);
#pragma unroll
        for (int k = 0; k < N; ++k) add_square(sum[k % 4], value.get(k));
    };
    constexpr uint64_t STEP = THREADS * N;
    uint64_t i = threadIdx.x * N;
    for (; i + (AHEAD - 1) * STEP + N <= elements; i += AHEAD * STEP) {
        uint4 value[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; ++a) value[a] = load(i + a * STEP);
#pragma unroll
        for (int a = 0; a < AHEAD; ++a) add(value[a]);
    }
#pragma unroll 1
    for (; i + N <= elements; i += STEP) add(load(i));
    // Fewer elements than a load has remain at the end of a tensor.
#pragma unroll 1
    for (; i < elements; ++i) add_square(sum[0], to_float(x[i]));
    __shared__ double partial[THREADS / 32];
    const double own = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    const double total = block_sum<THREADS / 32>(own, partial);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// Grid: one block for each chunk. x: [elements]; sums: one number for each chunk.
#define CHUNKS(T, TYPE)                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) sum_of_squares_chunks_##TYPE(         \
        const T* __restrict__ x, uint64_t elements, uint64_t chunk, double* __restrict__ sums) {   \
        sum_chunk<T>(x, elements, chunk, sums);                                                    \
    }
CHUNKS(float, f32)
CHUNKS(__nv_bfloat16, bf16)

// Writes the sum of all chunks. Grid: one block. sums: [chunks]; total: [1].
extern "C" __global__ void __launch_bounds__(TOTAL_THREADS) sum_of_squares_total(
    const double* __restrict__ sums, double* __restrict__ total, uint64_t chunks) {
    double sum = 0.0;
#pragma unroll 4
    for (uint64_t i = threadIdx.x; i < chunks; i += TOTAL_THREADS) sum += sums[i];
    __shared__ double partial[TOTAL_THREADS / 32];
    const double all = block_sum<TOTAL_THREADS / 32>(sum, partial);
    if (threadIdx.x == 0) total[0] = all;
}
