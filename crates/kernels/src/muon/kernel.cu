// The elementwise parts of Muon: the momentum, and numbers that are added to a diagonal.
//
// Each thread of the momentum takes 16 bytes of each operand. Bytes at least: 24 an element (12
// read, 12 written).
//
// expects: LDG.128 STG.128 in muon_momentum*
#include "tightrope/element.cuh"

constexpr int THREADS = 256;
constexpr int N = WIDTH<float>;

// Factors that do not depend on the element. The host computes them in f64 and rounds them once.
struct Factors {
    float gradient;
    float keep;
    float blend;
    // 1 with Nesterov's momentum, else 0.
    float ahead;
};

// Updates weight and m, and overwrites the gradient. Operations are fused only where `fmaf` says
// so.
__device__ __forceinline__ void step(const Factors& f, float& weight, float& gradient, float& m) {
    const float g = __fmul_rn(f.gradient, gradient);
    m = fmaf(f.blend, __fsub_rn(g, m), m);
    gradient = fmaf(f.ahead, __fsub_rn(g, m), m);
    weight = __fmul_rn(weight, f.keep);
}

template <typename Index>
__device__ __forceinline__ void momentum(
    float* weight, float* gradient, float* m, const Factors& factors, Index elements) {
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements) {
        auto w = Floats<N>::load(weight + first);
        auto g = Floats<N>::load(gradient + first);
        auto m_now = Floats<N>::load(m + first);
#pragma unroll
        for (int k = 0; k < N; ++k) step(factors, w[k], g[k], m_now[k]);
        w.store(weight + first);
        g.store(gradient + first);
        m_now.store(m + first);
    } else {
        for (Index i = first; i < elements; ++i) step(factors, weight[i], gradient[i], m[i]);
    }
}

// Grid: one thread for each 4 elements. weight, gradient, m: [elements].
#define MUON(INDEX, BITS)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) muon_momentum_##BITS(                    \
        float* __restrict__ weight, float* __restrict__ gradient, float* __restrict__ m,           \
        float gradient_scale, float keep, float blend, float ahead, uint64_t elements) {           \
        const Factors factors = {gradient_scale, keep, blend, ahead};                              \
        momentum<INDEX>(weight, gradient, m, factors, INDEX(elements));                            \
    }
MUON(uint32_t, u32)
MUON(uint64_t, u64)

// Grid: one thread for each row. matrix: [rows, rows].
extern "C" __global__ void __launch_bounds__(THREADS) muon_add_to_diagonal(
    float* __restrict__ matrix, float number, uint64_t rows) {
    const uint64_t row = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (row < rows) matrix[row * rows + row] += number;
}
