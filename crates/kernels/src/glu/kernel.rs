//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "swiglu_forward_f32_u32",
        "swiglu_backward_f32_u32",
        "swiglu_forward_f32_u64",
        "swiglu_backward_f32_u64",
        "swiglu_forward_bf16_u32",
        "swiglu_backward_bf16_u32",
        "swiglu_forward_bf16_u64",
        "swiglu_backward_bf16_u64",
        "swiglu_forward_f16_u32",
        "swiglu_backward_f16_u32",
        "swiglu_forward_f16_u64",
        "swiglu_backward_f16_u64",
        "geglu_tanh_forward_f32_u32",
        "geglu_tanh_backward_f32_u32",
        "geglu_tanh_forward_f32_u64",
        "geglu_tanh_backward_f32_u64",
        "geglu_tanh_forward_bf16_u32",
        "geglu_tanh_backward_bf16_u32",
        "geglu_tanh_forward_bf16_u64",
        "geglu_tanh_backward_bf16_u64",
        "geglu_tanh_forward_f16_u32",
        "geglu_tanh_backward_f16_u32",
        "geglu_tanh_forward_f16_u64",
        "geglu_tanh_backward_f16_u64",
        "geglu_erf_forward_f32_u32",
        "geglu_erf_backward_f32_u32",
        "geglu_erf_forward_f32_u64",
        "geglu_erf_backward_f32_u64",
        "geglu_erf_forward_bf16_u32",
        "geglu_erf_backward_bf16_u32",
        "geglu_erf_forward_bf16_u64",
        "geglu_erf_backward_bf16_u64",
        "geglu_erf_forward_f16_u32",
        "geglu_erf_backward_f16_u32",
        "geglu_erf_forward_f16_u64",
        "geglu_erf_backward_f16_u64",
    ],
};

/// Parameters of `geglu_erf_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct GegluErfBackward<'a> {
    pub gate: Output<'a>,
    pub up: Output<'a>,
    pub dy: Output<'a>,
    pub elements: u64,
}

impl GegluErfBackward<'_> {
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
        unsafe { cuda.launch(&MODULE, "geglu_erf_backward", variant, launch, parameters) }
    }
}

/// Parameters of `geglu_erf_forward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct GegluErfForward<'a> {
    pub gate: Input<'a>,
    pub up: Input<'a>,
    pub y: Output<'a>,
    pub elements: u64,
}

impl GegluErfForward<'_> {
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
        unsafe { cuda.launch(&MODULE, "geglu_erf_forward", variant, launch, parameters) }
    }
}

/// Parameters of `geglu_tanh_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct GegluTanhBackward<'a> {
    pub gate: Output<'a>,
    pub up: Output<'a>,
    pub dy: Output<'a>,
    pub elements: u64,
}

impl GegluTanhBackward<'_> {
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
        unsafe { cuda.launch(&MODULE, "geglu_tanh_backward", variant, launch, parameters) }
    }
}

/// Parameters of `geglu_tanh_forward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct GegluTanhForward<'a> {
    pub gate: Input<'a>,
    pub up: Input<'a>,
    pub y: Output<'a>,
    pub elements: u64,
}

impl GegluTanhForward<'_> {
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
        unsafe { cuda.launch(&MODULE, "geglu_tanh_forward", variant, launch, parameters) }
    }
}

/// Parameters of `swiglu_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct SwigluBackward<'a> {
    pub gate: Output<'a>,
    pub up: Output<'a>,
    pub dy: Output<'a>,
    pub elements: u64,
}

impl SwigluBackward<'_> {
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
        unsafe { cuda.launch(&MODULE, "swiglu_backward", variant, launch, parameters) }
    }
}

/// Parameters of `swiglu_forward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct SwigluForward<'a> {
    pub gate: Input<'a>,
    pub up: Input<'a>,
    pub y: Output<'a>,
    pub elements: u64,
}

impl SwigluForward<'_> {
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
        unsafe { cuda.launch(&MODULE, "swiglu_forward", variant, launch, parameters) }
    }
}
