//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "adafactor_rows",
        "adafactor_columns",
        "adafactor_add_columns",
        "adafactor_elements",
        "adafactor_mean",
        "adafactor_sums",
        "adafactor_limit",
        "adafactor_update",
    ],
};

/// Parameters of `adafactor_add_columns`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorAddColumns<'a> {
    pub partial: Input<'a>,
    pub column: Output<'a>,
    pub beta2: f32,
    pub blend2: f32,
    pub eps: f32,
    pub rows: u64,
    pub columns: u64,
    pub runs: u64,
}

impl Kernel<8> for AdafactorAddColumns<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_add_columns";

    fn parameters(self) -> [Parameter; 8] {
        [
            self.partial.into(),
            self.column.into(),
            self.beta2.into(),
            self.blend2.into(),
            self.eps.into(),
            self.rows.into(),
            self.columns.into(),
            self.runs.into(),
        ]
    }
}

/// Parameters of `adafactor_columns`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorColumns<'a> {
    pub gradient: Input<'a>,
    pub partial: Output<'a>,
    pub gradient_scale: f32,
    pub rows: u64,
    pub columns: u64,
    pub run: u64,
}

impl Kernel<6> for AdafactorColumns<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_columns";

    fn parameters(self) -> [Parameter; 6] {
        [
            self.gradient.into(),
            self.partial.into(),
            self.gradient_scale.into(),
            self.rows.into(),
            self.columns.into(),
            self.run.into(),
        ]
    }
}

/// Parameters of `adafactor_elements`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorElements<'a> {
    pub gradient: Input<'a>,
    pub v: Output<'a>,
    pub gradient_scale: f32,
    pub beta2: f32,
    pub blend2: f32,
    pub eps: f32,
    pub elements: u64,
}

impl Kernel<7> for AdafactorElements<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_elements";

    fn parameters(self) -> [Parameter; 7] {
        [
            self.gradient.into(),
            self.v.into(),
            self.gradient_scale.into(),
            self.beta2.into(),
            self.blend2.into(),
            self.eps.into(),
            self.elements.into(),
        ]
    }
}

/// Parameters of `adafactor_limit`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorLimit<'a> {
    pub sums: Input<'a>,
    pub limit: Output<'a>,
    pub threshold: f32,
    pub rows: u64,
    pub elements: u64,
}

impl Kernel<5> for AdafactorLimit<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_limit";

    fn parameters(self) -> [Parameter; 5] {
        [
            self.sums.into(),
            self.limit.into(),
            self.threshold.into(),
            self.rows.into(),
            self.elements.into(),
        ]
    }
}

/// Parameters of `adafactor_mean`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorMean<'a> {
    pub row: Input<'a>,
    pub mean: Output<'a>,
    pub rows: u64,
}

impl Kernel<3> for AdafactorMean<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_mean";

    fn parameters(self) -> [Parameter; 3] {
        [self.row.into(), self.mean.into(), self.rows.into()]
    }
}

/// Parameters of `adafactor_rows`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorRows<'a> {
    pub gradient: Input<'a>,
    pub row: Output<'a>,
    pub gradient_scale: f32,
    pub beta2: f32,
    pub blend2: f32,
    pub eps: f32,
    pub columns: u64,
}

impl Kernel<7> for AdafactorRows<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_rows";

    fn parameters(self) -> [Parameter; 7] {
        [
            self.gradient.into(),
            self.row.into(),
            self.gradient_scale.into(),
            self.beta2.into(),
            self.blend2.into(),
            self.eps.into(),
            self.columns.into(),
        ]
    }
}

/// Parameters of `adafactor_sums`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorSums<'a> {
    pub gradient: Input<'a>,
    pub row: Input<'a>,
    pub mean: Input<'a>,
    pub v: Input<'a>,
    pub sums: Output<'a>,
    pub gradient_scale: f32,
    pub columns: u64,
}

impl Kernel<7> for AdafactorSums<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_sums";

    fn parameters(self) -> [Parameter; 7] {
        [
            self.gradient.into(),
            self.row.into(),
            self.mean.into(),
            self.v.into(),
            self.sums.into(),
            self.gradient_scale.into(),
            self.columns.into(),
        ]
    }
}

/// Parameters of `adafactor_update`. Variants: ``.
#[derive(Debug)]
pub(super) struct AdafactorUpdate<'a> {
    pub weight: Output<'a>,
    pub gradient: Input<'a>,
    pub row: Input<'a>,
    pub mean: Input<'a>,
    pub v: Input<'a>,
    pub limit: Input<'a>,
    pub m: Output<'a>,
    pub gradient_scale: f32,
    pub rate: f32,
    pub keep: f32,
    pub beta1: f32,
    pub blend1: f32,
    pub columns: u64,
}

impl Kernel<13> for AdafactorUpdate<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adafactor_update";

    fn parameters(self) -> [Parameter; 13] {
        [
            self.weight.into(),
            self.gradient.into(),
            self.row.into(),
            self.mean.into(),
            self.v.into(),
            self.limit.into(),
            self.m.into(),
            self.gradient_scale.into(),
            self.rate.into(),
            self.keep.into(),
            self.beta1.into(),
            self.blend1.into(),
            self.columns.into(),
        ]
    }
}
