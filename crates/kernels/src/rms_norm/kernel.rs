//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "rms_norm_forward_f32_u32",
        "rms_norm_backward_f32_u32",
        "rms_norm_forward_f32_u64",
        "rms_norm_backward_f32_u64",
        "rms_norm_forward_bf16_u32",
        "rms_norm_backward_bf16_u32",
        "rms_norm_forward_bf16_u64",
        "rms_norm_backward_bf16_u64",
        "rms_norm_add_partials",
    ],
};

/// Parameters of `rms_norm_add_partials`. Variants: ``.
#[derive(Debug)]
pub(super) struct RmsNormAddPartials<'a> {
    pub partial: Input<'a>,
    pub dweight: Output<'a>,
    pub blocks: u64,
    pub dim: u64,
}

impl Kernel<4> for RmsNormAddPartials<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "rms_norm_add_partials";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.partial.into(),
            self.dweight.into(),
            self.blocks.into(),
            self.dim.into(),
        ]
    }
}

/// Parameters of `rms_norm_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct RmsNormBackward<'a> {
    pub dy: Input<'a>,
    pub x: Input<'a>,
    pub rstd: Input<'a>,
    pub weight: Input<'a>,
    pub offset: f32,
    pub dx: Output<'a>,
    pub accumulate: u32,
    pub partial: Output<'a>,
    pub rows: u64,
    pub dim: u64,
    pub rows_per_block: u64,
    pub threads: u32,
}

impl Kernel<12> for RmsNormBackward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "rms_norm_backward";

    fn parameters(self) -> [Parameter; 12] {
        [
            self.dy.into(),
            self.x.into(),
            self.rstd.into(),
            self.weight.into(),
            self.offset.into(),
            self.dx.into(),
            self.accumulate.into(),
            self.partial.into(),
            self.rows.into(),
            self.dim.into(),
            self.rows_per_block.into(),
            self.threads.into(),
        ]
    }
}

/// Parameters of `rms_norm_forward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct RmsNormForward<'a> {
    pub x: Input<'a>,
    pub add: Input<'a>,
    pub sum: Output<'a>,
    pub weight: Input<'a>,
    pub offset: f32,
    pub eps: f32,
    pub y: Output<'a>,
    pub rstd: Output<'a>,
    pub rows: u64,
    pub dim: u64,
    pub rows_per_block: u64,
    pub threads: u32,
}

impl Kernel<12> for RmsNormForward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "rms_norm_forward";

    fn parameters(self) -> [Parameter; 12] {
        [
            self.x.into(),
            self.add.into(),
            self.sum.into(),
            self.weight.into(),
            self.offset.into(),
            self.eps.into(),
            self.y.into(),
            self.rstd.into(),
            self.rows.into(),
            self.dim.into(),
            self.rows_per_block.into(),
            self.threads.into(),
        ]
    }
}
