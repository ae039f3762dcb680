//! Checks that the compiler of the gate is the oldest that the crates promise to support.

use super::{Problem, tree::Tree};
use toml::{Table, Value};

const TOOLCHAIN: &str = "rust-toolchain.toml";
const MANIFEST: &str = "Cargo.toml";

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let text = |file: &str, keys: &[&str]| -> Option<String> {
        let table: Value = tree.files.get(file)?.parse::<Table>().ok()?.into();
        let value = keys.iter().try_fold(&table, |value, key| value.get(key))?;
        value.as_str().map(str::to_owned)
    };
    let used = text(TOOLCHAIN, &["toolchain", "channel"]).unwrap_or_default();
    let promised = text(MANIFEST, &["workspace", "package", "rust-version"]).unwrap_or_default();
    match used.rsplit_once('.') {
        Some((used, _)) if used == promised => Vec::new(),
        _ => {
            let message = format!("`{used}` is no release of the rust-version `{promised}`");
            vec![Problem::new(TOOLCHAIN, 0, message)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_release_of_what_is_promised_passes() {
        let problems = |channel: &str| {
            let toolchain = format!("[toolchain]\nchannel = '{channel}'");
            let manifest = "[workspace.package]\nrust-version = '1.95'";
            check(&Tree::of(&[(TOOLCHAIN, &toolchain), (MANIFEST, manifest)])).len()
        };
        assert_eq!((problems("1.95.0"), problems("1.95.2")), (0, 0));
        for other in ["stable", "1.96.0", "1.9.0", "1.95"] {
            assert_eq!(problems(other), 1, "{other}");
        }
    }
}
