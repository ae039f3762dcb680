//! Prints how likely a model finds each token of a text.
//!
//!   cargo run --release -p tightrope-run --example model -- models/MODEL "The text."
//!
//! The model is a folder, a .gguf file or a hub id. Without one, the example makes a small model
//! that has not learnt anything.

use std::path::Path;
use tightrope_device::Cpu;
use tightrope_model::{LoadOptions, Model};
use tightrope_packing::{Batch, Piece, Sequence};
use tightrope_run::{Base, demo};
use tightrope_train::{RunOptions, StopFlag};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = match arguments.next() {
        Some(model) => model,
        None => small_model(Path::new("runs/example-model"))?,
    };
    let text = arguments.next().unwrap_or("What is 2 + 3?".into());

    let base = Base::open(&model, &())?;
    let tokenizer = base.tokenizer.ok_or("the model has no tokenizer")?;
    let tokens = tokenizer.encode(&text, true)?;
    let mut model = Model::load(
        &Cpu::new(0)?,
        base.source.path(),
        &LoadOptions::new(tokens.len()),
    )?;

    let labels: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
    let sequences = [Sequence::from_labels(tokens.clone(), &labels)?];
    let length = u32::try_from(tokens.len())?;
    let piece = Piece {
        sequence: 0,
        start: 0,
        length,
    };
    let loss = model.evaluate(&Batch::packed(&sequences[..], &[piece])?)?;
    // The loss of a token says how well the model predicts the next one.
    for (token, loss) in tokens[1..].iter().zip(&loss.per_token) {
        println!("{:>8.3}  {:?}", -loss, tokenizer.decode(&[*token], false)?);
    }
    println!("{:>8.3}  in all", -loss.sum);
    Ok(())
}

/// The initial model of the demonstration, after one step.
fn small_model(folder: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let settings = demo::Settings {
        steps: 1,
        records: 300,
        questions: 0,
    };
    let (options, stop) = (RunOptions::default(), StopFlag::default());
    let demonstration = demo::run(folder, &settings, &options, &stop, &())?;
    Ok(demonstration.report.weights.to_string_lossy().into_owned())
}
