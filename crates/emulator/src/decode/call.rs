//! Inlines calls: each call gets a copy of the body with its own registers. Recursion and calls
//! through pointers are refused.
use super::kernel::Decoder;
use super::scope::{Entity, Scope};
use crate::PtxError;
use crate::op::{InstructionClass, Op};
use crate::ptx::ast::{Function, Instruction, Operand, Variable};

impl Decoder<'_> {
    pub(super) fn call(&mut self, instruction: &Instruction) -> Result<(), PtxError> {
        let mut operands = instruction.operands.iter();
        let mut results: &[Operand] = &[];
        let mut next = operands.next();
        if let Some(Operand::List(list)) = next {
            results = list;
            next = operands.next();
        }
        let Some(Operand::Name(name)) = next else {
            return self.fail("call without a function name");
        };
        let arguments = match operands.next() {
            Some(Operand::List(list)) => list.as_slice(),
            None => &[],
            Some(other) => return self.fail(format!("argument list expected, got {other:?}")),
        };
        if operands.next().is_some() {
            return self.fail("calls through function pointers are not modelled");
        }
        let with_body = |f: &&Function| f.name == *name && f.body.is_some();
        let Some(function) = self.context.module.functions.iter().find(with_body) else {
            if name == "__assertfail" {
                let message = "a device assertion failed";
                self.push(Op::Trap { message }, InstructionClass::Control);
                return Ok(());
            }
            return self.fail(format!(
                "function `{name}` has no body here and is not modelled"
            ));
        };
        if self.calls.iter().any(|(caller, _)| caller == name) {
            return self.fail(format!("`{name}` calls itself: recursion is not modelled"));
        }
        self.inline(function, results, arguments)
    }

    fn inline(
        &mut self,
        function: &Function,
        results: &[Operand],
        arguments: &[Operand],
    ) -> Result<(), PtxError> {
        let name = &function.name;
        if results.len() != function.results.len() || arguments.len() != function.parameters.len() {
            return self.fail(format!("call of `{name}` does not match its parameters"));
        }
        let bound = |formals: &[Variable], actuals: &[Operand], this: &Self| {
            let pairs = formals.iter().zip(actuals);
            pairs
                .map(|(formal, actual)| this.bind(formal, actual))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut names = bound(&function.parameters, arguments, self)?;
        names.extend(bound(&function.results, results, self)?);
        // The callee sees only its own names.
        let outer = std::mem::replace(&mut self.scopes, vec![Scope::default()]);
        names
            .into_iter()
            .for_each(|(name, entity)| self.define(&name, entity));
        let end = self.new_label();
        self.calls.push((name.clone(), end));
        let line = self.line;
        self.block(function.body.as_deref().unwrap_or_default())?;
        self.line = line;
        self.calls.pop();
        self.place_label(end);
        self.scopes = outer;
        Ok(())
    }

    /// Makes a formal parameter or result another name of the actual one.
    fn bind(&self, formal: &Variable, actual: &Operand) -> Result<(String, Entity), PtxError> {
        let Operand::Name(name) = actual else {
            return self.fail(format!("argument {actual:?} is not modelled"));
        };
        match self.find(name) {
            Some(entity) => Ok((formal.name.clone(), entity)),
            None => self.fail(format!("unknown name `{name}`")),
        }
    }
}
