//! Kernels and their parameters.

use super::{Cuda, failed};
use crate::{DType, DeviceError, View, ViewMut};
use cudarc::driver::{result, sys};
use std::{ffi::c_void, marker::PhantomData};

/// The committed PTX of one operation and the kernels in it. Written by `cargo xtask ptx`.
#[derive(Debug)]
pub struct Module {
    /// Path of the operation, which identifies the module.
    pub name: &'static str,
    /// The PTX that the driver translates.
    pub ptx: &'static str,
    /// Names of the kernels: operation, then variant.
    pub kernels: &'static [&'static str],
}

/// Grid and block of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Number of blocks along x, y and z. Nothing is launched if one of them is 0.
    pub grid: [u32; 3],
    /// Number of threads in a block along x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

impl Launch {
    /// `blocks` blocks of `threads` threads along x, without dynamic shared memory. Returns an
    /// error if a grid cannot have so many blocks.
    pub fn linear(blocks: usize, threads: u32) -> Result<Self, DeviceError> {
        let blocks = i32::try_from(blocks).map_err(|_| DeviceError::Cuda {
            what: "grid".into(),
            reason: format!("{blocks} blocks, and there can be {}", i32::MAX),
        })?;
        Ok(Self {
            grid: [blocks.unsigned_abs(), 1, 1],
            block: [threads, 1, 1],
            shared_bytes: 0,
        })
    }

    /// Adds dynamic shared memory for each block.
    #[must_use]
    pub fn shared(self, bytes: usize) -> Self {
        // The driver refuses sizes that no GPU has.
        let shared_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            shared_bytes,
            ..self
        }
    }
}

/// Number of elements in an access: 16 bytes if all of these sizes are multiples of that, else 1
/// element.
pub fn vector_width(dtype: DType, sizes: &[usize]) -> usize {
    let width = 16 / dtype.size();
    let fits = sizes.iter().all(|size| size.is_multiple_of(width));
    if fits { width } else { 1 }
}

/// Memory that a kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(u64, PhantomData<&'a ()>);

impl<'a> Input<'a> {
    /// A null pointer, for an absent operand.
    pub const NONE: Self = Self(0, PhantomData);

    /// Pointer to the elements of a view.
    pub fn of(view: View<'a, Cuda>) -> Self {
        Self(view.as_ptr().addr() as u64, PhantomData)
    }
}

/// Memory that a kernel writes.
#[derive(Debug)]
pub struct Output<'a>(u64, PhantomData<&'a mut ()>);

impl<'a> Output<'a> {
    /// A null pointer, for an absent operand.
    pub const NONE: Self = Self(0, PhantomData);

    /// Pointer to the elements of a view.
    pub fn of(mut view: ViewMut<'a, Cuda>) -> Self {
        Self(view.as_mut_ptr().addr() as u64, PhantomData)
    }
}

/// One parameter in the form that a kernel receives: its bytes, from the lowest address on.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Parameter([u8; 8]);

macro_rules! parameter {
    ($($type:ty),*) => {$(
        impl From<$type> for Parameter {
            fn from(value: $type) -> Self {
                let mut bytes = [0; 8];
                bytes[..size_of::<$type>()].copy_from_slice(&value.to_ne_bytes());
                Self(bytes)
            }
        }
    )*};
}
parameter!(u32, i32, u64, f32, f64);

impl From<Input<'_>> for Parameter {
    fn from(value: Input<'_>) -> Self {
        value.0.into()
    }
}

impl From<Output<'_>> for Parameter {
    fn from(value: Output<'_>) -> Self {
        value.0.into()
    }
}

/// A kernel and its parameters. `cargo xtask ptx` writes one implementation for each kernel of a
/// `.cu` file.
pub trait Kernel<const N: usize> {
    /// Module of the kernel.
    const MODULE: &'static Module;
    /// Name of the operation, with which its symbols begin.
    const OPERATION: &'static str;

