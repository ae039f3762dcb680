// Functions that the norms of rows and of heads share.
#pragma once
#include "tightrope/element.cuh"

// Returns (mean x² + eps)^-½, rounded as IEEE 754 requires, unlike `rsqrtf`.
__device__ __forceinline__ float reciprocal_root_mean(float squares, float count, float eps) {
    return 1.0f / sqrtf(squares / count + eps);
}

// Returns the factors of N features: weight + offset.
template <int N>
__device__ __forceinline__ Floats<N> load_factors(const float* weight, float offset) {
    auto factors = Floats<N>::load(weight);
#pragma unroll
    for (int k = 0; k < N; ++k) factors[k] += offset;
    return factors;
}

// N features in the backward pass: the factor of each, and a share of the weight's gradient. x: the
// input of the norm; d: the gradient of the result; `scale`: the row's `rstd`.
template <int N> struct Features {
    Floats<N> factor;
    Floats<N> share;

    // Returns Σ_h g · x, with g = d · factor.
    template <typename X, typename D>
    __device__ __forceinline__ float product(const X& x, const D& d) const {
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < N; ++k) sum += d.get(k) * factor[k] * x.get(k);
        return sum;
    }

    // Returns the gradient of x. `x · pull` is `n · mean_h(g · n)`, with `n = x · scale`.
    template <typename X, typename D>
    __device__ __forceinline__ Floats<N> finish(const X& x, const D& d, float scale, float pull) {
        Floats<N> dx;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            dx[k] = scale * (d.get(k) * factor[k] - x.get(k) * pull);
            share[k] += d.get(k) * scale * x.get(k);
        }
        return dx;
    }
};

// Computes `pull` from the sum of a row's products.
__device__ __forceinline__ float pull_of(float product, float scale, float count) {
    return product * scale / count * scale;
}
