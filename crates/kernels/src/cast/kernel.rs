//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "cast_f32_bf16",
        "cast_f32_f16",
        "cast_bf16_f32",
        "cast_bf16_f16",
        "cast_f16_f32",
        "cast_f16_bf16",
    ],
};

/// Parameters of `cast`. Variants: `f32_bf16`, `f32_f16`, `bf16_f32`, `bf16_f16`, `f16_f32`, `f16_bf16`.
#[derive(Debug)]
pub struct Cast<'a> {
    pub from: Input<'a>,
    pub to: Output<'a>,
    pub elements: u64,
}

impl Cast<'_> {
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
        let parameters = [self.from.into(), self.to.into(), self.elements.into()];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "cast", variant, launch, parameters) }
    }
}
