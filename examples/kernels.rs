//! Runs a fused operation forward and backward, and compares the gradient of RMSNorm with a
//! difference.
//!
//!   cargo run --release -p tightrope-kernels --example kernels

use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check, KernelError,
    rms_norm::{Backward, Forward, RmsNorm},
};

const ROWS: usize = 3;
const DIM: usize = 8;

/// Returns `y` and the values that the backward pass needs.
fn forward(
    cpu: &Cpu,
    x: &Tensor<Cpu>,
    weight: &Tensor<Cpu>,
) -> Result<[Tensor<Cpu>; 2], KernelError> {
    let mut y = Tensor::zeros(cpu, DType::F32, &[ROWS, DIM])?;
    let mut rstd = Tensor::zeros(cpu, DType::F32, &[ROWS])?;
    let args = Forward {
        x: x.view(),
        residual: None,
        weight: weight.view(),
        plus_one: false,
        eps: 1e-5,
        y: y.view_mut(),
        rstd: rstd.view_mut(),
        rows: ROWS,
        dim: DIM,
    };
    cpu.rms_norm_forward(args.checked()?)?;
    Ok([y, rstd])
}

fn main() -> Result<(), KernelError> {
    let cpu = Cpu::new(0)?; // one thread for each core
    let mut values: Vec<f32> = (0..ROWS * DIM).map(|i| (i as f32).cos()).collect();
    let x = Tensor::from_slice(&cpu, &[ROWS, DIM], &values)?;
    let weight = Tensor::from_slice(&cpu, &[DIM], &[1.5f32; DIM])?;
    let [y, rstd] = forward(&cpu, &x, &weight)?;

    // The gradient of the first element of y.
    let mut dy = [0.0f32; ROWS * DIM];
    dy[0] = 1.0;
    let dy = Tensor::from_slice(&cpu, &[ROWS, DIM], &dy)?;
    let mut dx = Tensor::zeros(&cpu, DType::F32, &[ROWS, DIM])?;
    let args = Backward {
        dy: dy.view(),
        x: x.view(),
        rstd: rstd.view(),
        weight: weight.view(),
        plus_one: false,
        dx: dx.view_mut(),
        accumulate: false,
        dweight: None, // frozen
        rows: ROWS,
        dim: DIM,
    };
    cpu.rms_norm_backward(args.checked()?)?;
    let gradient = dx.to_vec::<f32>()?[1];

    let step = 1e-2;
    values[1] += step;
    let x = Tensor::from_slice(&cpu, &[ROWS, DIM], &values)?;
    let [moved, _] = forward(&cpu, &x, &weight)?;
    let difference = (moved.to_vec::<f32>()?[0] - y.to_vec::<f32>()?[0]) / step;
    println!("d y[0,0] / d x[0,1] = {gradient:.5}, by a difference {difference:.5}");
    assert!((gradient - difference).abs() < 1e-2);
    Ok(())
}
