//! Orthogonalises a matrix through the device's products, and adds it to a weight.

use super::{AddToDiagonal, Muon};
use crate::{
    Check, KernelError,
    check::Operands,
    product::{Args, Matrix, MatrixMut, Product, Start},
};
use tightrope_device::{DType, Device, Scratch, View, ViewMut};

/// Coefficients a, b, c of a step `X ← aX + b(XXᵀ)X + c(XXᵀ)²X` (Jordan et al., 2024). They make the
/// slope at zero large; singular values come near 1, not to 1.
pub const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
/// Smallest norm that a matrix is divided by.
const EPS: f64 = 1e-7;

/// `weight += rate · orthogonalised(direction)`: `X = direction / max(norm, 1e-7)`, then `steps`
/// steps of the iteration with [`COEFFICIENTS`].
#[derive(Debug)]
pub struct Orthogonalize<'a, D: Device> {
    /// Added into, f32 `[rows, columns]`.
    pub weight: ViewMut<'a, D>,
    /// f32 `[rows, columns]`.
    pub direction: View<'a, D>,
    /// Frobenius norm of the direction.
    pub norm: f64,
    /// Factor of the result.
    pub rate: f64,
    /// Number of steps; at least 1.
    pub steps: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
}

impl<D: Device> Check for Orthogonalize<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let shape = [self.rows, self.columns];
        operands.at_least("weight", self.weight.as_view(), DType::F32, &shape)?;
        operands.at_least("direction", self.direction, DType::F32, &shape)?;
        if self.steps == 0 {
            return Err(KernelError::Value {
                operand: "steps",
                value: 0.0,
                rule: "must be at least 1",
            });
        }
        Ok(())
    }
}

/// Adds an orthogonalised direction to a weight. Products are computed in f32 on every device.
///
/// With the Gram matrix `G` of the shorter side, a step is `X ← (aI + bG + cG²)X`. Completing the
/// square, `aI + bG + cG² = c(G + b/2c·I)² + (a − b²/4c)I`: three products and two diagonals for a
/// step, and no copy of a matrix. The norm is divided out by the factors of the first products, and
/// the last product adds into the weight.
pub fn orthogonalize<D: Product + Muon>(args: Orthogonalize<'_, D>) -> Result<(), KernelError> {
    args.check()?;
    let Orthogonalize {
        mut weight,
        direction,
        norm,
        rate,
        steps,
        rows,
        columns,
    } = args;
    let (short, long) = (rows.min(columns), rows.max(columns));
    if short == 0 {
        return Ok(());
    }
    let device = direction.device();
    let (a, b, c) = COEFFICIENTS;
    let tall = rows > columns;
    let square = [short, short];
    let mut gram = device.scratch(DType::F32, &square)?;
    let mut polynomial = device.scratch(DType::F32, &square)?;
    // What the step before wrote, and what the one before that wrote.
    let (mut x, mut spare): (Option<Scratch<'_, D>>, Option<Scratch<'_, D>>) = (None, None);
    for step in 0..steps {
        let source = x.as_ref().map_or(direction, |x| x.view());
        let scale = match step {
            0 => 1.0 / norm.max(EPS),
            _ => 1.0,
        };
        let stored = Matrix::rows(source, columns);
        let by_long = match tall {
            false => stored,
            true => stored.transposed(),
        };
        let into = MatrixMut::rows(gram.view_mut(), short);
        let sizes = (short, short, long);
        multiply(
            device,
            by_long,
            by_long.transposed(),
            into,
            sizes,
            scale * scale,
        )?;
        add_to_diagonal(device, gram.view_mut(), short, b / (2.0 * c))?;
        let shifted = Matrix::rows(gram.view(), short);
        let into = MatrixMut::rows(polynomial.view_mut(), short);
        multiply(device, shifted, shifted, into, (short, short, short), c)?;
        add_to_diagonal(device, polynomial.view_mut(), short, a - b * b / (4.0 * c))?;

        // The polynomial is symmetric: from the right it is multiplied by rows of the transpose.
        let symmetric = Matrix::rows(polynomial.view(), short);
        let (left, right, sizes) = match tall {
            false => (symmetric, stored, (short, long, short)),
            true => (stored, symmetric, (long, short, short)),
        };
        if step + 1 == steps {
            let into = MatrixMut::rows(weight.reborrow(), columns);
            let product = Args {
                alpha: (scale * rate) as f32,
                start: Start::Result,
                ..Args::new(left, right, into, sizes)
            };
            device.product(product.checked()?)?;
        } else {
            let mut target = match spare.take() {
                Some(spare) => spare,
                None => device.scratch(DType::F32, &[rows, columns])?,
            };
            let into = MatrixMut::rows(target.view_mut(), columns);
            multiply(device, left, right, into, sizes, scale)?;
            spare = x.replace(target);
        }
    }
    Ok(())
}

/// `c = alpha · a·b`.
fn multiply<D: Product>(
    device: &D,
    a: Matrix<'_, D>,
    b: Matrix<'_, D>,
    c: MatrixMut<'_, D>,
    sizes: (usize, usize, usize),
    alpha: f64,
) -> Result<(), KernelError> {
    let product = Args {
        alpha: alpha as f32,
        ..Args::new(a, b, c, sizes)
    };
    device.product(product.checked()?)
}

fn add_to_diagonal<D: Muon>(
    device: &D,
    matrix: ViewMut<'_, D>,
    rows: usize,
    number: f64,
) -> Result<(), KernelError> {
    let args = AddToDiagonal {
        matrix,
        rows,
        number: number as f32,
    };
    device.muon_add_to_diagonal(args.checked()?)
}
