//! Blocks of 256 elements: parts of 32 or 16 have scales of few bits, which multiply a scale of the
//! block in f16.
//!
//! Errors of large elements count more, as in llama.cpp, where the measure comes from: with
//! `√(mean x²) + |x|` of a part in Q4_K and Q5_K, with `x²` in Q6_K. The scale of the block and those
//! of its parts are found in turn: each part tries the neighbours of its scale, and the scale of the
//! block is then the least-squares solution for all of them.

use super::blocks::{half, put};
use super::search::{Guesses, Line, affine, inverse, levels, sum, symmetric};

/// Number of times that the scales of the parts and that of the block are found in turn.
const ROUNDS: usize = 2;

/// Elements of a part of Q4_K and Q5_K.
const PART: usize = 32;
/// Parts of a block of Q4_K and Q5_K.
const PARTS: usize = 8;
/// Largest scale, and largest minimum, of a part.
const MOST: f32 = 63.0;

/// A part of a block with its weights.
struct Part<const N: usize> {
    x: [f32; N],
    w: [f32; N],
}

/// The parts of a block; `weight` gives the weight of an element from the root mean square of its
/// part.
fn parts<const N: usize, const P: usize>(
    x: &[f32],
    weight: impl Fn(f32, f32) -> f32,
) -> [Part<N>; P] {
    std::array::from_fn(|part| {
        let x: [f32; N] = std::array::from_fn(|i| x[part * N + i]);
        let mean = (sum::<N>(|i| x[i] * x[i]) / N as f32).sqrt();
        Part {
            x,
            w: x.map(|x| weight(x, mean)),
        }
    })
}

/// Scales and minima of the parts of a block: `x = d·scale·q − dmin·minimum`.
#[derive(Clone, Copy)]
struct Lines {
    d: f32,
    dmin: f32,
    scales: [f32; PARTS],
    minima: [f32; PARTS],
}

impl Lines {
    fn of(&self, part: usize) -> Line {
        Line {
            scale: self.d * self.scales[part],
            offset: -self.dmin * self.minima[part],
        }
    }

    /// Weighted error of a part with other scales.
    fn error(&self, part: &Part<PART>, (scale, minimum): (f32, f32), n: f32) -> f32 {
        let line = Line {
            scale: self.d * scale,
            offset: -self.dmin * minimum,
        };
        line.error(&part.x, &part.w, &line.levels(&part.x, n))
    }

    /// Takes for each part the best of its scale and minimum and their neighbours; returns the error
    /// of the block.
    fn settle(&mut self, parts: &[Part<PART>; PARTS], n: f32) -> f32 {
        let mut total = 0.0;
        for (index, part) in parts.iter().enumerate() {
            let own = (self.scales[index], self.minima[index]);
            let mut best = (self.error(part, own, n), own);
            for (by_scale, by_minimum) in NEIGHBOURS {
                let other = (own.0 + by_scale, own.1 + by_minimum);
                let fits = |scale: f32| (0.0..=MOST).contains(&scale);
                if fits(other.0) && fits(other.1) {
                    let error = self.error(part, other, n);
                    if error < best.0 {
                        best = (error, other);
                    }
                }
            }
            total += best.0;
            (self.scales[index], self.minima[index]) = best.1;
        }
        total
    }

    /// The same parts with the scales of the block that are best for their levels.
    fn solved(&self, parts: &[Part<PART>; PARTS], n: f32) -> Self {
        // Least squares of x ≈ d·a − dmin·b with a = scale·q, b = minimum.
        let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (index, Part { x, w }) in parts.iter().enumerate() {
            let q = self.of(index).levels(x, n);
            let (scale, b) = (self.scales[index], self.minima[index]);
            aa += scale * scale * sum::<PART>(|i| w[i] * q[i] * q[i]);
            ab += scale * b * sum::<PART>(|i| w[i] * q[i]);
            bb += b * b * sum::<PART>(|i| w[i]);
            xa += scale * sum::<PART>(|i| w[i] * x[i] * q[i]);
            xb += b * sum::<PART>(|i| w[i] * x[i]);
        }
        let determinant = aa * bb - ab * ab;
        let (d, dmin) = match determinant > 0.0 {
            true => (
                (xa * bb - xb * ab) / determinant,
                (xa * ab - xb * aa) / determinant,
            ),
            false if aa > 0.0 => (xa / aa, self.dmin),
            false => (self.d, self.dmin),
        };
        Self {
            d: half(d.max(0.0)),
            dmin: half(dmin.max(0.0)),
            ..*self
        }
    }
}

