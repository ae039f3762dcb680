//! The dynamic map of bitsandbytes: 256 numbers from −1 (or 0) to 1, most of them near 1.
//!
//! There are seven decades between 0 and 1 (Dettmers, 2016). In the signed map, each sign has the
//! 64 centres of equal parts of 0.1 to 1 in the highest decade, the 32 centres of equal parts of
//! 0.01 to 0.1 in the next, and so on down to one; the unsigned map has twice as many. Both maps
//! also have 0 and 1. The numbers are those of `create_dynamic_map` to the last bit.

use std::sync::LazyLock;

/// Number of codes of the map.
const CODES: usize = 256;

static SIGNED: LazyLock<DynamicMap> = LazyLock::new(|| DynamicMap::new(signed_value));
static UNSIGNED: LazyLock<DynamicMap> = LazyLock::new(|| DynamicMap::new(unsigned_value));

/// Values of the 8-bit codes, in increasing order.
#[derive(Debug)]
pub struct DynamicMap {
    values: [f32; CODES],
    /// Indexed by the upper half of a [`Key`]: `lowest code << 16 | lower halves above the
    /// midpoint`. There is at most one midpoint between keys with the same upper half, so that
    /// adding the lower half carries into the code where it should.
    codes: [u32; 1 << 16],
}

/// The bits of a number as an integer that grows with the number; 0 for NaN.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key(u32);

impl Key {
    #[inline(always)]
    pub(crate) fn of(x: f32) -> Self {
        let bits = x.to_bits();
        let negative = ((bits as i32) >> 31) as u32;
        Self(if x.is_nan() {
            0
        } else {
            bits ^ (negative | 1 << 31)
        })
    }
}

impl DynamicMap {
    /// The map from −0.993 to 1.
    pub fn signed() -> &'static Self {
        &SIGNED
    }

    /// The map from 0 to 1.
    pub fn unsigned() -> &'static Self {
        &UNSIGNED
    }

    fn new(value: fn(usize) -> f32) -> Self {
        let values = std::array::from_fn(value);
        let midpoints = midpoints(&values).map(|midpoint| Key::of(midpoint).0);
        let codes = std::array::from_fn(|upper| {
            let first = (upper as u32) << 16;
            let code = midpoints.partition_point(|&midpoint| midpoint < first);
            let above = match midpoints.get(code) {
                Some(midpoint) if midpoint >> 16 == upper as u32 => !midpoint & 0xffff,
                _ => 0,
            };
            (code as u32) << 16 | above
        });
        Self { values, codes }
    }

    /// Values of all codes, in order.
    pub fn values(&self) -> &[f32; CODES] {
        &self.values
    }

    /// Value of `code`.
    #[inline(always)]
    pub fn value(&self, code: u8) -> f32 {
        self.values[usize::from(code)]
    }

    /// Code of the value nearest to `x`, the lower of two equally near; 0 for NaN.
    #[inline(always)]
    pub fn nearest(&self, x: f32) -> u8 {
        self.nearest_of(Key::of(x))
    }

    /// The same for the key of `x`.
    #[inline(always)]
    pub(crate) fn nearest_of(&self, Key(key): Key) -> u8 {
        ((self.codes[(key >> 16) as usize] + (key & 0xffff)) >> 16) as u8
    }
}

/// Midpoints between neighbouring values.
fn midpoints(values: &[f32; CODES]) -> [f32; CODES - 1] {
    std::array::from_fn(|code| (values[code] + values[code + 1]) * 0.5)
}

fn signed_value(code: usize) -> f32 {
    match code {
        255 => 1.0,
        127 => 0.0,
        0..127 => -centre(127 - code, 0),
        _ => centre(code - 127, 0),
    }
}

fn unsigned_value(code: usize) -> f32 {
    match code {
        255 => 1.0,
        0 => 0.0,
        _ => centre(code + 1, 1),
    }
}

/// Centre of the part with this rank, counted from 1 through all decades, the lowest of which has
/// 2^`log_lowest` parts.
fn centre(rank: usize, log_lowest: u32) -> f32 {
    const DECADES: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let log_parts = rank.ilog2();
    let parts = 1 << log_parts;
    let part = rank - parts;
    // Like `torch.linspace`, from either end.
    let step = (1.0 - 0.1) / parts as f32;
    let edge = |i: usize| {
        if i < parts.div_ceil(2) {
            step.mul_add(i as f32, 0.1)
        } else {
            (-step).mul_add((parts - i) as f32, 1.0)
        }
    };
    DECADES[(log_parts - log_lowest) as usize] * ((edge(part) + edge(part + 1)) * 0.5)
}

/// Largest magnitude; NaN, whose bits are larger than those of any number, if there is one.
#[inline(always)]
pub(crate) fn absmax(values: &[f32]) -> f32 {
    let bits = values.iter().map(|x| x.to_bits() & 0x7fff_ffff);
    f32::from_bits(bits.fold(0, u32::max))
}

