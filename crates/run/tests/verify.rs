//! Verification: packing changes nothing, and a difference would be noticed.

#[path = "../../train/tests/common/mod.rs"]
mod common;

use common::{LORA, Run};
use tightrope_device::DType;
use tightrope_model::{Backend, Purpose};
use tightrope_run::verify;
use tightrope_testkit::cuda;
use tightrope_train::{Prepared, gradient_norm};

#[test]
fn verification_passes_and_would_notice() {
    for sets in [&[][..], LORA] {
        let run = Run::new(sets);
        let config = run.config();
        let prepared = Prepared::new(&config, &run.train, None, 0).unwrap();
        let mut model = run.model(&run.cpu(), &config, prepared.capacity());
        let result = verify(&mut model, prepared.batches(), 3).unwrap();
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
        let result = verify(&mut model, prepared.batches(), 3).unwrap();
        assert!(result.passed && result.checks.len() == 6, "{result:#?}");
    }
    check(&Run::new(&[]).cpu());
    check(cuda());
}
