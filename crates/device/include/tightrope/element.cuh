// Element types: loads and stores of up to 16 bytes, arithmetic in f32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

// Rounds to nearest, ties to even.
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float(float x) { return x; }
template <> __device__ __forceinline__ __nv_bfloat16 from_float(float x) {
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ __half from_float(float x) { return __float2half_rn(x); }

// Elements in 16 bytes.
template <typename T> constexpr int WIDTH = 16 / sizeof(T);

// N elements that are read and written at once, from an address that is a multiple of their size.
template <typename T, int N> struct alignas(N * sizeof(T)) Vector {
    T element[N];

    __device__ __forceinline__ static Vector load(const T* from) {
        return *reinterpret_cast<const Vector*>(from);
    }
    __device__ __forceinline__ void store(T* to) const { *reinterpret_cast<Vector*>(to) = *this; }
    __device__ __forceinline__ float get(int i) const { return to_float(element[i]); }
    __device__ __forceinline__ void set(int i, float x) { element[i] = from_float<T>(x); }
};

// N consecutive elements, up to 16 bytes at once.
template <typename T, int N> struct Run {
    static constexpr int CHUNK = N < WIDTH<T> ? N : WIDTH<T>;
    Vector<T, CHUNK> chunk[N / CHUNK];

    __device__ __forceinline__ static Run load(const T* from) {
        Run result;
#pragma unroll
        for (int c = 0; c < N / CHUNK; ++c)
            result.chunk[c] = Vector<T, CHUNK>::load(from + c * CHUNK);
        return result;
    }
    __device__ __forceinline__ void store(T* to) const {
#pragma unroll
        for (int c = 0; c < N / CHUNK; ++c) chunk[c].store(to + c * CHUNK);
    }
    __device__ __forceinline__ T& operator[](int i) { return chunk[i / CHUNK].element[i % CHUNK]; }
    __device__ __forceinline__ T operator[](int i) const {
        return chunk[i / CHUNK].element[i % CHUNK];
    }
    __device__ __forceinline__ float get(int i) const { return to_float((*this)[i]); }
    __device__ __forceinline__ void set(int i, float x) { (*this)[i] = from_float<T>(x); }
};
template <int N> using Floats = Run<float, N>;

// KERNEL(type, type's name, index type, index width's name) for every float type and index width.
#define FOR_FLOATS_AND_WIDTHS(KERNEL)            \
    KERNEL(float, f32, uint32_t, u32)            \
    KERNEL(float, f32, uint64_t, u64)            \
    KERNEL(__nv_bfloat16, bf16, uint32_t, u32)   \
    KERNEL(__nv_bfloat16, bf16, uint64_t, u64)   \
    KERNEL(__half, f16, uint32_t, u32)           \
    KERNEL(__half, f16, uint64_t, u64)
