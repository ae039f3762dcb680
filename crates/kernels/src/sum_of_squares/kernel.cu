// The sum of squares of several tensors: one launch for each, and one for the total.
//
// A block sums a chunk of a tensor in f64, 16 bytes a thread at a time; in f64 the squares of f32
// numbers are exact and never overflow. One block then adds the sums of the chunks. The order of
// all additions depends on the lengths alone. Bytes at least: 4 an element. Each element takes one
// conversion and one multiply-add in f64. Where f64 runs at 1/64 of the rate of f32, the memory
// traffic hides them, unless memory is faster than 1 TB/s.
//
// expects: LDG.128 DFMA in sum_of_squares_chunks
#include "tightrope/reduce.cuh"

constexpr int THREADS = 256;
constexpr int TOTAL_THREADS = 1024;
// Number of loads that a thread has in flight at a time.
constexpr int AHEAD = 4;

__device__ __forceinline__ void add_square(double& sum, float x) {
    sum = fma(double(x), double(x), sum);
}

// Grid: one block for each chunk. x: [elements]; sums: one number for each chunk.
extern "C" __global__ void __launch_bounds__(THREADS, 4) sum_of_squares_chunks(
    const float* __restrict__ x, uint64_t elements, uint64_t chunk, double* __restrict__ sums) {
    const uint64_t first = blockIdx.x * chunk;
    x += first;
    elements = min(elements - first, chunk);
    const auto load = [&](uint64_t i) { return __ldg(reinterpret_cast<const float4*>(x + i)); };
    double sum[4] = {};
    const auto add = [&](float4 value) {
        add_square(sum[0], value.x);
        add_square(sum[1], value.y);
        add_square(sum[2], value.z);
        add_square(sum[3], value.w);
    };
    constexpr uint64_t STEP = THREADS * 4;
    uint64_t i = threadIdx.x * 4;
    for (; i + (AHEAD - 1) * STEP + 4 <= elements; i += AHEAD * STEP) {
        float4 value[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; ++a) value[a] = load(i + a * STEP);
#pragma unroll
        for (int a = 0; a < AHEAD; ++a) add(value[a]);
    }
#pragma unroll 1
    for (; i + 4 <= elements; i += STEP) add(load(i));
    // Up to three elements remain at the end of a tensor.
#pragma unroll 1
    for (; i < elements; ++i) add_square(sum[0], __ldg(x + i));
    __shared__ double partial[THREADS / 32];
    const double own = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    const double total = block_sum<THREADS / 32>(own, partial);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// Overwrites the first sum with the total. Grid: one block. sums: [chunks].
extern "C" __global__ void __launch_bounds__(TOTAL_THREADS) sum_of_squares_total(
    double* sums, uint64_t chunks) {
    double sum = 0.0;
#pragma unroll 4
    for (uint64_t i = threadIdx.x; i < chunks; i += TOTAL_THREADS) sum += sums[i];
    __shared__ double partial[TOTAL_THREADS / 32];
    const double total = block_sum<TOTAL_THREADS / 32>(sum, partial);
    if (threadIdx.x == 0) sums[0] = total;
}
