//! `cudarc`'s calls against the stand-in: results are right, and every mistake is refused.
use cudarc::cublaslt::{
    result::{self, CublasError},
    sys::{
        self, cublasLtMatmulDescAttributes_t as Attribute,
        cublasLtMatmulPreferenceAttributes_t as Preferred, cublasStatus_t as Status,
        cudaDataType_t as Type,
    },
};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use std::{
    ptr,
    sync::{Arc, OnceLock},
};

type Outcome = Result<(), CublasError>;

fn context() -> &'static Arc<CudaContext> {
    static CONTEXT: OnceLock<Arc<CudaContext>> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let this = std::env::current_exe().unwrap();
        for library in ["libcuda_emulator.so", "libcublaslt_emulator.so"] {
            // SAFETY: our own libraries; they have no initialisers.
            let library = unsafe { libloading::Library::new(this.with_file_name(library)) };
            std::mem::forget(library.unwrap());
        }
        let context = CudaContext::new(0).unwrap();
        // SAFETY: every test orders its streams itself, or tests that it does not.
        unsafe { context.disable_event_tracking() };
        context
    })
}

/// A column-major matrix: type, rows, columns, stride.
type Shape = (Type, u64, u64, i64);

/// One product of f32, with everything that may be wrong with it.
#[derive(Clone)]
struct Call {
    a: Shape,
    b: Shape,
    c: Shape,
    d: Shape,
    transposed: [i32; 2],
    bias: Option<u64>,
    /// Number of elements of A's allocation before A.
    offset: u64,
    alignment: Option<u32>,
    workspace: usize,
    given_workspace: usize,
    alpha: f32,
    beta: f32,
    algorithm_of: Option<Shape>,
    allocated: [usize; 3],
}

fn f32s(rows: u64, columns: u64, stride: i64) -> Shape {
    (Type::CUDA_R_32F, rows, columns, stride)
}

impl Call {
    /// `[2, 3] · [3, 4]` with gaps between columns.
    fn new() -> Self {
        Self {
            a: f32s(2, 3, 5),
            b: f32s(3, 4, 4),
            c: f32s(2, 4, 3),
            d: f32s(2, 4, 3),
            transposed: [0; 2],
            bias: None,
            offset: 0,
            alignment: None,
            workspace: 4096,
            given_workspace: 4096,
            alpha: 2.0,
            beta: 0.5,
            algorithm_of: None,
            allocated: [12, 15, 11],
        }
    }

    /// Matrices that hold 1, 2, 3, … in memory order; returns that of D.
    fn run(&self, stream: &Arc<CudaStream>) -> Result<Vec<f32>, CublasError> {
        let counted = |len: usize| (1..=len).map(|i| i as f32).collect::<Vec<f32>>();
        let memory = self.allocated.map(|len| stream.clone_htod(&counted(len)));
        let [a, b, d] = memory.map(Result::unwrap);
        let workspace = stream.alloc_zeros::<u8>(4096).unwrap();
        let mut places = [&a, &b, &d].map(|slice| slice.device_ptr(stream).0);
        places[0] += 4 * self.offset;
        self.issue(places, workspace.device_ptr(stream).0, stream)?;
        Ok(stream.clone_dtoh(&d).unwrap())
    }