    /// Parameters of the kernel, in order.
    fn parameters(self) -> [Parameter; N];
}

impl Module {
    /// Symbol of the kernel `operation_variant`; underscores join the parts of the variant.
    fn kernel(&self, operation: &str, variant: &[&str]) -> Option<&'static str> {
        let is_it = |name: &str| {
            let rest = variant
                .iter()
                .try_fold(name.strip_prefix(operation)?, |rest, part| {
                    rest.strip_prefix('_')?.strip_prefix(part)
                })?;
            rest.is_empty().then_some(())
        };
        let mut kernels = self.kernels.iter().copied();
        kernels.find(|name| is_it(name).is_some())
    }
}

impl Cuda {
    /// Issues a kernel. Returns an error if there is no such variant, or if the driver reports one.
    ///
    /// # Safety
    /// The parameters must be those of the kernel, in order. Pointers must point to memory of this
    /// device that is alive, with as many elements of the variant's type as the sizes of the
    /// kernel's source require.
    pub unsafe fn launch<K: Kernel<N>, const N: usize>(
        &self,
        kernel: K,
        variant: &[&str],
        launch: Launch,
    ) -> Result<(), DeviceError> {
        let (module, operation) = (K::MODULE, K::OPERATION);
        let mut parameters = kernel.parameters();
        let Some(symbol) = module.kernel(operation, variant) else {
            return Err(DeviceError::NoKernel {
                operation,
                variant: variant.join("_"),
            });
        };
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let function = self.function(module, symbol)?;
        let failed = |error| failed(symbol, &error);
        self.shared.context.bind_to_thread().map_err(failed)?;
        if launch.shared_bytes > 48 * 1024 {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared_bytes).unwrap_or(i32::MAX);
            function
                .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)
                .map_err(failed)?;
        }
        let mut pointers = parameters
            .each_mut()
            .map(|parameter| std::ptr::from_mut(parameter).cast::<c_void>());
        // SAFETY: the function lives as long as its module, which `self` holds; the caller answers
        // for the parameters, each of which is copied from eight bytes before the call returns.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                launch.grid.into(),
                launch.block.into(),
                launch.shared_bytes,
                self.shared.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_operation_and_variant() {
        let module = Module {
            name: "norm",
            ptx: "",
            kernels: &["norm_forward_f32", "norm_forward_f32_u64", "norm_forward"],
        };
        let find = |variant: &[&str]| module.kernel("norm_forward", variant);
        assert_eq!(find(&["f32"]), Some("norm_forward_f32"));
        assert_eq!(find(&["f32", "u64"]), Some("norm_forward_f32_u64"));
        assert_eq!(find(&[]), Some("norm_forward"));
        assert_eq!(find(&["bf16"]), None);
        assert_eq!(find(&["f3"]), None);
    }

    #[test]
    fn a_grid_has_at_most_so_many_blocks() {
        assert_eq!(Launch::linear(7, 32).unwrap().grid, [7, 1, 1]);
        assert!(Launch::linear(1 << 31, 32).is_err());
    }

    #[test]
    fn accesses_have_16_bytes_where_every_size_allows() {
        assert_eq!(vector_width(DType::BF16, &[64, 8]), 8);
        assert_eq!(vector_width(DType::F32, &[64, 4]), 4);
        assert_eq!(vector_width(DType::BF16, &[64, 4]), 1);
        assert_eq!(vector_width(DType::U8, &[]), 16);
    }

    #[test]
    fn parameters_start_at_the_lowest_address() {
        let bytes = |parameter: Parameter| parameter.0;
        assert_eq!(bytes(7u32.into())[..4], 7u32.to_ne_bytes());
        assert_eq!(bytes(1.5f32.into())[..4], 1.5f32.to_ne_bytes());
        assert_eq!(bytes((1u64 << 40).into()), (1u64 << 40).to_ne_bytes());
    }
}
