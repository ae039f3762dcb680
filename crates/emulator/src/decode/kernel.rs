//! A kernel ready to run, and the decoder's state while it becomes one.
use super::scope::{Entity, Scope};
use crate::PtxError;
use crate::lanes::Row;
use crate::op::{Instruction, InstructionClass, Op, Reg};
use crate::ptx::ast::{Function, Module, Statement, Variable, VariableSpace};
use crate::ptx::types::Space;
use std::collections::HashMap;

/// Special registers that are rows filled when a warp starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Special {
    Thread(usize),
    BlockShape(usize),
    Block(usize),
    GridShape(usize),
    Lane,
    Warp,
    Warps,
    MaskEqual,
    MaskLess,
    MaskLessEqual,
    MaskGreater,
    MaskGreaterEqual,
    DynamicShared,
    TotalShared,
    Zero,
}

/// A kernel as the executor runs it.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub name: String,
    pub code: Vec<Instruction>,
    pub register_names: Vec<String>,
    pub predicate_names: Vec<String>,
    pub constants: Vec<Row>,
    pub specials: Vec<(Special, Reg)>,
    /// Offset and length of each parameter.
    pub parameters: Vec<(usize, usize)>,
    pub parameter_bytes: usize,
    /// Where dynamic shared memory begins.
    pub dynamic_shared: u64,
    pub local_bytes: u64,
    pub max_threads: Option<u32>,
}

/// Parts of a module that a kernel sees.
pub(crate) struct ModuleContext<'a> {
    pub module: &'a Module,
    /// Addresses of `.global` and `.const` variables.
    pub variables: HashMap<String, u64>,
}

pub(super) struct Decoder<'a> {
    pub context: &'a ModuleContext<'a>,
    pub code: Vec<Instruction>,
    pub register_names: Vec<String>,
    pub predicate_names: Vec<String>,
    pub constants: Vec<Row>,
    pub constant_index: HashMap<u64, Reg>,
    pub specials: Vec<(Special, Reg)>,
    pub scopes: Vec<Scope>,
    /// Places of labels; `None` until they are reached.
    pub labels: Vec<Option<u32>>,
    pub shared_bytes: u64,
    pub dynamic_shared: u64,
    pub local_bytes: u64,
    /// Functions being inlined, with the label that `ret` goes to.
    pub calls: Vec<(String, usize)>,
    /// Line of the instruction at hand.
    pub line: u32,
    /// Whether the barrier at hand said `.sync`.
    pub barrier_is_sync: bool,
}

/// Bytes of the static shared variables below `statements`.
fn shared_below(statements: &[Statement], total: &mut u64) {
    for statement in statements {
        match statement {
            Statement::Block(inner) => shared_below(inner, total),
            Statement::Variable(variable) => shared_of(variable, total),
            _ => {}
        }
    }
}

fn shared_of(variable: &Variable, total: &mut u64) {
    if variable.space == VariableSpace::Shared {
        let bytes = variable.bytes.unwrap_or(0) as u64;
        *total = total.next_multiple_of(variable.align as u64) + bytes;
    }
}

/// Alignment of dynamic shared memory: the most that any instruction asks of it.
const DYNAMIC_ALIGN: u64 = 1024;

pub(crate) fn decode_kernel(
    context: &ModuleContext<'_>,
    function: &Function,
) -> Result<Kernel, PtxError> {
    let module = context.module;
    let mut static_shared = 0;
    module
        .variables
        .iter()
        .for_each(|variable| shared_of(variable, &mut static_shared));
    let reachable = module
        .functions
        .iter()
        .filter(|f| !f.is_kernel || f.name == function.name);
    for body in reachable.filter_map(|f| f.body.as_deref()) {
        // A function inlined twice still has its variables once or more: this is an upper bound
        // for the first, and the second is checked below.
        shared_below(body, &mut static_shared);
    }
    let mut decoder = Decoder {
        context,
        code: Vec::new(),
        register_names: Vec::new(),
        predicate_names: Vec::new(),
        constants: vec![[0; 32]],
        constant_index: HashMap::from([(0, Reg::ZERO)]),
        specials: Vec::new(),
        scopes: vec![Scope::default()],
        labels: Vec::new(),
        shared_bytes: 0,
        dynamic_shared: static_shared.next_multiple_of(DYNAMIC_ALIGN),
        local_bytes: 0,
        calls: Vec::new(),
        line: function.line,
        barrier_is_sync: false,
    };
    for variable in &module.variables {
        if variable.space == VariableSpace::Shared {
            decoder.define_variable(variable)?;
        }
    }
    let mut parameters = Vec::new();
    let mut end = 0usize;
    for parameter in &function.parameters {
        let Some(bytes) = parameter.bytes else {
            let message = format!("parameter `{}` without a length", parameter.name);
            return Err(PtxError::new(parameter.line, message));
        };
        let offset = end.next_multiple_of(parameter.align);
        let entity = Entity::Variable {
            space: Space::Param,
            address: offset as u64,
        };
        decoder.define(&parameter.name, entity);
        parameters.push((offset, bytes));
        end = offset + bytes;
    }
    let body = function.body.as_deref().unwrap_or_default();
    decoder.block(body)?;
    decoder.push(Op::Exit, InstructionClass::Control);
    if decoder.shared_bytes > decoder.dynamic_shared {
        let message = "a function with shared variables is called from several places";
        return Err(PtxError::new(function.line, message));
    }
    decoder.resolve_labels()?;
    Ok(Kernel {
        name: function.name.clone(),
        code: decoder.code,
        register_names: decoder.register_names,
        predicate_names: decoder.predicate_names,
        constants: decoder.constants,
        specials: decoder.specials,
        parameters,
        parameter_bytes: end,
        dynamic_shared: decoder
            .dynamic_shared
            .min(static_shared.next_multiple_of(DYNAMIC_ALIGN)),
        local_bytes: decoder.local_bytes,
        max_threads: function.max_threads,
    })
}

impl Decoder<'_> {
    pub(super) fn push(&mut self, op: Op, class: InstructionClass) {
        self.code.push(Instruction {
            guard: None,
            op,
            class,
            line: self.line,
        });
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T, PtxError> {
        Err(PtxError::new(self.line, message))
    }

    /// Branches hold label numbers until here.
    fn resolve_labels(&mut self) -> Result<(), PtxError> {
        let labels = &self.labels;
        let place = |label: &mut u32, line| match labels.get(*label as usize) {
            Some(Some(place)) => {
                *label = *place;
                Ok(())
            }
            _ => Err(PtxError::new(
                line,
                "branch to a label that is never placed",
            )),
        };
        for instruction in &mut self.code {
            match &mut instruction.op {
                Op::Branch { target } => place(target, instruction.line)?,
                Op::BranchIndexed { targets, .. } => {
                    targets
                        .iter_mut()
                        .try_for_each(|target| place(target, instruction.line))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
