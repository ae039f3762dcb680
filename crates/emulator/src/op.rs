//! The typed instruction stream of the executor: operands are resolved to rows, addresses to base
//! and offset, labels to places, and pure instructions to functions.
use crate::lanes::{CompareFn, LaneFn};
use crate::ptx::types::{ScalarType, Space};

/// A row of the register file; with [`Reg::CONSTANT`] set, one of the kernel's constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg(pub u32);

impl Reg {
    pub(crate) const CONSTANT: u32 = 1 << 31;
    /// The constant zero, which is the first constant of every kernel.
    pub(crate) const ZERO: Reg = Reg(Self::CONSTANT);
}

/// A predicate register as an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Predicate {
    Register(u32),
    Not(u32),
    Constant(bool),
}

/// `@%p` or `@!%p`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub predicate: u32,
    pub negated: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub base: Reg,
    pub offset: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
    Not,
    Move,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReduceOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

/// Memory ordering of an access or fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ordering {
    /// A plain access, which races with others.
    Weak,
    Relaxed,
    Acquire,
    Release,
    AcquireRelease,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Element {
    F16,
    Bf16,
    Tf32,
}

/// Shape m16n8k`k` of a matrix product.
#[derive(Clone, Debug)]
pub(crate) struct MatrixProduct {
    pub element: Element,
    pub k: usize,
    /// Whether accumulators are f16 pairs and not f32.
    pub half_accumulator: bool,
    pub d: Vec<Reg>,
    pub a: Vec<Reg>,
    pub b: Vec<Reg>,
    pub c: Vec<Reg>,
}

#[derive(Clone, Debug)]
pub(crate) struct AtomicAccess {
    pub space: Space,
    pub op: AtomicOp,
    pub ty: ScalarType,
    pub ordering: Ordering,
    /// `None` for `red`.
    pub d: Option<Reg>,
    pub address: Address,
    pub b: Reg,
    pub c: Reg,
}

#[derive(Clone, Debug)]
pub(crate) struct Shuffle {
    pub mode: ShuffleMode,
    pub d: Reg,
    pub valid: Option<u32>,
    pub a: Reg,
    pub b: Reg,
    pub c: Reg,
    pub members: Reg,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A pure function of rows.
    Lanes {
        function: LaneFn,
        d: Reg,
        inputs: [Reg; 4],
    },
    Compare {
        function: CompareFn,
        d: Option<u32>,
        other: Option<u32>,
        a: Reg,
        b: Reg,
        with: Option<(Logic, Predicate)>,
    },
    Select {
        d: Reg,
        a: Reg,
        b: Reg,
        predicate: Predicate,
    },
    Logic {
        op: Logic,
        d: u32,
        a: Predicate,
        b: Predicate,
    },
    /// Builds `d` from parts of `bits` bits, the first lowest.
    Pack {
        d: Reg,
        parts: Vec<Reg>,
        bits: u32,
    },
    Unpack {
        parts: Vec<Option<Reg>>,
        a: Reg,
        bits: u32,
    },
    /// `add`, `sub` or `mad` with carry; `product` multiplies `a` by `b` and adds `c`.
    Carry {
        bits: u32,
        d: Reg,
        a: Reg,
        b: Reg,
        carry_in: bool,
        carry_out: bool,
        subtract: bool,
    },
    Clock {
        d: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    IsSpace {
        space: Space,
        d: u32,
        a: Reg,
    },

    Load {
        space: Space,
        ty: ScalarType,
        ordering: Ordering,
        d: Vec<Option<Reg>>,
        widths: u32,
        address: Address,
    },
    Store {
        space: Space,
        ty: ScalarType,
        ordering: Ordering,
        values: Vec<Reg>,
        address: Address,
    },
    Atomic(Box<AtomicAccess>),
    CopyAsync {
        target: Address,
        source: Address,
        bytes: u32,
        available: Reg,
    },
    CopyCommit,
    /// Waits until at most `pending` groups are in flight; `None`: until no copy is, committed or
    /// not.
    CopyWait {
        pending: Option<u32>,
    },

    Shuffle(Box<Shuffle>),
    Vote {
        mode: VoteMode,
        d: Reg,
        dp: u32,
        a: Predicate,
        members: Reg,
    },
    Match {
        all: bool,
        d: Reg,
        valid: Option<u32>,
        a: Reg,
        members: Reg,
        bits: u32,
    },
    Reduce {
        op: ReduceOp,
        signed: bool,
        d: Reg,
        a: Reg,
        members: Reg,
    },
    Elect {
        d: Option<Reg>,
        dp: u32,
        members: Reg,
    },
    LoadMatrix {
        transposed: bool,
        d: Vec<Reg>,
        address: Address,
    },
    StoreMatrix {
        transposed: bool,
        values: Vec<Reg>,
        address: Address,
    },
    MoveMatrix {
        d: Reg,
        a: Reg,
    },
    Mma(Box<MatrixProduct>),

    Branch {
        target: u32,
    },
    BranchIndexed {
        targets: Vec<u32>,
        index: Reg,
    },
    Exit,
    Barrier {
        id: Reg,
        threads: Option<Reg>,
        arrive: bool,
        reduce: Option<BarrierReduce>,
    },
    WarpSync {
        members: Reg,
    },
    Fence,
    Trap {
        message: &'static str,
    },
    Nothing,
}

/// `bar.red`: a reduction over the predicates of the threads at the barrier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierReduce {
    pub op: ReduceOp,
    pub count: Option<Reg>,
    pub truth: Option<u32>,
    pub a: Predicate,
}

/// Groups of instructions in counters and reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum InstructionClass {
    Integer,
    Float,
    Special,
    Convert,
    Move,
    Predicate,
    Memory,
    Warp,
    Matrix,
    Control,
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub guard: Option<Guard>,
    pub op: Op,
    pub class: InstructionClass,
    pub line: u32,
}
