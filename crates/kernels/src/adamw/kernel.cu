// AdamW, elementwise. Each thread updates 16 bytes of weight and the moments of these elements from
// 16 bytes of gradient.
//
// Bytes at least, with moments in f32: 28 an element (16 read, 12 written); in bf16: 20.
//
// expects: LDG.128 STG.128
#include "tightrope/adamw.cuh"
#include "tightrope/moment.cuh"

constexpr int THREADS = 256;
constexpr int N = WIDTH<float>;

template <typename T, typename Index>
__device__ __forceinline__ void update(
    float* weight, const float* gradient, T* m, T* v, const AdamWFactors& factors, uint32_t salt,
    Index elements) {
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements) {
        const auto g = Floats<N>::load(gradient + first);
        auto w = Floats<N>::load(weight + first);
        auto m_now = load<N>(m + first);
        auto v_now = load<N>(v + first);
        Vector<T, N> m_new, v_new;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            adamw_step(factors, g[k], w[k], m_now[k], v_now[k]);
            const uint32_t random = random_bits(salt, first + k);
            store_moment(m_now[k], &m_new.element[k], random & 0xffffu);
            store_moment(v_now[k], &v_new.element[k], random >> 16);
        }
        w.store(weight + first);
        m_new.store(m + first);
        v_new.store(v + first);
    } else {
        for (Index i = first; i < elements; ++i) {
            float m_now = to_float(m[i]), v_now = to_float(v[i]);
            adamw_step(factors, gradient[i], weight[i], m_now, v_now);
            const uint32_t random = random_bits(salt, i);
            store_moment(m_now, m + i, random & 0xffffu);
            store_moment(v_now, v + i, random >> 16);
        }
    }
}

// Grid: one thread for each 4 elements. weight, gradient, m, v: [elements].
#define ADAMW(T, TYPE, INDEX, BITS)                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) adamw_update_##TYPE##_##BITS(            \
        float* __restrict__ weight, const float* __restrict__ gradient, T* __restrict__ m,         \
        T* __restrict__ v, float gradient_scale, float keep, float blend1, float beta2,            \
        float blend2, float root, float eps, float rate, uint32_t salt, uint64_t elements) {       \
        const AdamWFactors factors = {gradient_scale, keep, blend1, beta2, blend2, root, eps,      \
                                      rate};                                                       \
        update<T, INDEX>(weight, gradient, m, v, factors, salt, INDEX(elements));                  \
    }
FOR_FLOATS_AND_WIDTHS(ADAMW)
