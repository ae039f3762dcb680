//! Records that a run leaves: `run.json`, the manifest of a checkpoint and its state, opened to
//! resume and to overwrite.

use crate::{Outcome, Target, files, folder};
use std::{fs, path::Path};
use tightrope_train::{
    Config, Output, RunOptions,
    checkpoint::{Identity, State, folder as checkpoints},
};

/// `run.json`, `manifest.json` (empty: a matching one) and `state.json`.
pub(super) const CHECKPOINT: Target = Target {
    name: "checkpoint",
    run,
    seeds: || {
        let state = serde_json::to_string(&State::new(Identity::default())).unwrap_or_default();
        let digest = "0".repeat(64);
        [
            format!("{RECORD}\n====\n\n====\n{state}"),
            format!("{RECORD}\n====\n{{\"format\": 2, \"step\": 1, \"files\": {{}}}}\n====\n{state}"),
            format!(
                "{{\"format\":1,\"demonstration\":true,\"written\":{{\"adapter\":{{\"a/b\":{{\"bytes\":1,\"sha256\":\"{digest}\"}}}}}}}}\n====\n\n====\n{state}"
            ),
        ]
        .map(Into::into)
        .into()
    },
    words: &[
        "\"written\":{",
        "\"files\":{",
        "\"bytes\":",
        "\"sha256\":",
        "\"format\":2",
        "\"identity\":{",
        "checkpoints",
        "../",
        "18446744073709551615",
        "1e400",
        "null",
    ],
};

const RECORD: &str = r#"{"format":1,"demonstration":false,"written":{"checkpoints":{}}}"#;

fn run(bytes: &[u8]) -> Outcome {
    let [record, manifest, state] = files(bytes);
    let (_folder, path) = folder(&[("run.json", record)])?;
    let parent = path.join("checkpoints");
    let (checkpoint, _) = checkpoints::write(&parent, 1, |folder| {
        // Only memory could be full here.
        let _ = fs::write(folder.join("state.json"), state);
        Ok(())
    })?;
    if !manifest.is_empty() {
        fs::write(checkpoint.join("manifest.json"), manifest)?;
    }
    let sets = [format!("output={}", path.display())];
    let config = Config::parse("model = 'm'", Path::new("run.toml"), &sets)?;
    let overwrite = RunOptions {
        overwrite: true,
        ..RunOptions::default()
    };
    let resume = RunOptions {
        resume: true,
        ..RunOptions::default()
    };
    // Files in a checkpoint that no run has written are refused here, and do not prevent resuming.
    let _ = Output::open(&config, &overwrite, &());
    let output = Output::open(&config, &resume, &())?;
    if let Some((_, state)) = output.resume() {
        state.identity.changes(&Identity::default());
    }
    Ok(())
}
