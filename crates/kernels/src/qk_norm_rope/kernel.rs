//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "qk_norm_rope_forward_f32_u32",
        "qk_norm_rope_backward_f32_u32",
        "qk_norm_rope_forward_f32_u64",
        "qk_norm_rope_backward_f32_u64",
        "qk_norm_rope_forward_bf16_u32",
        "qk_norm_rope_backward_bf16_u32",
        "qk_norm_rope_forward_bf16_u64",
        "qk_norm_rope_backward_bf16_u64",
        "qk_norm_rope_add_partials",
    ],
};

/// Parameters of `qk_norm_rope_add_partials`. Variants: ``.
#[derive(Debug)]
pub(super) struct QkNormRopeAddPartials<'a> {
    pub partial: Input<'a>,
    pub q_dweight: Output<'a>,
    pub k_dweight: Output<'a>,
    pub q_blocks: u64,
    pub k_blocks: u64,
    pub dim: u64,
}

impl Kernel<6> for QkNormRopeAddPartials<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "qk_norm_rope_add_partials";

    fn parameters(self) -> [Parameter; 6] {
        [
            self.partial.into(),
            self.q_dweight.into(),
            self.k_dweight.into(),
            self.q_blocks.into(),
            self.k_blocks.into(),
            self.dim.into(),
        ]
    }
}

/// Parameters of `qk_norm_rope_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct QkNormRopeBackward<'a> {
    pub q_dx: Output<'a>,
    pub k_dx: Output<'a>,
    pub q: Input<'a>,
    pub k: Input<'a>,
    pub q_rstd: Input<'a>,
    pub k_rstd: Input<'a>,
    pub q_weight: Input<'a>,
    pub k_weight: Input<'a>,
    pub offset: f32,
    pub cos: Input<'a>,
    pub sin: Input<'a>,
    pub partial: Output<'a>,
    pub tokens: u64,
    pub q_heads: u64,
    pub k_heads: u64,
    pub dim: u64,
    pub pairs: u64,
    pub q_blocks: u64,
    pub rows_per_block: u64,
    pub lanes: u32,
}

impl Kernel<20> for QkNormRopeBackward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "qk_norm_rope_backward";

    fn parameters(self) -> [Parameter; 20] {
        [
            self.q_dx.into(),
            self.k_dx.into(),
            self.q.into(),
            self.k.into(),
            self.q_rstd.into(),
            self.k_rstd.into(),
            self.q_weight.into(),
            self.k_weight.into(),
            self.offset.into(),
            self.cos.into(),
            self.sin.into(),
            self.partial.into(),
            self.tokens.into(),
            self.q_heads.into(),
            self.k_heads.into(),
            self.dim.into(),
            self.pairs.into(),
            self.q_blocks.into(),
            self.rows_per_block.into(),
            self.lanes.into(),
        ]
    }
}

/// Parameters of `qk_norm_rope_forward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct QkNormRopeForward<'a> {
    pub q: Input<'a>,
    pub k: Input<'a>,
    pub q_weight: Input<'a>,
    pub k_weight: Input<'a>,
    pub offset: f32,
    pub eps: f32,
    pub cos: Input<'a>,
    pub sin: Input<'a>,
    pub q_rotated: Output<'a>,
    pub k_rotated: Output<'a>,
    pub q_rstd: Output<'a>,
    pub k_rstd: Output<'a>,
    pub tokens: u64,
    pub q_heads: u64,
    pub k_heads: u64,
    pub dim: u64,
    pub pairs: u64,
    pub lanes: u32,
}

impl Kernel<18> for QkNormRopeForward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "qk_norm_rope_forward";

    fn parameters(self) -> [Parameter; 18] {
        [
            self.q.into(),
            self.k.into(),
            self.q_weight.into(),
            self.k_weight.into(),
            self.offset.into(),
            self.eps.into(),
            self.cos.into(),
            self.sin.into(),
            self.q_rotated.into(),
            self.k_rotated.into(),
            self.q_rstd.into(),
            self.k_rstd.into(),
            self.tokens.into(),
            self.q_heads.into(),
            self.k_heads.into(),
            self.dim.into(),
            self.pairs.into(),
            self.lanes.into(),
        ]
    }
}
