//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "attention_forward_f32_32",
        "attention_queries_backward_f32_32",
        "attention_keys_backward_f32_32",
        "attention_forward_f32_64",
        "attention_queries_backward_f32_64",
        "attention_keys_backward_f32_64",
        "attention_forward_f32_128",
        "attention_queries_backward_f32_128",
        "attention_keys_backward_f32_128",
        "attention_forward_f32_256",
        "attention_queries_backward_f32_256",
        "attention_keys_backward_f32_256",
        "attention_forward_bf16_32",
        "attention_queries_backward_bf16_32",
        "attention_keys_backward_bf16_32",
        "attention_forward_bf16_64",
        "attention_queries_backward_bf16_64",
        "attention_keys_backward_bf16_64",
        "attention_forward_bf16_128",
        "attention_queries_backward_bf16_128",
        "attention_keys_backward_bf16_128",
        "attention_forward_bf16_256",
        "attention_queries_backward_bf16_256",
        "attention_keys_backward_bf16_256",
    ],
};

/// Parameters of `attention_forward`. Variants: `f32_32`, `f32_64`, `f32_128`, `f32_256`, `bf16_32`, `bf16_64`, `bf16_128`, `bf16_256`.
#[derive(Debug)]
pub(super) struct AttentionForward<'a> {
    pub q: Input<'a>,
    pub k: Input<'a>,
    pub v: Input<'a>,
    pub y: Output<'a>,
    pub lse: Output<'a>,
    pub ranges: Input<'a>,
    pub tiles: Input<'a>,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub scale: f32,
    pub window: u32,
    pub softcap: f32,
}

impl Kernel<13> for AttentionForward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "attention_forward";

    fn parameters(self) -> [Parameter; 13] {
        [
            self.q.into(),
            self.k.into(),
            self.v.into(),
            self.y.into(),
            self.lse.into(),
            self.ranges.into(),
            self.tiles.into(),
            self.heads.into(),
            self.kv_heads.into(),
            self.head_dim.into(),
            self.scale.into(),
            self.window.into(),
            self.softcap.into(),
        ]
    }
}

/// Parameters of `attention_keys_backward`. Variants: `f32_32`, `f32_64`, `f32_128`, `f32_256`, `bf16_32`, `bf16_64`, `bf16_128`, `bf16_256`.
#[derive(Debug)]
pub(super) struct AttentionKeysBackward<'a> {
    pub dy: Input<'a>,
    pub lse: Input<'a>,
    pub q: Input<'a>,
    pub k: Input<'a>,
    pub v: Input<'a>,
    pub delta: Input<'a>,
    pub dk: Output<'a>,
    pub dv: Output<'a>,
    pub ranges: Input<'a>,
    pub tiles: Input<'a>,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub scale: f32,
    pub window: u32,
    pub softcap: f32,
}

impl Kernel<16> for AttentionKeysBackward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "attention_keys_backward";

    fn parameters(self) -> [Parameter; 16] {
        [
            self.dy.into(),
            self.lse.into(),
            self.q.into(),
            self.k.into(),
            self.v.into(),
            self.delta.into(),
            self.dk.into(),
            self.dv.into(),
            self.ranges.into(),
            self.tiles.into(),
            self.heads.into(),
            self.kv_heads.into(),
            self.head_dim.into(),
            self.scale.into(),
            self.window.into(),
            self.softcap.into(),
        ]
    }
}

/// Parameters of `attention_queries_backward`. Variants: `f32_32`, `f32_64`, `f32_128`, `f32_256`, `bf16_32`, `bf16_64`, `bf16_128`, `bf16_256`.
#[derive(Debug)]
pub(super) struct AttentionQueriesBackward<'a> {
    pub dy: Input<'a>,
    pub y: Input<'a>,
    pub lse: Input<'a>,
    pub q: Input<'a>,
    pub k: Input<'a>,
    pub v: Input<'a>,
    pub delta: Output<'a>,
    pub dq: Output<'a>,
    pub ranges: Input<'a>,
    pub tiles: Input<'a>,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub scale: f32,
    pub window: u32,
    pub softcap: f32,
}

impl Kernel<16> for AttentionQueriesBackward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "attention_queries_backward";

    fn parameters(self) -> [Parameter; 16] {
        [
            self.dy.into(),
            self.y.into(),
            self.lse.into(),
            self.q.into(),
            self.k.into(),
            self.v.into(),
            self.delta.into(),
            self.dq.into(),
            self.ranges.into(),
            self.tiles.into(),
            self.heads.into(),
            self.kv_heads.into(),
            self.head_dim.into(),
            self.scale.into(),
            self.window.into(),
            self.softcap.into(),
        ]
    }
}
