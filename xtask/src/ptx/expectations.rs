//! Statements in comments of a `kernel.cu` about the instructions of its kernels:
//!
//! - `// expects: LDG.128 STG.128 in rms_norm_forward_* rms_norm_backward_*`: each of these kernels has
//!   these instructions on every architecture. `LDG.128` is any `LDG` with `128` among its
//!   modifiers, such as `LDG.E.128.CONSTANT`; tensor cores are `HMMA`.
//! - `// dynamic shared memory: 16384 in rms_norm_backward_*`: size in bytes for a launch at a
//!   usual shape, for the occupancy.
//!
//! A line without `in` applies to every kernel of the file.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

const EXPECTS: &str = "// expects: ";
const DYNAMIC: &str = "// dynamic shared memory: ";

/// The lines of one `kernel.cu`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Expectations {
    instructions: Vec<(Vec<String>, Kernels)>,
    dynamic: Vec<(u32, Kernels)>,
}

/// Patterns of symbols, in which `*` stands for any text.
#[derive(Debug, PartialEq)]
struct Kernels(Vec<String>);

impl Expectations {
    /// Returns an error if a line cannot be read, or matches no kernel of `symbols`.
    pub(super) fn read(source: &str, symbols: &BTreeSet<&str>) -> Result<Self> {
        let mut result = Self::default();
        for (index, line) in source.lines().enumerate() {
            result
                .line(line, symbols)
                .with_context(|| format!("line {}: {line}", index + 1))?;
        }
        Ok(result)
    }

    fn line(&mut self, line: &str, symbols: &BTreeSet<&str>) -> Result<()> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let split = |text: &str| -> Result<(Vec<String>, Kernels)> {
            let (what, patterns) = text.split_once(" in ").unwrap_or((text, "*"));
            let kernels = Kernels(words(patterns));
            for pattern in &kernels.0 {
                let mut symbols = symbols.iter();
                let found = symbols.any(|symbol| matches(pattern, symbol));
                ensure!(found, "no kernel is called `{pattern}`");
            }
            Ok((words(what), kernels))
        };
        if let Some(text) = line.strip_prefix(EXPECTS) {
            self.instructions.push(split(text)?);
        } else if let Some(text) = line.strip_prefix(DYNAMIC) {
            let (bytes, kernels) = split(text)?;
            let bytes = bytes.concat().parse().context("a number of bytes")?;
            self.dynamic.push((bytes, kernels));
        }
        Ok(())
    }

    /// Instructions that a kernel must have.
    pub(super) fn instructions(&self, symbol: &str) -> BTreeSet<&str> {
        let all = self.instructions.iter();
        all.filter(|(_, kernels)| kernels.contain(symbol))
            .flat_map(|(wanted, _)| wanted.iter().map(String::as_str))
            .collect()
    }

    /// Size of dynamic shared memory in bytes; if several lines apply to a kernel, the last counts.
    pub(super) fn dynamic_shared(&self, symbol: &str) -> u32 {
        let mut all = self.dynamic.iter().rev();
        let found = all.find(|(_, kernels)| kernels.contain(symbol));
        found.map_or(0, |(bytes, _)| *bytes)
    }
}

impl Kernels {
    fn contain(&self, symbol: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, symbol))
    }
}

/// Whether `wanted` names `opcode`, as the disassembler prints it.
pub(super) fn is_instruction(wanted: &str, opcode: &str) -> bool {
    let mut wanted = wanted.split('.');
    let mut parts = opcode.split('.');
    wanted.next() == parts.next() && wanted.all(|part| parts.clone().any(|found| found == part))
}

fn matches(pattern: &str, symbol: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == symbol;
    };
    let Some(symbol) = symbol.strip_prefix(head) else {
        return false;
    };
    (0..=symbol.len())
        .filter(|&at| symbol.is_char_boundary(at))
        .any(|at| matches(rest, &symbol[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
// A kernel.
// expects: LDG.128 STG.128 in a_forward_* a_backward_*_u64
// expects: HMMA in a_backward_*
// dynamic shared memory: 1024
// dynamic shared memory: 4096 in a_backward_*
";

    #[test]
    fn lines_are_about_the_kernels_that_they_name() {
        let symbols = [
            "a_forward_f32",
            "a_backward_f32_u64",
            "a_backward_f32_u32",
            "b",
        ];
        let found = Expectations::read(SOURCE, &symbols.into()).unwrap();
        let instructions = |symbol| Vec::from_iter(found.instructions(symbol));
        assert_eq!(instructions("a_forward_f32"), ["LDG.128", "STG.128"]);
        assert_eq!(
            instructions("a_backward_f32_u64"),
            ["HMMA", "LDG.128", "STG.128"]
        );
        assert_eq!(instructions("a_backward_f32_u32"), ["HMMA"]);
        assert!(instructions("b").is_empty());
        assert_eq!(found.dynamic_shared("b"), 1024);
        assert_eq!(found.dynamic_shared("a_backward_f32_u32"), 4096);
        assert_eq!(
            Expectations::read("// nothing", &symbols.into()).unwrap(),
            Expectations::default()
        );
    }

    #[test]
    fn wrong_lines_are_named() {
        let symbols = ["a_forward_f32"].into();
        for (source, part) in [
            ("\n// expects: HMMA in b_*", "line 2"),
            ("// expects: HMMA in b_*", "no kernel is called `b_*`"),
            ("// dynamic shared memory: many", "a number of bytes"),
        ] {
            let error = Expectations::read(source, &symbols).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn instructions_are_told_by_name_and_modifiers() {
        assert!(is_instruction("LDG.128", "LDG.E.128.CONSTANT"));
        assert!(is_instruction("LDG", "LDG.E"));
        assert!(is_instruction("HMMA", "HMMA.16816.F32.BF16"));
        assert!(!is_instruction("LDG.128", "LDG.E.64"));
        assert!(!is_instruction("LDG.128", "LDGSTS.E.128"));
        assert!(!is_instruction("LDG.128", "STG.E.128"));
    }
}
