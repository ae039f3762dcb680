//! Noise: its distribution, its bits on every device and in every place, checks.

use super::*;
use half::bf16;
use tightrope_device::{Cpu, Tensor};
use tightrope_testkit::cuda;

fn states(rows: usize) -> Vec<u32> {
    (0..rows as u32)
        .flat_map(|row| state(7, [row, 3]))
        .collect()
}

/// `values` with noise; the type decides that of `y`.
fn noisy<D: Noise>(device: &D, dtype: DType, values: &[f32], scales: &[f32]) -> Vec<f32> {
    let rows = scales.len();
    let shape = [rows, values.len().checked_div(rows).unwrap_or(0)];
    let mut y = match dtype {
        DType::BF16 => {
            let values: Vec<_> = values.iter().map(|&x| bf16::from_f32(x)).collect();
            Tensor::from_slice(device, &shape, &values).unwrap()
        }
        _ => Tensor::from_slice(device, &shape, values).unwrap(),
    };
    let states = Tensor::from_slice(device, &[rows, 2], &states(rows)).unwrap();
    let scales = Tensor::from_slice(device, &[rows], scales).unwrap();
    let args = Add {
        y: y.view_mut(),
        states: states.view(),
        scales: scales.view(),
        rows,
        features: shape[1],
    };
    device.noise_add(args.checked().unwrap()).unwrap();
    y.to_f32_vec().unwrap()
}

#[test]
fn noise_is_uniform_and_as_large_as_told() {
    let (rows, features) = (64, 1024);
    let scales: Vec<f32> = (0..rows).map(|row| row as f32 / 8.0).collect();
    let zeros = vec![0.0; rows * features];
    let noise = noisy(&Cpu::new(2).unwrap(), DType::F32, &zeros, &scales);
    let (mut sum, mut squares, mut tenths) = (0.0, 0.0, [0u32; 10]);
    for (row, noise) in noise.chunks(features).enumerate() {
        for &noise in noise {
            assert!(noise.abs() <= scales[row], "{noise}");
            if row > 0 {
                let u = f64::from(noise / scales[row]);
                sum += u;
                squares += u * u;
                tenths[((u + 1.0) * 5.0).min(9.0) as usize] += 1;
            }
        }
    }
    let count = (63 * features) as f64;
    // Five deviations of the mean, of the variance 1/3, and of a count.
    assert!((sum / count).abs() < 5.0 * (1.0 / 3.0 / count).sqrt());
    assert!((squares / count - 1.0 / 3.0).abs() < 5.0 * (4.0 / 45.0 / count).sqrt());
    for tenth in tenths {
        assert!((f64::from(tenth) - count / 10.0).abs() < 5.0 * (0.09 * count).sqrt());
    }
    // Rows are not alike.
    assert_ne!(noise[features] / scales[1], noise[2 * features] / scales[2]);
}

#[test]
fn every_device_and_number_of_threads_has_the_same_bits() {
    for (rows, features) in [(0, 8), (1, 1), (3, 7), (5, 64), (300, 260)] {
        let values: Vec<f32> = (0..rows * features)
            .map(|i| (i % 17) as f32 - 8.0)
            .collect();
        let scales: Vec<f32> = (0..rows).map(|row| 0.01 * row as f32).collect();
        let expected = noisy(&Cpu::new(1).unwrap(), DType::F32, &values, &scales);
        assert!(noisy(&Cpu::new(3).unwrap(), DType::F32, &values, &scales) == expected);
        assert!(noisy(cuda(), DType::F32, &values, &scales) == expected);
        // The sum is rounded once.
        let rounded: Vec<f32> = expected
            .iter()
            .map(|&y| bf16::from_f32(y).to_f32())
            .collect();
        assert!(noisy(&Cpu::new(2).unwrap(), DType::BF16, &values, &scales) == rounded);
        assert!(noisy(cuda(), DType::BF16, &values, &scales) == rounded);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    for (lengths, operand) in [
        ([11, 8, 4], "`y`"),
        ([12, 7, 4], "`states`"),
        ([12, 8, 3], "`scales`"),
    ] {
        let error = Add {
            y: zeros(DType::F32, lengths[0]).view_mut(),
            states: zeros(DType::U32, lengths[1]).view(),
            scales: zeros(DType::F32, lengths[2]).view(),
            rows: 4,
            features: 3,
        }
        .check();
        let error = error.unwrap_err().to_string();
        assert!(error.contains(operand), "{error}");
    }
}
