//! The syntax tree of a PTX module. Names are not resolved here: registers, labels and variables
//! are scoped by `{ }`, and the decoder resolves them where it knows the scope.
use super::types::ScalarType;

/// A whole translation unit.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// The architecture of `.target`, as in `sm_80`.
    pub target: String,
    /// Variables at module scope.
    pub variables: Vec<Variable>,
    /// Kernels and device functions.
    pub functions: Vec<Function>,
}

/// State space of a declared variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum VariableSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A declared variable or parameter.
#[derive(Clone, Debug)]
pub struct Variable {
    /// State space of the variable.
    pub space: VariableSpace,
    /// Name of the variable.
    pub name: String,
    /// Type of one element.
    pub ty: ScalarType,
    /// Size of the variable in bytes; `None` for `name[]` (dynamic shared memory).
    pub bytes: Option<usize>,
    /// Alignment in bytes.
    pub align: usize,
    /// Initial bytes, if there are any; the rest is zero.
    pub initial: Option<Vec<u8>>,
    /// Whether the variable is declared elsewhere.
    pub is_extern: bool,
    /// Line of the declaration.
    pub line: u32,
}

/// A kernel (`.entry`) or a device function (`.func`).
#[derive(Clone, Debug)]
pub struct Function {
    /// Symbol name.
    pub name: String,
    /// Whether the function is `.entry` and not `.func`.
    pub is_kernel: bool,
    /// Parameters in order: variables of `.param` space, or registers of a `.func`.
    pub parameters: Vec<Variable>,
    /// Results of a `.func`.
    pub results: Vec<Variable>,
    /// Statements; `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    /// `.maxntid` or `.reqntid`: the largest number of threads in a block.
    pub max_threads: Option<u32>,
    /// Line of the name.
    pub line: u32,
}

/// One statement of a body.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `name:`
    Label(String),
    /// `.reg .type names;`
    Registers(ScalarType, Vec<String>),
    /// A variable of a function.
    Variable(Variable),
    /// `name: .branchtargets a, b;`
    BranchTargets(String, Vec<String>),
    /// An instruction.
    Instruction(Instruction),
    /// `{ … }`, a scope of its own.
    Block(Vec<Statement>),
}

/// `@%p` or `@!%p`.
#[derive(Clone, PartialEq, Debug)]
pub struct Guard {
    /// Predicate register.
    pub register: String,
    /// Whether the instruction is executed where the predicate is false.
    pub negated: bool,
}

/// One instruction as written in the text.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Guard predicate.
    pub guard: Option<Guard>,
    /// Word before the first dot.
    pub opcode: String,
    /// Words after each dot.
    pub modifiers: Vec<String>,
    /// Operands in order.
    pub operands: Vec<Operand>,
    /// Line in the PTX text.
    pub line: u32,
}

/// One operand as written.
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    /// Register, special register, variable, function or label.
    Name(String),
    /// `!%p`
    Not(String),
    /// An integer literal in two's complement.
    Integer(u64),
    /// Bits of an `f32`.
    Float32(u32),
    /// Bits of an `f64`.
    Float64(u64),
    /// `[base + offset]`; no base for an absolute address.
    Address(Option<String>, i64),
    /// `name + offset`, an address expression outside brackets.
    Offset(String, i64),
    /// `{a, b, …}`
    Vector(Vec<Operand>),
    /// `a|b`, two destinations.
    Pair(String, String),
    /// `(a, b)`, the lists of a call.
    List(Vec<Operand>),
}
