//! Findings in memory: each kind, with its place.
mod support;
use support::{Arg, Machine, kernel};
use tightrope_emulator::{Checks, FindingKind, LaunchConfig, Place};

/// One block of `threads` threads on `k(data)`, with `%rd1` the data and `%r1` the thread.
fn program(body: &str) -> String {
    kernel(
        ".param .u64 data",
        &format!(
            "ld.param.u64 %rd1, [data];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\n{body}"
        ),
    )
}

fn config(threads: u32) -> LaunchConfig {
    LaunchConfig::new([1, 1, 1], [threads, 1, 1])
}

fn caught(body: &str, threads: u32, kind: FindingKind) -> String {
    let mut machine = Machine::new(&program(body));
    let data = machine.upload_u32(&[7; 64]);
    machine.caught("k", &config(threads), &[Arg::U64(data)], kind)
}

fn clean(body: &str, threads: u32) {
    let mut machine = Machine::new(&program(body));
    let data = machine.upload_u32(&[7; 64]);
    machine.clean("k", &config(threads), &[Arg::U64(data)]);
}

#[test]
fn out_of_bounds_names_thread_line_and_allocation() {
    let mut machine = Machine::new(&program("st.global.u32 [%rd3], %r1;"));
    let data = machine.memory.allocate(4 * 40, "gradients").unwrap();
    let report = machine.launch("k", &config(64), &[Arg::U64(data)]);
    let finding = &report.findings[0];
    assert_eq!(finding.kind, FindingKind::OutOfBounds);
    let allocation = finding.allocation.as_ref().unwrap();
    assert_eq!(
        (allocation.base, allocation.bytes, allocation.label.as_str()),
        (data, 160, "gradients")
    );
    let place = Place::Kernel {
        kernel: "k".into(),
        block: [0; 3],
        thread: [40, 0, 0],
        line: 16,
    };
    assert_eq!(finding.place, place);
    assert!(
        finding.message.contains("ending 4 past its end"),
        "{finding}"
    );
}

#[test]
fn addresses() {
    let text = caught("ld.global.u32 %r2, [%rd1+-4];", 1, FindingKind::OutOfBounds);
    assert!(text.contains("4 before its start"), "{text}");
    caught(
        "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1+8];",
        1,
        FindingKind::Misaligned,
    );
    let text = caught("ld.global.u32 %r2, [%rd1+254];", 1, FindingKind::Misaligned);
    assert!(text.contains("allocation"), "{text}");
    caught(
        "mov.u64 %rd5, 64;\nld.global.u32 %r2, [%rd5];",
        1,
        FindingKind::OutOfBounds,
    );
    caught(
        ".shared .b32 s[4];\nmov.u32 %r2, s;\nadd.u32 %r2, %r2, 4096;\nst.shared.u32 [%r2], %r1;",
        1,
        FindingKind::OutOfBounds,
    );
    caught(
        ".shared .b32 s[4];\nst.shared.u32 [s+2], %r1;",
        1,
        FindingKind::Misaligned,
    );
    caught(
        ".local .b32 s[4];\nst.local.u32 [s+16], %r1;",
        1,
        FindingKind::OutOfBounds,
    );
    caught("ld.param.u32 %r2, [data+8];", 1, FindingKind::OutOfBounds);
    let mut machine = Machine::new(&program("ld.global.u32 %r2, [%rd1];"));
    let data = machine.upload_u32(&[1]);
    let order = machine.order();
    machine.memory.free(data, Some(&order)).unwrap();
    machine.caught(
        "k",
        &config(1),
        &[Arg::U64(data)],
        FindingKind::UseAfterFree,
    );
    // Four bytes at an odd end, in a small allocation.
    let mut machine = Machine::new(&program("ld.global.u32 %r2, [%rd1+4];"));
    let data = machine.upload_bytes(&[1; 7]);
    machine.caught("k", &config(1), &[Arg::U64(data)], FindingKind::OutOfBounds);
}

