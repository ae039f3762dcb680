//! Kernels compiled by nvcc (`data/kernels.cu`), compared with plain arithmetic, under every
//! schedule.
mod support;
use support::{Arg, Machine};
use tightrope_emulator::{BlockSelection, FindingKind, LaunchConfig};

const PTX: &str = include_str!("data/kernels.ptx");

fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Numbers between -1 and 1 that bf16 holds exactly.
fn sample(count: usize, seed: u64) -> Vec<u16> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| bf16(next())).collect()
}

fn close(got: f32, expected: f32, tolerance: f32) -> bool {
    (got - expected).abs() <= tolerance
}

/// The order of launch, and three random interleavings.
fn schedules(config: LaunchConfig) -> Vec<LaunchConfig> {
    let seeds = [None, Some(1), Some(2), Some(3)];
    seeds
        .into_iter()
        .map(|seed| LaunchConfig {
            seed,
            ..config.clone()
        })
        .collect()
}

#[test]
fn swiglu_with_an_odd_end() {
    let n = 8 * 256 + 13;
    for config in schedules(LaunchConfig::new([2, 1, 1], [256, 1, 1])) {
        let mut machine = Machine::new(PTX);
        let (e, g) = (sample(n, 1), sample(n, 2));
        let (de, dg) = (machine.upload_u16(&e), machine.upload_u16(&g));
        let h = machine.output(n as u64 * 2);
        let args = [Arg::U64(de), Arg::U64(dg), Arg::U64(h), Arg::U64(n as u64)];
        machine.clean("swiglu_forward", &config, &args);
        for (i, got) in machine.download_u16(h, n).into_iter().enumerate() {
            let (x, y) = (from_bf16(e[i]), from_bf16(g[i]));
            let expected = x / (1.0 + (-x).exp()) * y;
            assert!(
                close(from_bf16(got), expected, 4e-3 * expected.abs() + 1e-6),
                "{i}"
            );
        }
    }
}

#[test]
fn rms_norm_reduces_over_the_block() {
    let (rows, columns) = (5usize, 520usize);
    for config in schedules(LaunchConfig::new([rows as u32, 1, 1], [128, 1, 1])) {
        let mut machine = Machine::new(PTX);
        let (x, w) = (sample(rows * columns, 3), sample(columns, 4));
        let (dx, dw) = (machine.upload_u16(&x), machine.upload_u16(&w));
        let (y, rstd) = (
            machine.output((rows * columns * 2) as u64),
            machine.output(rows as u64 * 4),
        );
        let args = [
            Arg::U64(dx),
            Arg::U64(dw),
            Arg::U64(y),
            Arg::U64(rstd),
            Arg::U32(columns as u32),
            Arg::F32(1e-6),
        ];
        machine.clean("rms_norm_forward", &config, &args);
        let (got, got_rstd) = (
            machine.download_u16(y, rows * columns),
            machine.download_f32(rstd, rows),
        );
        for row in 0..rows {
            let line = &x[row * columns..][..columns];
            let square: f64 = line.iter().map(|v| f64::from(from_bf16(*v)).powi(2)).sum();
            let expected = 1.0 / (square / columns as f64 + 1e-6).sqrt();
            assert!((f64::from(got_rstd[row]) - expected).abs() <= 1e-6 * expected);
            for column in 0..columns {
                let expected = from_bf16(line[column]) * expected as f32 * from_bf16(w[column]);
                let got = from_bf16(got[row * columns + column]);
                assert!(
                    close(got, expected, 4e-3 * expected.abs() + 1e-6),
                    "{row} {column}"
                );
            }
        }
    }
}

