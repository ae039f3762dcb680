//! Trains from code, with a configuration, an observer and a report.
//!
//!   cargo run --release -p tightrope-run --example train -- examples/smollm2-alpaca.toml
//!
//! Without a configuration, a small model trains on generated questions.

use std::path::Path;
use tightrope_data::Progress;
use tightrope_run::{demo, train};
use tightrope_train::{Config, Observer, RunOptions, StepRow, StopFlag};

/// An observer gets all events; `()` is one that does nothing.
struct Printed;

impl Progress for Printed {}
impl Observer for Printed {
    fn stepped(&self, row: &StepRow) {
        println!("step {}: loss {:.4}", row.step, row.loss);
    }
    fn notice(&self, text: &str) {
        println!("note: {text}");
    }
}

const CONFIGURATION: &str = r#"
model = "example-start/model"
output = "example-train"
device = "cpu"
[data]
train = ["example-start/train.jsonl"]
max_length = 256
overlong = "drop"
[packing]
capacity = 256
[lora]
r = 8
[optimizer]
learning_rate = 1e-2
[run]
max_steps = 10
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut options, stop) = (RunOptions::default(), StopFlag::default());
    let config = match std::env::args().nth(1) {
        Some(file) => Config::load(Path::new(&file), &[])?,
        None => {
            let settings = demo::Settings {
                steps: 1,
                records: 300,
                questions: 0,
            };
            let folder = Path::new("runs/example-start");
            demo::run(folder, &settings, &options, &stop, &())?;
            options.overwrite = true; // the last run of this example
            // Paths are those of a file in this folder.
            Config::parse(CONFIGURATION, Path::new("runs/example.toml"), &[])?
        }
    };
    let report = train(&config, &options, &stop, &Printed)?;
    println!(
        "{} steps, {:.0} tokens a second",
        report.steps, report.tokens_per_second
    );
    println!("the weights are in {}", report.weights.display());
    Ok(())
}
