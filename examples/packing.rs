//! Turns lengths into `cu_seqlens`, which a trainer with variable-length attention needs.
//!
//!   cargo run --release -p tightrope-packing --example packing -- 2048 700 1300 90 2048 512
//!
//! The first number is the capacity of a pack, the others are lengths of sequences.

use tightrope_packing::{Algorithm, Packer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Result<Vec<u32>, _> = std::env::args().skip(1).map(|n| n.parse()).collect();
    let (capacity, lengths) = match numbers?.split_first() {
        Some((&capacity, lengths)) => (capacity, lengths.to_vec()),
        None => (10, vec![7, 3, 8, 5, 2]),
    };
    let packing = Packer::new(Algorithm::BestFit, capacity.into()).pack(&lengths)?;
    for pack in packing.iter() {
        let sequences: Vec<u32> = pack.iter().map(|piece| piece.sequence).collect();
        let mut cu_seqlens = vec![0];
        for piece in pack {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + piece.length);
        }
        println!("sequences {sequences:?}: cu_seqlens {cu_seqlens:?}");
    }
    println!(
        "{} packs, {:.1} % full; at least {} are needed",
        packing.len(),
        100.0 * packing.efficiency(),
        packing.lower_bound()
    );
    Ok(())
}
