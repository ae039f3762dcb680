//! Matrix products on NVIDIA GPUs, through cuBLASLt.

use super::{Args, Product};
use crate::{Checked, KernelError, cast::Converted};
use tightrope_device::{
    Cuda,
    cuda::{Matrix, MatrixMut, Product as Matmul, Varying},
};

impl Product for Cuda {
    fn product(&self, args: Checked<Args<'_, Self>>) -> Result<(), KernelError> {
        let Args {
            a,
            b,
            c,
            accumulate,
            alpha,
            m,
            n,
            k,
        } = args.on(self)?;
        let dtype = a.elements.dtype();
        let converted = Converted::new(self, b.elements, k * n, dtype)?;
        Ok(self.matmul(Matmul {
            a: match a.transposed {
                false => Matrix::of(a.elements, k),
                true => Matrix::of(a.elements, m).transposed(),
            },
            b: match b.transposed {
                false => converted.matrix(n),
                true => converted.matrix(k).transposed(),
            },
            c: MatrixMut::of(c, n),
            bias: None,
            m,
            n,
            k,
            alpha,
            accumulate,
            varying: Varying::Rows,
        })?)
    }
}
