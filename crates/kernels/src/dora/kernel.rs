//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "dora_scale_columns_f32_u32",
        "dora_scale_backward_f32_u32",
        "dora_scale_columns_f32_u64",
        "dora_scale_backward_f32_u64",
        "dora_scale_columns_bf16_u32",
        "dora_scale_backward_bf16_u32",
        "dora_scale_columns_bf16_u64",
        "dora_scale_backward_bf16_u64",
        "dora_add_partials",
        "dora_row_norms",
    ],
};

/// Parameters of `dora_add_partials`. Variants: ``.
#[derive(Debug)]
pub(super) struct DoraAddPartials<'a> {
    pub partial: Input<'a>,
    pub sums: Output<'a>,
    pub runs: u64,
    pub columns: u64,
}

impl Kernel<4> for DoraAddPartials<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "dora_add_partials";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.partial.into(),
            self.sums.into(),
            self.runs.into(),
            self.columns.into(),
        ]
    }
}

/// Parameters of `dora_row_norms`. Variants: ``.
#[derive(Debug)]
pub(super) struct DoraRowNorms<'a> {
    pub squares: Input<'a>,
    pub b: Input<'a>,
    pub u: Input<'a>,
    pub c: Input<'a>,
    pub magnitude: Input<'a>,
    pub scale: f32,
    pub norm: Output<'a>,
    pub gain: Output<'a>,
    pub outputs: u64,
    pub rank: u64,
}

impl Kernel<10> for DoraRowNorms<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "dora_row_norms";

    fn parameters(self) -> [Parameter; 10] {
        [
            self.squares.into(),
            self.b.into(),
            self.u.into(),
            self.c.into(),
            self.magnitude.into(),
            self.scale.into(),
            self.norm.into(),
            self.gain.into(),
            self.outputs.into(),
            self.rank.into(),
        ]
    }
}

/// Parameters of `dora_scale_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct DoraScaleBackward<'a> {
    pub dy: Input<'a>,
    pub z: Input<'a>,
    pub gain: Input<'a>,
    pub norm: Input<'a>,
    pub dz: Output<'a>,
    pub partial: Output<'a>,
    pub count: u64,
    pub columns: u64,
    pub run: u64,
}

impl Kernel<9> for DoraScaleBackward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "dora_scale_backward";

    fn parameters(self) -> [Parameter; 9] {
        [
            self.dy.into(),
            self.z.into(),
            self.gain.into(),
            self.norm.into(),
            self.dz.into(),
            self.partial.into(),
            self.count.into(),
            self.columns.into(),
            self.run.into(),
        ]
    }
}

/// Parameters of `dora_scale_columns`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct DoraScaleColumns<'a> {
    pub z: Input<'a>,
    pub gain: Input<'a>,
    pub bias: Input<'a>,
    pub alpha: f32,
    pub adds: u32,
    pub y: Output<'a>,
    pub columns: u64,
}

impl Kernel<7> for DoraScaleColumns<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "dora_scale_columns";

    fn parameters(self) -> [Parameter; 7] {
        [
            self.z.into(),
            self.gain.into(),
            self.bias.into(),
            self.alpha.into(),
            self.adds.into(),
            self.y.into(),
            self.columns.into(),
        ]
    }
}
