//! Edges that are allowed between crates, the table of docs/architecture.md.

use super::{Problem, tree::Tree};
use toml::Table;

/// Folder of a crate, and the folders of the crates that it may use.
pub(super) const EDGES: &[(&str, &[&str])] = &[
    ("crates/cli", &["run", "train", "data", "formats", "report"]),
    (
        "crates/run",
        &[
            "train", "model", "data", "packing", "device", "formats", "report",
        ],
    ),
    (
        "crates/train",
        &[
            "model", "kernels", "data", "packing", "device", "formats", "report",
        ],
    ),
    (
        "crates/model",
        &["kernels", "rope", "packing", "device", "formats"],
    ),
    ("crates/kernels", &["device", "rope"]),
    ("crates/rope", &[]),
    ("crates/data", &["packing", "formats", "report"]),
    ("crates/packing", &[]),
    ("crates/formats", &[]),
    ("crates/report", &[]),
    ("crates/device", &[]),
    ("crates/emulator", &[]),
    ("crates/emulator/libcublaslt", &["emulator", "libcuda"]),
    ("crates/emulator/libcuda", &["emulator"]),
    ("crates/testkit", &["device", "libcublaslt", "libcuda"]),
    (
        "crates/fuzz",
        &[
            "run", "train", "model", "data", "packing", "device", "formats", "emulator",
        ],
    ),
    ("xtask", &[]),
    (
        "benches",
        &[
            "packing", "data", "device", "rope", "kernels", "model", "train", "run", "emulator",
        ],
    ),
];

/// The crate that every crate may use in its tests.
const TESTKIT: &str = "testkit";
const PREFIX: &str = "tightrope-";

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending("/Cargo.toml") {
        let folder = path.trim_end_matches("/Cargo.toml");
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == folder) else {
            problems.push(Problem::new(path, 0, "not in the table of crate edges"));
            continue;
        };
        match text.parse::<Table>() {
            Ok(manifest) => check_manifest(path, &manifest, allowed, &mut problems),
            Err(error) => problems.push(Problem::new(path, 0, error.to_string())),
        }
    }
    for (folder, _) in EDGES {
        let path = format!("{folder}/Cargo.toml");
        if !tree.exists(&path) {
            problems.push(Problem::new(path, 0, "in the table of crate edges only"));
        }
    }
    problems
}

fn check_manifest(path: &str, manifest: &Table, allowed: &[&str], problems: &mut Vec<Problem>) {
    let short = path.rsplit('/').nth(1).unwrap_or(path);
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name")?.as_str())
        .unwrap_or_default();
    if short != "xtask" && name != format!("{PREFIX}{short}") {
        let message = format!("the package is named `{name}`, not `{PREFIX}{short}`");
        problems.push(Problem::new(path, 0, message));
    }
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(|value| value.as_table()) {
        tables.extend(targets.values().filter_map(|value| value.as_table()));
    }
    for table in tables {
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let Some(used) = table.get(kind).and_then(|value| value.as_table()) else {
                continue;
            };
            for used in used.keys().filter_map(|key| key.strip_prefix(PREFIX)) {
                let in_tests = kind == "dev-dependencies" && used == TESTKIT;
                if !in_tests && !allowed.contains(&used) {
                    let message = format!("{kind}: `{short}` may not use `{used}`");
                    problems.push(Problem::new(path, 0, message));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Problems of a tree that has every crate, with this text as the manifest of `crates/data`.
    fn problems(data: &str) -> Vec<String> {
        let mut tree = Tree::default();
        for (folder, _) in EDGES {
            let short = folder.rsplit('/').next().unwrap_or(folder);
            tree.files.insert(
                format!("{folder}/Cargo.toml"),
                format!("package.name = 'tightrope-{short}'"),
            );
        }
        tree.files
            .insert("crates/data/Cargo.toml".into(), data.into());
        check(&tree).into_iter().map(|p| p.message).collect()
    }

    #[test]
    fn allowed_edges_pass() {
        let text = "package.name = 'tightrope-data'\n\
            [dependencies]\ntightrope-packing = '*'\ncsv = '1'\n\
            [dev-dependencies]\ntightrope-testkit = '*'\ntightrope-packing = '*'";
        assert!(problems(text).is_empty());
    }

    #[test]
    fn every_kind_of_other_edge_is_rejected() {
        for kind in [
            "dependencies",
            "build-dependencies",
            "dev-dependencies",
            "target.'cfg(unix)'.dependencies",
        ] {
            let text = format!("package.name = 'tightrope-data'\n[{kind}]\ntightrope-model = '*'");
            let found = problems(&text);
            assert_eq!(found.len(), 1, "{kind}");
            assert!(
                found[0].ends_with("`data` may not use `model`"),
                "{found:?}"
            );
        }
        let testkit = "package.name = 'tightrope-data'\n[dependencies]\ntightrope-testkit = '*'";
        assert_eq!(problems(testkit).len(), 1, "testkit is for tests alone");
    }

    #[test]
    fn names_and_folders_agree() {
        assert_eq!(problems("package.name = 'data'").len(), 1);
        assert_eq!(problems("not toml").len(), 1);
        let mut tree = Tree::default();
        assert_eq!(check(&tree).len(), EDGES.len());
        let stray = "crates/stray/Cargo.toml";
        tree.files.insert(stray.into(), String::new());
        assert!(check(&tree).iter().any(|problem| problem.file == stray));
    }
}
