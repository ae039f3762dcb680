//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "linear_dropout_f32_u32",
        "linear_dropout_gradient_f32_u32",
        "linear_column_sums_f32_u32",
        "linear_dropout_f32_u64",
        "linear_dropout_gradient_f32_u64",
        "linear_column_sums_f32_u64",
        "linear_dropout_bf16_u32",
        "linear_dropout_gradient_bf16_u32",
        "linear_column_sums_bf16_u32",
        "linear_dropout_bf16_u64",
        "linear_dropout_gradient_bf16_u64",
        "linear_column_sums_bf16_u64",
        "linear_dropout_f16_u32",
        "linear_dropout_gradient_f16_u32",
        "linear_column_sums_f16_u32",
        "linear_dropout_f16_u64",
        "linear_dropout_gradient_f16_u64",
        "linear_column_sums_f16_u64",
        "linear_add_partials",
    ],
};

/// Parameters of `linear_add_partials`. Variants: ``.
#[derive(Debug)]
pub struct LinearAddPartials<'a> {
    pub partial: Input<'a>,
    pub dbias: Output<'a>,
    pub runs: u64,
    pub outputs: u64,
}

impl LinearAddPartials<'_> {
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
            self.partial.into(),
            self.dbias.into(),
            self.runs.into(),
            self.outputs.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "linear_add_partials", variant, launch, parameters) }
    }
}

/// Parameters of `linear_column_sums`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct LinearColumnSums<'a> {
    pub dy: Input<'a>,
    pub partial: Output<'a>,
    pub tokens: u64,
    pub outputs: u64,
    pub run: u64,
}

impl LinearColumnSums<'_> {
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
            self.dy.into(),
            self.partial.into(),
            self.tokens.into(),
            self.outputs.into(),
            self.run.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "linear_column_sums", variant, launch, parameters) }
    }
}

/// Parameters of `linear_dropout`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct LinearDropout<'a> {
    pub x: Input<'a>,
    pub dropped: Output<'a>,
    pub salt: u64,
    pub keys: Input<'a>,
    pub threshold: u32,
    pub factor: f32,
    pub first: u64,
    pub inputs: u64,
}

impl LinearDropout<'_> {
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
            self.x.into(),
            self.dropped.into(),
            self.salt.into(),
            self.keys.into(),
            self.threshold.into(),
            self.factor.into(),
            self.first.into(),
            self.inputs.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "linear_dropout", variant, launch, parameters) }
    }
}

/// Parameters of `linear_dropout_gradient`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct LinearDropoutGradient<'a> {
    pub gradient: Input<'a>,
    pub dx: Output<'a>,
    pub accumulate: u32,
    pub salt: u64,
    pub keys: Input<'a>,
    pub threshold: u32,
    pub factor: f32,
    pub first: u64,
    pub inputs: u64,
}

impl LinearDropoutGradient<'_> {
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
            self.gradient.into(),
            self.dx.into(),
            self.accumulate.into(),
            self.salt.into(),
            self.keys.into(),
            self.threshold.into(),
            self.factor.into(),
            self.first.into(),
            self.inputs.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe {
            cuda.launch(
                &MODULE,
                "linear_dropout_gradient",
                variant,
                launch,
                parameters,
            )
        }
    }
}
