//! Errors of reading PTX and of preparing a launch.

/// PTX that cannot be read or is not modelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct PtxError {
    /// Line in the PTX text, counted from 1.
    pub line: u32,
    /// What is wrong, with the offending text.
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
    /// See [`PtxError`].
    #[error(transparent)]
    Ptx(#[from] PtxError),
    /// No kernel of that name.
    #[error("no kernel `{0}` in the module")]
    NoSuchKernel(String),
    /// The launch asks for more than the machine has, or for nothing.
    #[error("launch of `{kernel}`: {message}")]
    InvalidLaunch {
        /// The kernel.
        kernel: String,
        /// What is wrong, with the numbers.
        message: String,
    },
    /// Parameter bytes do not match the parameter list.
    #[error("launch of `{kernel}`: {expected} bytes of parameters expected, got {got}")]
    ParameterBytes {
        /// The kernel.
        kernel: String,
        /// Bytes that the parameter list takes.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// An address that no allocation starts at.
    #[error("no allocation starts at {0:#x}")]
    NotAnAllocation(u64),
    /// The address space is used up.
    #[error("cannot allocate {0} bytes")]
    OutOfMemory(u64),
    /// More streams or operations than the bookkeeping can tell apart.
    #[error("too many {0}")]
    TooMany(&'static str),
}
