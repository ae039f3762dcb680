//! Verification: packing changes nothing, and a difference would be noticed.

#[path = "../../train/tests/common/mod.rs"]
mod common;

use common::{LORA, Run, alike};
use tightrope_device::DType;
use tightrope_model::{Backend, Purpose};
use tightrope_run::verify;
use tightrope_testkit::cuda;
use tightrope_train::{Prepared, batches, gradient_norm};

#[test]
fn verification_passes_and_would_notice() {
    for sets in [&[][..], LORA] {
        let run = Run::new(sets);
        let config = run.config();
        let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
        let mut model = run.model(&run.cpu(), &config, prepared.capacity());
        let result = verify(&mut model, &config.objective, prepared.batches(), 3).unwrap();
        assert!(result.passed && result.checks.len() == 6, "{result:#?}");
        assert_eq!(result.packs, 3);
        let gradient = gradient_norm(&mut model).unwrap();
        assert!(gradient > 0.0);
    }
}

#[test]
fn verification_passes_on_a_base_in_four_bits() {
    fn check<D: Backend>(device: &D) {
        let mut run = Run::new(LORA);
        run.set(&["lora.quantize=nf4"]);
        let config = run.config();
        let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
        let mut model = run.model(device, &config, prepared.capacity());
        let buffers = model.plan().buffers().iter();
        let linear =
            buffers.filter(|b| b.purpose == Purpose::Weights && b.name.ends_with("_proj.weight"));
        assert!(linear.map(|b| b.dtype).all(|dtype| dtype == DType::U8));
        let result = verify(&mut model, &config.objective, prepared.batches(), 3).unwrap();
        assert!(result.passed && result.checks.len() == 6, "{result:#?}");
    }
    check(&Run::new(&[]).cpu());
    check(cuda());
}

/// Pairs that share their prompts, and groups of sequences that begin alike.
#[test]
fn verification_passes_on_shared_beginnings_and_would_notice() {
    let objectives = ["dpo", "ipo", "simpo", "cpo", "orpo", "reward"].map(|kind| (true, kind));
    for (pairs, kind) in objectives.into_iter().chain([(false, "cross-entropy")]) {
        for adapter in [&["lora.r=4"][..], &[]] {
            let mut run = Run::new(adapter);
            let kind = format!("objective.kind={kind}");
            run.set(&[&kind, "packing.capacity=128", "packing.share_prefix=true"]);
            run.train = alike(pairs);
            let config = run.config();
            batches::share(&config, &mut run.train, u64::MAX).unwrap();
            let saved = run.train.shared.as_ref().unwrap().saved_tokens();
            assert!(saved > 50, "{saved}");
            let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
            let mut model = run.model(&run.cpu(), &config, prepared.capacity());
            let result = verify(&mut model, &config.objective, prepared.batches(), 3).unwrap();
            let checks = if pairs { 8 } else { 6 };
            assert!(
                result.passed && result.checks.len() == checks,
                "{result:#?}"
            );
            assert!(result.packs >= 2);
            let losses = result.checks.iter().filter(|c| {
                c.quantity.ends_with("of each token") || c.quantity.ends_with("of each sequence")
            });
            assert!(
                losses.into_iter().all(|check| check.difference == 0.0),
                "{result:#?}"
            );
        }
    }
}
