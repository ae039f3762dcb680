//! Preference training on every device.

mod common;

use common::{LORA, Run, Watch, dataset};
use tightrope_data::ExampleKind;
use tightrope_device::Device;
use tightrope_model::Backend;
use tightrope_testkit::cuda;

/// Losses and gradient norms of two steps.
fn steps<D: Backend + Device>(device: &D, sets: &[&str]) -> Vec<[f64; 2]> {
    let mut run = Run::new(sets);
    run.set(&["packing.capacity=64", "run.max_steps=2"]);
    run.train = dataset(12, 1);
    run.train.kind = match sets.contains(&"objective.kind=kto") {
        true => ExampleKind::Labelled,
        false => ExampleKind::Pairs,
    };
    run.train.desirable = (0..run.train.sequences.len()).map(|i| i % 3 > 0).collect();
    run.watched_on(device, &Watch::new(None)).unwrap();
    let number = |row: &serde_json::Value, key: &str| row[key].as_f64().unwrap();
    let rows = run.rows();
    let rows = rows.iter();
    rows.map(|row| [number(row, "loss"), number(row, "grad_norm")])
        .collect()
}

#[test]
fn an_emulated_gpu_agrees_with_the_cpu() {
    for kind in ["dpo", "ipo", "simpo", "cpo", "orpo", "kto"] {
        let kind_set = format!("objective.kind={kind}");
        for adapter in [LORA, &[]] {
            let sets = [&[kind_set.as_str(), "precision=f32"], adapter].concat();
            let run = Run::new(&[]);
            let (cpu, gpu) = (steps(&run.cpu(), &sets), steps(cuda(), &sets));
            assert_eq!(cpu.len(), 2);
            for (a, b) in cpu.iter().flatten().zip(gpu.iter().flatten()) {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(1.0), "{kind}: {a} {b}");
            }
        }
    }
}
