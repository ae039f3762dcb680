//! Unmodified `cudarc` code against the stand-in. Each program runs in a separate process, which
//! finds the stand-in through `LD_LIBRARY_PATH`.
use cudarc::driver::{CudaContext, CudaSlice, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::Ptx;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

type Outcome = Result<(), Box<dyn Error>>;

/// `y[i] = a · x[i] + y[i]`, and a copy of shared memory larger than 48 KiB.
const PTX: &str = include_str!("axpy.ptx");

/// Runs `program` in a child process with the stand-in on its library path, and returns the child's
/// standard error; returns `None` in the child itself.
fn in_child(name: &str, program: fn() -> Outcome) -> Option<String> {
    if std::env::var("EMULATOR_CHILD").is_ok_and(|child| child == name) {
        program().unwrap_or_else(|error| panic!("{error}"));
        return None;
    }
    let this = std::env::current_exe().expect("the path of this test");
    let built: PathBuf = this.with_file_name("libcuda_emulator.so");
    assert!(built.exists(), "{} is not built", built.display());
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::os::unix::fs::symlink(&built, folder.path().join("libcuda.so")).expect("a link");
    let output = Command::new(&this)
        .args([name, "--exact", "--nocapture"])
        .env("EMULATOR_CHILD", name)
        .env("LD_LIBRARY_PATH", folder.path())
        .env(
            "TIGHTROPE_EMULATOR_REPORT",
            folder.path().join("report.tsv"),
        )
        .output()
        .expect("a child process");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{}\n{errors}",
        String::from_utf8_lossy(&output.stdout)
    );
    if let Ok(report) = std::fs::read_to_string(folder.path().join("report.tsv")) {
        assert!(
            report.lines().all(|line| line.contains("load_sectors")),
            "{report}"
        );
    }
    Some(errors)
}

fn context() -> Result<Arc<CudaContext>, Box<dyn Error>> {
    // SAFETY: opens the library that the path leads to, and closes it again.
    let is_present = unsafe { sys::is_culib_present() };
    assert!(is_present, "the stand-in is not found");
    Ok(CudaContext::new(0)?)
}

#[test]
fn computes() {
    in_child("computes", || {
        let context = context()?;
        assert_eq!(context.name()?, "Tightrope PTX emulator");
        assert_eq!(context.compute_capability()?, (8, 0));
        let stream = context.default_stream();
        let module = context.load_module(Ptx::from_src(PTX))?;
        let axpy = module.load_function("axpy")?;
        for n in [1u32, 255, 256, 1000] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let dx = stream.clone_htod(&x)?;
            let mut dy = stream.alloc_zeros::<f32>(n as usize)?;
            let config = LaunchConfig::for_num_elems(n);
            for _ in 0..2 {
                let mut launch = stream.launch_builder(&axpy);
                launch.arg(&dx).arg(&mut dy).arg(&2.5f32).arg(&n);
                // SAFETY: the arguments are those of the kernel.
                unsafe { launch.launch(config) }?;
            }
            let y = stream.clone_dtoh(&dy)?;
            assert!(y.iter().zip(&x).all(|(y, x)| *y == 5.0 * x));
        }
        assert!(module.load_function("nothing").is_err());
        Ok(())
    });
}

#[test]
fn reports_mistakes() {
    let printed = in_child("reports_mistakes", || {
        let context = context()?;
        let stream = context.default_stream();
        let axpy = context
            .load_module(Ptx::from_src(PTX))?
            .load_function("axpy")?;
        let x = stream.clone_htod(&vec![1f32; 100])?;
        let mut y = stream.alloc_zeros::<f32>(100)?;
        let mut launch = stream.launch_builder(&axpy);
        launch.arg(&x).arg(&mut y).arg(&1f32).arg(&101u32);
        // SAFETY: one element too many, which the emulator refuses to touch.
        let error = unsafe { launch.launch(LaunchConfig::for_num_elems(101)) }.unwrap_err();
        assert_eq!(error.0, sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert!(context.load_module(Ptx::from_src("nonsense")).is_err());
        // SAFETY: no code that trusts the memory reads it.
        let unwritten: CudaSlice<f32> = unsafe { stream.alloc(4)? };
        assert!(stream.clone_dtoh(&unwritten).is_err());
        Ok(())
    });
    let Some(errors) = printed else { return };
    for part in [
        "OutOfBounds",
        "kernel axpy, block [0, 0, 0], thread [100, 0, 0], PTX line",
        "UninitialisedRead",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

/// Two streams: with `cudarc`'s own events between them, and without.
#[test]
fn finds_missing_dependencies() {
    let printed = in_child("finds_missing_dependencies", || {
        let context = context()?;
        let (first, second) = (context.new_stream()?, context.new_stream()?);
        let tracked = first.clone_htod(&vec![1f32; 64])?;
        assert_eq!(second.clone_dtoh(&tracked)?, vec![1f32; 64]);
        first.synchronize()?;
        second.synchronize()?;
        // SAFETY: from here on the program orders its streams itself, or tests that it does not.
        unsafe { context.disable_event_tracking() };
        let untracked = first.clone_htod(&vec![1f32; 64])?;
        assert!(second.clone_dtoh(&untracked).is_err());
        let event = first.record_event(None)?;
        second.wait(&event)?;
        assert_eq!(second.clone_dtoh(&untracked)?, vec![1f32; 64]);
        let another = first.clone_htod(&vec![2f32; 64])?;
        first.synchronize()?;
        assert_eq!(second.clone_dtoh(&another)?, vec![2f32; 64]);
        second.synchronize()?;
        Ok(())
    });
    let Some(errors) = printed else { return };
    assert_eq!(errors.matches("MissingDependency").count(), 1, "{errors}");
}

#[test]
fn shared_memory_needs_opting_in() {
    in_child("shared_memory_needs_opting_in", || {
        let context = context()?;
        let stream = context.default_stream();
        let fill = context
            .load_module(Ptx::from_src(PTX))?
            .load_function("fill_shared")?;
        let mut out = stream.alloc_zeros::<u32>(1)?;
        let config = LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (32, 1, 1),
            shared_mem_bytes: 64 * 1024,
        };
        let mut attempt = || {
            let mut launch = stream.launch_builder(&fill);
            launch.arg(&mut out).arg(&(64 * 1024 - 4u32));
            // SAFETY: the arguments are those of the kernel.
            unsafe { launch.launch(config) }.map(drop)
        };
        assert!(attempt().is_err());
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MOST;
        fill.set_attribute(MOST, 64 * 1024)?;
        attempt()?;
        assert_eq!(stream.clone_dtoh(&out)?, [7]);
        Ok(())
    });
}
