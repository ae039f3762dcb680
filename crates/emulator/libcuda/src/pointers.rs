//! The only code that accesses memory through pointers of the caller.
//!
//! The driver API states what each pointer must point to; the caller obeys this contract here as
//! with the driver itself, and the `SAFETY` comments refer to it.
use crate::status::{Code, INVALID_VALUE, Status};
use std::ffi::{CStr, c_char, c_void};

/// Writes a result.
pub(crate) fn put<T>(out: *mut T, value: T) -> Status {
    if out.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the API takes a pointer to a result of this type, and it is not null.
    unsafe { out.write(value) };
    Ok(())
}

/// Reads a text of the caller.
pub(crate) fn text(pointer: *const c_char) -> Result<String, Code> {
    if pointer.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the API takes text that ends in a zero byte, and it is not null.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(String::from).map_err(|_| INVALID_VALUE)
}

/// Calls `f` with bytes of the host that are read.
pub(crate) fn with_bytes<R>(
    pointer: *const c_void,
    length: usize,
    f: impl FnOnce(&[u8]) -> R,
) -> Result<R, Code> {
    if length == 0 {
        return Ok(f(&[]));
    }
    if pointer.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the API takes `length` readable bytes here, for the time of the call.
    Ok(f(unsafe {
        std::slice::from_raw_parts(pointer.cast(), length)
    }))
}

/// Calls `f` with bytes of the host that are written.
pub(crate) fn with_bytes_mut<R>(
    pointer: *mut c_void,
    length: usize,
    f: impl FnOnce(&mut [u8]) -> R,
) -> Result<R, Code> {
    if length == 0 {
        return Ok(f(&mut []));
    }
    if pointer.is_null() {
        return Err(INVALID_VALUE);
    }
    // The bytes are copied, because the caller's memory may be uninitialised.
    let mut buffer = vec![0u8; length];
    let result = f(&mut buffer);
    // SAFETY: the API takes `length` writable bytes here, and nothing else uses `buffer`.
    unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), pointer.cast::<u8>(), length) };
    Ok(result)
}

/// Gathers the bytes of a kernel's parameters from the array of pointers to them.
pub(crate) fn parameters(
    array: *mut *mut c_void,
    layout: &[(usize, usize)],
) -> Result<Vec<u8>, Code> {
    let end = layout.last().map_or(0, |(offset, length)| offset + length);
    let mut out = vec![0; end];
    if array.is_null() {
        return if layout.is_empty() {
            Ok(out)
        } else {
            Err(INVALID_VALUE)
        };
    }
    for (i, (offset, length)) in layout.iter().enumerate() {
        // SAFETY: the API takes as many pointers as the kernel has parameters.
        let pointer = unsafe { *array.add(i) };
        with_bytes(pointer, *length, |bytes| {
            out[*offset..offset + length].copy_from_slice(bytes)
        })?;
    }
    Ok(out)
}