#[test]
fn uninitialised_reads() {
    let mut machine = Machine::new(&program("ld.global.u32 %r2, [%rd3];"));
    let data = machine.output(64 * 4);
    let order = machine.order();
    machine.memory.fill(data, 0, 33 * 4, &order).unwrap();
    let text = machine.caught(
        "k",
        &config(64),
        &[Arg::U64(data)],
        FindingKind::UninitialisedRead,
    );
    assert!(
        text.contains("thread [33, 0, 0]") && text.contains("offset 132"),
        "{text}"
    );
    let unchecked = LaunchConfig {
        checks: Checks {
            uninitialised: false,
            ..Checks::default()
        },
        ..config(64)
    };
    machine.clean("k", &unchecked, &[Arg::U64(data)]);
    caught(
        ".shared .b32 s[4];\nld.shared.u32 %r2, [s];",
        1,
        FindingKind::UninitialisedRead,
    );
    caught(
        ".local .b32 s[4];\nld.local.u32 %r2, [s];",
        1,
        FindingKind::UninitialisedRead,
    );
    caught("add.u32 %r3, %r2, 1;", 1, FindingKind::UnsetRegister);
    caught("@%p1 add.u32 %r3, %r1, 1;", 1, FindingKind::UnsetRegister);
    let half = "setp.lt.u32 %p1, %r1, 9;\n@%p1 mov.u32 %r2, 1;\nadd.u32 %r3, %r2, 1;";
    let text = caught(half, 32, FindingKind::UnsetRegister);
    assert!(
        text.contains("%r2") && text.contains("thread [9, 0, 0]"),
        "{text}"
    );
    // Reading back memory that was never written is a finding of the host's copy.
    let mut machine = Machine::new(&program(""));
    let data = machine.output(16);
    let order = machine.order();
    let finding = machine.memory.read(data, &mut [0; 16], &order).unwrap_err();
    assert_eq!(finding.kind, FindingKind::UninitialisedRead);
}

#[test]
fn a_fill_of_everything_stores_nothing() {
    let mut machine = Machine::new(&program(
        "ld.global.u32 %r2, [%rd3];\nadd.u32 %r2, %r2, 1;\nst.global.u32 [%rd3], %r2;",
    ));
    let data = machine.output(1 << 36);
    let order = machine.order();
    machine.memory.fill(data, 0, 1 << 36, &order).unwrap();
    machine.clean("k", &config(64), &[Arg::U64(data)]);
    assert_eq!(machine.memory.resident_pages(), 1);
    assert_eq!(machine.download_u32(data, 64), vec![1; 64]);
    assert_eq!(machine.download_u32(data + (1 << 36) - 4, 1), [0]);
}

#[test]
fn constants_are_read_only_and_bounded() {
    let table = ".const .align 4 .u32 table[4] = {3, 1, 4, 1};\n";
    let with = |body: &str| program(body).replacen(".visible", &format!("{table}.visible"), 1);
    let mut machine = Machine::new(&with(
        "ld.const.u32 %r2, [table+8];\nst.global.u32 [%rd3], %r2;",
    ));
    let data = machine.output(4);
    machine.clean("k", &config(1), &[Arg::U64(data)]);
    assert_eq!(machine.download_u32(data, 1), [4]);
    for (body, kind) in [
        ("ld.const.u32 %r2, [table+16];", FindingKind::OutOfBounds),
        (
            "mov.u64 %rd5, table;\nst.global.u32 [%rd5], %r1;",
            FindingKind::ReadOnly,
        ),
        (
            "mov.u64 %rd5, data;\ncvta.param.u64 %rd5, %rd5;\nst.u32 [%rd5], %r1;",
            FindingKind::ReadOnly,
        ),
    ] {
        let mut machine = Machine::new(&with(body));
        machine.caught("k", &config(1), &[Arg::U64(0)], kind);
    }
}

#[test]
fn generic_addresses_find_their_space() {
    clean(
        ".shared .b32 s[4];\n.local .b32 l[4];\nmov.u64 %rd5, s;\ncvta.shared.u64 %rd5, %rd5;\nst.u32 [%rd5+4], %r1;\n\
         ld.shared.u32 %r2, [s+4];\nmov.u64 %rd6, l;\ncvta.local.u64 %rd6, %rd6;\nst.u32 [%rd6], %r1;\nld.local.u32 %r3, [l];\n\
         ld.u32 %r4, [%rd1];\nmov.u64 %rd7, data;\ncvta.param.u64 %rd7, %rd7;\nld.u64 %rd8, [%rd7];\nld.u32 %r5, [%rd8];\n\
         isspacep.shared %p1, %rd5;\n@!%p1 trap;\nisspacep.local %p1, %rd6;\n@!%p1 trap;\nisspacep.global %p1, %rd1;\n@!%p1 trap;",
        1,
    );
}

