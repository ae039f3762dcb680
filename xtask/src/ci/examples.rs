//! Runs the programs in examples/ without arguments, as their first readers do.

use crate::build;
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path, process::Command};

/// Builds and runs each program.
pub(super) fn run(root: &Path) -> Result<()> {
    for name in names(root)? {
        let program = build::program(root, "--example", &name, |_| ())?;
        let status = Command::new(program).current_dir(root).status();
        let status = status.with_context(|| name.clone())?;
        ensure!(status.success(), "examples/{name}.rs: {status}");
    }
    Ok(())
}

fn names(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("examples"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_that_serves_alone_has_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let expected = ["kernels", "model", "packing", "rope", "train"];
        assert_eq!(names(root).unwrap(), expected);
    }
}
