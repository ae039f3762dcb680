//! Handle, descriptors and algorithms of cuBLASLt.

use super::{Matrix, Product, stored};
use crate::{Cuda, DType, DeviceError};
use cudarc::cublaslt::{
    result::{self, CublasError},
    sys::{
        self, cublasLtEpilogue_t, cublasLtMatmulAlgo_t,
        cublasLtMatmulDescAttributes_t as Attribute,
        cublasLtMatmulPreferenceAttributes_t as Preferred, cudaDataType_t,
    },
};
use std::{collections::HashMap, ffi::c_void, ptr};

/// Working memory that an algorithm may use. The size is fixed, because the choice of the algorithm
/// depends on it.
const WORKSPACE: usize = 32 << 20;

/// Properties of a product that decide which algorithm is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    /// `m`, `n` and `k`.
    pub sizes: [usize; 3],
    /// Number of elements from one row to the next.
    pub rows: [usize; 3],
    pub is_transposed: [bool; 2],
    /// Types of the operands and of the result.
    pub types: [DType; 2],
    /// Alignment in bytes.
    pub alignment: [u32; 3],
    pub has_bias: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Algorithm {
    algorithm: cublasLtMatmulAlgo_t,
    /// Size of the working memory in bytes.
    pub workspace: usize,
}

/// A handle of the library, with the algorithms chosen so far.
pub(crate) struct Blas {
    pub(super) handle: sys::cublasLtHandle_t,
    algorithms: HashMap<Problem, Algorithm>,
}

// SAFETY: the handle may be used from any thread.
unsafe impl Send for Blas {}

impl Blas {
    pub(super) fn new() -> Result<Self, DeviceError> {
        let error = |reason| DeviceError::Cuda {
            what: "cuBLASLt".into(),
            reason,
        };
        // This is checked before any call, because the bindings panic if there is no library.
        if !Cuda::has_blas() {
            return Err(error(
                "no libcublasLt was found; is CUDA's cuBLAS on the library path?".into(),
            ));
        }
        Ok(Self {
            handle: result::create_handle().map_err(|code| error(code.to_string()))?,
            algorithms: HashMap::new(),
        })
    }

    pub(super) fn algorithm(&mut self, problem: Problem) -> Result<Algorithm, CublasError> {
        if let Some(known) = self.algorithms.get(&problem) {
            return Ok(*known);
        }
        let call = Call::new(problem, None)?;
        let preference = Preference::new(problem)?;
        let [a, b, c] = call.layouts();
        // SAFETY: the handle and every descriptor are alive.
        let chosen = unsafe {
            result::get_matmul_algo_heuristic(
                self.handle,
                call.description.0,
                b,
                a,
                c,
                c,
                preference.0,
            )
        }?;
        let algorithm = Algorithm {
            algorithm: chosen.algo,
            workspace: chosen.workspaceSize,
        };
        self.algorithms.insert(problem, algorithm);
        Ok(algorithm)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: `new` created the handle, and nothing uses it any more. An error has no remedy.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

fn data_type(dtype: DType) -> cudaDataType_t {
    match dtype {
        DType::BF16 => cudaDataType_t::CUDA_R_16BF,
        _ => cudaDataType_t::CUDA_R_32F,
    }
}

struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    /// Layout of a row-major matrix; the library sees its transpose, which is column-major.
    fn new(dtype: DType, (rows, columns): (usize, usize), row: usize) -> Result<Self, CublasError> {
        // The stride of a single row does not matter, but the library checks it.
        let row = row.max(columns);
        result::create_matrix_layout(data_type(dtype), columns as u64, rows as u64, row as i64)
            .map(Self)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: `new` created the layout, and nothing uses it any more. An error has no remedy.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<(), CublasError> {
        let value: *const T = value;
        // SAFETY: the layout is alive, and so is the value during the call.
        unsafe {
            result::set_matmul_desc_attribute(self.0, attribute, value.cast(), size_of::<T>())
        }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: `new` created the descriptor, and nothing uses it any more. An error has no
        // remedy.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(problem: Problem) -> Result<Self, CublasError> {
        let this = Self(result::create_matmul_pref()?);
        this.set(
            Preferred::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &(WORKSPACE as u64),
        )?;
        // Allows undivided sums, and parts in f32 that are added in order.
        this.set(
            Preferred::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            &(sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32),
        )?;
        let [a, b, c] = problem.alignment;
        this.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &b)?;
        this.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &a)?;
        this.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c)?;
        this.set(Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c)?;
        Ok(this)
    }

    fn set<T>(&self, attribute: Preferred, value: &T) -> Result<(), CublasError> {
        let value: *const T = value;
        // SAFETY: the preference is alive, and so is the value during the call.
        unsafe {
            result::set_matmul_pref_attribute(self.0, attribute, value.cast(), size_of::<T>())
        }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: `new` created the preference, and nothing uses it any more. An error has no
        // remedy.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

/// A product as the library sees it: `cᵀ = bᵀ · aᵀ`, with column-major matrices.
pub(super) struct Call {
    description: Description,
    a: Layout,
    b: Layout,
    c: Layout,
}

impl Call {
    pub(super) fn new(problem: Problem, bias: Option<Matrix<'_>>) -> Result<Self, CublasError> {
        let [m, n, k] = problem.sizes;
        let [operands, result] = problem.types;
        let [a_row, b_row, c_row] = problem.rows;
        let [a_transposed, b_transposed] = problem.is_transposed;
        let description = Description(result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cudaDataType_t::CUDA_R_32F,
        )?);
        description.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &i32::from(b_transposed),
        )?;
        description.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &i32::from(a_transposed),
        )?;
        if problem.has_bias {
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        }
        if let Some(bias) = bias {
            let pointer = bias.address();
            description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &pointer)?;
        }
        Ok(Self {
            description,
            a: Layout::new(operands, stored(a_transposed, m, k), a_row)?,
            b: Layout::new(operands, stored(b_transposed, k, n), b_row)?,
            c: Layout::new(result, (m, n), c_row)?,
        })
    }

    fn layouts(&self) -> [sys::cublasLtMatrixLayout_t; 3] {
        [self.a.0, self.b.0, self.c.0]
    }

    /// # Safety
    /// Every matrix and the bias lie in memory that is alive.
    pub(super) unsafe fn issue(
        &self,
        device: &Cuda,
        handle: sys::cublasLtHandle_t,
        product: &Product<'_>,
        algorithm: Algorithm,
        workspace: u64,
    ) -> Result<(), CublasError> {
        let at = |matrix: &Matrix<'_>| matrix.address() as *mut c_void;
        let (a, b, result) = (&product.a, &product.b, at(&product.c.shared()));
        let beta: f32 = if product.accumulate { 1.0 } else { 0.0 };
        // SAFETY: the descriptors are alive; both factors are read before the call returns; the
        // caller answers for the memory.
        unsafe {
            result::matmul(
                handle,
                self.description.0,
                ptr::from_ref(&product.alpha).cast(),
                ptr::from_ref(&beta).cast(),
                at(b),
                self.b.0,
                at(a),
                self.a.0,
                result,
                self.c.0,
                result,
                self.c.0,
                &algorithm.algorithm,
                workspace as *mut c_void,
                algorithm.workspace,
                device.shared.stream.cu_stream().cast(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        // Nothing in this program loads the stand-in library.
        match Blas::new() {
            Ok(_) => assert!(Cuda::has_blas()),
            Err(error) => assert!(error.to_string().contains("libcublasLt"), "{error}"),
        }
    }
}
