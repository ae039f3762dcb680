//! Launches of the kernels in kernel.cu. Written by `cargo xtask ptx`; changes are lost.

use tightrope_device::{
    DeviceError,
    cuda::{Cuda, Input, Launch, Module, Output},
};

/// The kernels and their PTX.
pub const MODULE: Module = Module {
    ptx: include_str!("kernel.ptx"),
    kernels: &["sum_of_squares_chunks", "sum_of_squares_total"],
};

/// Parameters of `sum_of_squares_chunks`. Variants: ``.
#[derive(Debug)]
pub struct SumOfSquaresChunks<'a> {
    pub table: Input<'a>,
    pub tensors: u64,
    pub chunk: u64,
    pub sums: Output<'a>,
}

impl SumOfSquaresChunks<'_> {
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
            self.table.into(),
            self.tensors.into(),
            self.chunk.into(),
            self.sums.into(),
        ];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe {
            cuda.launch(
                &MODULE,
                "sum_of_squares_chunks",
                variant,
                launch,
                parameters,
            )
        }
    }
}

/// Parameters of `sum_of_squares_total`. Variants: ``.
#[derive(Debug)]
pub struct SumOfSquaresTotal<'a> {
    pub sums: Output<'a>,
    pub chunks: u64,
}

impl SumOfSquaresTotal<'_> {
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
        let parameters = [self.sums.into(), self.chunks.into()];
        // SAFETY: the fields are the kernel's parameters, in order; the caller answers for them.
        unsafe { cuda.launch(&MODULE, "sum_of_squares_total", variant, launch, parameters) }
    }
}