#[test]
fn races_within_a_block() {
    // Neighbours exchange through shared memory.
    let exchange = |between: &str| {
        format!(
            ".shared .b32 s[64];\nshl.b32 %r2, %r1, 2;\nmov.u32 %r3, s;\nadd.u32 %r3, %r3, %r2;\nst.shared.u32 [%r3], %r1;\n\
             {between}\nxor.b32 %r3, %r3, 4;\nld.shared.u32 %r4, [%r3];"
        )
    };
    clean(&exchange("bar.sync 0;"), 64);
    clean(&exchange("bar.warp.sync -1;"), 64);
    let text = caught(&exchange(""), 64, FindingKind::Race);
    assert!(
        text.contains("thread 1 of block 0 (PTX line 20) wrote"),
        "{text}"
    );
    caught(
        &exchange("shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;"),
        64,
        FindingKind::Race,
    );
    caught(&exchange("membar.cta;"), 64, FindingKind::Race);
    let across =
        exchange("bar.warp.sync -1;").replace("xor.b32 %r3, %r3, 4;", "xor.b32 %r3, %r3, 128;");
    // In order, the first warp comes before the other has written anything.
    caught(&across, 64, FindingKind::UninitialisedRead);
    // The same in device memory.
    caught("st.global.u32 [%rd1], %r1;", 2, FindingKind::Race);
    caught(
        "st.global.u32 [%rd3], %r1;\nxor.b64 %rd3, %rd3, 4;\nld.global.u32 %r2, [%rd3];",
        64,
        FindingKind::Race,
    );
    clean(
        "st.global.u32 [%rd3], %r1;\nbar.sync 0;\nxor.b64 %rd3, %rd3, 4;\nld.global.u32 %r2, [%rd3];",
        64,
    );
    // Write after read.
    caught(
        "ld.global.u32 %r2, [%rd3];\nxor.b64 %rd3, %rd3, 128;\nst.global.u32 [%rd3], %r1;",
        64,
        FindingKind::Race,
    );
    // Bytes of one word are apart.
    clean(
        "cvt.u64.u32 %rd4, %r1;\nadd.s64 %rd5, %rd1, %rd4;\nst.global.u8 [%rd5], %r1;",
        64,
    );
}

#[test]
fn races_between_blocks_and_atomics() {
    let run = |body: &str, blocks: u32, kind: Option<FindingKind>| {
        let mut machine = Machine::new(&program(body));
        let data = machine.upload_u32(&[0; 64]);
        let config = LaunchConfig::new([blocks, 1, 1], [32, 1, 1]);
        match kind {
            None => drop(machine.clean("k", &config, &[Arg::U64(data)])),
            Some(kind) => drop(machine.caught("k", &config, &[Arg::U64(data)], kind)),
        }
        machine.download_u32(data, 64)
    };
    assert_eq!(run("red.global.add.u32 [%rd1], 1;", 9, None)[0], 9 * 32);
    assert_eq!(run("atom.global.add.u32 %r2, [%rd3], 2;", 9, None)[5], 18);
    run("st.global.u32 [%rd3], %r1;", 2, Some(FindingKind::Race));
    run(
        "ld.global.u32 %r2, [%rd3];\nadd.u32 %r2, %r2, 1;\nst.global.u32 [%rd3], %r2;",
        2,
        Some(FindingKind::Race),
    );
    run(
        "red.global.add.u32 [%rd1], 1;\nld.global.u32 %r2, [%rd1];",
        2,
        Some(FindingKind::Race),
    );
    run(
        "red.global.add.u32 [%rd1], 1;\nld.volatile.global.u32 %r2, [%rd1];",
        2,
        None,
    );
    run("ld.global.u32 %r2, [%rd3];", 9, None);
    let f = run(
        "mov.f32 %f1, 0f3F800000;\nred.global.add.f32 [%rd1], %f1;",
        3,
        None,
    )[0];
    assert_eq!(f32::from_bits(f), 96.0);
}

