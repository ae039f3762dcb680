//! Results of the driver API, and the codes of findings.
use crate::pointers::put;
use std::ffi::{CStr, c_char};
use tightrope_emulator::{EmulatorError, Finding, FindingKind};

/// `CUresult`.
pub(crate) type Code = i32;
/// Every call ends in `Ok` or in an error code.
pub(crate) type Status = Result<(), Code>;

pub(crate) const INVALID_VALUE: Code = 1;
pub(crate) const OUT_OF_MEMORY: Code = 2;
pub(crate) const INVALID_DEVICE: Code = 101;
pub(crate) const INVALID_PTX: Code = 218;
pub(crate) const INVALID_HANDLE: Code = 400;
pub(crate) const NOT_FOUND: Code = 500;
pub(crate) const NOT_READY: Code = 600;
pub(crate) const ILLEGAL_ADDRESS: Code = 700;
pub(crate) const ASSERT: Code = 710;
pub(crate) const MISALIGNED_ADDRESS: Code = 716;
pub(crate) const LAUNCH_FAILED: Code = 719;
pub(crate) const NOT_SUPPORTED: Code = 801;

const NAMES: [(Code, &CStr, &CStr); 13] = [
    (0, c"CUDA_SUCCESS", c"no error"),
    (
        INVALID_VALUE,
        c"CUDA_ERROR_INVALID_VALUE",
        c"invalid argument",
    ),
    (OUT_OF_MEMORY, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
    (
        INVALID_DEVICE,
        c"CUDA_ERROR_INVALID_DEVICE",
        c"invalid device ordinal",
    ),
    (
        INVALID_PTX,
        c"CUDA_ERROR_INVALID_PTX",
        c"the emulator refuses the PTX: see its message",
    ),
    (
        INVALID_HANDLE,
        c"CUDA_ERROR_INVALID_HANDLE",
        c"invalid resource handle",
    ),
    (
        NOT_FOUND,
        c"CUDA_ERROR_NOT_FOUND",
        c"named symbol not found",
    ),
    (NOT_READY, c"CUDA_ERROR_NOT_READY", c"device not ready"),
    (
        ILLEGAL_ADDRESS,
        c"CUDA_ERROR_ILLEGAL_ADDRESS",
        c"the emulator found an illegal access: see its message",
    ),
    (
        ASSERT,
        c"CUDA_ERROR_ASSERT",
        c"device-side assertion or trap",
    ),
    (
        MISALIGNED_ADDRESS,
        c"CUDA_ERROR_MISALIGNED_ADDRESS",
        c"misaligned address",
    ),
    (
        LAUNCH_FAILED,
        c"CUDA_ERROR_LAUNCH_FAILED",
        c"the emulator found a mistake: see its message",
    ),
    (
        NOT_SUPPORTED,
        c"CUDA_ERROR_NOT_SUPPORTED",
        c"not modelled by the emulator",
    ),
];

/// Prints the finding; the code only tells its kind.
pub(crate) fn report(finding: &Finding) -> Code {
    eprintln!("emulator: {finding}");
    match finding.kind {
        FindingKind::OutOfBounds | FindingKind::UseAfterFree | FindingKind::ReadOnly => {
            ILLEGAL_ADDRESS
        }
        FindingKind::Misaligned => MISALIGNED_ADDRESS,
        FindingKind::Trap => ASSERT,
        _ => LAUNCH_FAILED,
    }
}

/// Prints the reason why a request was refused.
pub(crate) fn refuse(error: &EmulatorError) -> Code {
    eprintln!("emulator: {error}");
    match error {
        EmulatorError::Ptx(_) => INVALID_PTX,
        EmulatorError::NoSuchKernel(_) => NOT_FOUND,
        EmulatorError::OutOfMemory(_) | EmulatorError::TooMany(_) => OUT_OF_MEMORY,
        _ => INVALID_VALUE,
    }
}

/// Defines functions of the driver API with the C calling convention, and converts `Status` to a
/// code.
macro_rules! api {
    ($(fn $name:ident($($argument:ident: $t:ty),* $(,)?) $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of the CUDA driver API.")]
        #[unsafe(no_mangle)]
        #[allow(unreachable_pub, reason = "the dynamic loader finds it by its name")]
        pub extern "C" fn $name($($argument: $t),*) -> $crate::status::Code {
            let call = || -> $crate::status::Status { $body };
            match call() {
                Ok(()) => 0,
                Err(code) => code,
            }
        }
    )*};
}
pub(crate) use api;

fn name(code: Code) -> Result<&'static (Code, &'static CStr, &'static CStr), Code> {
    NAMES
        .iter()
        .find(|(known, ..)| *known == code)
        .ok_or(INVALID_VALUE)
}

api! {
    fn cuGetErrorName(code: Code, out: *mut *const c_char) {
        put(out, name(code)?.1.as_ptr())
    }
    fn cuGetErrorString(code: Code, out: *mut *const c_char) {
        put(out, name(code)?.2.as_ptr())
    }
}
