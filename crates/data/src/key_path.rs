//! The path to a value in a row.

use std::fmt;

/// The path from a row to a value in it, such as `messages[2].role`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(pub Vec<Key>);

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A key of an object.
    Name(String),
    /// An index of an array.
    Index(usize),
}

impl KeyPath {
    /// A key of the row itself.
    pub fn name(name: &str) -> Self {
        Self(vec![Key::Name(name.to_owned())])
    }
    /// The path extended by one step.
    pub fn then(&self, key: impl Into<Key>) -> Self {
        let mut path = self.0.clone();
        path.push(key.into());
        Self(path)
    }
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Key::Name(name.to_owned())
    }
}

impl From<usize> for Key {
    fn from(index: usize) -> Self {
        Key::Index(index)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, key) in self.0.iter().enumerate() {
            match key {
                Key::Name(name) if depth == 0 => write!(f, "{name}")?,
                Key::Name(name) => write!(f, ".{name}")?,
                Key::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
