//! The targets without a driver: their seeds are accepted, and earlier faults stay fixed.

use std::{fs, path::Path};
use tightrope_fuzz::{TARGETS, find};

#[test]
fn every_target_accepts_its_seeds() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        for (index, seed) in seeds.iter().enumerate() {
            let outcome = (target.run)(seed);
            assert!(outcome.is_ok(), "{} {index}: {outcome:?}", target.name);
        }
    }
}

#[test]
fn what_was_found_stays_mended() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    let entries = fs::read_dir(found)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    for folder in entries.filter(|path| path.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let target = find(name).unwrap_or_else(|| panic!("no target `{name}`"));
        for input in fs::read_dir(&folder).unwrap() {
            let input = input.unwrap().path();
            println!("{}", input.display());
            // Accepting and refusing are both correct.
            let _ = (target.run)(&fs::read(&input).unwrap());
        }
    }
}
