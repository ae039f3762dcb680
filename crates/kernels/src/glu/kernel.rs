//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
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
        "glu_forward_silu_f16_u32",
        "glu_backward_silu_f16_u32",
        "glu_forward_gelu_tanh_f16_u32",
        "glu_backward_gelu_tanh_f16_u32",
        "glu_forward_gelu_erf_f16_u32",
        "glu_backward_gelu_erf_f16_u32",
        "glu_forward_silu_f16_u64",
        "glu_backward_silu_f16_u64",
        "glu_forward_gelu_tanh_f16_u64",
        "glu_backward_gelu_tanh_f16_u64",
        "glu_forward_gelu_erf_f16_u64",
        "glu_backward_gelu_erf_f16_u64",
    ],
};

/// Parameters of `glu_backward`. Variants: `silu_f32_u32`, `gelu_tanh_f32_u32`, `gelu_erf_f32_u32`, `silu_f32_u64`, `gelu_tanh_f32_u64`, `gelu_erf_f32_u64`, `silu_bf16_u32`, `gelu_tanh_bf16_u32`, `gelu_erf_bf16_u32`, `silu_bf16_u64`, `gelu_tanh_bf16_u64`, `gelu_erf_bf16_u64`, `silu_f16_u32`, `gelu_tanh_f16_u32`, `gelu_erf_f16_u32`, `silu_f16_u64`, `gelu_tanh_f16_u64`, `gelu_erf_f16_u64`.
#[derive(Debug)]
pub struct GluBackward<'a> {
    pub gate: Output<'a>,
    pub up: Output<'a>,
    pub dy: Output<'a>,
    pub elements: u64,
}

impl GluBackward<'_> {
    /// Issues the kernel.
    ///
    /// # Safety
    /// As kernel.cu says: pointers lead to as many elements of the variant's type as the
    /// sizes say.
    pub unsafe fn launch(
        self,
        cuda: &Cuda,
        variant: &[&str],
        launch: Launch,
    ) -> Result<(), DeviceError> {
        let parameters = [
            self.gate.into(),
            self.up.into(),
            self.dy.into(),
            self.elements.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "glu_backward", variant, launch, parameters) }
    }
}

/// Parameters of `glu_forward`. Variants: `silu_f32_u32`, `gelu_tanh_f32_u32`, `gelu_erf_f32_u32`, `silu_f32_u64`, `gelu_tanh_f32_u64`, `gelu_erf_f32_u64`, `silu_bf16_u32`, `gelu_tanh_bf16_u32`, `gelu_erf_bf16_u32`, `silu_bf16_u64`, `gelu_tanh_bf16_u64`, `gelu_erf_bf16_u64`, `silu_f16_u32`, `gelu_tanh_f16_u32`, `gelu_erf_f16_u32`, `silu_f16_u64`, `gelu_tanh_f16_u64`, `gelu_erf_f16_u64`.
#[derive(Debug)]
pub struct GluForward<'a> {
    pub gate: Input<'a>,
    pub up: Input<'a>,
    pub y: Output<'a>,
    pub elements: u64,
}

impl GluForward<'_> {
    /// Issues the kernel.
    ///
    /// # Safety
    /// As kernel.cu says: pointers lead to as many elements of the variant's type as the
    /// sizes say.
    pub unsafe fn launch(
        self,
        cuda: &Cuda,
        variant: &[&str],
        launch: Launch,
    ) -> Result<(), DeviceError> {
        let parameters = [
            self.gate.into(),
            self.up.into(),
            self.y.into(),
            self.elements.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "glu_forward", variant, launch, parameters) }
    }
}
