//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "nf4_dequantize_f32_u32",
        "nf4_dequantize_f32_u64",
        "nf4_dequantize_bf16_u32",
        "nf4_dequantize_bf16_u64",
        "nf4_dequantize_f16_u32",
        "nf4_dequantize_f16_u64",
    ],
};

/// Parameters of `nf4_dequantize`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct Nf4Dequantize<'a> {
    pub codes: Input<'a>,
    pub scales: Input<'a>,
    pub scale_codes: Input<'a>,
    pub offset: f32,
    pub y: Output<'a>,
    pub elements: u64,
}

impl Nf4Dequantize<'_> {
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
            self.codes.into(),
            self.scales.into(),
            self.scale_codes.into(),
            self.offset.into(),
            self.y.into(),
            self.elements.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "nf4_dequantize", variant, launch, parameters) }
    }
}
