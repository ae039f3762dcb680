//! The only code that accesses memory through pointers of the caller.
//!
//! cuBLASLt states what each pointer must point to; the caller obeys this contract here as with the
//! library itself, and the `SAFETY` comments refer to it.
use crate::status::{Code, INVALID_VALUE, Status, refuse};
use std::ffi::c_void;

/// Writes a result.
pub(crate) fn put<T>(out: *mut T, value: T) -> Status {
    if out.is_null() {
        return refuse(INVALID_VALUE, "a result without a place");
    }
    // SAFETY: the API takes a pointer to a result of this type, and it is not null.
    unsafe { out.write(value) };
    Ok(())
}

/// Reads a value that the caller passes by pointer.
pub(crate) fn get<T: Copy>(from: *const T) -> Result<T, Code> {
    if from.is_null() {
        return refuse(INVALID_VALUE, "a null pointer for an argument");
    }
    // SAFETY: the API takes a pointer to a value of this type, and it is not null.
    Ok(unsafe { from.read() })
}

/// Reads an attribute of `N` bytes.
pub(crate) fn attribute<const N: usize>(
    from: *const c_void,
    bytes: usize,
) -> Result<[u8; N], Code> {
    if bytes != N {
        return refuse(
            INVALID_VALUE,
            format_args!("an attribute has {bytes} bytes instead of {N}"),
        );
    }
    get(from.cast::<[u8; N]>())
}
