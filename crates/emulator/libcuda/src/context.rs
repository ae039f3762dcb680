//! Devices and contexts: there is one device and one context.
use crate::driver::{Handle, driver};
use crate::pointers::put;
use crate::status::{Code, INVALID_DEVICE, INVALID_VALUE, NOT_SUPPORTED, api};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint};

/// Size of device memory: `TIGHTROPE_EMULATOR_MEMORY` in GiB, or 80.
pub(crate) fn memory_bytes() -> u64 {
    let asked = std::env::var("TIGHTROPE_EMULATOR_MEMORY")
        .ok()
        .and_then(|text| text.parse().ok());
    asked.unwrap_or(80u64) << 30
}

const CONTEXT: u64 = 0x100;
const NAME: &[u8] = b"Tightrope PTX emulator\0";

thread_local!(static CURRENT: Cell<Handle> = const { Cell::new(std::ptr::null_mut()) });

/// Attributes of the device: those of compute capability 8.0, as far as a kernel depends on them.
fn attribute(number: c_int) -> Result<c_int, Code> {
    Ok(match number {
        1..=3 => 1024,    // threads per block; block x, y
        4 => 64,          // block z
        5 => i32::MAX,    // grid x
        6 | 7 => 65535,   // grid y, z
        8 => 48 * 1024,   // shared memory per block
        9 => 64 * 1024,   // constant memory
        10 => 32,         // warp size
        12 | 82 => 65536, // registers per block, multiprocessor
        13 => 1_410_000,  // clock in kHz
        16 => 108,        // multiprocessors
        31 => 1,          // concurrent kernels
        36 => 1_593_000,  // memory clock in kHz
        37 => 5120,       // memory bus width
        38 => 40 << 20,   // L2 bytes
        39 => 2048,       // threads per multiprocessor
        41 => 1,          // unified addressing
        75 => 8,          // compute capability
        76 => 0,
        81 => 164 * 1024,        // shared memory per multiprocessor
        97 => 163 * 1024,        // shared memory per block, opted in
        115 => 1,                // memory pools
        83 | 89 | 95 | 116 => 0, // managed memory, concurrent managed access, cooperative launch, GPUDirect
        _ => return Err(NOT_SUPPORTED),
    })
}

fn check_device(device: c_int) -> Result<(), Code> {
    if device == 0 {
        Ok(())
    } else {
        Err(INVALID_DEVICE)
    }
}

api! {
    fn cuInit(_flags: c_uint) {
        Ok(())
    }
    fn cuDriverGetVersion(out: *mut c_int) {
        put(out, 13000)
    }
    fn cuDeviceGetCount(out: *mut c_int) {
        put(out, 1)
    }
    fn cuDeviceGet(out: *mut c_int, ordinal: c_int) {
        check_device(ordinal)?;
        put(out, ordinal)
    }
    fn cuDeviceGetName(out: *mut c_char, length: c_int, device: c_int) {
        check_device(device)?;
        let length = usize::try_from(length).map_err(|_| INVALID_VALUE)?;
        for (i, byte) in NAME.iter().take(length).enumerate() {
            put(out.wrapping_add(i), *byte as c_char)?;
        }
        Ok(())
    }
    fn cuDeviceGetUuid(out: *mut [u8; 16], device: c_int) {
        check_device(device)?;
        put(out, *b"tightrope-emulat")
    }
    fn cuDeviceGetUuid_v2(out: *mut [u8; 16], device: c_int) {
        check_device(device)?;
        put(out, *b"tightrope-emulat")
    }
    fn cuDeviceTotalMem_v2(out: *mut usize, device: c_int) {
        check_device(device)?;
        put(out, memory_bytes() as usize)
    }
    fn cuDeviceGetAttribute(out: *mut c_int, number: c_int, device: c_int) {
        check_device(device)?;
        put(out, attribute(number)?)
    }
    fn cuDevicePrimaryCtxRetain(out: *mut Handle, device: c_int) {
        check_device(device)?;
        put(out, CONTEXT as Handle)
    }
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) {
        check_device(device)
    }
    fn cuCtxSetCurrent(context: Handle) {
        CURRENT.set(context);
        Ok(())
    }
    fn cuCtxGetCurrent(out: *mut Handle) {
        put(out, CURRENT.get())
    }
    fn cuCtxSynchronize() {
        driver().streams.synchronize_all();
        Ok(())
    }
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        put(least, 0)?;
        put(greatest, 0)
    }
}
