//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &["adamw_8bit_update_u32", "adamw_8bit_update_u64"],
};

/// Parameters of `adamw_8bit_update`. Variants: `u32`, `u64`.
#[derive(Debug)]
pub(super) struct Adamw8bitUpdate<'a> {
    pub weight: Output<'a>,
    pub gradient: Input<'a>,
    pub m_codes: Output<'a>,
    pub m_absmax: Output<'a>,
    pub v_codes: Output<'a>,
    pub v_absmax: Output<'a>,
    pub gradient_scale: f32,
    pub keep: f32,
    pub blend1: f32,
    pub beta2: f32,
    pub blend2: f32,
    pub root: f32,
    pub eps: f32,
    pub rate: f32,
    pub elements: u64,
}

impl Kernel<15> for Adamw8bitUpdate<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "adamw_8bit_update";

    fn parameters(self) -> [Parameter; 15] {
        [
            self.weight.into(),
            self.gradient.into(),
            self.m_codes.into(),
            self.m_absmax.into(),
            self.v_codes.into(),
            self.v_absmax.into(),
            self.gradient_scale.into(),
            self.keep.into(),
            self.blend1.into(),
            self.beta2.into(),
            self.blend2.into(),
            self.root.into(),
            self.eps.into(),
            self.rate.into(),
            self.elements.into(),
        ]
    }
}
