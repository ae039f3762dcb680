//! Turns a syntax tree into a typed instruction stream: names become rows and addresses, and calls
//! are inlined.
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
