//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &["adamw_8bit_update_u32", "adamw_8bit_update_u64"],
};

/// Parameters of `adamw_8bit_update`. Variants: `u32`, `u64`.
#[derive(Debug)]
pub struct Adamw8bitUpdate<'a> {
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

impl Adamw8bitUpdate<'_> {
    /// Issues the kernel.
    ///
    /// # Safety
    /// As kernel.cu says: pointers lead to as many elements of the variant's type as the
    /// sizes say.
    pub unsafe fn launch(
        self,
        cuda: &Cuda,
        variant: &[&str],
        launch: Launch,
    ) -> Result<(), DeviceError> {
        let parameters = [
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
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "adamw_8bit_update", variant, launch, parameters) }
    }
}