    fn issue(&self, [a, b, d]: [u64; 3], workspace: u64, stream: &Arc<CudaStream>) -> Outcome {
        let layout =
            |(of, rows, columns, stride)| result::create_matrix_layout(of, rows, columns, stride);
        let library = result::create_handle()?;
        let description = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            Type::CUDA_R_32F,
        )?;
        let set = |attribute, value: *const u64, bytes| {
            // SAFETY: the description is alive, and so is the value.
            unsafe {
                result::set_matmul_desc_attribute(description, attribute, value.cast(), bytes)
            }
        };
        let [first, second] = self.transposed.map(|t| t as u64);
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &first, 4)?;
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &second, 4)?;
        if let Some(bias) = self.bias {
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &4, 4)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, 8)?;
        }
        let preference = result::create_matmul_pref()?;
        let prefer = |attribute, value: *const u64, bytes| {
            // SAFETY: the preference is alive, and so is the value.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, value.cast(), bytes) }
        };
        let bytes = self.workspace as u64;
        prefer(
            Preferred::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &bytes,
            8,
        )?;
        if let Some(alignment) = self.alignment {
            let alignment = u64::from(alignment);
            prefer(
                Preferred::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                &alignment,
                4,
            )?;
        }
        let (a_layout, b_layout) = (layout(self.a)?, layout(self.b)?);
        let (c_layout, d_layout) = (layout(self.c)?, layout(self.d)?);
        // SAFETY: everything is alive until the end of this function.
        let outcome = unsafe {
            let chosen = |a_layout| {
                result::get_matmul_algo_heuristic(
                    library,
                    description,
                    a_layout,
                    b_layout,
                    c_layout,
                    d_layout,
                    preference,
                )
            };
            let chosen = match self.algorithm_of {
                Some(other) => chosen(layout(other)?)?,
                None => chosen(a_layout)?,
            };
            result::matmul(
                library,
                description,
                ptr::from_ref(&self.alpha).cast(),
                ptr::from_ref(&self.beta).cast(),
                a as *const _,
                a_layout,
                b as *const _,
                b_layout,
                d as *const _,
                c_layout,
                d as *mut _,
                d_layout,
                &chosen.algo,
                workspace as *mut _,
                self.given_workspace,
                stream.cu_stream().cast(),
            )
        };
        // SAFETY: the objects are alive and no longer used; destroying twice is refused.
        unsafe {
            for layout in [a_layout, b_layout, c_layout, d_layout] {
                result::destroy_matrix_layout(layout)?;
            }
            assert!(result::destroy_matrix_layout(a_layout).is_err());
            result::destroy_matmul_desc(description)?;
            assert!(result::destroy_handle(preference.cast()).is_err());
            result::destroy_matmul_pref(preference)?;
            result::destroy_handle(library)?;
        }
        outcome
    }
}

#[test]
fn a_product_is_computed_and_gaps_stay() {
    let stream = context().new_stream().unwrap();
    let d = Call::new().run(&stream).unwrap();
    // A = [1 6 11; 2 7 12], B = [1 5 9 13; 2 6 10 14; 3 7 11 15], D before = [1 4 7 10; 2 5 8 11].
    let product = |i: usize, j: usize| -> f32 {
        (0..3)
            .map(|p| (1 + i + 5 * p) as f32 * (1 + p + 4 * j) as f32)
            .sum()
    };
    for (at, value) in d.iter().enumerate() {
        let (i, j, before) = (at % 3, at / 3, (at + 1) as f32);
        let expected = match i {
            2 => before,
            _ => 2.0 * product(i, j) + 0.5 * before,
        };
        assert_eq!(*value, expected, "[{i}, {j}]");
    }
}

#[track_caller]
fn refused(status: Status, change: impl FnOnce(&mut Call)) {
    let stream = context().new_stream().unwrap();
    let mut call = Call::new();
    change(&mut call);
    assert_eq!(call.run(&stream), Err(CublasError(status)));
}

#[test]
fn layouts_that_do_not_fit_are_refused() {
    let invalid = Status::CUBLAS_STATUS_INVALID_VALUE;
    refused(invalid, |call| call.a = f32s(2, 4, 2));
    refused(invalid, |call| call.b = f32s(2, 4, 4));
    refused(invalid, |call| call.transposed = [1, 0]);
    refused(invalid, |call| {
        call.c = f32s(2, 5, 3);
        call.d = call.c;
    });
    refused(invalid, |call| call.a = f32s(2, 3, 1));
    refused(invalid, |call| call.a = f32s(0, 3, 2));
    let not_served = Status::CUBLAS_STATUS_NOT_SUPPORTED;
    refused(not_served, |call| call.c = f32s(2, 4, 2));
    refused(not_served, |call| {
        call.a = (Type::CUDA_R_16F, 2, 3, 5);
    });
    refused(not_served, |call| {
        call.a = (Type::CUDA_R_64F, 2, 3, 5);
    });
    refused(not_served, |call| call.transposed = [2, 0]);
}

