//! Executes `ldmatrix`, `stmatrix`, `movmatrix` and `mma`, with the assignment of elements to
//! lanes.
use super::block::Runner;
use super::warp::Warp;
use crate::finding::Checked;
use crate::lanes::rounding::Rounding;
use crate::lanes::{Binary16, Brain16, Row};
use crate::memory::Kind;
use crate::op::{Address, Element, MatrixProduct, Op, Reg};
use crate::ptx::types::Space;

/// Row and column in an 8×8 matrix, for a lane and the index of the 16-bit half of its register.
fn place_8x8(lane: usize, half: usize, transposed: bool) -> (usize, usize) {
    let (row, column) = (lane / 4, lane % 4 * 2 + half);
    if transposed {
        (column, row)
    } else {
        (row, column)
    }
}

/// Row and column of element `i` of the lane's A fragment (16×k), 16-bit elements.
fn place_a(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8)
}

/// Row (k) and column of element `i` of the lane's B fragment (k×8), 16-bit elements.
fn place_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * 2 + i % 2 + i / 2 * 8, lane / 4)
}

/// The same for TF32, one element to a register.
fn place_a_tf32(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + i % 2 * 8, lane % 4 + i / 2 * 4)
}

fn place_b_tf32(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 + i * 4, lane / 4)
}

/// Row and column of element `i` of the lane's accumulator (16×8).
fn place_c(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2)
}

fn decode(element: Element, bits: u64, half: usize) -> f32 {
    let bits16 = (bits >> (16 * half)) as u16;
    match element {
        Element::F16 => Binary16(bits16).to_f32(),
        Element::Bf16 => Brain16(bits16).to_f32(),
        // The lower 13 bits of the register are not read.
        Element::Tf32 => f32::from_bits(bits as u32 & !0x1fff),
    }
}

impl Runner<'_> {
    /// A matrix operation of the whole warp.
    pub(super) fn matrix(&mut self, warp: &mut Warp, op: &Op) -> Checked<()> {
        match op {
            Op::LoadMatrix {
                transposed,
                d,
                address,
            } => self.load_matrix(warp, *transposed, d, *address),
            Op::StoreMatrix {
                transposed,
                values,
                address,
            } => self.store_matrix(warp, *transposed, values, *address),
            Op::MoveMatrix { d, a } => {
                let a = *warp.read(self.kernel, *a, !0)?;
                let mut whole = [[0u16; 8]; 8];
                each_8x8(false, |lane, half, row, column| {
                    whole[row][column] = (a[lane] >> (16 * half)) as u16;
                });
                warp.write(*d, &fragment(&whole, true), !0);
                Ok(())
            }
            Op::Mma(product) => self.multiply(warp, product),
            _ => Ok(()),
        }
    }

    /// Addresses of the rows of matrix `i`, from lanes 8i to 8i + 7.
    fn rows_of(
        &mut self,
        warp: &Warp,
        address: Address,
        count: usize,
        store: bool,
    ) -> Checked<Row> {
        let used = if count == 4 {
            !0
        } else {
            (1u32 << (8 * count)) - 1
        };
        let addresses = self
            .addresses(warp, used, address)?
            .map(|a| a & 0xffff_ffff);
        self.count_access(Space::Shared, &addresses, used, 16, store);
        Ok(addresses)
    }

    fn load_matrix(
        &mut self,
        warp: &mut Warp,
        transposed: bool,
        d: &[Reg],
        address: Address,
    ) -> Checked<()> {
        let addresses = self.rows_of(warp, address, d.len(), false)?;
        for (i, d) in d.iter().enumerate() {
            let mut whole = [[0u16; 8]; 8];
            for (row, elements) in whole.iter_mut().enumerate() {
                let lane = 8 * i + row;
                let value = self
                    .load_shared(warp.number, lane, addresses[lane], 16, Kind::Read)
                    .map_err(|fault| fault.in_lane(lane as u32))?;
                *elements = std::array::from_fn(|column| (value >> (16 * column)) as u16);
            }
            warp.write(*d, &fragment(&whole, transposed), !0);
        }
        Ok(())
    }

    fn store_matrix(
        &mut self,
        warp: &mut Warp,
        transposed: bool,
        values: &[Reg],
        address: Address,
    ) -> Checked<()> {
        let addresses = self.rows_of(warp, address, values.len(), true)?;
        for (i, value) in values.iter().enumerate() {
            let registers = *warp.read(self.kernel, *value, !0)?;
            let mut whole = [[0u16; 8]; 8];
            each_8x8(transposed, |lane, half, row, column| {
                whole[row][column] = (registers[lane] >> (16 * half)) as u16;
            });
            for (row, elements) in whole.iter().enumerate() {
                let lane = 8 * i + row;
                let pack = |all: u128, (c, e): (usize, &u16)| all | u128::from(*e) << (16 * c);
                let bits = elements.iter().enumerate().fold(0, pack);
                self.store_shared(warp.number, lane, addresses[lane], 16, bits, Kind::Write)
                    .map_err(|fault| fault.in_lane(lane as u32))?;
            }
        }
        Ok(())
    }

    fn multiply(&mut self, warp: &mut Warp, product: &MatrixProduct) -> Checked<()> {
        let kernel = self.kernel;
        let mut a = [[0f32; 16]; 16];
        let mut b = [[0f32; 8]; 16];
        let mut c = [[0f32; 8]; 16];
        let is_tf32 = product.element == Element::Tf32;
        let halves = if is_tf32 { 1 } else { 2 };
        for (r, reg) in product.a.iter().enumerate() {
            let row = warp.read(kernel, *reg, !0)?;
            for (lane, bits) in row.iter().enumerate() {
                for half in 0..halves {
                    let i = r * halves + half;
                    let (m, k) = if is_tf32 {
                        place_a_tf32(lane, i)
                    } else {
                        place_a(lane, i)
                    };
                    a[m][k] = decode(product.element, *bits, half);
                }
            }
        }
        for (r, reg) in product.b.iter().enumerate() {
            let row = warp.read(kernel, *reg, !0)?;
            for (lane, bits) in row.iter().enumerate() {
                for half in 0..halves {
                    let i = r * halves + half;
                    let (k, n) = if is_tf32 {
                        place_b_tf32(lane, i)
                    } else {
                        place_b(lane, i)
                    };
                    b[k][n] = decode(product.element, *bits, half);
                }
            }
        }
        let packed = if product.half_accumulator { 2 } else { 1 };
        for (r, reg) in product.c.iter().enumerate() {
            let row = warp.read(kernel, *reg, !0)?;
            for (lane, bits) in row.iter().enumerate() {
                for half in 0..packed {
                    let (m, n) = place_c(lane, r * packed + half);
                    c[m][n] = if packed == 2 {
                        decode(Element::F16, *bits, half)
                    } else {
                        f32::from_bits(*bits as u32)
                    };
                }
            }
        }
        let sums = crate::lanes::multiply_matrices(&a, &b, &c, product.k);
        for (r, reg) in product.d.iter().enumerate() {
            let out: Row = std::array::from_fn(|lane| {
                (0..packed).fold(0, |bits, half| {
                    let (m, n) = place_c(lane, r * packed + half);
                    let sum = sums[m][n];
                    bits | if packed == 2 {
                        u64::from(Binary16::from_f64(sum, Rounding::Nearest).0) << (16 * half)
                    } else if sum.is_nan() {
                        0x7fff_ffff
                    } else {
                        u64::from((sum as f32).to_bits())
                    }
                })
            });
            warp.write(*reg, &out, !0);
        }
        self.counters.tensor_multiply_adds += (16 * 8 * product.k) as u64;
        Ok(())
    }
}

