//! The program under libFuzzer: it runs the target that `FUZZ_TARGET` names (without it, it prints
//! all names). It writes the target's seeds and dictionary to the folder `FUZZ_SEEDS` before the
//! first input, and each input to the file `FUZZ_CURRENT` before reading it, because an exhausted
//! stack leaves no chance to report.
#![no_main]

use std::{
    env,
    ffi::OsString,
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Mutex, OnceLock},
};
use tightrope_fuzz::{TARGETS, Target, dictionary, find};

static TARGET: OnceLock<(&Target, Option<OsString>)> = OnceLock::new();
/// Message of the last panic. A panic that the reader catches itself is no fault.
static PANIC: Mutex<String> = Mutex::new(String::new());

libfuzzer_sys::fuzz_target!(init: prepare(), |bytes: &[u8]| {
    let (target, current) = TARGET.get().expect("prepared before");
    if let Some(current) = current {
        let _ = fs::write(current, bytes);
    }
    let run = AssertUnwindSafe(|| drop((target.run)(bytes)));
    if panic::catch_unwind(run).is_err() {
        eprintln!("{}", PANIC.lock().unwrap_or_else(|e| e.into_inner()));
        std::process::abort();
    }
});

fn prepare() {
    let Ok(name) = env::var("FUZZ_TARGET") else {
        TARGETS
            .iter()
            .for_each(|target| println!("{}", target.name));
        std::process::exit(0);
    };
    let target = find(&name).unwrap_or_else(|| panic!("no target `{name}`"));
    if let Some(folder) = env::var_os("FUZZ_SEEDS") {
        write_seeds(target, Path::new(&folder)).expect("the folder of seeds can be written");
    }
    let _ = TARGET.set((target, env::var_os("FUZZ_CURRENT")));
    panic::set_hook(Box::new(|info| {
        *PANIC.lock().unwrap_or_else(|e| e.into_inner()) = info.to_string();
    }));
}

fn write_seeds(target: &Target, folder: &Path) -> std::io::Result<()> {
    for (index, seed) in (target.seeds)().iter().enumerate() {
        fs::write(folder.join(format!("seed-{index}")), seed)?;
    }
    fs::write(folder.with_extension("words"), dictionary(target.words))
}
