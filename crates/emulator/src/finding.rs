//! Findings of the checks.
use crate::memory::AllocationInfo;
use std::fmt;

/// Kind of a finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// An access outside every allocation, or past the end of shared, local or parameter memory.
    OutOfBounds,
    /// An access to an allocation that was freed.
    UseAfterFree,
    /// An address that is no multiple of the size of the access.
    Misaligned,
    /// A read of memory that was never written.
    UninitialisedRead,
    /// A read of a register or predicate that was never set.
    UnsetRegister,
    /// Two unordered accesses in one launch, at least one of them a write.
    Race,
    /// Two unordered accesses in launches or copies of different streams.
    MissingDependency,
    /// A read of shared memory before waiting for an asynchronous copy to it.
    MissingWait,
    /// A barrier that some of its threads do not reach, or reach elsewhere.
    DivergentBarrier,
    /// A warp operation whose mask names lanes that do not participate, or a similar mistake.
    InvalidWarpOperation,
    /// A write to constant memory or to parameters.
    ReadOnly,
    /// `trap` or a failed device assertion.
    Trap,
    /// The block executed more instructions than its limit.
    NoProgress,
}

/// Place of a finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a kernel.
    Kernel {
        /// Name of the kernel.
        kernel: String,
        /// Index of the block.
        block: [u32; 3],
        /// Index of the thread in its block.
        thread: [u32; 3],
        /// Line in the PTX text.
        line: u32,
    },
    /// In a copy, fill or free requested by the host.
    Host(&'static str),
}

/// One mistake of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Kind of the mistake.
    pub kind: FindingKind,
    /// Place of the mistake.
    pub place: Place,
    /// Description of the mistake, with addresses and numbers.
    pub message: String,
    /// The allocation concerned.
    pub allocation: Option<AllocationInfo>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if let Some(allocation) = &self.allocation {
            write!(f, "; {allocation}")?;
        }
        match &self.place {
            Place::Kernel {
                kernel,
                block,
                thread,
                line,
            } => {
                write!(
                    f,
                    "; kernel {kernel}, block {block:?}, thread {thread:?}, PTX line {line}"
                )
            }
            Place::Host(operation) => write!(f, "; {operation}"),
        }
    }
}

impl std::error::Error for Finding {}

/// A mistake before its origin is known. It is boxed, so that the normal path does not carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: FindingKind,
    pub message: String,
    pub allocation: Option<AllocationInfo>,
    /// Lane of the mistake, if it is not the first active one.
    pub lane: Option<u32>,
}

pub(crate) type Checked<T> = Result<T, Box<Fault>>;

impl Fault {
    pub(crate) fn new(kind: FindingKind, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind,
            message: message.into(),
            allocation: None,
            lane: None,
        })
    }

    pub(crate) fn of(mut self: Box<Self>, allocation: AllocationInfo) -> Box<Self> {
        self.allocation = Some(allocation);
        self
    }

    pub(crate) fn in_lane(mut self: Box<Self>, lane: u32) -> Box<Self> {
        self.lane.get_or_insert(lane);
        self
    }

    pub(crate) fn at(self, place: Place) -> Finding {
        Finding {
            kind: self.kind,
            place,
            message: self.message,
            allocation: self.allocation,
        }
    }
}
