// Uniform noise that is added to rows. A block takes a row, a thread 16 bytes of it at a time.
//
// Bytes at least, for [rows, features] elements of s bytes: 2s an element and 12 a row.
//
// expects: LDG.128 STG.128
#include "tightrope/element.cuh"

constexpr int THREADS = 256;

// A number in [-1, 1) for feature `i` of a row.
__device__ __forceinline__ float uniform(uint32_t low, uint32_t high, uint32_t i) {
    uint32_t h = i * 0x9e3779b9u + low;
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h ^= high;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    h ^= h >> 16;
    // 24 bits, which f32 holds exactly.
    return fmaf(float(h >> 8), 0x1p-23f, -1.0f);
}

template <typename T, int N>
__device__ __forceinline__ void add(
    T* y, uint32_t low, uint32_t high, float scale, uint32_t features) {
    for (uint32_t i = threadIdx.x * N; i < features; i += THREADS * N) {
        auto value = load<N>(y + i);
#pragma unroll
        for (int k = 0; k < N; ++k) value[k] = fmaf(scale, uniform(low, high, i + k), value[k]);
        store(value, y + i);
    }
}

// Grid: one block for each row. y: [rows, features]; states: [rows, 2]; scales: [rows].
#define NOISE(T, TYPE)                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) noise_add_##TYPE(                        \
        T* __restrict__ y, const uint32_t* __restrict__ states, const float* __restrict__ scales,  \
        uint64_t features) {                                                                       \
        const uint64_t row = blockIdx.x;                                                           \
        const float scale = scales[row];                                                           \
        const uint32_t low = states[2 * row], high = states[2 * row + 1];                          \
        y += row * features;                                                                       \
        if (features % WIDTH<T> == 0)                                                              \
            add<T, WIDTH<T>>(y, low, high, scale, uint32_t(features));                             \
        else                                                                                       \
            add<T, 1>(y, low, high, scale, uint32_t(features));                                    \
    }
NOISE(float, f32)
NOISE(__nv_bfloat16, bf16)
