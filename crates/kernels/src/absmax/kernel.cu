// Conversion of 8-bit integers with a scale for each row to floating-point numbers. Each thread
// writes 16 bytes at a time, four times, if `columns` allows.
//
// Bytes at least, for n elements of s bytes: n of codes, n·s, and 4 a row.
//
// expects: STG.128
// expects: LDG.64 in absmax_dequantize_bf16_*
#include "tightrope/element.cuh"

constexpr int THREADS = 256;
// Number of pieces that a thread writes.
constexpr int PIECES = 4;

template <typename T, typename Index, int N>
__device__ __forceinline__ void dequantize(
    const uint8_t* codes, const float* absmax, T* y, Index elements, Index columns) {
    const auto load = [&](Index i) { return Vector<uint8_t, N>::load(codes + i); };
    const auto step_of = [&](Index i) { return __fdiv_rn(absmax[i / columns], 127.0f); };
    const auto write = [&](Index i, const Vector<uint8_t, N>& bytes, float step) {
        Floats<N> result;
#pragma unroll
        for (int k = 0; k < N; ++k) result[k] = float(int8_t(bytes.element[k])) * step;
        store(result, y + i);
    };
    constexpr Index STEP = THREADS * N;
    const Index begin = Index(blockIdx.x) * PIECES * STEP;
    Index i = begin + threadIdx.x * N;
    if (begin + PIECES * STEP <= elements) {
        Vector<uint8_t, N> bytes[PIECES];
        float step[PIECES];
#pragma unroll
        for (int p = 0; p < PIECES; ++p) bytes[p] = load(i + p * STEP);
#pragma unroll
        for (int p = 0; p < PIECES; ++p) step[p] = step_of(i + p * STEP);
#pragma unroll
        for (int p = 0; p < PIECES; ++p) write(i + p * STEP, bytes[p], step[p]);
    } else {
        // The last block has fewer elements.
#pragma unroll 1
        for (; i < elements; i += STEP) write(i, load(i), step_of(i));
    }
}

// Grid: one thread for each four pieces; a piece is 16 bytes or one element.
template <typename T, typename Index>
__device__ __forceinline__ void dequantize_rows(
    const uint8_t* codes, const float* absmax, T* y, Index rows, Index columns) {
    if (columns % WIDTH<T> == 0)
        dequantize<T, Index, WIDTH<T>>(codes, absmax, y, rows * columns, columns);
    else
        dequantize<T, Index, 1>(codes, absmax, y, rows * columns, columns);
}

// codes, y: [rows, columns]; absmax: [rows].
#define ABSMAX_DEQUANTIZE(T, TYPE, INDEX, BITS)                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                         \
        absmax_dequantize_##TYPE##_##BITS(                                                         \
            const uint8_t* __restrict__ codes, const float* __restrict__ absmax,                   \
            T* __restrict__ y, uint64_t rows, uint64_t columns) {                                  \
        dequantize_rows<T, INDEX>(codes, absmax, y, INDEX(rows), INDEX(columns));                  \
    }
FOR_FLOATS_AND_WIDTHS(ABSMAX_DEQUANTIZE)
