//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::cuda::{Input, Kernel, Module, Output, Parameter};

/// The kernels and their PTX.
pub(super) static MODULE: Module = Module {
    name: module_path!(),
    ptx: include_str!("kernel.ptx"),
    kernels: &[
        "embedding_forward_f32_f32_u32",
        "embedding_forward_bf16_f32_u32",
        "embedding_forward_f16_f32_u32",
        "embedding_backward_f32_u32",
        "embedding_forward_f32_f32_u64",
        "embedding_forward_bf16_f32_u64",
        "embedding_forward_f16_f32_u64",
        "embedding_backward_f32_u64",
        "embedding_forward_f32_bf16_u32",
        "embedding_forward_bf16_bf16_u32",
        "embedding_forward_f16_bf16_u32",
        "embedding_backward_bf16_u32",
        "embedding_forward_f32_bf16_u64",
        "embedding_forward_bf16_bf16_u64",
        "embedding_forward_f16_bf16_u64",
        "embedding_backward_bf16_u64",
        "embedding_count_ids",
        "embedding_sum_counts",
        "embedding_order_tokens",
    ],
};

/// Parameters of `embedding_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`.
#[derive(Debug)]
pub(super) struct EmbeddingBackward<'a> {
    pub ids: Input<'a>,
    pub order: Input<'a>,
    pub dy: Input<'a>,
    pub scale: f32,
    pub dtable: Output<'a>,
    pub tokens: u32,
    pub hidden: u64,
}

impl Kernel<7> for EmbeddingBackward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "embedding_backward";

    fn parameters(self) -> [Parameter; 7] {
        [
            self.ids.into(),
            self.order.into(),
            self.dy.into(),
            self.scale.into(),
            self.dtable.into(),
            self.tokens.into(),
            self.hidden.into(),
        ]
    }
}

/// Parameters of `embedding_count_ids`. Variants: ``.
#[derive(Debug)]
pub(super) struct EmbeddingCountIds<'a> {
    pub ids: Input<'a>,
    pub order: Input<'a>,
    pub counts: Output<'a>,
    pub tokens: u32,
    pub vocabulary: u64,
    pub tile: u32,
    pub tiles: u32,
    pub shift: u32,
}

impl Kernel<8> for EmbeddingCountIds<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "embedding_count_ids";

    fn parameters(self) -> [Parameter; 8] {
        [
            self.ids.into(),
            self.order.into(),
            self.counts.into(),
            self.tokens.into(),
            self.vocabulary.into(),
            self.tile.into(),
            self.tiles.into(),
            self.shift.into(),
        ]
    }
}

/// Parameters of `embedding_forward`. Variants: `f32_f32_u32`, `bf16_f32_u32`, `f16_f32_u32`, `f32_f32_u64`, `bf16_f32_u64`, `f16_f32_u64`, `f32_bf16_u32`, `bf16_bf16_u32`, `f16_bf16_u32`, `f32_bf16_u64`, `bf16_bf16_u64`, `f16_bf16_u64`.
#[derive(Debug)]
pub(super) struct EmbeddingForward<'a> {
    pub ids: Input<'a>,
    pub table: Input<'a>,
    pub scale: f32,
    pub y: Output<'a>,
    pub tokens: u64,
    pub vocabulary: u64,
    pub hidden: u64,
}

impl Kernel<7> for EmbeddingForward<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "embedding_forward";

    fn parameters(self) -> [Parameter; 7] {
        [
            self.ids.into(),
            self.table.into(),
            self.scale.into(),
            self.y.into(),
            self.tokens.into(),
            self.vocabulary.into(),
            self.hidden.into(),
        ]
    }
}

/// Parameters of `embedding_order_tokens`. Variants: ``.
#[derive(Debug)]
pub(super) struct EmbeddingOrderTokens<'a> {
    pub ids: Input<'a>,
    pub order: Input<'a>,
    pub places: Input<'a>,
    pub sorted: Output<'a>,
    pub tokens: u32,
    pub vocabulary: u64,
    pub tile: u32,
    pub tiles: u32,
    pub shift: u32,
}

impl Kernel<9> for EmbeddingOrderTokens<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "embedding_order_tokens";

    fn parameters(self) -> [Parameter; 9] {
        [
            self.ids.into(),
            self.order.into(),
            self.places.into(),
            self.sorted.into(),
            self.tokens.into(),
            self.vocabulary.into(),
            self.tile.into(),
            self.tiles.into(),
            self.shift.into(),
        ]
    }
}

/// Parameters of `embedding_sum_counts`. Variants: ``.
#[derive(Debug)]
pub(super) struct EmbeddingSumCounts<'a> {
    pub counts: Output<'a>,
    pub entries: u32,
}

impl Kernel<2> for EmbeddingSumCounts<'_> {
    const MODULE: &'static Module = &MODULE;
    const OPERATION: &'static str = "embedding_sum_counts";

    fn parameters(self) -> [Parameter; 2] {
        [self.counts.into(), self.entries.into()]
    }
}
