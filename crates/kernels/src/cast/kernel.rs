//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "cast_f32_bf16",
        "cast_bf16_f32",
        "cast_f16_f32",
        "cast_f16_bf16",
    ],
};

/// Parameters of `cast`. Variants: `f32_bf16`, `bf16_f32`, `f16_f32`, `f16_bf16`.
#[derive(Debug)]
pub(super) struct Cast<'a> {
    pub from: Input<'a>,
    pub to: Output<'a>,
    pub elements: u64,
}

impl Kernel<3> for Cast<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "cast";

    fn parameters(self) -> [Parameter; 3] {
        [self.from.into(), self.to.into(), self.elements.into()]
    }
}