/// Steps to the neighbours of a scale and a minimum.
const NEIGHBOURS: [(f32, f32); 8] = [
    (-1.0, -1.0),
    (-1.0, 0.0),
    (-1.0, 1.0),
    (0.0, -1.0),
    (0.0, 1.0),
    (1.0, -1.0),
    (1.0, 0.0),
    (1.0, 1.0),
];

/// Scales, minima and levels of a block for levels of 0..=n, written but for the levels.
fn scaled(x: &[f32], n: f32, guesses: Guesses, bytes: &mut [u8]) -> [[u8; PART]; PARTS] {
    let parts = parts::<PART, PARTS>(x, |x, mean| mean + x.abs());
    let lines = parts
        .each_ref()
        .map(|part| affine((&part.x, &part.w), (n, guesses), true, |line| line));
    let most = |of: fn(&Line) -> f32| lines.iter().map(of).fold(0.0, f32::max);
    let (d, dmin) = (
        half(most(|line| line.scale) / MOST),
        half(most(|line| -line.offset) / MOST),
    );
    let rounded = |x: f32, unit: f32| (x * inverse(unit)).round().clamp(0.0, MOST);
    let mut best = Lines {
        d,
        dmin,
        scales: lines.map(|line| rounded(line.scale, d)),
        minima: lines.map(|line| rounded(-line.offset, dmin)),
    };
    let mut error = best.settle(&parts, n);
    for _ in 0..ROUNDS {
        let mut next = best.solved(&parts, n);
        let found = next.settle(&parts, n);
        if found >= error {
            break;
        }
        (best, error) = (next, found);
    }
    put(bytes, best.d);
    put(&mut bytes[2..], best.dmin);
    six_bits(&best, &mut bytes[4..16]);
    std::array::from_fn(|part| best.of(part).levels(&parts[part].x, n).map(|q| q as u8))
}

/// Writes scales and minima of six bits: those of the first four parts have bytes of their own, whose
/// upper bits are the upper bits of the other four.
fn six_bits(lines: &Lines, bytes: &mut [u8]) {
    let (scales, minima) = (lines.scales.map(|x| x as u8), lines.minima.map(|x| x as u8));
    for j in 0..4 {
        bytes[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        bytes[j + 4] = minima[j] | (minima[j + 4] >> 4) << 6;
        bytes[j + 8] = (scales[j + 4] & 0x0f) | (minima[j + 4] & 0x0f) << 4;
    }
}

/// Writes the low four bits of the levels: two parts share 32 bytes.
fn nibbles(q: &[[u8; PART]; PARTS], bytes: &mut [u8]) {
    for (pair, bytes) in q.chunks_exact(2).zip(bytes.chunks_exact_mut(PART)) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (pair[0][i] & 0x0f) | (pair[1][i] & 0x0f) << 4;
        }
    }
}

/// `x = d·scale·q − dmin·minimum` with q in 0..16.
pub(super) fn q4_k(x: &[f32], bytes: &mut [u8]) {
    let guesses = Guesses {
        first: -1.0,
        step: 0.1,
        count: 21,
    };
    let q = scaled(x, 15.0, guesses, bytes);
    nibbles(&q, &mut bytes[16..]);
}

