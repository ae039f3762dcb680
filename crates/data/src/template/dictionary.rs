//! Dictionaries with the attributes of Python's: methods take precedence over keys.

use std::cell::Cell;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt, ObjectRepr};
use minijinja::{Error, State, Value};

use super::methods;
use super::scan::METHODS;

/// Methods that change a dictionary, which the sandbox does not have.
const CHANGING: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

thread_local! {
    static ITEMS_FIRST: Cell<bool> = const { Cell::new(false) };
}

/// Runs a filter of the engine that resolves an attribute named by a string as an item, if there is
/// one.
pub(super) fn items_first<T>(filter: impl FnOnce() -> T) -> T {
    let before = ITEMS_FIRST.replace(true);
    let result = filter();
    ITEMS_FIRST.set(before);
    result
}

/// A dictionary in which `x.items` is the method and `x['items']` is the item.
#[derive(Debug)]
pub(super) struct Dictionary(Value);

impl Dictionary {
    /// Returns the same entries with Python's attributes; other values stay unchanged.
    pub(super) fn wrap(value: Value) -> Value {
        match value.kind() {
            minijinja::value::ValueKind::Map => Value::from_object(Self(value)),
            _ => value,
        }
    }
}

impl Object for Dictionary {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.as_object()?.get_value(key)
    }

    /// Looks up attributes; items are looked up by value.
    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        if ITEMS_FIRST.get()
            && let Some(item) = self.0.as_object()?.get_value_by_str(name)
        {
            return Some(item);
        }
        if CHANGING.contains(&name) {
            return None;
        }
        match METHODS.iter().find(|method| **method == name) {
            Some(method) => Some(Value::from_object(Method {
                of: self.0.clone(),
                name: method,
            })),
            None => self.0.as_object()?.get_value_by_str(name),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| match this.0.try_iter() {
            Ok(keys) => Box::new(keys),
            Err(_) => Box::new(std::iter::empty()),
        })
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.0.len()
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.0.is_true()
    }
}

/// A method that has not been called.
#[derive(Debug)]
struct Method {
    of: Value,
    name: &'static str,
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        methods::call(state, &self.of, self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<built-in method {} of dict object>", self.name)
    }
}