#[test]
fn workspaces_alignments_and_algorithms_are_checked() {
    let invalid = Status::CUBLAS_STATUS_INVALID_VALUE;
    refused(Status::CUBLAS_STATUS_NOT_SUPPORTED, |call| {
        call.workspace = 100;
    });
    refused(invalid, |call| call.given_workspace = 100);
    refused(invalid, |call| {
        // Less than the default alignment.
        call.allocated[0] += 1;
        call.offset = 1;
    });
    refused(invalid, |call| call.alignment = Some(12));
    // Columns begin at multiples of 4 bytes instead of 16.
    refused(invalid, |call| call.algorithm_of = Some(f32s(2, 3, 8)));
    let mut call = Call::new();
    call.allocated[0] += 1;
    call.offset = 1;
    call.alignment = Some(4);
    call.run(&context().new_stream().unwrap()).unwrap();
}

#[test]
fn what_the_emulator_finds_fails() {
    let failed = Status::CUBLAS_STATUS_EXECUTION_FAILED;
    for i in 0..3 {
        refused(failed, |call| call.allocated[i] -= 1);
    }
    // A bias of two elements, beyond the end of everything.
    refused(failed, |call| call.bias = Some(4096));
    let stream = context().new_stream().unwrap();
    // SAFETY: the test checks whether the memory may be read.
    let unwritten = unsafe { stream.alloc::<f32>(15) }.unwrap();
    let filled = stream.clone_htod(&[1f32; 15]).unwrap();
    let output = stream.clone_htod(&[1f32; 15]).unwrap();
    let workspace = stream.alloc_zeros::<u8>(4096).unwrap();
    let at = |slice: &CudaSlice<f32>| slice.device_ptr(&stream).0;
    let workspace = workspace.device_ptr(&stream).0;
    let call = Call::new();
    let issue = |a, b, d| call.issue([a, b, d], workspace, &stream).map_err(|e| e.0);
    let (unwritten, filled, output) = (at(&unwritten), at(&filled), at(&output));
    assert_eq!(issue(filled, filled, output), Ok(()));
    assert_eq!(issue(unwritten, filled, output), Err(failed));
    let invalid = Status::CUBLAS_STATUS_INVALID_VALUE;
    assert_eq!(issue(filled, output, output), Err(invalid));
    assert_eq!(issue(filled, filled, 0), Err(invalid));
    assert_eq!(issue(filled, workspace, output), Err(invalid));
    // Without beta, the old contents are never read, whether they were written or not.
    let mut call = Call::new();
    call.beta = 0.0;
    let issue = |d| call.issue([filled, filled, d], workspace, &stream);
    issue(unwritten).unwrap();
}

#[test]
fn a_product_is_ordered_by_its_stream_alone() {
    let (first, second) = (
        context().new_stream().unwrap(),
        context().new_stream().unwrap(),
    );
    let filled = first.clone_htod(&[1f32; 15]).unwrap();
    let output = first.clone_htod(&[1f32; 15]).unwrap();
    let workspace = first.alloc_zeros::<u8>(4096).unwrap();
    let at = |slice: &CudaSlice<f32>| slice.device_ptr(&first).0;
    let places = [at(&filled), at(&filled), at(&output)];
    let workspace = workspace.device_ptr(&first).0;
    let call = Call::new();
    let failed = CublasError(Status::CUBLAS_STATUS_EXECUTION_FAILED);
    assert_eq!(call.issue(places, workspace, &second), Err(failed));
    let event = first.record_event(None).unwrap();
    second.wait(&event).unwrap();
    call.issue(places, workspace, &second).unwrap();
    // Now the first stream does not know what the second wrote.
    assert!(first.clone_dtoh(&output).is_err());
    second.synchronize().unwrap();
}
