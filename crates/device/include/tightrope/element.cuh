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

// Packs two numbers into 32 bits, the first in the low half.
__device__ __forceinline__ uint32_t packed(__nv_bfloat16, float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

// Number of elements in 16 bytes.
template <typename T> constexpr int WIDTH = 16 / sizeof(T);
// Number of elements that a thread takes at a time where two types meet: 16 bytes of the wider
// type, so that the accesses of neighbouring threads leave no gaps in either.
template <typename T, typename U>
constexpr int COMMON_WIDTH = WIDTH<T> < WIDTH<U> ? WIDTH<T> : WIDTH<U>;

// N elements that are read and written at once, at an address that is a multiple of their size.
template <typename T, int N> struct alignas(N * sizeof(T)) Vector {
    T element[N];

    __device__ __forceinline__ static Vector load(const T* from) {
        return *reinterpret_cast<const Vector*>(from);
    }
    __device__ __forceinline__ void store(T* to) const { *reinterpret_cast<Vector*>(to) = *this; }
    __device__ __forceinline__ float get(int i) const { return to_float(element[i]); }
    __device__ __forceinline__ void set(int i, float x) { element[i] = from_float<T>(x); }
};

// N consecutive elements, which are read and written up to 16 bytes at once.
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
};
template <int N> using Floats = Run<float, N>;

template <int N, typename T> __device__ __forceinline__ Floats<N> load(const T* from) {
    const auto run = Run<T, N>::load(from);
    Floats<N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result[i] = run.get(i);
    return result;
}

// Rounds N elements and writes them to global memory, up to 16 bytes at once. The compiler splits
// some plain stores of 16 bytes, however they are packed; it does not split `__stwb`.
template <int N, typename T> __device__ __forceinline__ void store(const Floats<N>& value, T* to) {
    if constexpr (N % 4 != 0) {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = from_float<T>(value[i]);
    } else if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < N; i += 4)
            __stwb(reinterpret_cast<float4*>(to + i),
                   make_float4(value[i], value[i + 1], value[i + 2], value[i + 3]));
    } else {
        const auto pair = [&](int i) { return packed(T(), value[i], value[i + 1]); };
        constexpr int STEP = N % 8 == 0 ? 8 : 4;
#pragma unroll
        for (int i = 0; i < N; i += STEP)
            if constexpr (STEP == 8)
                __stwb(reinterpret_cast<uint4*>(to + i),
                       make_uint4(pair(i), pair(i + 2), pair(i + 4), pair(i + 6)));
            else
                __stwb(reinterpret_cast<uint2*>(to + i), make_uint2(pair(i), pair(i + 2)));
    }
}

// Expands KERNEL(type, type's name, index type, index width's name) for the types of activations
// and both index widths. f16 is only read: weights in files have it.
#define FOR_FLOATS_AND_WIDTHS(KERNEL)            \
    KERNEL(float, f32, uint32_t, u32)            \
    KERNEL(float, f32, uint64_t, u64)            \
    KERNEL(__nv_bfloat16, bf16, uint32_t, u32)   \
    KERNEL(__nv_bfloat16, bf16, uint64_t, u64)
