//! `docs/kernels.md`: the resources of every kernel on every architecture.

use super::{architecture::ARCHITECTURES, assembly::Module};
use std::{collections::BTreeSet, fmt::Write};

/// Path relative to the root.
pub(super) const FILE: &str = "docs/kernels.md";

const HEAD: &str = "\
# Kernels

`cargo xtask ptx` writes this document and `cargo xtask ptx --check` compares it; manual changes are lost. [GPUs](cuda.md) has the rules.

A cell shows `registers of a thread / occupancy in percent`. Occupancy is the number of resident warps relative to the most that a multiprocessor holds, computed as in the vendor's `cuda_occupancy.h` from the output of ptxas 13.0 for the committed PTX. Nothing here was measured on hardware. `threads` is the number of threads in a block, and `shared` is the size of its shared memory in bytes, static and dynamic. No kernel uses local memory, so none spills registers; otherwise the check fails.

The chore reads two kinds of comments in a `kernel.cu`. Without `in`, they apply to every kernel of the file; `*` stands for any text.

- `// expects: LDG.128 STG.128 in copy_*`: the disassembly of these kernels must have these instructions on every architecture. `LDG.128` is an `LDG` with `128` among its modifiers; tensor cores appear as `HMMA`.
- `// dynamic shared memory: 32768 in copy_*`: the size in bytes for a launch at a usual shape, for the occupancy.
";

/// The whole document.
pub(super) fn render(modules: &[Module]) -> String {
    let mut text = HEAD.to_owned();
    let names = ARCHITECTURES.iter().map(|on| on.name());
    let columns: Vec<String> = names.collect();
    for module in modules {
        // A path of the repository has `/`, and a folder with the operation's name.
        let source = module.source.to_string_lossy();
        let operation = source.rsplit('/').nth(1).unwrap_or(&source);
        let expected: BTreeSet<&str> = module
            .kernels
            .values()
            .flat_map(|kernel| kernel.expected.iter().map(String::as_str))
            .collect();
        let expected = match expected.is_empty() {
            true => "no instructions in particular".to_owned(),
            false => Vec::from_iter(expected).join(", "),
        };
        let head = format!("\n## {operation}\n\n`{source}`, which expects {expected}.\n\n");
        text += &head;
        text += &format!("| kernel | threads | shared | {} |\n", columns.join(" | "));
        text += &format!("| --- | --: | --: |{}\n", " --: |".repeat(columns.len()));
        for (symbol, kernel) in &module.kernels {
            let shared = kernel.blocks().map(|(_, block)| block.shared).max();
            let shared = shared.unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = write!(text, "| `{symbol}` | {} | {shared} |", kernel.threads);
            for (on, block) in kernel.blocks() {
                let _ = write!(text, " {} / {} |", block.registers, on.occupancy(block));
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::assembly::{Kernel, Usage};

    #[test]
    fn a_row_for_each_kernel_and_a_cell_for_each_architecture() {
        let usage = Usage {
            registers: 40,
            shared: 32,
            barriers: 1,
            ..Usage::default()
        };
        let kernel = Kernel {
            threads: 256,
            dynamic_shared: 1000,
            expected: vec!["LDG.128".into()],
            usage: vec![usage; ARCHITECTURES.len()],
        };
        let module = Module {
            source: "crates/kernels/src/copy/kernel.cu".into(),
            kernels: [("copy_f32".to_owned(), kernel)].into(),
        };
        let text = render(&[module]);
        let row = "| `copy_f32` | 256 | 1032 | 40 / 75 | 40 / 100 | 40 / 100 | 40 / 75 | 40 / 75 | 40 / 100 |\n";
        assert!(text.ends_with(row), "{text}");
        assert!(
            text.contains(
                "\n## copy\n\n`crates/kernels/src/copy/kernel.cu`, which expects LDG.128."
            )
        );
        assert!(text.contains("| kernel | threads | shared | sm_80 | sm_86 |"));
    }
}
