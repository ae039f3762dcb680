//! Kernels with deliberate mistakes: each mutation must be found, and the original kernel must be
//! clean.
mod support;
use support::{Arg, Machine};
use tightrope_emulator::{FindingKind, LaunchConfig};

const PTX: &str = include_str!("data/kernels.ptx");

/// The module with the text of one kernel edited.
fn mutate(kernel: &str, from: &str, to: &str, nth: usize) -> String {
    let start = PTX.find(&format!(".entry {kernel}(")).expect("the kernel");
    let end = PTX[start..]
        .find("\n}\n")
        .map_or(PTX.len(), |at| start + at);
    let body = &PTX[start..end];
    let at = body
        .match_indices(from)
        .nth(nth)
        .unwrap_or_else(|| panic!("{kernel} has no {nth}th `{from}`"))
        .0;
    format!(
        "{}{}{to}{}",
        &PTX[..start],
        &body[..at],
        &PTX[start + at + from.len()..]
    )
}

fn product(ptx: &str, seed: Option<u64>) -> (Vec<FindingKind>, Vec<u16>) {
    let (m, n, k) = (64usize, 64usize, 96usize);
    let mut machine = Machine::new(ptx);
    let bits = |count: usize| {
        (0..count)
            .map(|i| ((i as f32 * 0.37).sin().to_bits() >> 16) as u16)
            .collect::<Vec<_>>()
    };
    let (a, b) = (
        machine.upload_u16(&bits(m * k)),
        machine.upload_u16(&bits(n * k)),
    );
    let c = machine.output((m * n * 2) as u64);
    let args = [
        Arg::U64(a),
        Arg::U64(b),
        Arg::U64(c),
        Arg::U32(m as u32),
        Arg::U32(n as u32),
        Arg::U32(k as u32),
    ];
    let config = LaunchConfig {
        seed,
        ..LaunchConfig::new([1, 1, 1], [128, 1, 1])
    };
    let report = machine.launch("matrix_product", &config, &args);
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    let out = if kinds.is_empty() {
        machine.download_u16(c, m * n)
    } else {
        Vec::new()
    };
    (kinds, out)
}

fn norm(ptx: &str, seed: Option<u64>) -> Vec<FindingKind> {
    let (rows, columns) = (3usize, 1032usize);
    let mut machine = Machine::new(ptx);
    let (x, w) = (
        machine.upload_u16(&vec![0x3f80; rows * columns]),
        machine.upload_u16(&vec![0x3f80; columns]),
    );
    let (y, rstd) = (
        machine.output((rows * columns * 2) as u64),
        machine.output(rows as u64 * 4),
    );
    let args = [
        Arg::U64(x),
        Arg::U64(w),
        Arg::U64(y),
        Arg::U64(rstd),
        Arg::U32(columns as u32),
        Arg::F32(1e-6),
    ];
    let config = LaunchConfig {
        seed,
        ..LaunchConfig::new([rows as u32, 1, 1], [128, 1, 1])
    };
    machine
        .launch("rms_norm_forward", &config, &args)
        .findings
        .iter()
        .map(|finding| finding.kind)
        .collect()
}

fn count(ptx: &str) -> Vec<FindingKind> {
    let mut machine = Machine::new(ptx);
    let (x, partial) = (machine.upload_f32(&[1.0; 512]), machine.output(8));
    let (out, counter) = (machine.output(4), machine.upload_u32(&[0]));
    let args = [
        Arg::U64(x),
        Arg::U64(partial),
        Arg::U64(out),
        Arg::U64(counter),
        Arg::U32(512),
    ];
    let config = LaunchConfig {
        threads: Some(1),
        ..LaunchConfig::new([2, 1, 1], [256, 1, 1])
    };
    machine
        .launch("sum", &config, &args)
        .findings
        .iter()
        .map(|finding| finding.kind)
        .collect()
}

const SCHEDULES: [Option<u64>; 3] = [None, Some(1), Some(7)];

#[test]
fn as_they_were_they_are_clean() {
    for seed in SCHEDULES {
        assert_eq!(product(PTX, seed).0, []);
        assert_eq!(norm(PTX, seed), []);
    }
    assert_eq!(count(PTX), []);
}

#[test]
fn a_dropped_barrier() {
    for seed in SCHEDULES {
        for nth in 0..2 {
            let kinds = norm(&mutate("rms_norm_forward", "bar.sync \t0;", "", nth), seed);
            assert!(
                kinds.contains(&FindingKind::Race)
                    || kinds.contains(&FindingKind::UninitialisedRead),
                "barrier {nth}: {kinds:?}"
            );
            let (kinds, _) = product(&mutate("matrix_product", "bar.sync \t0;", "", nth), seed);
            assert!(!kinds.is_empty(), "barrier {nth} of the product");
        }
    }
}

#[test]
fn a_weakened_wait() {
    for seed in SCHEDULES {
        for (from, to) in [
            ("cp.async.wait_group 1;", "cp.async.wait_group 2;"),
            ("cp.async.wait_group 0;", "cp.async.wait_group 1;"),
        ] {
            let (kinds, _) = product(&mutate("matrix_product", from, to, 0), seed);
            assert_eq!(kinds, [FindingKind::MissingWait], "{to}");
        }
        let (kinds, _) = product(
            &mutate("matrix_product", "cp.async.commit_group;", "", 0),
            seed,
        );
        assert_eq!(kinds, [FindingKind::MissingWait]);
    }
}

