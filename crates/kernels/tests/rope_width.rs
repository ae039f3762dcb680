//! The index width on both sides of 2³¹ elements, and rotations on both sides of 2³² elements, on the
//! emulator, which stores only what is touched.

use tightrope_device::{Cuda, DType, Device, IndexWidth, Tensor};
use tightrope_kernels::{
    Check, KernelError,
    rope::{Direction, Heads, Pairing, Rope, Rotate},
};
use tightrope_testkit::{Random, cuda, is_emulated, tensor};

#[test]
fn offsets_beyond_two_to_the_31_need_the_wide_form() {
    // A GPU would have to store it all.
    if !is_emulated() {
        return;
    }
    // Queries of width 4096, as Llama 3 8B has them, pass 2³¹ elements at 524,288 tokens.
    let (heads, head_dim) = (32, 128);
    for (tokens, row_stride, expected) in [
        ((1 << 19) - 1, 4096, IndexWidth::Narrow),
        (1 << 19, 4096, IndexWidth::Wide),
        // The stride counts, not the heads alone.
        (3, 1 << 30, IndexWidth::Wide),
    ] {
        let zeros = |len: usize| Tensor::zeros(cuda(), DType::F32, &[len]).unwrap();
        let (mut q, mut k) = (zeros(tokens * row_stride), zeros(tokens * head_dim));
        let table = zeros(tokens * head_dim / 2);
        let args = Rotate {
            q: Heads {
                tensor: q.view_mut(),
                heads,
                row_stride,
            },
            k: Heads {
                tensor: k.view_mut(),
                heads: 1,
                row_stride: head_dim,
            },
            cos: table.view(),
            sin: table.view(),
            tokens,
            head_dim,
            rotary_dim: head_dim,
            pairing: Pairing::Halves,
            direction: Direction::Forward,
        };
        let args = args.checked().unwrap();
        assert_eq!(args.index_width(), expected);
        if expected == IndexWidth::Wide {
            let narrow = cuda().rope_with_width(args, IndexWidth::Narrow);
            assert!(matches!(narrow, Err(KernelError::TooNarrow)));
        }
    }
}

const HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const WIDTH: usize = HEADS * HEAD_DIM;
/// Number of elements on either side of a row that are checked as well.
const MARGIN: usize = 64;

/// The elements of a row, as they are stored.
type Row = Vec<u8>;

/// Queries or keys that are so far apart that only they are ever stored.
struct Far {
    tensor: Tensor<Cuda>,
    stride: usize,
}

impl Far {
    fn new(dtype: DType, rows: &[Row], stride: usize) -> Self {
        let len = (rows.len() - 1) * stride + WIDTH;
        let mut tensor = Tensor::zeros(cuda(), dtype, &[len]).unwrap();
        for (index, row) in rows.iter().enumerate() {
            let first = index * stride;
            let place = tensor.view_mut().elements(first..first + WIDTH);
            place.unwrap().write_bytes(row).unwrap();
        }
        Self { tensor, stride }
    }

    fn heads(&mut self) -> Heads<'_, Cuda> {
        Heads {
            tensor: self.tensor.view_mut(),
            heads: HEADS,
            row_stride: self.stride,
        }
    }

    /// All rows; in the gaps around them there must still be zeros.
    fn rows(&self, tokens: usize) -> Vec<Row> {
        let size = self.tensor.dtype().size();
        let row = |token: usize| {
            let start = token * self.stride;
            let margin = MARGIN.min(self.stride - WIDTH);
            let (from, to) = (
                start.saturating_sub(margin),
                (start + WIDTH + margin).min(self.tensor.len()),
            );
            let mut bytes = vec![7; (to - from) * size];
            let view = self.tensor.view().elements(from..to).unwrap();
            cuda().read(view, &mut bytes).unwrap();
            let inside = (start - from) * size..(start - from + WIDTH) * size;
            let row = bytes.drain(inside).collect();
            assert!(bytes.iter().all(|&byte| byte == 0));
            row
        };
        (0..tokens).map(row).collect()
    }
}

/// Random rows.
fn numbers(dtype: DType, tokens: usize) -> Vec<Row> {
    let numbers = Random::new(1).normal(tokens * WIDTH, 1.0);
    let numbers = tensor(cuda(), dtype, &[tokens, WIDTH], &numbers);
    let mut bytes = vec![0; numbers.bytes()];
    cuda().read(numbers.view(), &mut bytes).unwrap();
    bytes
        .chunks(WIDTH * dtype.size())
        .map(<[u8]>::to_vec)
        .collect()
}

/// `rows` as queries and as keys with these strides, rotated on `device`.
fn rotate(
    device: &Cuda,
    (dtype, pairing): (DType, Pairing),
    rows: &[Row],
    strides: [usize; 2],
) -> [Vec<Row>; 2] {
    let angles = Random::new(2).normal(rows.len() * HEAD_DIM / 2, 1.0);
    let table = |f: fn(f32) -> f32| {
        let values: Vec<f32> = angles.iter().map(|&angle| f(angle)).collect();
        Tensor::from_slice(cuda(), &[values.len()], &values).unwrap()
    };
    let (cos, sin) = (table(f32::cos), table(f32::sin));
    let [mut q, mut k] = strides.map(|stride| Far::new(dtype, rows, stride));
    let args = Rotate {
        q: q.heads(),
        k: k.heads(),
        cos: cos.view(),
        sin: sin.view(),
        tokens: rows.len(),
        head_dim: HEAD_DIM,
        rotary_dim: HEAD_DIM,
        pairing,
        direction: Direction::Forward,
    };
    device.rope(args.checked().unwrap()).unwrap();
    [q, k].map(|side| side.rows(rows.len()))
}

#[test]
fn rotations_are_right_beyond_two_to_the_31_and_two_to_the_32() {
    // A GPU would have to store it all.
    if !is_emulated() {
        return;
    }
    for kind in [
        (DType::F32, Pairing::Halves),
        (DType::BF16, Pairing::Interleaved),
        (DType::BF16, Pairing::Halves),
    ] {
        let rows = numbers(kind.0, 5);
        let near = rotate(cuda(), kind, &rows, [WIDTH; 2]);
        assert!(near.iter().all(|near| near[4] != rows[4]));
        // With accesses of 16 bytes and without.
        for far in [(1 << 30) + 40, (1 << 30) + 41] {
            for strides in [[far, WIDTH], [WIDTH, far]] {
                for (tokens, passed) in [(3, 1 << 31), (5, 1 << 32)] {
                    assert!((tokens - 1) * far > passed);
                    let got = rotate(cuda(), kind, &rows[..tokens], strides);
                    for (got, near) in got.iter().zip(&near) {
                        assert!(got[..] == near[..tokens]);
                    }
                }
                // With 32 bits, the fifth row becomes the zeros behind the first.
                let narrow = cuda().forcing(IndexWidth::Narrow);
                let got = rotate(&narrow, kind, &rows, strides);
                for ((got, near), stride) in got.iter().zip(&near).zip(strides) {
                    assert!(got[..4] == near[..4]);
                    let fifth = if stride == far { &rows[4] } else { &near[4] };
                    assert!(got[4] == *fifth);
                }
            }
        }
    }
}
