// Moments of optimizers, stored in f32 or in bf16, with the same roundings as on the CPU.
#pragma once
#include "tightrope/element.cuh"

// 32 random bits for an element: a hash of its index and of a number that differs for each step.
__device__ __forceinline__ uint32_t random_bits(uint32_t salt, uint64_t element) {
    uint32_t x = uint32_t(element) ^ salt ^ uint32_t(element >> 32) * 0x9e3779b9u;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// Stores a number as a moment; `random` has 16 bits. In bf16 a finite number is rounded up or down
// with the probabilities that make the mean exact.
__device__ __forceinline__ void store_moment(float x, float* to, uint32_t) { *to = x; }
__device__ __forceinline__ void store_moment(float x, __nv_bfloat16* to, uint32_t random) {
    const uint32_t bits = __float_as_uint(x);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    // A NaN keeps a bit of its significand that bf16 has.
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = (bits + (finite ? random : 0u)) >> 16 | (nan ? 0x40u : 0u);
    *to = __ushort_as_bfloat16(uint16_t(rounded));
}
