//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
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
        "embedding_forward_f32_f16_u32",
        "embedding_forward_bf16_f16_u32",
        "embedding_forward_f16_f16_u32",
        "embedding_backward_f16_u32",
        "embedding_forward_f32_f16_u64",
        "embedding_forward_bf16_f16_u64",
        "embedding_forward_f16_f16_u64",
        "embedding_backward_f16_u64",
        "embedding_count_ids",
        "embedding_sum_counts",
        "embedding_order_tokens",
    ],
};

/// Parameters of `embedding_backward`. Variants: `f32_u32`, `f32_u64`, `bf16_u32`, `bf16_u64`, `f16_u32`, `f16_u64`.
#[derive(Debug)]
pub struct EmbeddingBackward<'a> {
    pub ids: Input<'a>,
    pub order: Input<'a>,
    pub dy: Input<'a>,
    pub scale: f32,
    pub dtable: Output<'a>,
    pub tokens: u32,
    pub hidden: u64,
}

impl EmbeddingBackward<'_> {
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
            self.ids.into(),
            self.order.into(),
            self.dy.into(),
            self.scale.into(),
            self.dtable.into(),
            self.tokens.into(),
            self.hidden.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "embedding_backward", variant, launch, parameters) }
    }
}

/// Parameters of `embedding_count_ids`. Variants: ``.
#[derive(Debug)]
pub struct EmbeddingCountIds<'a> {
    pub ids: Input<'a>,
    pub order: Input<'a>,
    pub counts: Output<'a>,
    pub tokens: u32,
    pub vocabulary: u64,
    pub tile: u32,
    pub tiles: u32,
    pub shift: u32,
}

impl EmbeddingCountIds<'_> {
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
            self.ids.into(),
            self.order.into(),
            self.counts.into(),
            self.tokens.into(),
            self.vocabulary.into(),
            self.tile.into(),
            self.tiles.into(),
            self.shift.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "embedding_count_ids", variant, launch, parameters) }
    }
}

/// Parameters of `embedding_forward`. Variants: `f32_f32_u32`, `bf16_f32_u32`, `f16_f32_u32`, `f32_f32_u64`, `bf16_f32_u64`, `f16_f32_u64`, `f32_bf16_u32`, `bf16_bf16_u32`, `f16_bf16_u32`, `f32_bf16_u64`, `bf16_bf16_u64`, `f16_bf16_u64`, `f32_f16_u32`, `bf16_f16_u32`, `f16_f16_u32`, `f32_f16_u64`, `bf16_f16_u64`, `f16_f16_u64`.
#[derive(Debug)]
pub struct EmbeddingForward<'a> {
    pub ids: Input<'a>,
    pub table: Input<'a>,
    pub scale: f32,
    pub y: Output<'a>,
    pub tokens: u64,
    pub vocabulary: u64,
    pub hidden: u64,
}

impl EmbeddingForward<'_> {
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
            self.ids.into(),
            self.table.into(),
            self.scale.into(),
            self.y.into(),
            self.tokens.into(),
            self.vocabulary.into(),
            self.hidden.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "embedding_forward", variant, launch, parameters) }
    }
}

/// Parameters of `embedding_order_tokens`. Variants: ``.
#[derive(Debug)]
pub struct EmbeddingOrderTokens<'a> {
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

impl EmbeddingOrderTokens<'_> {
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
            self.ids.into(),
            self.order.into(),
            self.places.into(),
            self.sorted.into(),
            self.tokens.into(),
            self.vocabulary.into(),
            self.tile.into(),
            self.tiles.into(),
            self.shift.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe {
            cuda.launch(
                &MODULE,
                "embedding_order_tokens",
                variant,
                launch,
                parameters,
            )
        }
    }
}

/// Parameters of `embedding_sum_counts`. Variants: ``.
#[derive(Debug)]
pub struct EmbeddingSumCounts<'a> {
    pub counts: Output<'a>,
    pub entries: u32,
}

impl EmbeddingSumCounts<'_> {
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
        let parameters = [self.counts.into(), self.entries.into()];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "embedding_sum_counts", variant, launch, parameters) }
    }
}
