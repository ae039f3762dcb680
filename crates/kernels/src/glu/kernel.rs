//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "glu_forward_silu_f32_u32",
        "glu_backward_silu_f32_u32",
        "glu_forward_gelu_tanh_f32_u32",
        "glu_backward_gelu_tanh_f32_u32",
        "glu_forward_gelu_erf_f32_u32",
        "glu_backward_gelu_erf_f32_u32",
        "glu_forward_silu_f32_u64",
        "glu_backward_silu_f32_u64",
        "glu_forward_gelu_tanh_f32_u64",
        "glu_backward_gelu_tanh_f32_u64",
        "glu_forward_gelu_erf_f32_u64",
        "glu_backward_gelu_erf_f32_u64",
        "glu_forward_silu_bf16_u32",
        "glu_backward_silu_bf16_u32",
        "glu_forward_gelu_tanh_bf16_u32",
        "glu_backward_gelu_tanh_bf16_u32",
        "glu_forward_gelu_erf_bf16_u32",
        "glu_backward_gelu_erf_bf16_u32",
        "glu_forward_silu_bf16_u64",
        "glu_backward_silu_bf16_u64",
        "glu_forward_gelu_tanh_bf16_u64",
        "glu_backward_gelu_tanh_bf16_u64",
        "glu_forward_gelu_erf_bf16_u64",
        "glu_backward_gelu_erf_bf16_u64",
    ],
};

/// Parameters of `glu_backward`. Variants: `silu_f32_u32`, `gelu_tanh_f32_u32`, `gelu_erf_f32_u32`, `silu_f32_u64`, `gelu_tanh_f32_u64`, `gelu_erf_f32_u64`, `silu_bf16_u32`, `gelu_tanh_bf16_u32`, `gelu_erf_bf16_u32`, `silu_bf16_u64`, `gelu_tanh_bf16_u64`, `gelu_erf_bf16_u64`.
#[derive(Debug)]
pub(super) struct GluBackward<'a> {
    pub gate: Output<'a>,
    pub up: Output<'a>,
    pub dy: Output<'a>,
    pub elements: u64,
}

impl Kernel<4> for GluBackward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "glu_backward";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.gate.into(),
            self.up.into(),
            self.dy.into(),
            self.elements.into(),
        ]
    }
}

/// Parameters of `glu_forward`. Variants: `silu_f32_u32`, `gelu_tanh_f32_u32`, `gelu_erf_f32_u32`, `silu_f32_u64`, `gelu_tanh_f32_u64`, `gelu_erf_f32_u64`, `silu_bf16_u32`, `gelu_tanh_bf16_u32`, `gelu_erf_bf16_u32`, `silu_bf16_u64`, `gelu_tanh_bf16_u64`, `gelu_erf_bf16_u64`.
#[derive(Debug)]
pub(super) struct GluForward<'a> {
    pub gate: Input<'a>,
    pub up: Input<'a>,
    pub y: Output<'a>,
    pub elements: u64,
}

impl Kernel<4> for GluForward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "glu_forward";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.gate.into(),
            self.up.into(),
            self.y.into(),
            self.elements.into(),
        ]
    }
}
