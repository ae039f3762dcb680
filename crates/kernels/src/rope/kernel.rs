//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "rope_rotate_f32_u32",
        "rope_rotate_f32_u64",
        "rope_rotate_bf16_u32",
        "rope_rotate_bf16_u64",
    ],
};

/// Parameters of `rope_rotate`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct RopeRotate<'a> {
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

impl Kernel<15> for RopeRotate<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "rope_rotate";

    fn parameters(self) -> [Parameter; 15] {
        [
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
        ]
    }
}
