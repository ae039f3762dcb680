// Lion, elementwise. Each thread updates 16 bytes of weight and the moment of these elements from
// 16 bytes of gradient.
//
// Bytes at least, with a moment in f32: 20 an element (12 read, 8 written); in bf16: 16.
//
// expects: LDG.128 STG.128
#include "tightrope/moment.cuh"

constexpr int THREADS = 256;
constexpr int N = WIDTH<float>;

// Factors that do not depend on the element. The host computes them in f64 and rounds them once.
struct Factors {
    float gradient;
    float keep;
    float beta1;
    float blend1;
    float beta2;
    float blend2;
    float rate;
};

// Updates weight and m. Operations are fused only where `fmaf` says so.
__device__ __forceinline__ void step(const Factors& f, float gradient, float& weight, float& m) {
    const float g = __fmul_rn(f.gradient, gradient);
    const float direction = fmaf(f.blend1, g, __fmul_rn(f.beta1, m));
    // Zero and NaN stay what they are.
    const float sign = direction > 0.0f ? 1.0f : direction < 0.0f ? -1.0f : direction;
    weight = fmaf(-f.rate, sign, __fmul_rn(weight, f.keep));
    m = fmaf(f.blend2, g, __fmul_rn(f.beta2, m));
}

template <typename T, typename Index>
__device__ __forceinline__ void update(
    float* weight, const float* gradient, T* m, const Factors& factors, uint32_t salt,
    Index elements) {
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements) {
        const auto g = Floats<N>::load(gradient + first);
        auto w = Floats<N>::load(weight + first);
        auto m_now = load<N>(m + first);
        Vector<T, N> m_new;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            step(factors, g[k], w[k], m_now[k]);
            store_moment(m_now[k], &m_new.element[k], random_bits(salt, first + k) & 0xffffu);
        }
        w.store(weight + first);
        m_new.store(m + first);
    } else {
        for (Index i = first; i < elements; ++i) {
            float m_now = to_float(m[i]);
            step(factors, gradient[i], weight[i], m_now);
            store_moment(m_now, m + i, random_bits(salt, i) & 0xffffu);
        }
    }
}

// Grid: one thread for each 4 elements. weight, gradient, m: [elements].
#define LION(T, TYPE, INDEX, BITS)                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) lion_update_##TYPE##_##BITS(             \
        float* __restrict__ weight, const float* __restrict__ gradient, T* __restrict__ m,         \
        float gradient_scale, float keep, float beta1, float blend1, float beta2, float blend2,    \
        float rate, uint32_t salt, uint64_t elements) {                                            \
        const Factors factors = {gradient_scale, keep, beta1, blend1, beta2, blend2, rate};        \
        update<T, INDEX>(weight, gradient, m, factors, salt, INDEX(elements));                     \
    }
FOR_FLOATS_AND_WIDTHS(LION)
