//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "absmax_dequantize_f32_u32",
        "absmax_dequantize_f32_u64",
        "absmax_dequantize_bf16_u32",
        "absmax_dequantize_bf16_u64",
        "absmax_dequantize_f16_u32",
        "absmax_dequantize_f16_u64",
    ],
};

/// Parameters of `absmax_dequantize`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct AbsmaxDequantize<'a> {
    pub codes: Input<'a>,
    pub absmax: Input<'a>,
    pub y: Output<'a>,
    pub rows: u64,
    pub columns: u64,
}

impl AbsmaxDequantize<'_> {
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
            self.absmax.into(),
            self.y.into(),
            self.rows.into(),
            self.columns.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "absmax_dequantize", variant, launch, parameters) }
    }
}
