//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
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
        "linear_add_partials",
    ],
};

/// Parameters of `linear_add_partials`. Variants: ``.
#[derive(Debug)]
pub(super) struct LinearAddPartials<'a> {
    pub partial: Input<'a>,
    pub dbias: Output<'a>,
    pub runs: u64,
    pub outputs: u64,
}

impl Kernel<4> for LinearAddPartials<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_add_partials";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.partial.into(),
            self.dbias.into(),
            self.runs.into(),
            self.outputs.into(),
        ]
    }
}

/// Parameters of `linear_column_sums`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct LinearColumnSums<'a> {
    pub dy: Input<'a>,
    pub partial: Output<'a>,
    pub tokens: u64,
    pub outputs: u64,
    pub run: u64,
}

impl Kernel<5> for LinearColumnSums<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_column_sums";

    fn parameters(self) -> [Parameter; 5] {
        [
            self.dy.into(),
            self.partial.into(),
            self.tokens.into(),
            self.outputs.into(),
            self.run.into(),
        ]
    }
}

/// Parameters of `linear_dropout`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct LinearDropout<'a> {
    pub x: Input<'a>,
    pub dropped: Output<'a>,
    pub salt: u64,
    pub keys: Input<'a>,
    pub threshold: u32,
    pub factor: f32,
    pub first: u64,
    pub inputs: u64,
}

impl Kernel<8> for LinearDropout<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_dropout";

    fn parameters(self) -> [Parameter; 8] {
        [
            self.x.into(),
            self.dropped.into(),
            self.salt.into(),
            self.keys.into(),
            self.threshold.into(),
            self.factor.into(),
            self.first.into(),
            self.inputs.into(),
        ]
    }
}

/// Parameters of `linear_dropout_gradient`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct LinearDropoutGradient<'a> {
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

impl Kernel<9> for LinearDropoutGradient<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_dropout_gradient";

    fn parameters(self) -> [Parameter; 9] {
        [
            self.gradient.into(),
            self.dx.into(),
            self.accumulate.into(),
            self.salt.into(),
            self.keys.into(),
            self.threshold.into(),
            self.factor.into(),
            self.first.into(),
            self.inputs.into(),
        ]
    }
}
