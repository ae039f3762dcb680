// Conversion of NF4 to floating-point numbers. Each thread writes 16 bytes at a time, four times.
//
// Bytes at least, for n elements of s bytes: n/2 of codes, n·s, and for each 64 elements 4 of the
// scale, or 1 if the scales are quantised themselves.
//
// expects: STG.128
#include "tightrope/dynamic_map.cuh"
#include "tightrope/element.cuh"

constexpr int THREADS = 256;
// Number of pieces of 16 bytes that a thread writes.
constexpr int PIECES = 4;
// Number of elements that share a scale, and number of scales that share a scale.
constexpr int BLOCK = 64;
constexpr int SCALE_BLOCK = 256;

__constant__ float NF4[16] = {
    -1.0f,        -0.6961928f,  -0.52507305f, -0.3949175f, -0.28444138f, -0.18477343f,
    -0.091050036f, 0.0f,        0.0795803f,   0.1609302f,  0.2461123f,   0.33791524f,
    0.44070983f,  0.562617f,    0.72295684f,  1.0f};

// Grid: one thread for each four pieces.
template <typename T, typename Index>
__device__ __forceinline__ void dequantize(
    const uint8_t* codes, const float* scales, const uint8_t* scale_codes, float offset, T* y,
    Index elements) {
    constexpr int N = WIDTH<T>;
    __shared__ float value[16];
    __shared__ float map[256];
    if (threadIdx.x < 16) value[threadIdx.x] = NF4[threadIdx.x];
    if (scale_codes) map[threadIdx.x] = dynamic_value<true>(threadIdx.x);
    __syncthreads();
    const auto scale_of = [&](Index i) {
        const Index block = i / BLOCK;
        if (!scale_codes) return scales[block];
        const float scale = __fmul_rn(map[scale_codes[block]], scales[block / SCALE_BLOCK]);
        return __fadd_rn(scale, offset);
    };
    // The first element of a byte is in its high half.
    const auto element = [&](uint8_t byte, int k) {
        return value[k % 2 == 0 ? byte >> 4 : byte & 15];
    };
    const auto load = [&](Index i) { return Vector<uint8_t, N / 2>::load(codes + i / 2); };
    const auto write = [&](Index i, const Vector<uint8_t, N / 2>& bytes, float scale) {
        Floats<N> result;
#pragma unroll
        for (int k = 0; k < N; ++k) result[k] = element(bytes.element[k / 2], k) * scale;
        store(result, y + i);
    };
    constexpr Index STEP = THREADS * N;
    const Index begin = Index(blockIdx.x) * PIECES * STEP;
    Index i = begin + threadIdx.x * N;
    if (begin + PIECES * STEP <= elements) {
        Vector<uint8_t, N / 2> bytes[PIECES];
        float scale[PIECES];
#pragma unroll
        for (int p = 0; p < PIECES; ++p) bytes[p] = load(i + p * STEP);
#pragma unroll
        for (int p = 0; p < PIECES; ++p) scale[p] = scale_of(i + p * STEP);
#pragma unroll
        for (int p = 0; p < PIECES; ++p) write(i + p * STEP, bytes[p], scale[p]);
    } else {
        // The last block has fewer elements.
#pragma unroll 1
        for (; i + N <= elements; i += STEP) write(i, load(i), scale_of(i));
#pragma unroll 1
        for (int k = 0; i + k < elements; ++k)
            y[i + k] = from_float<T>(element(codes[(i + k) / 2], k) * scale_of(i + k));
    }
}

// codes: [elements / 2, rounded up]; y: [elements]. Without scale_codes (null), scales: [blocks of
// 64]. With them, scale_codes: [blocks of 64] and scales: [blocks of 64 · 256].
#define NF4_DEQUANTIZE(T, TYPE, INDEX, BITS)                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                         \
        nf4_dequantize_##TYPE##_##BITS(                                                            \
            const uint8_t* __restrict__ codes, const float* __restrict__ scales,                   \
            const uint8_t* __restrict__ scale_codes, float offset, T* __restrict__ y,              \
            uint64_t elements) {                                                                   \
        dequantize<T, INDEX>(codes, scales, scale_codes, offset, y, INDEX(elements));              \
    }
FOR_FLOATS_AND_WIDTHS(NF4_DEQUANTIZE)
