//! Cases for the tests of norm and rotation of heads.

mod arguments;
mod bits;
mod oracle;

use super::*;
use tightrope_device::Tensor;
use tightrope_testkit::{Random, rounded, tensor};

const EPS: f32 = 1e-5;
const FLOATS: [DType; 2] = [DType::F32, DType::BF16];

#[derive(Clone, Copy, Debug)]
struct Shape {
    tokens: usize,
    /// Numbers of heads of queries and of keys.
    heads: [usize; 2],
    head_dim: usize,
    rotary_dim: usize,
}

const fn shape(tokens: usize, heads: [usize; 2], head_dim: usize, rotary_dim: usize) -> Shape {
    Shape {
        tokens,
        heads,
        head_dim,
        rotary_dim,
    }
}

/// With and without accesses of 16 bytes, with heads of one lane to more than a warp's, with
/// elements that do not rotate, with one block and several.
const SHAPES: [Shape; 13] = [
    shape(0, [2, 1], 16, 16),
    shape(1, [1, 1], 2, 2),
    shape(4, [2, 3], 1, 0),
    shape(2, [2, 1], 24, 0),
    shape(3, [0, 2], 8, 8),
    shape(3, [2, 0], 16, 16),
    shape(3, [4, 2], 16, 16),
    shape(5, [3, 1], 31, 10),
    shape(2, [7, 5], 96, 64),
    shape(9, [6, 2], 128, 128),
    shape(2, [1, 1], 1104, 1088),
    shape(1, [2, 1], 333, 330),
    shape(301, [5, 2], 32, 32),
];

#[derive(Clone, Debug)]
struct Case {
    /// Type of the activations.
    dtype: DType,
    shape: Shape,
    plus_one: bool,
    /// Angle of each pair of each token, and its cosine and sine.
    angles: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    q: Side,
    k: Side,
}

/// Queries or keys.
#[derive(Clone, Debug)]
struct Side {
    heads: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    dy: Vec<f32>,
    /// Initial value of `dweight`.
    before: Vec<f32>,
    frozen: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Results {
    y: Vec<f32>,
    rstd: Vec<f32>,
    dx: Vec<f32>,
    dweight: Vec<f32>,
}

impl Case {
    fn new(dtype: DType, shape: Shape, plus_one: bool) -> Self {
        let Shape {
            tokens, head_dim, ..
        } = shape;
        let mut random = Random::new((tokens * 10_007 + head_dim * 8) as u64);
        let angles = random.normal(tokens * shape.rotary_dim / 2, 2.0);
        let table = |f: fn(f64) -> f64| angles.iter().map(|&a| f(f64::from(a)) as f32).collect();
        let [cos, sin] = [table(f64::cos), table(f64::sin)];
        let mut side = |heads: usize| {
            let mut numbers = |len| rounded(&random.normal(len, 1.0), dtype);
            let len = tokens * heads * head_dim;
            Side {
                heads,
                x: numbers(len),
                weight: numbers(head_dim),
                dy: numbers(len),
                before: numbers(head_dim),
                frozen: false,
            }
        };
        let [q, k] = shape.heads.map(&mut side);
        Self {
            dtype,
            shape,
            plus_one,
            angles,
            cos,
            sin,
            q,
            k,
        }
    }

    /// Results for queries and for keys.
    fn run<D: QkNormRope>(&self, device: &D) -> [Results; 2] {
        self.try_run(device).unwrap()
    }

    fn try_run<D: QkNormRope>(&self, device: &D) -> Result<[Results; 2], KernelError> {
        let all = |values: &[f32]| tensor(device, self.dtype, &[values.len()], values);
        let f32s = |values: &[f32]| tensor(device, DType::F32, &[values.len()], values);
        let (cos, sin) = (f32s(&self.cos), f32s(&self.sin));
        let Shape {
            tokens,
            head_dim,
            rotary_dim,
            ..
        } = self.shape;
        let sides = [&self.q, &self.k];
        let x = sides.map(|side| all(&side.x));
        let weight = sides.map(|side| f32s(&side.weight));
        let [mut q_y, mut k_y] = sides.map(|side| all(&vec![7.0; side.x.len()]));
        let [mut q_rstd, mut k_rstd] = sides.map(|side| f32s(&vec![7.0; tokens * side.heads]));
        let args = Forward {
            q: HeadsForward {
                x: x[0].view(),
                weight: weight[0].view(),
                y: q_y.view_mut(),
                rstd: q_rstd.view_mut(),
                heads: self.q.heads,
            },
            k: HeadsForward {
                x: x[1].view(),
                weight: weight[1].view(),
                y: k_y.view_mut(),
                rstd: k_rstd.view_mut(),
                heads: self.k.heads,
            },
            plus_one: self.plus_one,
            eps: EPS,
            cos: cos.view(),
            sin: sin.view(),
            tokens,
            head_dim,
            rotary_dim,
        };
        device.qk_norm_rope_forward(args.checked()?)?;
        let [mut q_dx, mut k_dx] = sides.map(|side| all(&side.dy));
        let [mut q_dweight, mut k_dweight] = sides.map(|side| f32s(&side.before));
        let args = Backward {
            q: HeadsBackward {
                dx: q_dx.view_mut(),
                x: x[0].view(),
                rstd: q_rstd.view(),
                weight: weight[0].view(),
                dweight: (!self.q.frozen).then_some(q_dweight.view_mut()),
                heads: self.q.heads,
            },
            k: HeadsBackward {
                dx: k_dx.view_mut(),
                x: x[1].view(),
                rstd: k_rstd.view(),
                weight: weight[1].view(),
                dweight: (!self.k.frozen).then_some(k_dweight.view_mut()),
                heads: self.k.heads,
            },
            plus_one: self.plus_one,
            cos: cos.view(),
            sin: sin.view(),
            tokens,
            head_dim,
            rotary_dim,
        };
        device.qk_norm_rope_backward(args.checked()?)?;
        let results = |tensors: [Tensor<D>; 4]| {
            let [y, rstd, dx, dweight] = tensors.map(|tensor| tensor.to_f32_vec().unwrap());
            Results {
                y,
                rstd,
                dx,
                dweight,
            }
        };
        Ok([
            results([q_y, q_rstd, q_dx, q_dweight]),
            results([k_y, k_rstd, k_dx, k_dweight]),
        ])
    }
}