/// `x / absmax`, or 0 if all elements are 0.
#[inline(always)]
pub(crate) fn ratio(x: f32, absmax: f32) -> f32 {
    x / if absmax == 0.0 { 1.0 } else { absmax }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_bitsandbytes() {
        // bitsandbytes 0.50.2 on torch 2.15.0: `create_dynamic_map(signed)`.
        let signed = [
            (0, -0.992_968_74),
            (1, -0.978_906_3),
            (63, -0.107_031_256),
            (64, -0.098_593_75),
            (126, -5.500_000_4e-7),
            (127, 0.0),
            (128, 5.500_000_4e-7),
            (129, 3.250_000_2e-6),
            (130, 7.75e-6),
            (131, 2.124_999_8e-5),
            (192, 0.121_093_75),
            (254, 0.992_968_74),
            (255, 1.0),
        ];
        let unsigned = [
            (0, 0.0),
            (1, 3.250_000_3e-7),
            (2, 7.75e-7),
            (63, 0.010_703_126),
            (126, 0.099_296_875),
            (127, 0.103_515_625),
            (192, 0.560_546_9),
            (254, 0.996_484_4),
            (255, 1.0),
        ];
        for (map, expected) in [
            (DynamicMap::signed(), &signed[..]),
            (DynamicMap::unsigned(), &unsigned[..]),
        ] {
            for &(code, value) in expected {
                assert_eq!(map.value(code), value, "{code}");
            }
        }
        // Compares all values: FNV-1a over their bits.
        let hash = |map: &DynamicMap| {
            let bits = map.values.iter().map(|value| value.to_bits());
            bits.fold(0x811c_9dc5_u32, |hash, bits| {
                (hash ^ bits).wrapping_mul(0x0100_0193)
            })
        };
        assert_eq!(hash(DynamicMap::signed()), 0x2eda_3815);
        assert_eq!(hash(DynamicMap::unsigned()), 0x55e9_f7c3);
    }

    #[test]
    fn the_numbers_are_the_centres_of_equal_parts_of_decades() {
        let decade = |lowest: u32, decade: i32| {
            let parts = 1 << (lowest + decade as u32);
            let centre = move |part| {
                10f64.powi(decade - 6) * (0.1 + 0.9 * (f64::from(part) + 0.5) / f64::from(parts))
            };
            (0..parts).map(centre)
        };
        let positive = |lowest| (0..7).flat_map(move |d| decade(lowest, d));
        let mut signed: Vec<f64> = positive(0).flat_map(|x| [x, -x]).chain([0., 1.]).collect();
        signed.sort_by(f64::total_cmp);
        let unsigned: Vec<f64> = [0.].into_iter().chain(positive(1)).chain([1.]).collect();
        for (map, expected) in [
            (DynamicMap::signed(), signed),
            (DynamicMap::unsigned(), unsigned),
        ] {
            assert_eq!(expected.len(), CODES);
            for (&value, expected) in map.values.iter().zip(expected) {
                // The edges are rounded as f32, and 0.1 is the smallest.
                let close = (f64::from(value) - expected).abs() <= 4e-7 * expected.abs();
                assert!(close, "{value} {expected}");
            }
        }
    }

    #[test]
    fn the_nearest_number_is_found() {
        for map in [DynamicMap::signed(), DynamicMap::unsigned()] {
            assert!(map.values.is_sorted());
            for code in 0..=255u8 {
                assert_eq!(map.nearest(map.value(code)), code);
                let Some(next) = code.checked_add(1) else {
                    continue;
                };
                assert!(map.value(code) < map.value(next));
                let middle = midpoints(map.values())[usize::from(code)];
                assert_eq!(map.nearest(middle), code);
                assert_eq!(map.nearest(middle.next_up()), next);
            }
            assert_eq!((map.nearest(f32::NEG_INFINITY), map.nearest(9.0)), (0, 255));
            for nan in [0x7f80_0001, 0x7fc0_0000, 0xff80_0001, 0xffff_ffff] {
                assert_eq!(map.nearest(f32::from_bits(nan)), 0);
            }
        }
    }

    #[test]
    fn keys_with_the_same_upper_half_have_one_midpoint_between_them_at_most() {
        for map in [DynamicMap::signed(), DynamicMap::unsigned()] {
            let midpoints = midpoints(map.values());
            for upper in 0..1u32 << 16 {
                let ends = [upper << 16, upper << 16 | 0xffff].map(f32::from_bits);
                if ends.iter().any(|x| x.is_nan()) {
                    continue;
                }
                let codes = ends.map(|x| midpoints.partition_point(|&midpoint| x > midpoint));
                assert!(codes[0].abs_diff(codes[1]) <= 1, "{ends:?} {codes:?}");
                assert_eq!(ends.map(|x| usize::from(map.nearest(x))), codes);
            }
        }
    }

    #[test]
    fn the_largest_magnitude_is_nan_if_there_is_one() {
        assert_eq!(absmax(&[]), 0.0);
        assert_eq!(absmax(&[-0.0, 1.0, -3.0, 2.0]), 3.0);
        assert_eq!(absmax(&[1.0, f32::NEG_INFINITY]), f32::INFINITY);
        assert!(absmax(&[f32::INFINITY, -f32::NAN, 1.0]).is_nan());
    }
}
