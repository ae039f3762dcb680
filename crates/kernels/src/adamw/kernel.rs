//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "adamw_update_f32_u32",
        "adamw_update_f32_u64",
        "adamw_update_bf16_u32",
        "adamw_update_bf16_u64",
    ],
};

/// Parameters of `adamw_update`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct AdamwUpdate<'a> {
    pub weight: Output<'a>,
    pub gradient: Input<'a>,
    pub m: Output<'a>,
    pub v: Output<'a>,
    pub gradient_scale: f32,
    pub keep: f32,
    pub blend1: f32,
    pub beta2: f32,
    pub blend2: f32,
    pub root: f32,
    pub eps: f32,
    pub rate: f32,
    pub salt: u32,
    pub elements: u64,
}

impl Kernel<14> for AdamwUpdate<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adamw_update";

    fn parameters(self) -> [Parameter; 14] {
        [
            self.weight.into(),
            self.gradient.into(),
            self.m.into(),
            self.v.into(),
            self.gradient_scale.into(),
            self.keep.into(),
            self.blend1.into(),
            self.beta2.into(),
            self.blend2.into(),
            self.root.into(),
            self.eps.into(),
            self.rate.into(),
            self.salt.into(),
            self.elements.into(),
        ]
    }
}
