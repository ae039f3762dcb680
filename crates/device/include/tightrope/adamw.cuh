// One step of AdamW for one element, with the same roundings as on the CPU.
#pragma once

// Factors that do not depend on the element. The host computes them in f64 and rounds them once.
struct AdamWFactors {
    float gradient;
    float keep;
    float blend1;
    float beta2;
    float blend2;
    float root;
    float eps;
    float rate;
};

// Updates weight, m and v. Operations are fused only where `fmaf` says so.
__device__ __forceinline__ void adamw_step(
    const AdamWFactors& f, float gradient, float& weight, float& m, float& v) {
    const float g = __fmul_rn(f.gradient, gradient);
    m = fmaf(f.blend1, __fsub_rn(g, m), m);
    v = fmaf(__fmul_rn(f.blend2, g), g, __fmul_rn(f.beta2, v));
    const float denominator = fmaf(__fsqrt_rn(v), f.root, f.eps);
    const float change = __fmul_rn(f.rate, __fdiv_rn(m, denominator));
    weight = __fsub_rn(__fmul_rn(weight, f.keep), change);
}
