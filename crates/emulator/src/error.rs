//! Errors of reading PTX and of preparing a launch.

/// Error of PTX that cannot be read or is not modelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct PtxError {
    /// Line in the PTX text, counted from 1.
    pub line: u32,
    /// Description of the error, with the offending text.
    pub message: String,
}

impl PtxError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }
}

/// A request to the emulator that a driver would refuse before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmulatorError {
    /// The PTX cannot be used; see [`PtxError`].
    #[error(transparent)]
    Ptx(#[from] PtxError),
    /// There is no kernel of this name.
    #[error("no kernel `{0}` in the module")]
    NoSuchKernel(String),
    /// The launch asks for more than the machine has, or for nothing.
    #[error("launch of `{kernel}`: {message}")]
    InvalidLaunch {
        /// Name of the kernel.
        kernel: String,
        /// Description of the error, with the numbers.
        message: String,
    },
    /// Parameter bytes do not match the parameter list.
    #[error("launch of `{kernel}`: {expected} bytes of parameters expected, got {got}")]
    ParameterBytes {
        /// Name of the kernel.
        kernel: String,
        /// Number of bytes that the parameter list takes.
        expected: usize,
        /// Number of given bytes.
        got: usize,
    },
    /// No allocation starts at the address.
    #[error("no allocation starts at {0:#x}")]
    NotAnAllocation(u64),
    /// The address space is used up.
    #[error("cannot allocate {0} bytes")]
    OutOfMemory(u64),
    /// There are more streams or operations than can be distinguished.
    #[error("too many {0}")]
    TooMany(&'static str),
}
