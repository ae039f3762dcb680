//! Memory of a GPU: what is written is read, ranges are checked, the peak is counted.

use std::{thread::sleep, time::Duration};
use tightrope_device::{Cuda, DType, Device, DeviceError, Tensor};
use tightrope_testkit::cuda;

#[test]
fn what_is_written_copied_and_zeroed_is_read() {
    let device = cuda();
    let mut a = device.allocate(10).unwrap();
    let mut read = [1u8; 10];
    device.read(&a, 0, &mut read).unwrap();
    assert_eq!(read, [0; 10], "memory is zeroed");
    device.write(&mut a, 3, &[1, 2, 3, 4]).unwrap();
    let mut b = device.allocate(4).unwrap();
    device.copy(&a, 4, &mut b, 1, 3).unwrap();
    device.zero(&mut b, 2, 1).unwrap();
    let mut read = [9u8; 4];
    device.read(&b, 0, &mut read).unwrap();
    assert_eq!(read, [0, 2, 0, 4]);
    assert_eq!(<Cuda as Device>::bytes(&a), 10);
}

#[test]
fn ranges_beyond_the_end_are_refused_and_empty_ones_are_not() {
    let device = cuda();
    let mut a = device.allocate(4).unwrap();
    assert!(device.write(&mut a, 2, &[0; 3]).is_err());
    assert!(device.read(&a, usize::MAX, &mut [0; 2]).is_err());
    assert!(device.zero(&mut a, 5, 0).is_err());
    device.write(&mut a, 4, &[]).unwrap();
    let empty = device.allocate(0).unwrap();
    device.read(&empty, 0, &mut []).unwrap();
}

#[test]
fn a_tensor_goes_there_and_back() {
    let tensor = Tensor::from_slice(cuda(), &[2, 3], &[1f32, -2., 3., f32::NAN, 5., 6.]).unwrap();
    let values = tensor.to_vec::<f32>().unwrap();
    assert!(values[3].is_nan() && values[5] == 6.0 && values[1] == -2.0);
    assert!(Tensor::zeros(cuda(), DType::F32, &[usize::MAX / 8]).is_err());
}

#[test]
fn scratch_grows_is_kept_and_counts() {
    let device = cuda();
    let before = device.scratch_bytes();
    let small = device.scratch("a test", 100).unwrap();
    let large = device.scratch("a test", 1000).unwrap();
    drop(device.scratch("a test", 10).unwrap());
    assert_eq!(device.scratch_bytes(), before + 1000);
    assert!(device.peak_bytes().unwrap() >= 1000);
    drop((small, large));
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let _loaded = cuda();
    let error = Cuda::new(1000).unwrap_err().to_string();
    assert!(error.contains("1000"), "{error}");
}

#[test]
fn the_time_is_that_between_the_events() {
    let device = cuda();
    let mut bytes = device.allocate(1 << 20).unwrap();
    let mut zeroed = |pause| {
        let issue = || {
            device.zero(&mut bytes, 0, 1 << 20)?;
            sleep(pause);
            device.zero(&mut bytes, 0, 1 << 20)
        };
        device.time(issue).unwrap()
    };
    let pause = Duration::from_millis(20);
    let (short, long) = (zeroed(Duration::ZERO), zeroed(pause));
    // The first event is reached before the pause, the second after it.
    assert!(long >= pause.mul_f64(0.99), "{long:?}");
    assert!(short < long, "{short:?} {long:?}");
    let failing = || {
        Err(DeviceError::WrongDType {
            expected: DType::F32,
            got: DType::U8,
        })
    };
    assert!(device.time(failing).is_err());
}