/// Calls `f(lane, half, row, column)` for each element of an 8×8 matrix.
fn each_8x8(transposed: bool, mut f: impl FnMut(usize, usize, usize, usize)) {
    for lane in 0..32 {
        for half in 0..2 {
            let (row, column) = place_8x8(lane, half, transposed);
            f(lane, half, row, column);
        }
    }
}

/// Register of each lane for an 8×8 matrix.
fn fragment(whole: &[[u16; 8]; 8], transposed: bool) -> Row {
    let mut out: Row = [0; 32];
    each_8x8(transposed, |lane, half, row, column| {
        out[lane] |= u64::from(whole[row][column]) << (16 * half);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The formulas of the specification, written as there.
    #[test]
    fn fragment_layouts() {
        for lane in 0..32 {
            let (group, thread) = (lane / 4, lane % 4);
            for i in 0..8 {
                let row = if i < 2 || (4..6).contains(&i) {
                    group
                } else {
                    group + 8
                };
                let column = thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 };
                assert_eq!(place_a(lane, i), (row, column), "a{i} of lane {lane}");
            }
            for i in 0..4 {
                let row = thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 };
                assert_eq!(place_b(lane, i), (row, group), "b{i} of lane {lane}");
                let row = if i < 2 { group } else { group + 8 };
                assert_eq!(
                    place_c(lane, i),
                    (row, thread * 2 + (i & 1)),
                    "c{i} of lane {lane}"
                );
                let row = if i == 0 || i == 2 { group } else { group + 8 };
                let column = if i < 2 { thread } else { thread + 4 };
                assert_eq!(
                    place_a_tf32(lane, i),
                    (row, column),
                    "tf32 a{i} of lane {lane}"
                );
            }
            assert_eq!(place_b_tf32(lane, 0), (thread, group));
            assert_eq!(place_b_tf32(lane, 1), (thread + 4, group));
        }
    }

    #[test]
    fn every_element_has_one_holder() {
        let all = |count: usize, place: fn(usize, usize) -> (usize, usize)| {
            let places = (0..32).flat_map(|lane| (0..count).map(move |i| place(lane, i)));
            places.collect::<HashSet<_>>().len()
        };
        assert_eq!(all(8, place_a), 256);
        assert_eq!(all(4, place_b), 128);
        assert_eq!(all(4, place_c), 128);
        assert_eq!(all(4, place_a_tf32), 128);
        assert_eq!(all(2, place_b_tf32), 64);
    }

    #[test]
    fn transposition_swaps_rows_and_columns() {
        let whole = std::array::from_fn(|r| std::array::from_fn(|c| (r * 8 + c) as u16));
        let (plain, transposed) = (fragment(&whole, false), fragment(&whole, true));
        // Lane 5 holds row 1, columns 2 and 3; transposed: rows 2 and 3 of column 1.
        assert_eq!(plain[5], 10 | 11 << 16);
        assert_eq!(transposed[5], 17 | 25 << 16);
    }
}
