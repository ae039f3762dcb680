//! Limits the cost of a chat template, because templates come with untrusted models.

use std::cell::Cell;
use std::sync::OnceLock;

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::python::invalid;

/// Largest size of a template in bytes.
pub(super) const TEMPLATE_BYTES: usize = 256 * 1024;
/// Largest number of words and operators in one tag.
pub(super) const TAG_TOKENS: usize = 10_000;
/// Largest number of `elif` branches in a template.
pub(super) const BRANCHES: usize = 1_000;
/// Largest depth of values: a little more than that of the JSON of a row.
pub(super) const DEPTH: usize = 200;
/// Largest number of spaces for each level of `tojson`.
pub(super) const INDENT: usize = 1_000;
/// Limit of the work of one rendering, in the engine's unit: an instruction, or 64 bytes made.
const FUEL: u64 = 8_000_000;
/// Additional work for each byte of the conversation.
const FUEL_FOR_BYTE: u64 = 64;
/// Conversations up to this size get no more than [`FUEL`].
const SMALL: usize = 64 * 1024;
/// Stack size: several times the need of the deepest template within the limits.
const STACK: usize = 128 << 20;

/// Fuel of a conversation, if it needs more than the usual amount.
pub(super) fn more_fuel(bytes: usize) -> Option<u64> {
    let more = FUEL_FOR_BYTE.saturating_mul(bytes as u64);
    (bytes > SMALL).then(|| FUEL.saturating_add(more))
}

pub(super) const fn fuel() -> u64 {
    FUEL
}

thread_local! {
    static DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs on a stack that is deep enough for any template within the limits: on this thread if it has
/// such a stack, otherwise on one of a few dedicated threads.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static KEPT: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    if DEEP.get() {
        return work();
    }
    match KEPT.get_or_init(|| deep_pool().ok()) {
        Some(pool) => pool.install(work),
        // There is no memory for stacks, so this thread has to suffice.
        None => work(),
    }
}

/// A pool with as many threads as the current one, each with a deep stack.
pub(crate) fn deep_pool() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .stack_size(STACK)
        .start_handler(|_| DEEP.set(true))
        .build()
}

/// Prepares a value that becomes a variable: a lazy sequence becomes a list, and a value that is
/// too deep is refused.
pub(super) fn bounded(state: &State, value: Value) -> Result<Value, Error> {
    measure(state, &value)?;
    materialized(value)
}

/// The same for a value that a namespace stores, in which loops could hide ever more.
pub(super) fn kept(state: &State, value: Value) -> Result<Value, Error> {
    walk(state, &value, 0, true)?;
    materialized(value)
}

/// Prepares a value of which the engine will walk every part: the walk is charged.
pub(super) fn measured(state: &State, value: Value) -> Result<Value, Error> {
    measure(state, &value)?;
    Ok(value)
}

/// Charges for a walk through all parts of a value and their text; refuses a value that is too
/// deep.
pub(super) fn measure(state: &State, value: &Value) -> Result<(), Error> {
    walk(state, value, 0, false)
}

fn materialized(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Iterable => Ok(value.try_iter()?.collect()),
        _ => Ok(value),
    }
}

fn walk(state: &State, value: &Value, depth: usize, keep: bool) -> Result<(), Error> {
    if depth > DEPTH {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                state.consume_fuel(1)?;
                walk(state, &item, depth + 1, keep)?;
            }
        }
        ValueKind::Map | ValueKind::Plain if keep && is_machinery(value) => {
            return Err(invalid(
                "only data can be kept in a namespace, no macro and no other namespace",
            ));
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                state.consume_fuel(1)?;
                walk(state, &key, depth + 1, keep)?;
                walk(state, &value.get_item(&key)?, depth + 1, keep)?;
            }
        }
        ValueKind::String => {
            let bytes = value.as_str().map_or(0, str::len);
            state.consume_fuel(bytes as u64 / 64)?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether the value is an object of the engine, which may hold more than it shows.
fn is_machinery(value: &Value) -> bool {
    let object = value.as_object();
    value.kind() == ValueKind::Plain
        || object.is_some_and(|object| object.type_name().starts_with("minijinja::"))
}

pub(super) fn too_deep() -> Error {
    invalid(format!("values nested more than {DEPTH} deep"))
}
