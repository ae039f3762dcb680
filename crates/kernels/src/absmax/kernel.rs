//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "absmax_dequantize_f32_u32",
        "absmax_dequantize_f32_u64",
        "absmax_dequantize_bf16_u32",
        "absmax_dequantize_bf16_u64",
    ],
};

/// Parameters of `absmax_dequantize`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct AbsmaxDequantize<'a> {
    pub codes: Input<'a>,
    pub absmax: Input<'a>,
    pub y: Output<'a>,
    pub rows: u64,
    pub columns: u64,
}

impl Kernel<5> for AbsmaxDequantize<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "absmax_dequantize";

    fn parameters(self) -> [Parameter; 5] {
        [
            self.codes.into(),
            self.absmax.into(),
            self.y.into(),
            self.rows.into(),
            self.columns.into(),
        ]
    }
}