/// Blocks that hand a token on, by a flag in device memory.
#[test]
fn release_and_acquire_order_blocks() {
    let body = |store: &str, load: &str| {
        format!(
            "mov.u32 %r2, %ctaid.x;\nsetp.eq.u32 %p1, %r2, 1;\n@%p1 bra $consumer;\n\
             mov.u32 %r3, 42;\nst.global.u32 [%rd1], %r3;\nmov.u32 %r3, 1;\n{store}\nret;\n\
             $consumer:\n{load}\nsetp.eq.u32 %p2, %r4, 0;\n@%p2 bra $consumer;\nld.global.u32 %r5, [%rd1];\nst.global.u32 [%rd1+8], %r5;"
        )
    };
    let run = |store: &str, load: &str| {
        let mut machine = Machine::new(&program(&body(store, load)));
        let data = machine.upload_u32(&[0; 4]);
        let config = LaunchConfig {
            threads: Some(1),
            ..LaunchConfig::new([2, 1, 1], [1, 1, 1])
        };
        let report = machine.launch("k", &config, &[Arg::U64(data)]);
        report.findings.first().map(|finding| finding.kind)
    };
    let (release, acquire) = (
        "st.release.gpu.global.u32 [%rd1+4], %r3;",
        "ld.acquire.gpu.global.u32 %r4, [%rd1+4];",
    );
    assert_eq!(run(release, acquire), None);
    let fenced = (
        "membar.gl;\nst.volatile.global.u32 [%rd1+4], %r3;",
        "ld.volatile.global.u32 %r4, [%rd1+4];\nmembar.gl;",
    );
    assert_eq!(run(fenced.0, fenced.1), None);
    assert_eq!(
        run("atom.global.exch.b32 %r6, [%rd1+4], %r3;", fenced.1),
        Some(FindingKind::Race)
    );
    assert_eq!(
        run(release, "ld.relaxed.gpu.global.u32 %r4, [%rd1+4];"),
        Some(FindingKind::Race)
    );
    assert_eq!(
        run("st.global.u32 [%rd1+4], %r3;", acquire),
        Some(FindingKind::Race)
    );
}

#[test]
fn launches_are_refused_with_numbers() {
    let mut machine = Machine::new(&program(""));
    let order = machine.order();
    let refuse = |config: LaunchConfig, bytes: usize, part: &str| {
        let error = machine
            .module
            .launch("k", &machine.memory, &order, &vec![0; bytes], &config)
            .unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    refuse(config(1025), 8, "1025 threads");
    refuse(config(0), 8, "0 threads");
    refuse(LaunchConfig::new([0, 1, 1], [1, 1, 1]), 8, "grid");
    refuse(
        LaunchConfig {
            dynamic_shared: 240_000,
            ..config(1)
        },
        8,
        "240000 bytes",
    );
    refuse(config(1), 4, "8 bytes of parameters expected, got 4");
    assert!(
        machine
            .module
            .launch("none", &machine.memory, &order, &[], &config(1))
            .is_err()
    );
}

#[test]
fn dynamic_shared_memory_has_the_length_of_the_launch() {
    let text = program("mov.u32 %r2, dynamic;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r2, %r2, %r3;\nst.shared.u32 [%r2], %r1;")
        .replacen(".visible", ".extern .shared .align 16 .b8 dynamic[];\n.visible", 1);
    let mut machine = Machine::new(&text);
    machine.clean(
        "k",
        &LaunchConfig {
            dynamic_shared: 256,
            ..config(64)
        },
        &[Arg::U64(0)],
    );
    machine.caught(
        "k",
        &LaunchConfig {
            dynamic_shared: 252,
            ..config(64)
        },
        &[Arg::U64(0)],
        FindingKind::OutOfBounds,
    );
}

#[test]
fn counters_of_a_copy() {
    let mut machine = Machine::new(&program(
        "ld.global.u32 %r2, [%rd3];\nadd.u32 %r2, %r2, 1;\nst.global.u32 [%rd3], %r2;",
    ));
    let data = machine.upload_u32(&[0; 64]);
    let counters = machine.clean("k", &config(64), &[Arg::U64(data)]).counters;
    assert_eq!(
        (counters.global_load_bytes, counters.global_store_bytes),
        (256, 256)
    );
    assert_eq!(
        (counters.global_load_sectors, counters.global_store_sectors),
        (8, 8)
    );
    assert_eq!(counters.global_bytes_moved(), 512);
    // ld.param, mov, mul, add, ld, add, st, ret and the exit that the parser puts last.
    assert_eq!(counters.thread_instructions(), 8 * 64);
    assert_eq!(counters.warp_instructions, 8 * 2);
}