#[test]
fn an_index_that_is_off_by_one() {
    let run = |ptx: &str, n: u64| {
        let mut machine = Machine::new(ptx);
        let zeros = vec![0; n as usize];
        let (e, g) = (machine.upload_u16(&zeros), machine.upload_u16(&zeros));
        let h = machine.output(n * 2);
        let args = [Arg::U64(e), Arg::U64(g), Arg::U64(h), Arg::U64(n)];
        let config = LaunchConfig::new([1, 1, 1], [32, 1, 1]);
        let report = machine.launch("swiglu_forward", &config, &args);
        report.findings.first().map(|finding| finding.kind)
    };
    // A thread that begins exactly at the end, and a tail that runs one round further.
    for (from, to, n) in [
        ("setp.ge.s64", "setp.gt.s64", 16),
        ("setp.lt.s64", "setp.le.s64", 12),
    ] {
        assert_eq!(run(PTX, n), None);
        let broken = mutate("swiglu_forward", from, to, 0);
        assert_eq!(run(&broken, n), Some(FindingKind::OutOfBounds), "{to}");
    }
}

#[test]
fn a_wrong_shuffle_mask() {
    let kinds = norm(
        &mutate("rms_norm_forward", "%r14, %r16;", "%r14, 65535;", 0),
        None,
    );
    assert_eq!(kinds[0], FindingKind::InvalidWarpOperation);
}

#[test]
fn a_product_that_is_32_bits_wide_before_it_is_widened() {
    // Row times length wraps in 32 bits: past 2^31 elements it gives another row.
    let run = |ptx: &str| {
        // The last row begins between 2^31 and 2^32 elements: negative in 32 bits.
        let (rows, columns) = ((1u64 << 19) + 2000, 4104u64);
        let mut machine = Machine::new(ptx);
        let (x, y) = (
            machine.output(rows * columns * 2),
            machine.output(rows * columns * 2),
        );
        let order = machine.order();
        machine
            .memory
            .fill(x, 0, rows * columns * 2, &order)
            .unwrap();
        let (w, rstd) = (
            machine.upload_u16(&vec![0; columns as usize]),
            machine.output(rows * 4),
        );
        let args = [
            Arg::U64(x),
            Arg::U64(w),
            Arg::U64(y),
            Arg::U64(rstd),
            Arg::U32(columns as u32),
            Arg::F32(1e-6),
        ];
        let mut config = LaunchConfig::new([rows as u32, 1, 1], [128, 1, 1]);
        config.blocks = tightrope_emulator::BlockSelection::Ends { first: 1, last: 1 };
        let report = machine.launch("rms_norm_forward", &config, &args);
        report.findings.first().map(|finding| finding.kind)
    };
    assert_eq!(run(PTX), None);
    let narrow = "{ .reg .b32 %a, %b; cvt.u32.u64 %a, %rd10; cvt.u32.u64 %b, %rd2; \
                  mul.lo.s32 %a, %a, %b; cvt.s64.s32 %rd3, %a; }";
    let broken = mutate(
        "rms_norm_forward",
        "mul.lo.s64 \t%rd3, %rd10, %rd2;",
        narrow,
        0,
    );
    assert_eq!(run(&broken), Some(FindingKind::OutOfBounds));
}

#[test]
fn a_register_that_is_not_set() {
    // The index that the first loop starts from.
    let kinds = norm(
        &mutate("rms_norm_forward", "mov.u32 \t%r60, %r61;", "", 0),
        None,
    );
    assert_eq!(kinds[0], FindingKind::UnsetRegister);
}

#[test]
fn a_plain_store_for_an_atomic() {
    let start = PTX.find(".entry sum(").expect("the kernel");
    let line = PTX[start..]
        .lines()
        .find(|line| line.contains("atom.global.add.u32"))
        .expect("the counter");
    let operands = line.split_once("atom.global.add.u32").expect("contained").1;
    let [d, address, one] = operands
        .trim()
        .trim_end_matches(';')
        .split(", ")
        .collect::<Vec<_>>()[..]
    else {
        panic!("{line}")
    };
    let plain = format!(
        "{{ .reg .b32 %next; ld.global.u32 {d}, {address}; add.u32 %next, {d}, {one}; st.global.u32 {address}, %next; }}"
    );
    assert_eq!(count(&mutate("sum", line, &plain, 0))[0], FindingKind::Race);
}

#[test]
fn a_fence_that_is_missing() {
    assert_eq!(
        count(&mutate("sum", "membar.gl;", "", 0))[0],
        FindingKind::Race
    );
}

#[test]
fn a_swapped_fragment() {
    let (kinds, right) = product(PTX, None);
    assert_eq!(kinds, []);
    let start = PTX.find(".entry matrix_product(").expect("the kernel");
    let line = PTX[start..]
        .lines()
        .find(|line| line.contains("mma.sync"))
        .expect("an mma");
    let b = line
        .split('{')
        .nth(3)
        .and_then(|g| g.split_once('}'))
        .expect("the B fragment")
        .0;
    let (b0, b1) = b.split_once(',').expect("two registers");
    let swapped = line.replace(&format!("{{{b}}}"), &format!("{{{b1},{b0}}}"));
    assert_ne!(swapped, line);
    let (kinds, wrong) = product(&mutate("matrix_product", line, &swapped, 0), None);
    assert_eq!(kinds, []);
    assert_ne!(wrong, right, "no check sees it, but the result does");
}
