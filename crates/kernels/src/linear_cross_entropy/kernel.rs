//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "linear_cross_entropy_loss",
        "linear_cross_entropy_gradient_f32",
        "linear_cross_entropy_gradient_bf16",
        "linear_cross_entropy_gather_f32_u32",
        "linear_cross_entropy_scatter_f32_u32",
        "linear_cross_entropy_gather_f32_u64",
        "linear_cross_entropy_scatter_f32_u64",
        "linear_cross_entropy_gather_bf16_u32",
        "linear_cross_entropy_scatter_bf16_u32",
        "linear_cross_entropy_gather_bf16_u64",
        "linear_cross_entropy_scatter_bf16_u64",
    ],
};

/// Parameters of `linear_cross_entropy_gather`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct LinearCrossEntropyGather<'a> {
    pub all: Input<'a>,
    pub rows: Input<'a>,
    pub chunk: Output<'a>,
    pub hidden: u64,
}

impl Kernel<4> for LinearCrossEntropyGather<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_cross_entropy_gather";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.all.into(),
            self.rows.into(),
            self.chunk.into(),
            self.hidden.into(),
        ]
    }
}

/// Parameters of `linear_cross_entropy_gradient`. Variants: `f32`, `bf16`.
#[derive(Debug)]
pub(super) struct LinearCrossEntropyGradient<'a> {
    pub logits: Output<'a>,
    pub rows: Input<'a>,
    pub targets: Input<'a>,
    pub weights: Input<'a>,
    pub softcap: f32,
    pub losses: Output<'a>,
    pub vocabulary: u64,
    pub stride: u64,
}

impl Kernel<8> for LinearCrossEntropyGradient<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_cross_entropy_gradient";

    fn parameters(self) -> [Parameter; 8] {
        [
            self.logits.into(),
            self.rows.into(),
            self.targets.into(),
            self.weights.into(),
            self.softcap.into(),
            self.losses.into(),
            self.vocabulary.into(),
            self.stride.into(),
        ]
    }
}

/// Parameters of `linear_cross_entropy_loss`. Variants: ``.
#[derive(Debug)]
pub(super) struct LinearCrossEntropyLoss<'a> {
    pub logits: Input<'a>,
    pub rows: Input<'a>,
    pub targets: Input<'a>,
    pub softcap: f32,
    pub losses: Output<'a>,
    pub vocabulary: u64,
    pub stride: u64,
}

impl Kernel<7> for LinearCrossEntropyLoss<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_cross_entropy_loss";

    fn parameters(self) -> [Parameter; 7] {
        [
            self.logits.into(),
            self.rows.into(),
            self.targets.into(),
            self.softcap.into(),
            self.losses.into(),
            self.vocabulary.into(),
            self.stride.into(),
        ]
    }
}

/// Parameters of `linear_cross_entropy_scatter`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct LinearCrossEntropyScatter<'a> {
    pub chunk: Input<'a>,
    pub rows: Input<'a>,
    pub all: Output<'a>,
    pub hidden: u64,
}

impl Kernel<4> for LinearCrossEntropyScatter<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "linear_cross_entropy_scatter";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.chunk.into(),
            self.rows.into(),
            self.all.into(),
            self.hidden.into(),
        ]
    }
}
