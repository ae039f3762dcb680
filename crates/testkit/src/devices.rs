//! The GPU for tests: the emulator, or with `TIGHTROPE_TEST_CUDA=hardware` a real GPU.

use half::{bf16, f16};
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tightrope_device::{Cpu, Cuda, DType, Device, Tensor};

/// Returns one handle for the whole test program.
///
/// Without `TIGHTROPE_TEST_CUDA=hardware`, the stand-ins for the driver and for cuBLASLt are loaded
/// from the build folder first; every later search for `libcuda.so` and `libcublasLt.so` finds
/// them.
///
/// Panics if neither is available.
pub fn cuda() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(|| {
        if is_emulated() {
            load(&built("libcuda_emulator.so"));
            load(&built("libcublaslt_emulator.so"));
        }
        Cuda::new(0).expect("a GPU, emulated or not")
    })
}

/// The processor in every way to multiply bf16: in vectors of f32, in vectors of pairs, and on its
/// matrix unit. Ways that it lacks are left out.
pub fn cpus(threads: usize) -> Vec<Cpu> {
    let best = Cpu::new(threads).expect("threads");
    let vectors = best.without_amx();
    let mut all = vec![vectors.without_avx512_bf16()];
    all.extend(vectors.with_avx512_bf16());
    if best.has_amx() {
        all.push(best);
    }
    all
}

/// The same GPU with small limits ([`Cuda::with_small_limits`]), so that small operands take
/// several chunks and blocks.
pub fn cuda_with_small_limits() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(|| cuda().with_small_limits())
}

/// Makes a folder in which the loader finds the stand-ins under the names of the real libraries: a
/// program with this folder as `LD_LIBRARY_PATH` has a GPU.
pub fn link_libraries(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    for (name, stand_in) in [
        ("libcuda.so", "libcuda_emulator.so"),
        ("libcublasLt.so", "libcublaslt_emulator.so"),
    ] {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(built(stand_in), link).expect("a link");
        }
    }
}

/// Whether this machine has a driver; valid before the first call of [`cuda`].
pub fn has_driver() -> bool {
    Cuda::has_driver()
}

/// Whether [`cuda`] is the emulator, on which large shapes would take too long.
pub fn is_emulated() -> bool {
    !std::env::var("TIGHTROPE_TEST_CUDA").is_ok_and(|value| value == "hardware")
}

/// Relative error of one rounding to `dtype`, a floating-point type.
pub fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    }
}

/// Largest error of one rounding of `value` to `dtype`, whose smallest numbers have fewer bits.
pub fn rounding(dtype: DType, value: f64) -> f64 {
    let smallest = match dtype {
        DType::F16 => 2f64.powi(-25),
        DType::BF16 => 2f64.powi(-134),
        _ => 2f64.powi(-150),
    };
    (unit(dtype) * value.abs()).max(smallest)
}

/// Nearest numbers of `dtype`, a floating-point type.
pub fn rounded(values: &[f32], dtype: DType) -> Vec<f32> {
    let round = |&value: &f32| match dtype {
        DType::F16 => f16::from_f32(value).to_f32(),
        DType::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    };
    values.iter().map(round).collect()
}

/// A tensor of a floating-point type with these values, rounded.
pub fn tensor<D: Device>(device: &D, dtype: DType, shape: &[usize], values: &[f32]) -> Tensor<D> {
    let tensor = match dtype {
        DType::F16 => {
            let values: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            Tensor::from_slice(device, shape, &values)
        }
        DType::BF16 => {
            let values: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            Tensor::from_slice(device, shape, &values)
        }
        _ => Tensor::from_slice(device, shape, values),
    };
    tensor.expect("a tensor")
}

/// Cargo puts shared libraries beside the test programs.
fn built(library: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    this.with_file_name(library)
}

fn load(path: &Path) {
    // SAFETY: this is our own library, which has no initialisers.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // The library stays loaded for the rest of the program.
    std::mem::forget(library);
}