/// `C = A·Bᵀ` through cp.async, ldmatrix and mma, with edges that no tile divides.
#[test]
fn matrix_product_through_tensor_cores() {
    let (m, n, k) = (70usize, 72usize, 104usize);
    for config in schedules(LaunchConfig::new([2, 2, 1], [128, 1, 1])) {
        let mut machine = Machine::new(PTX);
        let (a, b) = (sample(m * k, 5), sample(n * k, 6));
        let (da, db) = (machine.upload_u16(&a), machine.upload_u16(&b));
        let c = machine.output((m * n * 2) as u64);
        let args = [
            Arg::U64(da),
            Arg::U64(db),
            Arg::U64(c),
            Arg::U32(m as u32),
            Arg::U32(n as u32),
            Arg::U32(k as u32),
        ];
        let report = machine.clean("matrix_product", &config, &args);
        let tiles = 2 * 2 * 4 * (104usize.div_ceil(32) * 2) * 8;
        assert_eq!(
            report.counters.tensor_multiply_adds,
            (tiles * 16 * 8 * 16) as u64
        );
        assert_eq!(
            report.counters.bank_conflicts(),
            0,
            "the swizzle avoids them"
        );
        let got = machine.download_u16(c, m * n);
        for i in 0..m {
            for j in 0..n {
                let expected: f32 = (0..k)
                    .map(|p| from_bf16(a[i * k + p]) * from_bf16(b[j * k + p]))
                    .sum();
                assert!(
                    close(
                        from_bf16(got[i * n + j]),
                        expected,
                        4e-3 * expected.abs() + 1e-4
                    ),
                    "{i} {j}"
                );
            }
        }
    }
}

/// Sum over many blocks by "the last one adds up": fences and an atomic counter order them.
#[test]
fn last_block_adds_up() {
    let n = 3000usize;
    let values: Vec<f32> = (0..n).map(|i| (i % 17) as f32).collect();
    for config in schedules(LaunchConfig::new([12, 1, 1], [256, 1, 1])) {
        let mut machine = Machine::new(PTX);
        let x = machine.upload_f32(&values);
        let (partial, out, count) = (
            machine.output(12 * 4),
            machine.output(4),
            machine.upload_u32(&[0]),
        );
        let args = [
            Arg::U64(x),
            Arg::U64(partial),
            Arg::U64(out),
            Arg::U64(count),
            Arg::U32(n as u32),
        ];
        machine.clean("sum", &config, &args);
        assert_eq!(machine.download_f32(out, 1)[0], values.iter().sum::<f32>());
        let mut machine = Machine::new(PTX);
        let x = machine.upload_f32(&values);
        let (partial, out, count) = (
            machine.output(12 * 4),
            machine.output(4),
            machine.upload_u32(&[0]),
        );
        let args = [
            Arg::U64(x),
            Arg::U64(partial),
            Arg::U64(out),
            Arg::U64(count),
            Arg::U32(n as u32),
        ];
        let text = machine.caught("sum_without_fence", &config, &args, FindingKind::Race);
        assert!(text.contains("kernel sum_without_fence"), "{text}");
    }
}

/// Tables in constant memory, byte-wise stores of neighbours, warp-level exchange in shared memory.
#[test]
fn constants_bytes_and_warp_exchange() {
    for config in schedules(LaunchConfig::new([1, 1, 1], [64, 1, 1])) {
        let mut machine = Machine::new(PTX);
        let codes: Vec<u8> = (0..64).map(|i| (i * 7 % 256) as u8).collect();
        let (q, out, bytes) = (
            machine.upload_bytes(&codes),
            machine.output(64 * 2 * 4),
            machine.output(64),
        );
        machine.clean(
            "look_up",
            &config,
            &[Arg::U64(q), Arg::U64(out), Arg::U64(bytes)],
        );
        let table = [-1.0f32, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0];
        let values = machine.download_f32(out, 128);
        let reversed = machine.download_bytes(bytes, 64);
        for i in 0..64 {
            assert_eq!(values[2 * i], table[usize::from(codes[i] >> 4) % 8]);
            assert_eq!(values[2 * i + 1], table[usize::from(codes[i] & 15) % 8]);
            assert_eq!(reversed[i], codes[i / 32 * 32 + 31 - i % 32]);
        }
    }
}

