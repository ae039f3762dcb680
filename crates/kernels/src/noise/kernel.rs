//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &["noise_add_f32", "noise_add_bf16"],
};

/// Parameters of `noise_add`. Variants: `f32`, `bf16`.
#[derive(Debug)]
pub(super) struct NoiseAdd<'a> {
    pub y: Output<'a>,
    pub states: Input<'a>,
    pub scales: Input<'a>,
    pub features: u64,
}

impl Kernel<4> for NoiseAdd<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "noise_add";

    fn parameters(self) -> [Parameter; 4] {
        [
            self.y.into(),
            self.states.into(),
            self.scales.into(),
            self.features.into(),
        ]
    }
}
