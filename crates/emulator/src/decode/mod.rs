//! Syntax tree to typed instruction stream: names to rows and addresses, calls inlined.
mod call;
mod control;
mod instruction;
mod kernel;
mod memory;
mod modifiers;
mod operand;
mod scope;
mod warp;

pub(crate) use kernel::{Kernel, ModuleContext, Special, decode_kernel};
pub(crate) use modifiers::Modifiers;
