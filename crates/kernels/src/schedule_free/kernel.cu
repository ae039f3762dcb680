// Schedule-free AdamW, elementwise. Each thread takes 16 bytes of each operand.
//
// Bytes at least: an update 28 an element (16 read, 12 written), an average 12.
//
// expects: LDG.128 STG.128
#include "tightrope/element.cuh"

constexpr int THREADS = 256;
constexpr int N = WIDTH<float>;

// Factors that do not depend on the element. The host computes them in f64 and rounds them once.
struct Factors {
    float gradient;
    float beta2;
    float blend2;
    float root;
    float eps;
    float decay;
    float average;
    float y_rate;
    float z_rate;
};

// Updates y, z and v. Operations are fused only where `fmaf` says so.
__device__ __forceinline__ void step(
    const Factors& f, float gradient, float& y, float& z, float& v) {
    const float g = __fmul_rn(f.gradient, gradient);
    v = fmaf(__fmul_rn(f.blend2, g), g, __fmul_rn(f.beta2, v));
    const float denominator = fmaf(__fsqrt_rn(v), f.root, f.eps);
    const float change = fmaf(f.decay, y, __fdiv_rn(g, denominator));
    y = fmaf(f.average, __fsub_rn(z, y), y);
    y = fmaf(f.y_rate, change, y);
    z = fmaf(-f.z_rate, change, z);
}

template <typename Index>
__device__ __forceinline__ void update(
    float* y, const float* gradient, float* z, float* v, const Factors& factors, Index elements) {
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements) {
        const auto g = Floats<N>::load(gradient + first);
        auto y_now = Floats<N>::load(y + first);
        auto z_now = Floats<N>::load(z + first);
        auto v_now = Floats<N>::load(v + first);
#pragma unroll
        for (int k = 0; k < N; ++k) step(factors, g[k], y_now[k], z_now[k], v_now[k]);
        y_now.store(y + first);
        z_now.store(z + first);
        v_now.store(v + first);
    } else {
        for (Index i = first; i < elements; ++i) step(factors, gradient[i], y[i], z[i], v[i]);
    }
}

template <typename Index>
__device__ __forceinline__ void average(float* y, const float* z, float weight, Index elements) {
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements) {
        auto y_now = Floats<N>::load(y + first);
        const auto z_now = Floats<N>::load(z + first);
#pragma unroll
        for (int k = 0; k < N; ++k)
            y_now[k] = fmaf(weight, __fsub_rn(z_now[k], y_now[k]), y_now[k]);
        y_now.store(y + first);
    } else {
        for (Index i = first; i < elements; ++i) y[i] = fmaf(weight, __fsub_rn(z[i], y[i]), y[i]);
    }
}

// Grid: one thread for each 4 elements. y, gradient, z, v: [elements].
#define SCHEDULE_FREE(INDEX, BITS)                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) schedule_free_update_##BITS(             \
        float* __restrict__ y, const float* __restrict__ gradient, float* __restrict__ z,          \
        float* __restrict__ v, float gradient_scale, float beta2, float blend2, float root,        \
        float eps, float decay, float average, float y_rate, float z_rate, uint64_t elements) {    \
        const Factors factors = {gradient_scale, beta2, blend2, root, eps, decay, average,         \
                                 y_rate, z_rate};                                                  \
        update<INDEX>(y, gradient, z, v, factors, INDEX(elements));                                \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) schedule_free_average_##BITS(            \
        float* __restrict__ y, const float* __restrict__ z, float weight, uint64_t elements) {     \
        average<INDEX>(y, z, weight, INDEX(elements));                                             \
    }
SCHEDULE_FREE(uint32_t, u32)
SCHEDULE_FREE(uint64_t, u64)
