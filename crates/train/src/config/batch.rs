//! The size of a step in the section `[batch]`.

use super::{ConfigError, kinds, read::Values};
use tightrope_packing::{Algorithm, Layout};
use toml::Value;

const PACKS: &str = "batch.packs_per_step";
const SEQUENCES: &str = "batch.sequences_per_step";
const ACCUMULATION: &str = "batch.accumulation";

/// Whether batches of this mode always count sequences and not packs.
pub(crate) fn counts_sequences(mode: Algorithm) -> bool {
    mode.layout() != Layout::Packed
}

/// The key that gives the size of a step, with its default; refuses keys that do not go with it.
pub(super) fn size(values: &Values, mode: Algorithm) -> Result<(&'static str, Value), ConfigError> {
    let given = |key: &str| values.get(key).is_some();
    let refused = |key: &str, message: String| kinds::refuse(values, key, || message);
    if counts_sequences(mode) {
        let message = format!("`{PACKS}` has no meaning with mode \"{mode}\"; use `{SEQUENCES}`");
        refused(PACKS, message)?;
        let number = |key: &str, default| {
            let value = values.get(key).and_then(Value::as_integer);
            value.unwrap_or(default).max(1)
        };
        let (sequences, passes) = (number(SEQUENCES, 8), number(ACCUMULATION, 1));
        if sequences % passes != 0 {
            let message = format!(
                "the {sequences} sequences of a step (`{SEQUENCES}`) cannot be divided among \
                 `{ACCUMULATION}` = {passes} equal passes; change one of the two"
            );
            refused(ACCUMULATION, message)?;
        }
        return Ok((SEQUENCES, Value::Integer(8)));
    }
    if !given(SEQUENCES) {
        return Ok((PACKS, Value::Integer(1)));
    }
    if mode.cuts_sequences() {
        let message = format!(
            "`{SEQUENCES}` needs whole sequences, and mode \"{mode}\" cuts them; use `{PACKS}`, or \
             another `packing.mode`"
        );
        refused(SEQUENCES, message)?;
    }
    for (key, why) in [
        (PACKS, "both give the size of a step"),
        (
            ACCUMULATION,
            "a step has as many passes as its sequences need",
        ),
        ("packing.file", "each step is packed by itself"),
    ] {
        let message =
            format!("`{key}` does not go with `{SEQUENCES}`: {why}; remove one of the two");
        refused(key, message)?;
    }
    Ok((SEQUENCES, Value::Integer(8)))
}
