//! Linear layers on the CPU: everything is a matrix product, and the second factor of the adapter
//! is a further term of the base product.

use super::dropout::{Dropped, Mask};
use super::{BackwardInput, BackwardWeights, Forward, Linear, Shape, Weight};
use crate::{
    Checked, KernelError,
    cpu::matmul::{
        self, Base, Gate, Matrix, Operand, Output, Rows, Term, Through, product, product_through,
    },
    nf4,
};
use tightrope_device::Cpu;

/// Rows of a weight.
fn stored(weight: Weight<'_, Cpu>, inputs: usize) -> Result<matmul::Weight<'_>, KernelError> {
    match weight {
        Weight::Float(weight) => matmul::Weight::new("weight", weight, inputs),
        Weight::Nf4(weight) => Ok(matmul::Weight::Nf4(nf4::HostRows::new(weight, inputs)?)),
    }
}

impl Linear for Cpu {
    fn linear_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let Forward {
            x,
            weight,
            factor,
            bias,
            lora,
            y,
            shape,
        } = args.on(self)?;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let x = Matrix::new(x.as_slice::<f32>()?, inputs);
        let weight = stored(weight, inputs)?;
        let base = Term {
            a: Operand::Rows(&x),
            b: Operand::Rows(weight.rows()),
            k: inputs,
            alpha: factor,
            gate: None,
        };
        let bias = match bias {
            Some(bias) => Base::Bias(bias.as_slice::<f32>()?),
            None => Base::Zero,
        };
        let output = Output::rows(y.into_slice::<f32>()?, outputs);
        let Some(lora) = lora else {
            product(self, (tokens, outputs), &[base], bias, output)?;
            return Ok(());
        };
        let rank = lora.a.shape()[0];
        let a = Matrix::new(lora.a.as_slice::<f32>()?, inputs);
        let b = Matrix::new(lora.b.as_slice::<f32>()?, rank);
        let xa = lora.xa.into_slice::<f32>()?;
        let mask = Mask::new(&lora.dropout, tokens)?;
        let dropped = mask.as_ref().map(|mask| Dropped { x, mask });
        let through = Through {
            rows: dropped.as_ref().map(|dropped| Operand::Rows(dropped)),
            down: Operand::Rows(&a),
            up: Operand::Rows(&b),
            rank,
            scale: lora.scale,
            gate: None,
        };
        product_through(self, (tokens, outputs), base, through, bias, xa, output)
    }

    fn linear_backward_input(
        &self,
        args: Checked<BackwardInput<'_, Self>>,
    ) -> Result<(), KernelError> {
        let BackwardInput {
            dy,
            weight,
            factor,
            lora,
            dx,
            accumulate,
            shape,
        } = args.on(self)?;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let dy = Matrix::new(dy.as_slice::<f32>()?, outputs);
        let weight = stored(weight, inputs)?;
        let base = Term {
            a: Operand::Rows(&dy),
            b: Operand::Columns(weight.rows()),
            k: outputs,
            alpha: factor,
            gate: None,
        };
        let start = if accumulate { Base::Output } else { Base::Zero };
        let Some(lora) = lora else {
            if let Some(dx) = dx {
                let output = Output::rows(dx.into_slice::<f32>()?, inputs);
                product(self, (tokens, inputs), &[base], start, output)?;
            }
            return Ok(());
        };
        let rank = lora.a.shape()[0];
        let a = Matrix::new(lora.a.as_slice::<f32>()?, inputs);
        let b = Matrix::new(lora.b.as_slice::<f32>()?, rank);
        let dyb = lora.dyb.into_slice::<f32>()?;
        let Some(dx) = dx else {
            let down = Term {
                b: Operand::Columns(&b),
                alpha: 1.0,
                ..base
            };
            let into = Output::rows(dyb, rank);
            return product(self, (tokens, rank), &[down], Base::Zero, into);
        };
        let mask = Mask::new(&lora.dropout, tokens)?;
        let through = Through {
            rows: None,
            down: Operand::Columns(&b),
            up: Operand::Columns(&a),
            rank,
            scale: lora.scale,
            gate: mask.as_ref().map(|mask| mask as &dyn Gate),
        };
        let output = Output::rows(dx.into_slice::<f32>()?, inputs);
        product_through(self, (tokens, inputs), base, through, start, dyb, output)
    }

    fn linear_backward_weights(
        &self,
        args: Checked<BackwardWeights<'_, Self>>,
    ) -> Result<(), KernelError> {
        let BackwardWeights {
            x,
            dy,
            dweight,
            factor,
            dbias,
            lora,
            shape,
        } = args.on(self)?;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let x = Matrix::new(x.as_slice::<f32>()?, inputs);
        let dy_matrix = Matrix::new(dy.as_slice::<f32>()?, outputs);
        let over_tokens = |a, b, alpha| Term {
            a: Operand::Columns(a),
            b: Operand::Columns(b),
            k: tokens,
            alpha,
            gate: None,
        };
        if let Some(dweight) = dweight {
            let output = Output::rows(dweight.into_slice::<f32>()?, inputs);
            let term = over_tokens(&dy_matrix, &x, factor);
            product(self, (outputs, inputs), &[term], Base::Output, output)?;
        }
        if let Some(dbias) = dbias {
            add_rows(dbias.into_slice::<f32>()?, dy_matrix.data, tokens);
        }
        let Some(lora) = lora else {
            return Ok(());
        };
        let rank = lora.da.shape()[0];
        let mask = Mask::new(&lora.dropout, tokens)?;
        let dropped = mask.as_ref().map(|mask| Dropped { x, mask });
        let x: &dyn Rows = match &dropped {
            Some(dropped) => dropped,
            None => &x,
        };
        let dyb = Matrix::new(lora.dyb.as_slice::<f32>()?, rank);
        let term = over_tokens(&dyb, x, lora.scale);
        let da = Output::rows(lora.da.into_slice::<f32>()?, inputs);
        product(self, (rank, inputs), &[term], Base::Output, da)?;
        // Transposed, so that the operand that costs more to pack is the narrow one.
        let xa = Matrix::new(lora.xa.as_slice::<f32>()?, rank);
        let term = over_tokens(&xa, &dy_matrix, lora.scale);
        let db = Output::columns(lora.db.into_slice::<f32>()?, rank);
        product(self, (rank, outputs), &[term], Base::Output, db)?;
        Ok(())
    }
}

/// Adds `sum[j] += Σ_t rows[t, j]`, with the sum in f64 and in the order of the rows.
fn add_rows(sum: &mut [f32], rows: &[f32], tokens: usize) {
    let width = sum.len();
    let mut total = [0f64; 64];
    for (block, sum) in sum.chunks_mut(total.len()).enumerate() {
        let total = &mut total[..sum.len()];
        total.fill(0.0);
        for t in 0..tokens {
            let row = &rows[t * width + block * 64..][..sum.len()];
            for (total, &value) in total.iter_mut().zip(row) {
                *total += f64::from(value);
            }
        }
        for (sum, &total) in sum.iter_mut().zip(total.iter()) {
            *sum = (f64::from(*sum) + total) as f32;
        }
    }
}
