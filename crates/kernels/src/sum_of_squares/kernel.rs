//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "sum_of_squares_chunks_f32",
        "sum_of_squares_chunks_bf16",
        "sum_of_squares_total",
    ],
};

/// Parameters of `sum_of_squares_chunks`. Variants: `f32`, `bf16`.
#[derive(Debug)]
pub(super) struct SumOfSquaresChunks<'a> {
    pub x: Input<'a>,
    pub elements: u64,
    pub chunk: u64,
    pub sums: Output<'a>,
}

impl Kernel<4> for SumOfSquaresChunks<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "sum_of_squares_chunks";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.x.into(),
            self.elements.into(),
            self.chunk.into(),
            self.sums.into(),
        ]
    }
}

/// Parameters of `sum_of_squares_total`. Variants: ``.
#[derive(Debug)]
pub(super) struct SumOfSquaresTotal<'a> {
    pub sums: Input<'a>,
    pub total: Output<'a>,
    pub chunks: u64,
}

impl Kernel<3> for SumOfSquaresTotal<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "sum_of_squares_total";

    fn parameters(self) -> [Parameter; 3] {
        [self.sums.into(), self.total.into(), self.chunks.into()]
    }
}
