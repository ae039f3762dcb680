//! Blocks of 32 elements with one scale in f16.

use super::search::{self, Guesses, Line, levels, symmetric};
use half::f16;

/// Elements of a block.
const N: usize = 32;

/// All elements count alike.
const EQUAL: [f32; N] = [1.0; N];

fn block(x: &[f32]) -> &[f32; N] {
    x.as_array().unwrap_or(&[0.0; N])
}

pub(super) fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

pub(super) fn put(bytes: &mut [u8], x: f32) {
    bytes[..2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
}

/// `x = d · q` with q in −127..=127.
pub(super) fn q8_0(x: &[f32], bytes: &mut [u8]) {
    let x = block(x);
    let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    let d = half(largest / 127.0);
    put(bytes, d);
    for (byte, q) in bytes[2..].iter_mut().zip(levels(x, d, (-127.0, 127.0))) {
        *byte = q as i8 as u8;
    }
}

/// Writes the low four bits of each level: byte i has those of i and of i + 16.
fn nibbles(bytes: &mut [u8], q: &[u8; N]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (q[i] & 0x0f) | (q[i + N / 2] & 0x0f) << 4;
    }
}

/// Writes the fifth bit of each level, bit i that of i.
fn fifths(bytes: &mut [u8], q: &[u8; N]) {
    let bits = q.iter().enumerate();
    let bits = bits.fold(0u32, |bits, (i, q)| bits | u32::from(q >> 4) << i);
    bytes.copy_from_slice(&bits.to_le_bytes());
}

/// `x = d · (q − 8)` with q in 0..16.
pub(super) fn q4_0(x: &[f32], bytes: &mut [u8]) {
    let x = block(x);
    let d = symmetric(x, &EQUAL, 8.0, half);
    put(bytes, d);
    let q = levels(x, d, (-8.0, 7.0)).map(|q| (q + 8.0) as u8);
    nibbles(&mut bytes[2..], &q);
}

/// `x = d · (q − 16)` with q in 0..32.
pub(super) fn q5_0(x: &[f32], bytes: &mut [u8]) {
    let x = block(x);
    let d = symmetric(x, &EQUAL, 16.0, half);
    put(bytes, d);
    let q = levels(x, d, (-16.0, 15.0)).map(|q| (q + 16.0) as u8);
    fifths(&mut bytes[2..6], &q);
    nibbles(&mut bytes[6..], &q);
}

/// `x = d · q + m` with q in 0..32.
pub(super) fn q5_1(x: &[f32], bytes: &mut [u8]) {
    let x = block(x);
    let guesses = Guesses {
        first: -0.5,
        step: 0.1,
        count: 16,
    };
    let stored = |line: Line| Line {
        scale: half(line.scale),
        offset: half(line.offset),
    };
    let line = search::affine((x, &EQUAL), (31.0, guesses), false, stored);
    put(bytes, line.scale);
    put(&mut bytes[2..], line.offset);
    let q = line.levels(x, 31.0).map(|q| q as u8);
    fifths(&mut bytes[4..8], &q);
    nibbles(&mut bytes[8..], &q);
}
