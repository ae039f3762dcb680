//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "linear_cross_entropy_loss",
        "linear_cross_entropy_gradient_f32",
        "linear_cross_entropy_gradient_bf16",
        "linear_cross_entropy_gradient_f16",
        "linear_cross_entropy_gather_f32_u32",
        "linear_cross_entropy_scatter_f32_u32",
        "linear_cross_entropy_gather_f32_u64",
        "linear_cross_entropy_scatter_f32_u64",
        "linear_cross_entropy_gather_bf16_u32",
        "linear_cross_entropy_scatter_bf16_u32",
        "linear_cross_entropy_gather_bf16_u64",
        "linear_cross_entropy_scatter_bf16_u64",
        "linear_cross_entropy_gather_f16_u32",
        "linear_cross_entropy_scatter_f16_u32",
        "linear_cross_entropy_gather_f16_u64",
        "linear_cross_entropy_scatter_f16_u64",
    ],
};

/// Parameters of `linear_cross_entropy_gather`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct LinearCrossEntropyGather<'a> {
    pub all: Input<'a>,
    pub rows: Input<'a>,
    pub chunk: Output<'a>,
    pub hidden: u64,
}

impl LinearCrossEntropyGather<'_> {
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
            self.all.into(),
            self.rows.into(),
            self.chunk.into(),
            self.hidden.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe {
            cuda.launch(
                &MODULE,
                "linear_cross_entropy_gather",
                variant,
                launch,
                parameters,
            )
        }
    }
}

/// Parameters of `linear_cross_entropy_gradient`. Variants: `f32`, `bf16`, `f16`.
#[derive(Debug)]
pub struct LinearCrossEntropyGradient<'a> {
    pub logits: Output<'a>,
    pub rows: Input<'a>,
    pub targets: Input<'a>,
    pub softcap: f32,
    pub losses: Output<'a>,
    pub vocabulary: u64,
    pub stride: u64,
}

impl LinearCrossEntropyGradient<'_> {
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
            self.logits.into(),
            self.rows.into(),
            self.targets.into(),
            self.softcap.into(),
            self.losses.into(),
            self.vocabulary.into(),
            self.stride.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe {
            cuda.launch(
                &MODULE,
                "linear_cross_entropy_gradient",
                variant,
                launch,
                parameters,
            )
        }
    }
}

/// Parameters of `linear_cross_entropy_loss`. Variants: ``.
#[derive(Debug)]
pub struct LinearCrossEntropyLoss<'a> {
    pub logits: Input<'a>,
    pub rows: Input<'a>,
    pub targets: Input<'a>,
    pub softcap: f32,
    pub losses: Output<'a>,
    pub vocabulary: u64,
    pub stride: u64,
}

impl LinearCrossEntropyLoss<'_> {
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
            self.logits.into(),
            self.rows.into(),
            self.targets.into(),
            self.softcap.into(),
            self.losses.into(),
            self.vocabulary.into(),
            self.stride.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe {
            cuda.launch(
                &MODULE,
                "linear_cross_entropy_loss",
                variant,
                launch,
                parameters,
            )
        }
    }
}

/// Parameters of `linear_cross_entropy_scatter`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct LinearCrossEntropyScatter<'a> {
    pub chunk: Input<'a>,
    pub rows: Input<'a>,
    pub all: Output<'a>,
    pub hidden: u64,
}

impl LinearCrossEntropyScatter<'_> {
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
            self.chunk.into(),
            self.rows.into(),
            self.all.into(),
            self.hidden.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe {
            cuda.launch(
                &MODULE,
                "linear_cross_entropy_scatter",
                variant,
                launch,
                parameters,
            )
        }
    }
}