/// Local arrays with computed indices, a function that is not inlined, a switch.
#[test]
fn local_memory_calls_and_switches() {
    for config in schedules(LaunchConfig::new([1, 1, 1], [40, 1, 1])) {
        let mut machine = Machine::new(PTX);
        let out = machine.output(40 * 4);
        machine.clean("local_and_calls", &config, &[Arg::U64(out), Arg::U32(5)]);
        for (i, got) in machine.download_u32(out, 40).into_iter().enumerate() {
            let i = i as u32;
            let table: Vec<u32> = (0..8).map(|j| j * j + i).collect();
            let mixed = |x: u32| x.wrapping_mul(2_654_435_761) ^ (x >> 3);
            let picked = table[((i + 5) % 8) as usize];
            let expected = match i % 7 {
                0 => picked + 11,
                1 => picked * 3,
                2 => picked ^ 0x55,
                3 => mixed(picked),
                4 => picked >> 1,
                5 => mixed(mixed(picked)),
                _ => 7,
            };
            assert_eq!(got, expected, "thread {i}");
        }
    }
}

/// Sine and cosine of large angles take the slow path, which keeps a table in local memory.
#[test]
fn sine_of_large_angles() {
    let angles: Vec<f32> = (0..64).map(|i| (i as f32 - 20.0) * 12_345.678).collect();
    let mut machine = Machine::new(PTX);
    let (x, out) = (machine.upload_f32(&angles), machine.output(64 * 8));
    machine.clean(
        "sine",
        &LaunchConfig::new([1, 1, 1], [64, 1, 1]),
        &[Arg::U64(x), Arg::U64(out)],
    );
    for (i, pair) in machine.download_f32(out, 128).chunks_exact(2).enumerate() {
        let (sin, cos) = f64::from(angles[i]).sin_cos();
        assert!(
            (f64::from(pair[0]) - sin).abs() <= 1e-6,
            "sin {}",
            angles[i]
        );
        assert!(
            (f64::from(pair[1]) - cos).abs() <= 1e-6,
            "cos {}",
            angles[i]
        );
    }
}

/// Tensors of more than 2^32 elements: the wide index reaches their end, the narrow one is caught.
#[test]
fn beyond_two_to_the_thirty_two_elements() {
    let n: u64 = (1 << 32) + 4096 + 8;
    let mut machine = Machine::new(PTX);
    let tensors: Vec<u64> = (0..3).map(|_| machine.output(n * 2)).collect();
    let tail: Vec<u8> = sample(8192, 7)
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    for tensor in &tensors[..2] {
        let order = machine.order();
        machine
            .memory
            .write(tensor + (n - 8192) * 2, &tail, &order)
            .unwrap();
    }
    let blocks = n.div_ceil(8 * 256) as u32;
    let mut config = LaunchConfig::new([blocks, 1, 1], [256, 1, 1]);
    config.blocks = BlockSelection::Ends { first: 0, last: 3 };
    let mut args: Vec<Arg> = tensors.iter().map(|t| Arg::U64(*t)).collect();
    args.push(Arg::U64(n));
    machine.clean("swiglu_forward", &config, &args);
    let last = machine.download_u16(tensors[2] + (n - 1) * 2, 1)[0];
    let x = from_bf16(sample(8192, 7)[8191]);
    let expected = x * x / (1.0 + (-x).exp());
    assert!(close(
        from_bf16(last),
        expected,
        4e-3 * expected.abs() + 1e-6
    ));
    assert!(machine.memory.resident_pages() < 16);
    // 2^31 elements and a bit: `blockIdx.x * blockDim.x + threadIdx.x` times 8 wraps in 32 bits.
    let n: u64 = (1 << 31) + 4096;
    let mut config = LaunchConfig::new([n.div_ceil(2048) as u32, 1, 1], [256, 1, 1]);
    config.blocks = BlockSelection::Ends { first: 0, last: 2 };
    args[3] = Arg::U32(n as u32);
    machine.caught(
        "swiglu_forward_narrow",
        &config,
        &args,
        FindingKind::OutOfBounds,
    );
}
