//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "rope_rotate_f32_u32",
        "rope_rotate_f32_u64",
        "rope_rotate_bf16_u32",
        "rope_rotate_bf16_u64",
        "rope_rotate_f16_u32",
        "rope_rotate_f16_u64",
    ],
};

/// Parameters of `rope_rotate`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct RopeRotate<'a> {
    pub q: Output<'a>,
    pub k: Output<'a>,
    pub cos: Input<'a>,
    pub sin: Input<'a>,
    pub sign: f32,
    pub interleaved: u32,
    pub tokens: u64,
    pub q_heads: u64,
    pub k_heads: u64,
    pub q_stride: u64,
    pub k_stride: u64,
    pub head_dim: u64,
    pub pairs: u64,
    pub groups: u64,
    pub pairs_per_thread: u64,
}

impl RopeRotate<'_> {
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
            self.q.into(),
            self.k.into(),
            self.cos.into(),
            self.sin.into(),
            self.sign.into(),
            self.interleaved.into(),
            self.tokens.into(),
            self.q_heads.into(),
            self.k_heads.into(),
            self.q_stride.into(),
            self.k_stride.into(),
            self.head_dim.into(),
            self.pairs.into(),
            self.groups.into(),
            self.pairs_per_thread.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "rope_rotate", variant, launch, parameters) }
    }
}
