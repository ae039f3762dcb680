//! Names: registers, predicates, variables and labels, scoped by `{ }`.
use super::kernel::Decoder;
use crate::PtxError;
use crate::op::Reg;
use crate::ptx::ast::{Statement, Variable, VariableSpace};
use crate::ptx::types::{ScalarType, Space};
use std::collections::HashMap;

/// Meaning of a name.
#[derive(Clone, Debug)]
pub(super) enum Entity {
    Register { reg: Reg, bits: u32 },
    Predicate(u32),
    Variable { space: Space, address: u64 },
    Targets(Vec<usize>),
}

#[derive(Default)]
pub(super) struct Scope {
    names: HashMap<String, Entity>,
    labels: HashMap<String, usize>,
}

impl Decoder<'_> {
    pub(super) fn find(&self, name: &str) -> Option<Entity> {
        let local = self
            .scopes
            .iter()
            .rev()
            .find_map(|scope| scope.names.get(name));
        local.cloned().or_else(|| {
            self.context
                .variables
                .get(name)
                .cloned()
                .map(|address| Entity::Variable {
                    space: Space::Global,
                    address,
                })
        })
    }

    pub(super) fn define(&mut self, name: &str, entity: Entity) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name.into(), entity);
        }
    }

    /// Place of a label, which is filled in when all code is laid out.
    pub(super) fn label(&self, name: &str, line: u32) -> Result<usize, PtxError> {
        let found = self
            .scopes
            .iter()
            .rev()
            .find_map(|scope| scope.labels.get(name));
        found
            .copied()
            .ok_or_else(|| PtxError::new(line, format!("no label `{name}`")))
    }

    pub(super) fn new_label(&mut self) -> usize {
        self.labels.push(None);
        self.labels.len() - 1
    }

    pub(super) fn place_label(&mut self, label: usize) {
        self.labels[label] = Some(self.code.len() as u32);
    }

    pub(super) fn new_register(&mut self, name: &str) -> Reg {
        self.register_names.push(name.into());
        Reg(self.register_names.len() as u32 - 1)
    }

    pub(super) fn new_predicate(&mut self, name: &str) -> u32 {
        self.predicate_names.push(name.into());
        self.predicate_names.len() as u32 - 1
    }

    pub(super) fn define_register(&mut self, ty: ScalarType, name: &str) {
        let entity = if ty == ScalarType::Pred {
            Entity::Predicate(self.new_predicate(name))
        } else {
            Entity::Register {
                reg: self.new_register(name),
                bits: ty.bits(),
            }
        };
        self.define(name, entity);
    }

    /// Reserves a variable of a function and defines its name.
    pub(super) fn define_variable(&mut self, variable: &Variable) -> Result<(), PtxError> {
        let fail = |message: String| Err(PtxError::new(variable.line, message));
        let name = &variable.name;
        let place = |next: &mut u64, bytes: u64| {
            let address = next.next_multiple_of(variable.align as u64);
            *next = address + bytes;
            address
        };
        let (space, address) = match (variable.space, variable.bytes) {
            (VariableSpace::Shared, None) => (Space::Shared, self.dynamic_shared),
            (VariableSpace::Shared, Some(n)) => {
                (Space::Shared, place(&mut self.shared_bytes, n as u64))
            }
            (VariableSpace::Local | VariableSpace::Param, Some(n)) => {
                (Space::Local, place(&mut self.local_bytes, n as u64))
            }
            (space, None) => return fail(format!("`{name}` in {space:?} needs a length")),
            (space, _) => return fail(format!("`{name}`: {space:?} inside a function")),
        };
        self.define(name, Entity::Variable { space, address });
        Ok(())
    }

    /// Decodes statements in their own scope.
    pub(super) fn block(&mut self, statements: &[Statement]) -> Result<(), PtxError> {
        let mut scope = Scope::default();
        for statement in statements {
            if let Statement::Label(name) = statement {
                let label = self.new_label();
                scope.labels.insert(name.clone(), label);
            }
        }
        self.scopes.push(scope);
        // Tables of targets stand after the branches that use them as often as before these.
        for statement in statements {
            if let Statement::BranchTargets(name, targets) = statement {
                let places = targets.iter().map(|target| self.label(target, 0));
                let places = places.collect::<Result<_, _>>()?;
                self.define(name, Entity::Targets(places));
            }
        }
        for statement in statements {
            match statement {
                Statement::Label(name) => {
                    let label = self.label(name, 0)?;
                    self.place_label(label);
                }
                Statement::Registers(ty, names) => {
                    names
                        .iter()
                        .for_each(|name| self.define_register(*ty, name));
                }
                Statement::Variable(variable) => self.define_variable(variable)?,
                Statement::BranchTargets(..) => {}
                Statement::Instruction(instruction) => self.instruction(instruction)?,
                Statement::Block(inner) => self.block(inner)?,
            }
        }
        self.scopes.pop();
        Ok(())
    }
}
