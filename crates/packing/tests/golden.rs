//! Pack counts of the published reference algorithms on the published histograms, to the unit.

use serde_json::Value;
use tightrope_packing::{Algorithm, Histogram, Packer};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn histogram(name: &str) -> Histogram {
    let all = json(include_str!("data/length_histograms.json"));
    let counts = all[name]["counts"].as_array().unwrap();
    let counts: Vec<u64> = counts.iter().map(|c| c.as_u64().unwrap()).collect();
    Histogram::from_counts(&counts).unwrap()
}

fn check(name: &str, capacity: u64) {
    let golden = &json(include_str!("data/packing_golden.json"))[name];
    let histogram = histogram(name);
    assert_eq!(Some(histogram.sequences()), golden["sequences"].as_u64());
    assert_eq!(Some(histogram.tokens()), golden["tokens"].as_u64());
    let pack = |algorithm, capacity, depth| {
        let packer = Packer {
            depth,
            ..Packer::new(algorithm, capacity)
        };
        let packing = packer.pack_histogram(&histogram).unwrap();
        let held = packing.strategies.unwrap().histogram().unwrap();
        assert_eq!(held, histogram, "{algorithm} keeps every sequence");
        assert!(packing.lower_bound <= packing.packs);
        packing.packs
    };
    let mut checked = 0;
    for algorithm in [Algorithm::Spfhp, Algorithm::Lpfhp, Algorithm::Nnlshp] {
        for row in golden[algorithm.name()].as_array().unwrap() {
            let depth = row[0].as_u64().map(|depth| depth as u32);
            let packs = pack(algorithm, capacity, depth);
            assert_eq!(Some(packs), row[1].as_u64(), "{name} {algorithm} {depth:?}");
            checked += 1;
        }
    }
    let by_capacity = golden["best_fit_decreasing_by_capacity"]
        .as_object()
        .unwrap();
    for (capacity, expected) in by_capacity {
        let capacity = capacity.parse().unwrap();
        for algorithm in [Algorithm::BestFit, Algorithm::Lpfhp] {
            let packs = pack(algorithm, capacity, None);
            assert_eq!(
                Some(packs),
                expected.as_u64(),
                "{name} {algorithm} {capacity}"
            );
        }
        checked += 1;
    }
    assert!(checked >= 11, "only {checked} cases");
}

#[test]
fn wikipedia() {
    check("wikipedia", 512);
}

#[test]
fn squad() {
    check("squad_1_1", 384);
}
