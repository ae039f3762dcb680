//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "product_dropout_f32_u32",
        "product_dropout_term_f32_u32",
        "product_column_sums_f32_u32",
        "product_dropout_f32_u64",
        "product_dropout_term_f32_u64",
        "product_column_sums_f32_u64",
        "product_dropout_bf16_u32",
        "product_dropout_term_bf16_u32",
        "product_column_sums_bf16_u32",
        "product_dropout_bf16_u64",
        "product_dropout_term_bf16_u64",
        "product_column_sums_bf16_u64",
        "product_add_partials",
    ],
};

/// Parameters of `product_add_partials`. Variants: ``.
#[derive(Debug)]
pub(super) struct ProductAddPartials<'a> {
    pub partial: Input<'a>,
    pub sums: Output<'a>,
    pub runs: u64,
    pub columns: u64,
}

impl Kernel<4> for ProductAddPartials<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "product_add_partials";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.partial.into(),
            self.sums.into(),
            self.runs.into(),
            self.columns.into(),
        ]
    }
}

/// Parameters of `product_column_sums`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct ProductColumnSums<'a> {
    pub rows: Input<'a>,
    pub partial: Output<'a>,
    pub count: u64,
    pub columns: u64,
    pub run: u64,
}

impl Kernel<5> for ProductColumnSums<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "product_column_sums";

    fn parameters(self) -> [Parameter; 5] {
        [
            self.rows.into(),
            self.partial.into(),
            self.count.into(),
            self.columns.into(),
            self.run.into(),
        ]
    }
}

/// Parameters of `product_dropout`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct ProductDropout<'a> {
    pub x: Input<'a>,
    pub dropped: Output<'a>,
    pub salt: u64,
    pub keys: Input<'a>,
    pub threshold: u32,
    pub factor: f32,
    pub first: u64,
    pub columns: u64,
}

impl Kernel<8> for ProductDropout<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "product_dropout";

    fn parameters(self) -> [Parameter; 8] {
        [
            self.x.into(),
            self.dropped.into(),
            self.salt.into(),
            self.keys.into(),
            self.threshold.into(),
            self.factor.into(),
            self.first.into(),
            self.columns.into(),
        ]
    }
}

/// Parameters of `product_dropout_term`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct ProductDropoutTerm<'a> {
    pub term: Input<'a>,
    pub c: Output<'a>,
    pub accumulate: u32,
    pub salt: u64,
    pub keys: Input<'a>,
    pub threshold: u32,
    pub factor: f32,
    pub first: u64,
    pub columns: u64,
}

impl Kernel<9> for ProductDropoutTerm<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "product_dropout_term";

    fn parameters(self) -> [Parameter; 9] {
        [
            self.term.into(),
            self.c.into(),
            self.accumulate.into(),
            self.salt.into(),
            self.keys.into(),
            self.threshold.into(),
            self.factor.into(),
            self.first.into(),
            self.columns.into(),
        ]
    }
}
