// Gated linear units, forward and backward, elementwise. Each thread takes 16 bytes of every
// operand.
//
// Bytes at least, for n elements of s bytes: forward 3ns, backward 6ns. Arithmetic is in f32, the
// same as on the CPU: the sigmoid uses the exponential of a number that is not positive, which
// keeps the digits of the negative side.
//
// expects: LDG.128 STG.128
#include "tightrope/element.cuh"

constexpr int THREADS = 256;

__device__ __forceinline__ float sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

struct Silu {
    __device__ __forceinline__ static float value(float x, float& slope) {
        const float s = sigmoid(x);
        const float value = x * s;
        slope = fmaf(value, 1.0f - s, s);
        return value;
    }
};

// ½ (1 + tanh(u)) = σ(2u).
struct GeluTanh {
    __device__ __forceinline__ static float value(float x, float& slope) {
        constexpr float SCALE = 1.5957691f;  // 2·√(2/π)
        constexpr float CUBIC = 0.044715f;
        const float inner = SCALE * x * fmaf(CUBIC * x, x, 1.0f);
        const float s = sigmoid(inner);
        const float value = x * s;
        slope = fmaf(value * (SCALE * fmaf(3.0f * CUBIC * x, x, 1.0f)), 1.0f - s, s);
        return value;
    }
};

struct GeluErf {
    __device__ __forceinline__ static float value(float x, float& slope) {
        const float below = 0.5f * (1.0f + erff(x * 0.70710678f));
        const float density = 0.39894228f * expf(-0.5f * x * x);
        slope = fmaf(x, density, below);
        return x * below;
    }
};

template <typename G, int N, typename T>
__device__ __forceinline__ void forward_run(const T* gate, const T* up, T* y) {
    const auto g = load<N>(gate), u = load<N>(up);
    Floats<N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        float slope;
        result[k] = G::value(g[k], slope) * u[k];
    }
    store(result, y);
}

template <typename G, int N, typename T>
__device__ __forceinline__ void backward_run(T* gate, T* up, T* dy) {
    auto g = load<N>(gate), u = load<N>(up), d = load<N>(dy);
#pragma unroll
    for (int k = 0; k < N; ++k) {
        float slope;
        const float value = G::value(g[k], slope);
        g[k] = d[k] * u[k] * slope;
        const float product = value * u[k];
        u[k] = d[k] * value;
        d[k] = product;
    }
    store(g, gate);
    store(u, up);
    store(d, dy);
}

template <typename G, typename T, typename Index>
__device__ __forceinline__ void forward(const T* gate, const T* up, T* y, Index elements) {
    constexpr int N = WIDTH<T>;
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements)
        forward_run<G, N>(gate + first, up + first, y + first);
    else
        for (Index i = first; i < elements; ++i) forward_run<G, 1>(gate + i, up + i, y + i);
}

template <typename G, typename T, typename Index>
__device__ __forceinline__ void backward(T* gate, T* up, T* dy, Index elements) {
    constexpr int N = WIDTH<T>;
    const Index first = (Index(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (first + N <= elements)
        backward_run<G, N>(gate + first, up + first, dy + first);
    else
        for (Index i = first; i < elements; ++i) backward_run<G, 1>(gate + i, up + i, dy + i);
}

// Grid: one thread for each 16 bytes of an operand. All operands: [elements].
#define GLU(NAME, GATE, T, TYPE, INDEX, BITS)                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS) glu_forward_##NAME##_##TYPE##_##BITS(    \
        const T* __restrict__ gate, const T* __restrict__ up, T* __restrict__ y,                   \
        uint64_t elements) {                                                                       \
        forward<GATE, T, INDEX>(gate, up, y, INDEX(elements));                                     \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) glu_backward_##NAME##_##TYPE##_##BITS(   \
        T* __restrict__ gate, T* __restrict__ up, T* __restrict__ dy, uint64_t elements) {         \
        backward<GATE, T, INDEX>(gate, up, dy, INDEX(elements));                                   \
    }
#define EVERY_GATE(T, TYPE, INDEX, BITS)                                                           \
    GLU(silu, Silu, T, TYPE, INDEX, BITS)                                                          \
    GLU(gelu_tanh, GeluTanh, T, TYPE, INDEX, BITS)                                                 \
    GLU(gelu_erf, GeluErf, T, TYPE, INDEX, BITS)
FOR_FLOATS_AND_WIDTHS(EVERY_GATE)
