//! The elementwise parts of Muon on the CPU.

use super::{AddToDiagonal, Factors, Momentum, Muon};
use crate::{Checked, KernelError, cpu::block_rows};
use tightrope_device::{Cpu, rows, vectorize};

impl Muon for Cpu {
    fn muon_momentum(&self, args: Checked<Momentum<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let factors = Factors::new(&args.hyperparameters);
        let elements = args.weight.len();
        let parts = (
            rows(args.weight.into_slice()?, 1),
            rows(&mut args.gradient.into_slice::<f32>()?[..elements], 1),
            rows(&mut args.m.into_slice::<f32>()?[..elements], 1),
        );
        self.for_each_block(elements, block_rows(1), parts, |_, _, (weight, g, m)| {
            momentum(weight.slice, g.slice, m.slice, factors);
        });
        Ok(())
    }

    fn muon_add_to_diagonal(
        &self,
        args: Checked<AddToDiagonal<'_, Self>>,
    ) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let (rows, number) = (args.rows, args.number);
        let matrix = &mut args.matrix.into_slice::<f32>()?[..rows * rows];
        for element in matrix.iter_mut().step_by(rows + 1) {
            *element += number;
        }
        Ok(())
    }
}

vectorize! {
    fn momentum(weight: &mut [f32], gradient: &mut [f32], m: &mut [f32], f: Factors) {
        for ((weight, g), m) in weight.iter_mut().zip(gradient).zip(m) {
            f.step(weight, g, m);
        }
    }
}