/// `x = d·scale·q − dmin·minimum` with q in 0..32.
pub(super) fn q5_k(x: &[f32], bytes: &mut [u8]) {
    let guesses = Guesses {
        first: -0.5,
        step: 0.1,
        count: 16,
    };
    let q = scaled(x, 31.0, guesses, bytes);
    let (high, low) = bytes[16..].split_at_mut(PART);
    for (i, byte) in high.iter_mut().enumerate() {
        let bits = q.iter().enumerate();
        *byte = bits.fold(0, |bits, (part, q)| bits | (q[i] >> 4) << part);
    }
    nibbles(&q, low);
}

/// Elements of a part of Q6_K.
const SMALL: usize = 16;
/// Parts of a block of Q6_K.
const SMALLS: usize = 16;
/// Range of the levels of Q6_K.
const RANGE: (f32, f32) = (-32.0, 31.0);

/// Weighted error of a part of Q6_K with a scale.
fn error(part: &Part<SMALL>, scale: f32) -> f32 {
    let q = levels(&part.x, scale, RANGE);
    sum::<SMALL>(|i| {
        let difference = scale * q[i] - part.x[i];
        part.w[i] * difference * difference
    })
}

/// Takes for each part the best of its scale and its neighbours; returns the error of the block.
fn settle(parts: &[Part<SMALL>; SMALLS], d: f32, scales: &mut [f32; SMALLS]) -> f32 {
    let mut total = 0.0;
    for (part, scale) in parts.iter().zip(scales) {
        let mut best = (error(part, d * *scale), *scale);
        for other in [*scale - 1.0, *scale + 1.0] {
            if (-128.0..=127.0).contains(&other) {
                let error = error(part, d * other);
                if error < best.0 {
                    best = (error, other);
                }
            }
        }
        total += best.0;
        *scale = best.1;
    }
    total
}

/// `x = d·scale·q` with q in −32..32 and scales of eight bits.
pub(super) fn q6_k(x: &[f32], bytes: &mut [u8]) {
    let parts = parts::<SMALL, SMALLS>(x, |x, _| x * x);
    let best = parts
        .each_ref()
        .map(|part| symmetric(&part.x, &part.w, 32.0, |scale| scale));
    let extreme = best
        .iter()
        .fold(0.0, |extreme: f32, &x| match x.abs() > extreme.abs() {
            true => x,
            false => extreme,
        });
    let mut d = half(extreme / -128.0);
    let unit = inverse(d);
    let mut scales = best.map(|scale| (scale * unit).round().clamp(-128.0, 127.0));
    let mut total = settle(&parts, d, &mut scales);
    for _ in 0..ROUNDS {
        let (mut xa, mut aa) = (0.0, 0.0);
        for (Part { x, w }, &scale) in parts.iter().zip(&scales) {
            let q = levels(x, d * scale, RANGE);
            xa += scale * sum::<SMALL>(|i| w[i] * x[i] * q[i]);
            aa += scale * scale * sum::<SMALL>(|i| w[i] * q[i] * q[i]);
        }
        let next = if aa > 0.0 { half(xa / aa) } else { d };
        let mut moved = scales;
        let found = settle(&parts, next, &mut moved);
        if found >= total {
            break;
        }
        (d, scales, total) = (next, moved, found);
    }
    let mut q = [0u8; SMALL * SMALLS];
    for ((part, scale), q) in parts.iter().zip(scales).zip(q.chunks_exact_mut(SMALL)) {
        for (q, level) in q.iter_mut().zip(levels(&part.x, d * scale, RANGE)) {
            *q = (level + 32.0) as u8;
        }
    }
    let (low, rest) = bytes.split_at_mut(128);
    let (high, rest) = rest.split_at_mut(64);
    for (half, q) in q.chunks_exact(128).enumerate() {
        for i in 0..64 {
            low[half * 64 + i] = (q[i] & 0x0f) | (q[i + 64] & 0x0f) << 4;
        }
        for i in 0..32 {
            let bits = |j: usize| (q[i + 32 * j] >> 4) << (2 * j);
            high[half * 32 + i] = bits(0) | bits(1) | bits(2) | bits(3);
        }
    }
    for (byte, scale) in rest.iter_mut().zip(scales) {
        *byte = scale as i8 as u8;
    }
    put(&mut rest[16..], d);
}
