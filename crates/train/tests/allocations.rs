//! Allocations of a training step: lists of tasks, and no tensor.

mod common;

use common::{Run, sized};
use std::sync::Mutex;
use tightrope_data::Progress;
use tightrope_packing::Sequence;
use tightrope_train::{Observer, Output, Prepared, StepRow, StopFlag, Trainer};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const HIDDEN: usize = 256;
const TOKENS: usize = 1024;

/// Bytes allocated so far, by all threads, at the end of each step.
#[derive(Default)]
struct Steps(Mutex<Vec<u64>>);

impl Progress for Steps {}

impl Observer for Steps {
    fn stepped(&self, _: &StepRow) {
        let allocated = dhat::HeapStats::get().total_bytes;
        self.0.lock().unwrap().push(allocated);
    }
}

/// Bytes that each step but the first allocates.
fn allocated(sets: &[&str]) -> Vec<u64> {
    let mut run = Run::new(&["run.max_steps=6", "run.save_every=100"]);
    run.set(&[&format!("packing.capacity={TOKENS}")]);
    run.set(sets);
    run.architecture = sized(HIDDEN, 2 * HIDDEN);
    let sequence = |row: u32| {
        let tokens: Vec<u32> = (0..60 + 10 * row).map(|token| token % 37).collect();
        let labels: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
        Sequence::from_labels(tokens, &labels).unwrap()
    };
    run.train.sequences = (0..40).map(sequence).collect();
    run.options.threads = 2;
    let config = run.config();
    let steps = Steps::default();
    let output = Output::open(&config, &run.options, &steps).unwrap();
    let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
    let model = run.model(&run.cpu(), &config, prepared.capacity());
    let trainer = Trainer::new(&config, &run.options, output, prepared, None, model, &steps);
    trainer.unwrap().run(&StopFlag::default(), &steps).unwrap();
    let steps = steps.0.into_inner().unwrap();
    steps.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// There is one test only, because the allocator counts for the whole process.
#[test]
fn a_step_allocates_less_than_one_tensor_of_hidden_states() {
    let _profiler = dhat::Profiler::builder().testing().build();
    // A step computes dozens of these.
    let hidden_states = (TOKENS * HIDDEN * size_of::<f32>()) as u64;
    let ways: [&[&str]; 9] = [
        &[],
        &["run.recompute=true"],
        &["lora.r=4", "lora.dropout=0.1"],
        &["lora.r=4", "lora.quantize=nf4"],
        &["optimizer.state=8bit"],
        &["optimizer.kind=lion", "optimizer.state=bf16"],
        &["optimizer.kind=muon"],
        &["optimizer.kind=adafactor"],
        &["optimizer.kind=schedule-free"],
    ];
    for way in ways {
        let mut steps = allocated(way);
        println!("{way:?}: {steps:?} of {hidden_states} bytes");
        // The pool of working memory grows once more in the step in which threads first need it at
        // the same time.
        steps.sort_unstable();
        let others = &steps[..steps.len() - 1];
        assert!(others.iter().all(|&bytes| bytes < hidden_states), "{way:?}");
    }
}
