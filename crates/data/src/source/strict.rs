//! Parses JSON values as serde_json does, but refuses a key that occurs twice in an object: the
//! last value would win without a word.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Why a text is no value.
pub(super) enum Refused {
    Json(serde_json::Error),
    /// This key occurs twice; the offset is that of its second place.
    Twice(String, usize),
}

pub(super) fn parse(text: &str) -> Result<Value, Refused> {
    let twice = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { twice: &twice }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| match twice.take() {
        None => Refused::Json(error),
        Some(key) => {
            // The error lies at the end of the key.
            let end = super::locate::offset_of(text.as_bytes(), error.line(), error.column());
            let before = text.as_bytes()[..text.len().min(end + 1)].trim_ascii_end();
            let written = serde_json::to_string(&key).unwrap_or_default();
            let at = before.strip_suffix(written.as_bytes());
            let at = at.map_or(end, <[u8]>::len);
            Refused::Twice(key, at)
        }
    })
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    /// Receives the key that occurs twice.
    twice: &'a Cell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            match fields.entry(key) {
                Entry::Vacant(place) => drop(place.insert(object.next_value_seed(self)?)),
                Entry::Occupied(place) => {
                    self.twice.set(Some(place.key().clone()));
                    return Err(A::Error::custom("a key occurs twice"));
                }
            }
        }
        Ok(Value::Object(fields))
    }
}
