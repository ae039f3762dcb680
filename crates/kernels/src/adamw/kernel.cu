// AdamW, elementwise. Each thread updates 16 bytes of weight and both moments from 16 bytes of
// gradient.
//
// Bytes at least: 28 an element (16 read, 12 written).
//
// expects: LDG.128 STG.128
#include "tightrope/adamw.cuh"
#include "tightrope/element.cuh"

constexpr int THREADS = 256;
constexpr int N = WIDTH<float>;

template <typename Index>
__device__ __forceinline__ void update(
    float* weight, const float* gradient, float* m, float* v, const AdamWFactors& factors,
    Index elements) {
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements) {
        const auto g = Floats<N>::load(gradient + first);
        auto w = Floats<N>::load(weight + first);
        auto m_now = Floats<N>::load(m + first);
        auto v_now = Floats<N>::load(v + first);
#pragma unroll
        for (int k = 0; k < N; ++k) adamw_step(factors, g[k], w[k], m_now[k], v_now[k]);
        w.store(weight + first);
        m_now.store(m + first);
        v_now.store(v + first);
    } else {
        for (Index i = first; i < elements; ++i)
            adamw_step(factors, gradient[i], weight[i], m[i], v[i]);
    }
}

// Grid: one thread for each 4 elements. weight, gradient, m, v: [elements].
#define ADAMW(INDEX, BITS)                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) adamw_update_##BITS(                     \
        float* __restrict__ weight, const float* __restrict__ gradient, float* __restrict__ m,     \
        float* __restrict__ v, float gradient_scale, float keep, float blend1, float beta2,        \
        float blend2, float root, float eps, float rate, uint64_t elements) {                      \
        const AdamWFactors factors = {gradient_scale, keep, blend1, beta2, blend2, root, eps,      \
                                      rate};                                                       \
        update<INDEX>(weight, gradient, m, v, factors, INDEX(elements));                           \
    }
ADAMW(uint32_t, u32)
ADAMW(uint64_t, u64)
