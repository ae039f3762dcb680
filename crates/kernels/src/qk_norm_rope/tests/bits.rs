//! Changes that must not affect any bit: index width, threads, place, frozen weights, NaN
//! elsewhere.

use super::*;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::cuda_with_small_limits;

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda_with_small_limits().forcing(IndexWidth::Wide);
    for (shape, dtype) in SHAPES.iter().flat_map(|&s| FLOATS.map(|d| (s, d))) {
        let case = Case::new(dtype, shape, false);
        assert_eq!(case.run(cuda_with_small_limits()), case.run(&wide));
    }
}

#[test]
fn frozen_weights_change_no_bit_of_the_rest() {
    check_frozen(&Cpu::new(2).unwrap());
    check_frozen(cuda_with_small_limits());
}

fn check_frozen<D: QkNormRope>(device: &D) {
    for shape in SHAPES {
        let mut case = Case::new(DType::F32, shape, false);
        let trained = case.run(device);
        for frozen in [[true, false], [false, true], [true, true]] {
            [case.q.frozen, case.k.frozen] = frozen;
            let mut expected = trained.clone();
            for (expected, side) in expected.iter_mut().zip([&case.q, &case.k]) {
                if side.frozen {
                    expected.dweight.clone_from(&side.before);
                }
            }
            assert_eq!(case.run(device), expected);
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let case = Case::new(DType::F32, shape(2001, [3, 1], 32, 30), false);
    let run = |threads| case.run(&Cpu::new(threads).unwrap());
    let expected = run(1);
    assert_eq!(run(2), expected);
    assert_eq!(run(3), expected);
}

#[test]
fn a_token_has_the_same_bits_wherever_it_stands_and_nan_stays_in_its_head() {
    for dtype in FLOATS {
        check_places(&Cpu::new(2).unwrap(), dtype);
    }
    for dtype in FLOATS {
        check_places(cuda_with_small_limits(), dtype);
    }
}

fn check_places<D: QkNormRope>(device: &D, dtype: DType) {
    let whole = shape(129, [3, 2], 48, 32);
    let case = Case::new(dtype, whole, true);
    let clean = case.run(device);
    let (dim, pairs) = (whole.head_dim, whole.rotary_dim / 2);
    for token in [0, 1, 63, 64, 128] {
        let mut alone = case.clone();
        alone.shape.tokens = 1;
        let table = |values: &[f32]| values[token * pairs..(token + 1) * pairs].to_vec();
        (alone.cos, alone.sin) = (table(&case.cos), table(&case.sin));
        let at = |heads: usize| token * heads * dim..(token + 1) * heads * dim;
        for side in [&mut alone.q, &mut alone.k] {
            side.x = side.x[at(side.heads)].to_vec();
            side.dy = side.dy[at(side.heads)].to_vec();
        }
        for ((alone, clean), heads) in alone.run(device).iter().zip(&clean).zip(whole.heads) {
            assert_eq!(alone.y, clean.y[at(heads)]);
            assert_eq!(alone.dx, clean.dx[at(heads)]);
            assert_eq!(alone.rstd, clean.rstd[token * heads..(token + 1) * heads]);
        }
    }
    // Head 1 of token 100.
    let (row, mut case) = (100 * 3 + 1, case);
    case.q.x[row * dim + 40] = f32::NAN;
    let [q, k] = case.run(device);
    assert_eq!(k, clean[1]);
    for (i, (y, dx)) in q.y.iter().zip(&q.dx).enumerate() {
        if i / dim == row {
            assert!(y.is_nan() && dx.is_nan());
        } else {
            assert_eq!((*y, *dx), (clean[0].y[i], clean[0].dx[i]));
        }
    }
    assert!(q.dweight.iter().all(|dw| dw.is_nan()));
}

#[test]
fn buffers_may_be_longer_than_the_rows() {
    check_the_end(&Cpu::new(1).unwrap());
    check_the_end(cuda_with_small_limits());
}

fn check_the_end<D: QkNormRope>(device: &D) {
    let tensor = |values: &[f32]| Tensor::from_slice(device, &[values.len()], values).unwrap();
    let values = |tensor: &Tensor<D>| tensor.to_vec::<f32>().unwrap();
    let (x, weight) = (tensor(&[3.0, 4.0, 9.0]), tensor(&[1.0, 2.0]));
    let [mut q_y, mut k_y] = [[7.0; 4]; 2].map(|y| tensor(&y));
    let [mut q_rstd, mut k_rstd] = [[7.0; 2]; 2].map(|rstd| tensor(&rstd));
    // A quarter turn.
    let (cos, sin) = (tensor(&[0.0, 5.0]), tensor(&[1.0, 5.0]));
    let args = Forward {
        q: HeadsForward {
            x: x.view(),
            weight: weight.view(),
            y: q_y.view_mut(),
            rstd: q_rstd.view_mut(),
            heads: 1,
        },
        k: HeadsForward {
            x: x.view(),
            weight: weight.view(),
            y: k_y.view_mut(),
            rstd: k_rstd.view_mut(),
            heads: 1,
        },
        plus_one: false,
        eps: 0.0,
        cos: cos.view(),
        sin: sin.view(),
        tokens: 1,
        head_dim: 2,
        rotary_dim: 2,
    };
    device
        .qk_norm_rope_forward(args.checked().unwrap())
        .unwrap();
    // rstd = (25/2)^-½.
    for (y, rstd) in [(&q_y, &q_rstd), (&k_y, &k_rstd)] {
        let y = values(y);
        assert!((y[0] + 2.262_742).abs() < 1e-6 && (y[1] - 0.848_528).abs() < 1e-6);
        assert_eq!(y[2..], [7.0, 7.0]);
        assert_eq!(values(rstd)[1], 7.0);
    }
    let args = Backward {
        q: HeadsBackward {
            dx: q_y.view_mut(),
            x: x.view(),
            rstd: q_rstd.view(),
            weight: weight.view(),
            dweight: None,
            heads: 1,
        },
        k: HeadsBackward {
            dx: k_y.view_mut(),
            x: x.view(),
            rstd: k_rstd.view(),
            weight: weight.view(),
            dweight: None,
            heads: 1,
        },
        plus_one: false,
        cos: cos.view(),
        sin: sin.view(),
        tokens: 1,
        head_dim: 2,
        rotary_dim: 2,
    };
    device
        .qk_norm_rope_backward(args.checked().unwrap())
        .unwrap();
    for dx in [q_y, k_y] {
        assert_eq!(values(&dx)[2..], [7.0, 7.0]);
    }
}
