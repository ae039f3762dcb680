//! The elementwise parts of Muon on NVIDIA GPUs.

use super::{
    AddToDiagonal, Factors, Momentum, Muon,
    kernel::{MuonAddToDiagonal, MuonMomentum},
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda,
    cuda::{Launch, Output},
};

const THREADS: u32 = 256;
/// Number of elements per thread.
const VECTOR: usize = 4;

impl Muon for Cuda {
    fn muon_momentum(&self, args: Checked<Momentum<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let elements = args.weight.len();
        let factors = Factors::new(&args.hyperparameters);
        let kernel = MuonMomentum {
            weight: Output::of(args.weight),
            gradient: Output::of(args.gradient),
            m: Output::of(args.m),
            gradient_scale: factors.gradient,
            keep: factors.keep,
            blend: factors.blend,
            ahead: factors.ahead,
            elements: elements as u64,
        };
        let variant = [self.index_width(elements).suffix()];
        let launch = Launch::linear(elements.div_ceil(THREADS as usize * VECTOR), THREADS)?;
        // SAFETY: the check of the arguments proved the number of elements of each operand; all are
        // borrowed exclusively.
        Ok(unsafe { self.launch(kernel, &variant, launch) }?)
    }

    fn muon_add_to_diagonal(
        &self,
        args: Checked<AddToDiagonal<'_, Self>>,
    ) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let kernel = MuonAddToDiagonal {
            matrix: Output::of(args.matrix),
            number: args.number,
            rows: args.rows as u64,
        };
        let launch = Launch::linear(args.rows.div_ceil(THREADS as usize), THREADS)?;
        // SAFETY: the check of the arguments proved the number of elements; the matrix is borrowed
        // exclusively.
        Ok(unsafe { self.launch(kernel, &[], launch) }?)
    }
}
