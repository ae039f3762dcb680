//! The heuristic, and the algorithms that it returns.
use crate::descriptors::{self, Handle, Layout, Operation, Preference, Type};
use crate::pointers::put;
use crate::status::{Code, INVALID_VALUE, NOT_SUPPORTED, api, refuse};
use std::ffi::c_int;

/// Size in bytes of the working memory that every algorithm requests.
const WORKSPACE: u64 = 1024;
const MARK: u64 = 0x7469_6768_7472_6f70;
/// Reduction scheme: parts of a sum are f32 and are added in order.
const COMPUTE_TYPE: u32 = 2;

/// `cublasLtMatmulAlgo_t`: this version holds the product that the algorithm was chosen for.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Algorithm {
    mark: u64,
    /// Number of terms that are summed before they are added to the rest.
    pub terms: u64,
    pub workspace: u64,
    /// Alignments of A, B, C and D in bytes.
    pub alignment: [u32; 4],
    /// Hash of the types, transpositions and alignments of columns.
    kind: u64,
    unused: [u64; 2],
}

/// `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
pub(crate) struct Choice {
    algorithm: Algorithm,
    workspace: usize,
    state: Code,
    waves: f32,
    reserved: [c_int; 4],
}

/// A product with layouts that fit each other: `D[m,n] = A[m,k] · B[k,n]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem {
    pub operation: Operation,
    pub a: Layout,
    pub b: Layout,
    pub d: Layout,
    pub k: u64,
}

impl Problem {
    /// The product that the descriptors describe, if it is valid and supported.
    pub(crate) fn of(operation: Handle, layouts: [Handle; 4]) -> Result<Self, Code> {
        let operation = descriptors::operation(operation)?;
        let [a, b, c, d] = layouts.map(descriptors::layout);
        let (a, b, c, d) = (a?, b?, c?, d?);
        let size = |layout: Layout, is_transposed| match is_transposed {
            false => (layout.rows, layout.columns),
            true => (layout.columns, layout.rows),
        };
        let (m, k) = size(a, operation.is_transposed[0]);
        let (inner, n) = size(b, operation.is_transposed[1]);
        if inner != k || (d.rows, d.columns) != (m, n) {
            return refuse(
                INVALID_VALUE,
                format_args!("[{m}, {k}] · [{inner}, {n}] is not {d:?}"),
            );
        }
        if c != d {
            return refuse(NOT_SUPPORTED, "C and D have different layouts");
        }
        if a.of != b.of || (d.of != Type::F32 && d.of != a.of) {
            return refuse(
                NOT_SUPPORTED,
                format_args!("{:?} · {:?} into {:?}", a.of, b.of, d.of),
            );
        }
        Ok(Self {
            operation,
            a,
            b,
            d,
            k,
        })
    }

    /// Properties, apart from sizes, that an algorithm is made for.
    fn kind(&self) -> u64 {
        let Self {
            operation, a, b, d, ..
        } = self;
        // Vector loads need columns that begin at multiples of up to 16 bytes.
        let alignment = |layout: &Layout| {
            let bytes = layout.stride * layout.of.bytes();
            1 << bytes.trailing_zeros().min(4)
        };
        [
            a.of as u64,
            d.of as u64,
            u64::from(operation.is_transposed[0]),
            u64::from(operation.is_transposed[1]),
            u64::from(operation.has_bias),
            alignment(a),
            alignment(b),
            alignment(d),
        ]
        .into_iter()
        .fold(0, mixed)
    }

    /// Algorithms differ for every size, like those of the library.
    fn choose(&self, preference: Preference) -> Result<Algorithm, Code> {
        if preference.workspace < WORKSPACE {
            return refuse(NOT_SUPPORTED, "less workspace than algorithms need");
        }
        let hash = [self.d.rows, self.d.columns, self.k]
            .into_iter()
            .fold(0, mixed);
        let terms = match preference.reductions & COMPUTE_TYPE {
            0 => u64::MAX,
            _ => 4 << (hash >> 60),
        };
        Ok(Algorithm {
            mark: MARK,
            terms: terms.min(self.k),
            workspace: WORKSPACE,
            alignment: preference.alignment,
            kind: self.kind(),
            unused: [0; 2],
        })
    }

    /// Whether the algorithm was chosen for this product.
    pub(crate) fn accepts(&self, algorithm: &Algorithm) -> Result<(), Code> {
        if algorithm.mark != MARK || algorithm.kind != self.kind() {
            return refuse(
                INVALID_VALUE,
                "the algorithm was chosen for other types, layouts or epilogues",
            );
        }
        // This is not worth a message, because callers try algorithms.
        if algorithm.terms > self.k {
            return Err(NOT_SUPPORTED);
        }
        Ok(())
    }
}

fn mixed(hash: u64, value: u64) -> u64 {
    let z = (hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

api! {
    fn cublasLtMatmulAlgoGetHeuristic(
        library: Handle, operation: Handle, a: Handle, b: Handle, c: Handle, d: Handle,
        preference: Handle, wanted: c_int, out: *mut Choice, found: *mut c_int,
    ) {
        descriptors::library(library)?;
        if wanted < 1 {
            return refuse(INVALID_VALUE, format_args!("{wanted} algorithms are wanted"));
        }
        let problem = Problem::of(operation, [a, b, c, d])?;
        let algorithm = problem.choose(descriptors::preference(preference)?)?;
        put(out, Choice {
            algorithm,
            workspace: algorithm.workspace as usize,
            state: 0,
            waves: 1.0,
            reserved: [0; 4],
        })?;
        put(found, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_library() {
        use cudarc::cublaslt::sys;
        assert_eq!(
            size_of::<Algorithm>(),
            size_of::<sys::cublasLtMatmulAlgo_t>()
        );
        type Result = sys::cublasLtMatmulHeuristicResult_t;
        assert_eq!(size_of::<Choice>(), size_of::<Result>());
        assert_eq!(
            std::mem::offset_of!(Choice, workspace),
            std::mem::offset_of!(Result, workspaceSize)
        );
        assert_eq!(
            std::mem::offset_of!(Choice, state),
            std::mem::offset_of!(Result, state)
        );
    }
}
