//! Results of calls.

/// `cublasStatus_t`.
pub(crate) type Code = i32;
/// Every call ends in `Ok` or in an error code.
pub(crate) type Status = Result<(), Code>;

pub(crate) const INVALID_VALUE: Code = 7;
pub(crate) const EXECUTION_FAILED: Code = 13;
pub(crate) const NOT_SUPPORTED: Code = 15;

/// Prints the error; the code only tells its kind.
pub(crate) fn refuse<T>(code: Code, why: impl std::fmt::Display) -> Result<T, Code> {
    eprintln!("cuBLASLt stand-in: {why}");
    Err(code)
}

/// Defines functions of cuBLASLt with the C calling convention, and converts `Status` to a code.
macro_rules! api {
    ($(fn $name:ident($($argument:ident: $t:ty),* $(,)?) $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of cuBLASLt.")]
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
