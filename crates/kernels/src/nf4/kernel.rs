//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "nf4_dequantize_f32_u32",
        "nf4_dequantize_f32_u64",
        "nf4_dequantize_bf16_u32",
        "nf4_dequantize_bf16_u64",
    ],
};

/// Parameters of `nf4_dequantize`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct Nf4Dequantize<'a> {
    pub codes: Input<'a>,
    pub scales: Input<'a>,
    pub scale_codes: Input<'a>,
    pub offset: f32,
    pub y: Output<'a>,
    pub elements: u64,
}

impl Kernel<6> for Nf4Dequantize<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "nf4_dequantize";

    fn parameters(self) -> [Parameter; 6] {
        [
            self.codes.into(),
            self.scales.into(),
            self.scale_codes.into(),
            self.offset.into(),
            self.y.into(),
            self.elements.into(),
        ]
    }
}
